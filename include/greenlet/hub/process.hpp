// SPDX-License-Identifier: MIT
// process: starting programs, talking with them, and waiting for their end.
//
//   hub::process_result r = hub::run_process({"sort", {"-n"}}, "3\n1\n2\n");
//   std::fputs(r ? r.out.c_str() : r.status.text().c_str(), stdout);
#ifndef GREENLET_HUB_PROCESS_HPP
#define GREENLET_HUB_PROCESS_HPP

#include <greenlet/hub/io.hpp>

#include <csignal>
#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <sys/types.h>
#include <utility>
#include <vector>

namespace greenlets::hub {

namespace detail {
struct child;
}  // namespace detail

/// How a program has ended.
struct GREENLET_API exit_status {
  int code = 0;    ///< what it gave to exit(): 0 to 255
  int signal = 0;  ///< the signal that killed it; 0: none did

  bool success() const noexcept { return code == 0 && signal == 0; }
  std::string text() const;  ///< for people: "exited with 3", "killed by signal 9 (Killed)"
};

/// What one of a program's standard streams is.
class process_stream {
 public:
  /// The one of this program, as it is; /dev/null where this program has none: it is closed, or FD_CLOEXEC.
  static process_stream inherited() noexcept { return {kind::inherited, -1}; }
  /// /dev/null.
  static process_stream null() noexcept { return {kind::null, -1}; }
  /// A new pipe, whose other end is process::in(), out() or err().
  static process_stream piped() noexcept { return {kind::piped, -1}; }
  /// An open descriptor, which stays the caller's. It is made blocking, for all who share its open file: hand on
  /// what a hub::descriptor holds only when that is not used here any more.
  static process_stream of(int fd) noexcept { return {kind::given, fd}; }
  /// For process_options::err: where the program's standard output goes.
  static process_stream as_out() noexcept { return {kind::as_out, -1}; }
  bool is_inherited() const noexcept { return kind_ == kind::inherited; }

 private:
  friend struct detail::child;
  enum class kind { inherited, null, piped, given, as_out };
  process_stream(kind k, int fd) noexcept : kind_(k), fd_(fd) {}
  kind kind_;
  int fd_;
};

/// What to start, and with what. Strings are without a NUL.
struct process_options {
  process_options() = default;
  process_options(std::string what, std::vector<std::string> with = {})  // NOLINT: conversions are the point
      : program(std::move(what)), arguments(std::move(with)) {}

  std::string program;                 ///< a path, or, without a '/', looked up in the PATH that it will have
  std::vector<std::string> arguments;  ///< those after its name
  std::optional<std::vector<std::string>> environment;  ///< "NAME=value" each; without it, this program's
  std::vector<std::string> additions;  ///< "NAME=value" each, to that; what has the name already is replaced
  std::string directory;               ///< where it starts; empty: where this program is
  process_stream in = process_stream::inherited();
  process_stream out = process_stream::inherited();
  process_stream err = process_stream::inherited();
  /// More descriptors: {its number for the program, 3 to 255; an open one here}.
  std::vector<std::pair<int, int>> descriptors;
  bool new_session = false;    ///< setsid(2): a session, and a process group, of its own
  std::optional<uid_t> user;   ///< setuid(2), after setgroups(2) to none
  std::optional<gid_t> group;  ///< setgid(2), likewise
};

/// Owns a program that was started (a child process). When it goes, what still runs is killed (SIGKILL), and reaped
/// by the hub: no process is left without an owner, and no zombie. Move-only. Thread: the one that made it.
///
/// The program begins with default signal dispositions and no signal blocked, whatever this one ignores or blocks,
/// and has of this one's descriptors those that were asked for, and those that are not FD_CLOEXEC, as none of
/// the hub's is. Ends are seen by SIGCHLD, which libuv catches while there is a child: some thread must not block it,
/// and nobody may reap the hub's children, by wait(2) for instance.
/// After fork() the child process can neither wait for nor kill it, and does not when its copy of the object goes.
class GREENLET_API process {
 public:
  process() noexcept;
  /// Starts it. The thread waits until the system has loaded the program or refused to.
  /// Switches: no, once the thread has a hub. Throws: std::invalid_argument for options that cannot be;
  /// std::system_error: the program cannot be started, or in that directory (its name is in what()); no descriptors,
  /// a descriptor that is not open, no processes; std::bad_alloc. Nothing is left then.
  explicit process(const process_options& what);
  process(process&& other) noexcept;
  /// What it had goes as with the destructor.
  process& operator=(process&& other) noexcept;
  /// Kills what still runs: with new_session the whole process group. Switches: no: what the kernel does not end at
  /// once is reaped at a later turn of the hub. When the hub ends before, or has ended, the thread is stopped for
  /// it, half a second at most; then it is reaped when a next program is started, by any thread.
  ~process();

  /// Our ends of the streams that are piped(); closed descriptors otherwise. Closing in() is the end of its input.
  descriptor& in() noexcept { return in_; }
  descriptor& out() noexcept { return out_; }
  descriptor& err() noexcept { return err_; }

  /// Its number, also when it has ended; 0 when there is none.
  pid_t pid() const noexcept;
  /// How it has ended, when it has and the hub has seen it. Switches: no.
  std::optional<exit_status> status() const noexcept;
  /// Waits until it has ended; any number of greenlets may. Nothing when the deadline comes first, or there is no
  /// process, or its hub has ended. Output that has not been read is still there afterwards; others it has started
  /// may still run, and have the streams open.
  /// Switches: to the hub, unless it has ended. Throws: std::bad_alloc; error (different_thread); what is thrown into
  /// the caller meanwhile.
  std::optional<exit_status> wait(deadline until = {});
  /// Sends it a signal. False, and nothing is sent, when it has ended and been reaped: the number may be somebody
  /// else's then. Switches: no. Throws: std::system_error (kill: EINVAL, EPERM); error (different_thread).
  bool kill(int signal = SIGTERM);
  /// The same to its process group. Throws also: std::invalid_argument without new_session.
  bool kill_group(int signal = SIGTERM);
  /// Lets it run on without an owner; the hub reaps it when it ends, and later ones when the hub does not live so long
  /// (see the destructor). There is no process here then; the ends of its pipes stay. Switches: no.
  void detach() noexcept;

 private:
  bool send(int signal, bool to_group);

  std::shared_ptr<detail::child> child_;
  descriptor in_, out_, err_;
};

/// What run_process() gives up at.
struct process_limits {
  deadline until;
  std::size_t output = std::size_t{64} << 20;  ///< bytes, of each stream
};

/// What came of a program.
struct process_result {
  exit_status status;
  std::string out, err;   ///< what it wrote: of streams that were piped
  std::error_code error;  ///< why it was killed: timed_out, value_too_large (more output than allowed); else none

  /// It ended by itself, with 0.
  explicit operator bool() const noexcept { return !error && status.success(); }
  bool timed_out() const noexcept { return error == std::errc::timed_out; }
};

/// Starts a program, writes `input` to it while it reads what it writes, and waits for the end of both streams and
/// of it. Its standard input is that, and its outputs are pipes, unless `what` says something else than inherited();
/// input is written when it is a pipe. A program that does not read all of its input is no error. When others that
/// it has started keep its outputs open, those are waited for as well, until the deadline.
/// Killed are it and, with new_session, its group: at the deadline, when it writes more than allowed, and when
/// something is thrown into the caller.
/// Switches: to the hub. Thread: any, with the hub of its own. Throws: as process(); std::system_error (kill: EPERM) when
/// it cannot be killed, because it has become another user's; std::bad_alloc, or cancelled when one of the greenlets
/// that it has for the streams could not be given a stack, which is reported as unraisable; and what is thrown into
/// the caller meanwhile. `input` must stay until it returns.
GREENLET_API process_result run_process(process_options what, std::string_view input = {},
                                        const process_limits& limits = {});

}  // namespace greenlets::hub

#endif
