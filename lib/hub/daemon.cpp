// SPDX-License-Identifier: MIT
// The protocols of service managers; rights given up; pid files.
#include <greenlet/hub/daemon.hpp>

#include "ready.hpp"
#include "system.hpp"

#include <greenlet/hub/run.hpp>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <grp.h>
#include <limits>
#include <pwd.h>
#include <stdexcept>
#include <string_view>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <utility>

namespace greenlets::hub {
namespace {

using detail::check;
using detail::unowned_fd;

constexpr int first_passed = 3;  // SD_LISTEN_FDS_START

std::error_code system_error_of(int code) { return {code, std::generic_category()}; }

// Digits, and nothing else.
template <class T>
bool read_number(std::string_view text, T& to) noexcept {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), to);
  return error == std::errc() && end == text.data() + text.size() && text[0] != '-';
}

bool close_on_exec(int fd) noexcept {
  const int flags = fcntl(fd, F_GETFD);
  return flags >= 0 && fcntl(fd, F_SETFD, flags | FD_CLOEXEC) == 0;
}

std::vector<std::string> split(std::string_view text, char at) {
  std::vector<std::string> all;
  for (std::size_t end; (end = text.find(at)) != text.npos; text.remove_prefix(end + 1)) all.emplace_back(text.substr(0, end));
  all.emplace_back(text);
  return all;
}

// --- The process that started this one with reexec().

// Where it waits for a word; -1 when there is none, or the variable is another process's.
int ready_fd() noexcept {
  const char* const text = std::getenv(detail::ready_variable);
  const char* const colon = text ? std::strchr(text, ':') : nullptr;
  int fd = -1;
  pid_t pid = 0;
  if (!colon || !read_number(std::string_view(text, static_cast<std::size_t>(colon - text)), fd)) return -1;
  return read_number(colon + 1, pid) && pid == getpid() && fd >= first_passed ? fd : -1;
}

bool says_ready(std::string_view state) noexcept {
  constexpr std::string_view word = "READY=1";
  for (std::size_t at = 0; (at = state.find(word, at)) != state.npos; at += word.size()) {
    const std::size_t end = at + word.size();
    if ((at == 0 || state[at - 1] == '\n') && (end == state.size() || state[end] == '\n')) return true;
  }
  return false;
}

// Once. It may have gone: that is no reason for a signal.
void tell_starter() noexcept {
  const int fd = ready_fd();
  if (fd < 0) return;
  unsetenv(detail::ready_variable);
  while (::send(fd, &detail::ready_byte, 1, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 && errno == EINTR) continue;
  ::close(fd);
}

// --- The service manager.

// The address in NOTIFY_SOCKET; its size is 0 when it is none.
socklen_t notify_address(std::string_view text, sockaddr_un& to) noexcept {
  to.sun_family = AF_UNIX;
  // A path ends with a null byte, and an abstract name begins with one.
  if (text.size() < 2 || (text[0] != '/' && text[0] != '@') || text.size() > sizeof to.sun_path - (text[0] == '/')) return 0;
  std::memcpy(to.sun_path, text.data(), text.size());
  if (text[0] == '@') to.sun_path[0] = '\0';
  return static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + text.size() + (text[0] == '/'));
}

std::vector<passed_socket> passed(std::string_view count, const char* names, std::error_code& error) {
  std::vector<passed_socket> all;
  int n = 0;
  if (!read_number(count, n) || n > std::numeric_limits<int>::max() - first_passed) {
    error = system_error_of(EINVAL);
    return all;
  }
  // Before anything is allocated for what may be a nonsensical number.
  for (int fd = first_passed; fd < first_passed + n; ++fd)
    if (!close_on_exec(fd)) {
      error = system_error_of(errno);
      return all;
    }
  const std::vector<std::string> named = names ? split(names, ':') : std::vector<std::string>();
  if (names && n > 0 && named.size() != static_cast<std::size_t>(n)) {
    error = system_error_of(EINVAL);
    return all;
  }
  for (int i = 0; i < n; ++i) all.push_back({first_passed + i, names ? named[static_cast<std::size_t>(i)] : "unknown"});
  return all;
}

}  // namespace

std::vector<passed_socket> listen_fds(std::error_code& error, bool forget) {
  error.clear();
  if (const int fd = ready_fd(); fd >= 0) close_on_exec(fd);  // passed the same way
  struct forgetter {
    bool on;
    ~forgetter() {
      if (on)
        for (const char* each : {"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"}) unsetenv(each);
    }
  } at_any_exit{forget};
  const char* const whose = std::getenv("LISTEN_PID");
  if (!whose) return {};
  pid_t pid = 0;
  if (!read_number(whose, pid) || pid == 0) {
    error = system_error_of(EINVAL);
    return {};
  }
  const char* const count = std::getenv("LISTEN_FDS");
  if (pid != getpid() || !count) return {};
  return passed(count, std::getenv("LISTEN_FDNAMES"), error);
}

std::vector<passed_socket> listen_fds(bool forget) {
  std::error_code error;
  auto all = listen_fds(error, forget);
  if (error) throw std::system_error(error, "LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES");
  return all;
}

bool notify(const std::string& state, std::error_code& error) {
  error.clear();
  if (says_ready(state)) tell_starter();
  const char* const where = std::getenv("NOTIFY_SOCKET");
  if (!where) return false;
  sockaddr_un to{};
  const socklen_t size = notify_address(where, to);
  if (size == 0 || state.empty()) {
    error = system_error_of(EINVAL);
    return false;
  }
  const int fd = ::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) {
    error = system_error_of(errno);
    return false;
  }
  const unowned_fd own(fd, "socket");
  ssize_t sent;
  do
    sent = ::sendto(fd, state.data(), state.size(), MSG_NOSIGNAL, reinterpret_cast<const sockaddr*>(&to), size);
  while (sent < 0 && errno == EINTR);
  if (sent < 0) error = system_error_of(errno);
  return sent >= 0;
}

bool notify(const std::string& state) {
  std::error_code ignored;
  return notify(state, ignored);
}

std::optional<std::chrono::microseconds> watchdog_interval(std::error_code& error) noexcept {
  error.clear();
  const char* const interval = std::getenv("WATCHDOG_USEC");
  if (!interval) return std::nullopt;
  const char* const whose = std::getenv("WATCHDOG_PID");
  std::chrono::microseconds::rep microseconds = 0;
  pid_t pid = 0;
  if (!read_number(interval, microseconds) || microseconds == 0 || (whose && (!read_number(whose, pid) || pid == 0))) {
    error = system_error_of(EINVAL);
    return std::nullopt;
  }
  if (whose && pid != getpid()) return std::nullopt;
  return std::chrono::microseconds(microseconds);
}

std::optional<std::chrono::microseconds> watchdog_interval() {
  std::error_code error;
  const auto interval = watchdog_interval(error);
  if (error) throw std::system_error(error, "WATCHDOG_USEC, WATCHDOG_PID");
  return interval;
}

watchdog::watchdog(std::optional<std::chrono::microseconds> interval) {
  if (!interval) return;
  const auto step = std::chrono::duration_cast<clock::duration>(*interval / 2);
  if (step <= clock::duration::zero()) throw std::invalid_argument("hub::watchdog: an interval is more than nothing");
  pings_.spawn([step] {
    for (;; sleep_for(step)) notify("WATCHDOG=1");
  });
}

// --- Rights.

namespace {

// What one of the four calls that ask for a user or a group by name gives.
template <class Entry, class Look>
Entry look_up(const std::string& name, const char* call, const char* what, std::vector<char>& text, Look look) {
  Entry entry, *found = nullptr;
  text.resize(64);
  for (int code; (code = look(&entry, text.data(), text.size(), &found)) != 0;) {
    if (code != ERANGE) throw std::system_error(code, std::generic_category(), call);
    text.resize(2 * text.size());
  }
  if (!found) throw std::invalid_argument(std::string("hub::drop_privileges: there is no ") + what + " \"" + name + "\"");
  return entry;
}

std::vector<gid_t> groups_of(const std::string& user, gid_t own) {
  std::vector<gid_t> all;
  int count = 0;  // of none there is room for, first: then it says how many
  while (getgrouplist(user.c_str(), own, all.data(), &count) < 0) all.resize(static_cast<std::size_t>(count));
  all.resize(static_cast<std::size_t>(count));
  return all;
}

[[noreturn]] void fail(int code, const char* call, bool changed) {
  throw std::system_error(code, std::generic_category(),
                          std::string("hub::drop_privileges: ") + call +
                              (changed ? " (the process has lost some rights already)" : ""));
}

bool has_become(uid_t user, gid_t group) {
  uid_t uid[3];
  gid_t gid[3];
  return getresuid(&uid[0], &uid[1], &uid[2]) == 0 && getresgid(&gid[0], &gid[1], &gid[2]) == 0 &&
         std::all_of(uid, uid + 3, [&](uid_t each) { return each == user; }) &&
         std::all_of(gid, gid + 3, [&](gid_t each) { return each == group; });
}

bool has_groups(std::vector<gid_t> wanted) {
  std::vector<gid_t> now(static_cast<std::size_t>(std::max(getgroups(0, nullptr), 0)));
  if (getgroups(static_cast<int>(now.size()), now.data()) != static_cast<int>(now.size())) return false;
  for (auto* each : {&wanted, &now}) {
    std::sort(each->begin(), each->end());
    each->erase(std::unique(each->begin(), each->end()), each->end());
  }
  return wanted == now;
}

}  // namespace

void drop_privileges(uid_t user, gid_t group, const std::vector<gid_t>& supplementary) {
  if (user == 0) throw std::invalid_argument("hub::drop_privileges: root keeps its rights");
  if (user == static_cast<uid_t>(-1) || group == static_cast<gid_t>(-1))
    throw std::invalid_argument("hub::drop_privileges: -1 is no user and no group");  // to the system it is "as before"
  // The user last: afterwards there is no right to change the rest.
  if (setgroups(supplementary.size(), supplementary.data()) < 0) fail(errno, "setgroups", false);
  if (setresgid(group, group, group) < 0) fail(errno, "setresgid", true);
  if (setresuid(user, user, user) < 0) fail(errno, "setresuid", true);
  if (!has_become(user, group) || !has_groups(supplementary)) fail(EPERM, "the system has done something else", true);
  if (setresuid(static_cast<uid_t>(-1), 0, static_cast<uid_t>(-1)) == 0) {
    const bool back = setresuid(user, user, user) == 0;
    fail(EPERM, back ? "the user can become root again" : "the user has become root again", true);
  }
}

void drop_privileges(const std::string& user, const std::string& group) {
  std::vector<char> text;
  const auto u = look_up<passwd>(user, "getpwnam_r", "user", text,
                                 [&](auto... rest) { return getpwnam_r(user.c_str(), rest...); });
  const gid_t own = group.empty() ? u.pw_gid : look_up<::group>(group, "getgrnam_r", "group", text, [&](auto... rest) {
                                                 return getgrnam_r(group.c_str(), rest...);
                                               }).gr_gid;
  drop_privileges(u.pw_uid, own, groups_of(user, own));
}

// --- Pid files.

namespace {

// The number in it; 0 when there is none.
pid_t read_pid(int fd) noexcept {
  char text[24];
  const ssize_t size = pread(fd, text, sizeof text, 0);
  pid_t pid = 0;
  if (size < 1 || text[size - 1] != '\n') return 0;
  return read_number(std::string_view(text, static_cast<std::size_t>(size - 1)), pid) ? pid : 0;
}

// Whether the path still leads there: the process before may have removed it when we had it open already.
bool is_at(const std::string& path, int fd) {
  struct stat there, here;
  check(fstat(fd, &here), "fstat");
  return lstat(path.c_str(), &there) == 0 && there.st_dev == here.st_dev && there.st_ino == here.st_ino;
}

}  // namespace

already_running::already_running(const std::string& path, pid_t who)
    : std::system_error(EWOULDBLOCK, std::generic_category(),
                        path + ": " + (who ? "process " + std::to_string(who) : "another process") + " is running"),
      pid_(who) {}
already_running::~already_running() = default;

pid_file::pid_file(std::string path) : path_(std::move(path)), made_by_(getpid()) {
  for (;;) {
    unowned_fd file(::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0644), "open");
    if (flock(file.get(), LOCK_EX | LOCK_NB) < 0) {
      const int code = errno;
      if (code == EWOULDBLOCK) throw already_running(path_, read_pid(file.get()));
      throw std::system_error(code, std::generic_category(), "flock");
    }
    if (!is_at(path_, file.get())) continue;
    fd_ = file.get();
    write_own();
    file.taken();
    return;
  }
}

pid_file::pid_file(std::string path, int locked) : path_(std::move(path)), fd_(locked), made_by_(getpid()) {
  check(flock(fd_, LOCK_EX | LOCK_NB), "flock");  // it is: nothing changes
  write_own();
}

void pid_file::write_own() {
  const std::string text = std::to_string(made_by_) + "\n";
  check(ftruncate(fd_, 0), "ftruncate");
  const ssize_t written = pwrite(fd_, text.data(), text.size(), 0);
  check(written, "write");
  if (static_cast<std::size_t>(written) < text.size()) throw std::system_error(ENOSPC, std::generic_category(), "write");
}

pid_file::~pid_file() {
  if (getpid() == made_by_ && read_pid(fd_) == made_by_) ::unlink(path_.c_str());
  ::close(fd_);
}

}  // namespace greenlets::hub
