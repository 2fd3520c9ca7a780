// SPDX-License-Identifier: MIT
// monitor: tells of greenlets that run for long without a switch, so that others of their thread wait.
// Link with libgreenlet-backtrace (pkg-config greenlet-backtrace).
//
//   const greenlets::monitor m;  // writes to standard error
#ifndef GREENLET_MONITOR_HPP
#define GREENLET_MONITOR_HPP

#include <greenlet/backtrace.hpp>

#include <chrono>
#include <cstdint>
#include <functional>
#include <iosfwd>
#include <memory>
#include <string>
#include <sys/types.h>
#include <vector>

namespace greenlets {

namespace detail {
class monitor_job;
}  // namespace detail

/// A greenlet that has been running for long, and is still.
struct long_run {
  std::uint64_t id = 0;  ///< as greenlet::id(); 0: it is not known (with a collector, of a thread that did not answer)
  std::string name;      ///< at most 255 bytes of it
  bool is_main = false;
  bool is_hub = false;   ///< what its thread's loop calls itself: a destructor, say
  pid_t tid = 0;         ///< its thread
  std::string thread;    ///< and its name, as it was at its first use of the library
  std::chrono::nanoseconds lasted{0};  ///< so far, at least
  /// Where it is, innermost first. Empty when its thread blocks the signal by which it is asked, or did not answer in time.
  std::vector<frame> frames;
};

struct monitor_options {
  /// It is told of one that runs longer than this. Each thread is looked at four times in that time.
  std::chrono::nanoseconds limit = std::chrono::milliseconds(100);
  /// What is told, once for each stretch, on the library's thread: it must not wait for the thread that it is told of. What it
  /// throws goes to the unraisable handler. Empty: write_long_run() to standard error.
  std::function<void(const long_run&)> report;
  /// Main greenlets of threads that have no hub as well: else those are taken to be just threads, for which nobody waits.
  bool main_without_hub = false;
  std::chrono::nanoseconds patience = std::chrono::milliseconds(100);  ///< as in dump_options
  int interrupting_signal = 0;                                         ///< as in dump_options
};

/// As long as this exists, a thread of the library's, which blocks all signals, looks at all threads that use greenlets. It
/// does not measure times of greenlets: it sees whether there has been a switch since it last looked. So a switch costs what
/// it always does, but the first of a thread after each look, which takes the longer way. A hub that waits for events is
/// idle, and not told of; nor is the time in which the process, or this thread, was stopped.
///
/// Who has been told of is interrupted by a signal for its frames, as in dump_on_signal(), whose rules for signal stacks and
/// for children of fork() hold here as well. Movable; there may be several.
class GREENLET_API monitor {
 public:
  /// Switches: no. Thread: any. Throws: std::invalid_argument, of a limit of less than a millisecond, or a signal that is no
  /// real-time one; std::system_error (sigaction, pthread_create, ...).
  explicit monitor(monitor_options with = {});
  monitor(monitor&& other) noexcept;
  monitor& operator=(monitor&& other) noexcept;  ///< stops what it was before
  ~monitor();                                    ///< as stop()

  /// Afterwards `report` is not being called, unless this is called in it, and will not be.
  /// Switches: no. Thread: any.
  void stop() noexcept;

 private:
  std::shared_ptr<detail::monitor_job> job_;
};

/// A line and write_frames(): who it is, for how long, and where.
/// Switches: no. Thread: any. Throws: what `out` does.
GREENLET_API void write_long_run(std::ostream& out, const long_run& run);

}  // namespace greenlets

#endif
