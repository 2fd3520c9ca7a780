// SPDX-License-Identifier: MIT
// reexec: a new process takes over the listening sockets, and nobody who connects is refused.
//
//   hub::signals hup({SIGHUP});
//   while (hup.wait())
//     if (auto next = hub::reexec({{s.listening()[0], "http"}})) {
//       s.stop(std::chrono::minutes(1));
//       break;
//     }
#ifndef GREENLET_HUB_RESTART_HPP
#define GREENLET_HUB_RESTART_HPP

#include <greenlet/detail/api.hpp>
#include <greenlet/hub/daemon.hpp>
#include <greenlet/hub/deadline.hpp>

#include <chrono>
#include <string>
#include <sys/types.h>
#include <system_error>
#include <vector>

namespace greenlets::hub {

struct reexec_options {
  /// The program. Empty: the file this program was started from, also when there is a newer one in its place now.
  std::string path;
  /// argv, the program's name first. Empty: those of this process.
  std::vector<std::string> arguments;
  /// "NAME=value": set, or replaced, in a copy of this process's environment.
  std::vector<std::string> environment;
  /// When the new process must have said that it is ready.
  std::chrono::milliseconds ready_within = std::chrono::seconds(30);
};

/// How a restart went.
struct reexec_result {
  pid_t pid = -1;         ///< of the new process, which is a child of this one; -1 when it failed
  std::error_code error;  ///< timed_out; operation_not_permitted and the like: what the system refused; no_child_process: it
                          ///< ended, or let go of what it was given, before it was ready
  int status = 0;         ///< when it ended: as of waitpid(2)
  explicit operator bool() const noexcept { return pid > 0; }
};

/// Starts the program anew, beside this process, with these descriptors passed as listen_fds() finds them, and waits until
/// the new process calls notify() with "READY=1". When it has, the service manager is told that it is the main process now
/// ("MAINPID="): all that is left here is to stop accepting and to end. When it fails, the new process is killed, and nothing
/// has changed: the sockets are still listened on here. They stay the caller's in any case.
/// No other descriptor is passed but those that are not close-on-exec. The signals that this thread blocks, the working
/// directory and the user are this process's.
/// Switches: to the hub. Thread: any, while no other changes the environment. Throws: std::invalid_argument (a name that
/// has a colon or a control character, an argument that has a null byte); std::system_error, when pipes or processes cannot be
/// made; std::bad_alloc; what is thrown into the caller meanwhile: the new process is then killed.
GREENLET_API reexec_result reexec(const std::vector<passed_socket>& sockets, const reexec_options& how = {});

}  // namespace greenlets::hub

#endif
