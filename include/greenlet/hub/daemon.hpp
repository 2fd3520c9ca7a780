// SPDX-License-Identifier: MIT
// What a daemon owes to the system that starts it: sockets it is given, news of how it does, fewer rights, a pid file.
//
//   for (hub::passed_socket& each : hub::listen_fds()) s.listen(hub::listener(each.fd));
//   hub::drop_privileges("www-data");
//   hub::watchdog alive;
//   hub::notify("READY=1");
#ifndef GREENLET_HUB_DAEMON_HPP
#define GREENLET_HUB_DAEMON_HPP

#include <greenlet/detail/api.hpp>
#include <greenlet/hub/group.hpp>

#include <chrono>
#include <optional>
#include <string>
#include <sys/types.h>
#include <system_error>
#include <vector>

namespace greenlets::hub {

/// A descriptor that was passed to this program, and what whoever passed it calls it.
struct passed_socket {
  int fd;
  std::string name;
};

/// The descriptors that systemd, or reexec(), passed to this process: the protocol of sd_listen_fds_with_names(3), which is
/// descriptors from 3 on, and LISTEN_PID, LISTEN_FDS and LISTEN_FDNAMES in the environment. None when there is no LISTEN_PID,
/// or that of another process. Each is close-on-exec from now on, and belongs to the caller. A name that was not given is
/// "unknown". Variables that are wrong, and a descriptor that is not open, are an error.
/// `forget` takes the variables out of the environment, in any case, so that a second call finds none.
/// Switches: no. Thread: one, while no other uses the environment. Throws: std::bad_alloc; without `error`, std::system_error.
GREENLET_API std::vector<passed_socket> listen_fds(bool forget = true);
GREENLET_API std::vector<passed_socket> listen_fds(std::error_code& error, bool forget = true);

/// Tells the service manager: the protocol of sd_notify(3), a datagram of lines ("READY=1", "STATUS=...", "STOPPING=1") to
/// the socket in NOTIFY_SOCKET, a path or "@" and an abstract name. Never waits. Returns whether it was sent: false, with no
/// error, when nobody wants to know. A line "READY=1" is also told to the process that started this one with reexec().
/// Switches: no. Thread: any, while no other changes the environment. Throws: std::bad_alloc.
GREENLET_API bool notify(const std::string& state);
GREENLET_API bool notify(const std::string& state, std::error_code& error);

/// How often the service manager wants to hear from this process (WATCHDOG_USEC, and WATCHDOG_PID if it is there):
/// sd_watchdog_enabled(3). Nothing when it does not. Switches: no. Throws: without `error`, std::system_error when the
/// variables are wrong.
GREENLET_API std::optional<std::chrono::microseconds> watchdog_interval();
GREENLET_API std::optional<std::chrono::microseconds> watchdog_interval(std::error_code& error) noexcept;

/// Tells the service manager "WATCHDOG=1" twice in each interval, from a greenlet, for as long as it lives: so the manager
/// learns when this thread's hub no longer runs its greenlets. Thread: one.
class GREENLET_API watchdog {
 public:
  /// Does nothing when nobody wants to know. Throws: as watchdog_interval() and hub::spawn().
  watchdog() : watchdog(watchdog_interval()) {}
  /// Switches: may unwind. Throws: as hub::spawn(); std::invalid_argument when the interval is not more than nothing.
  explicit watchdog(std::optional<std::chrono::microseconds> interval);
  bool active() const noexcept { return pings_.size() > 0; }

 private:
  group pings_;
};

/// Gives up root's rights for good, in all threads: sets the supplementary groups, the group and the user, in this order,
/// and sees that the user cannot become root again. By name: the user's groups are those of the system's tables, the group
/// (if empty) is the user's own.
/// Switches: no. Thread: any. Throws: std::invalid_argument (no such user or group; root, or -1); std::system_error with the
/// call that failed. The message says when something had been changed before: the process should then end.
GREENLET_API void drop_privileges(const std::string& user, const std::string& group = {});
GREENLET_API void drop_privileges(uid_t user, gid_t group, const std::vector<gid_t>& supplementary = {});

/// What pid_file throws when another process has the file.
class GREENLET_API already_running : public std::system_error {
 public:
  already_running(const std::string& path, pid_t who);
  ~already_running() override;
  already_running(const already_running&) = default;
  already_running& operator=(const already_running&) = default;
  /// 0 when it has not said yet.
  pid_t pid() const noexcept { return pid_; }

 private:
  pid_t pid_;
};

/// A file that holds the process's number, and a lock (flock(2)) that says whether the process lives: what a process left
/// that died is taken over. Its path is not followed if it is a symbolic link.
class GREENLET_API pid_file {
 public:
  /// Makes it, locks it, and writes the number. Throws: already_running, std::system_error with the call.
  explicit pid_file(std::string path);
  /// Takes over a file that is locked already, from the process that started this one (see reexec()). Owns `locked`, from
  /// now on; when it throws, the caller does. Throws: std::system_error.
  pid_file(std::string path, int locked);
  pid_file(const pid_file&) = delete;
  pid_file& operator=(const pid_file&) = delete;
  /// Removes the file, if this is the process that made the object and no other has taken the file over.
  ~pid_file();
  /// Still owned here: to be passed to reexec().
  int fd() const noexcept { return fd_; }

 private:
  void write_own();

  std::string path_;
  int fd_ = -1;
  pid_t made_by_;
};

}  // namespace greenlets::hub

#endif
