// SPDX-License-Identifier: MIT
// dump_on_signal: a signal has the process write what every greenlet of it is doing.
// Link with libgreenlet-backtrace (pkg-config greenlet-backtrace).
//
//   const auto dumps = greenlets::dump_on_signal(SIGUSR1, "/var/log/server.dump");
#ifndef GREENLET_DUMP_HPP
#define GREENLET_DUMP_HPP

#include <greenlet/snapshot.hpp>

#include <chrono>
#include <memory>
#include <string>

namespace greenlets {

namespace detail {
class signal_job;
}  // namespace detail

/// How a dump is written: by write_text(), write_json() or write_dot().
enum class dump_format { text, json, dot };

struct dump_options {
  dump_format format = dump_format::text;
  /// Of a dump to a file: each is a file of its own, written beside it and then put in its place, so that whoever opens it
  /// finds one that is whole. Else they are appended.
  bool replace = false;
  /// A signal that comes sooner after the last dump has its dump when that time is over: many signals are few dumps.
  std::chrono::nanoseconds apart = std::chrono::milliseconds(100);
  /// How long to wait for each thread that runs. One that does not answer is told without the frames of its running greenlet.
  std::chrono::nanoseconds patience = std::chrono::milliseconds(100);
  /// The real-time signal by which threads that run are asked where they are; 0: the last but a few that nobody uses.
  int interrupting_signal = 0;
  snapshot_options snapshot;
};

/// As long as this exists, a signal has a dump written. Movable; an empty one does nothing.
class GREENLET_API signal_dump {
 public:
  signal_dump() noexcept;
  signal_dump(signal_dump&& other) noexcept;
  signal_dump& operator=(signal_dump&& other) noexcept;  ///< stops what it was before
  ~signal_dump();                                        ///< as stop()

  /// Puts back what was done on the signal before, unless somebody has changed it meanwhile. A dump that is being written
  /// ends; one that was asked for, and has not begun, is not made. When it is the last of these, and there is no monitor, the
  /// library's thread ends. Switches: no. Thread: any.
  void stop() noexcept;

 private:
  friend class detail::signal_job;
  explicit signal_dump(std::shared_ptr<detail::signal_job> job) noexcept;
  std::shared_ptr<detail::signal_job> job_;
};

/// From now on `signal` has a dump of all greenlets appended to the file, which is made at need with the permissions 0600
/// and is opened anew each time, so that it may be renamed; with options::replace it is made anew. A relative path is one
/// from where the process is now, and not from where it will be. A dump as text begins with a line "greenlet dump of
/// process ...", and ends with "greenlet dump ends".
///
/// The handler only wakes a thread of the library's, which blocks all signals, takes a snapshot() and writes it. So it does
/// not matter what the interrupted thread was doing; a hub's loop that is blocked in a function is told with that function
/// and with how long its hub has not looked for events. The snapshot has the frames of running greenlets as well: their
/// threads are interrupted by a signal, whose handler copies what is on the stack. A hub that waits for events is not. Several
/// signals that come before a dump begins are one dump. System calls are restarted (SA_RESTART) where the system does so:
/// nanosleep(2) and poll(2) may end early.
///
/// The snapshot's thread waits for the allocator's and the dynamic linker's locks as any other does, and holds none of the
/// library's meanwhile. What cannot be written, on a full disk say, is lost, and nobody is told.
///
/// Signals are handled on stacks of their own (sigaltstack), which each thread that uses greenlets is given, unless it has
/// one. A child of fork() writes dumps as well; the thread that it needs for this it makes when it next switches, or does
/// anything else with greenlets. A child that executes another program never has it.
///
/// Switches: no. Thread: any. Not in a signal handler. Throws: std::invalid_argument, of a signal that there is a dump on
/// already, that a fault gives (SIGSEGV, ...), or is for no handler; std::system_error (sigaction, pthread_create, ...).
[[nodiscard]] GREENLET_API signal_dump dump_on_signal(int signal, std::string file, dump_options with = {});

/// The same, written to a descriptor, which stays the caller's, and open until this has stopped. One to which nothing can
/// be written for two seconds, a pipe say that nobody reads, loses the dump.
[[nodiscard]] GREENLET_API signal_dump dump_on_signal(int signal, int descriptor, dump_options with = {});

}  // namespace greenlets

#endif
