// SPDX-License-Identifier: MIT
// What the tests of daemons and of their restarts share.
#ifndef T_HUB_SERVICE_HPP
#define T_HUB_SERVICE_HPP

#include "hub_testing.hpp"

#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <fstream>
#include <iterator>
#include <optional>
#include <string>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

namespace testing {

// A variable of the environment, for a scope.
struct variable {
  std::string name;
  std::optional<std::string> before;

  variable(const char* n, const char* text) : name(n) {
    if (const char* was = std::getenv(n)) before = was;
    set(text);
  }
  variable(const variable&) = delete;
  variable& operator=(const variable&) = delete;
  ~variable() { set(before ? before->c_str() : nullptr); }
  void set(const char* text) const {
    if (text)
      setenv(name.c_str(), text, 1);
    else
      unsetenv(name.c_str());
  }
};

inline std::string own_pid() { return std::to_string(getpid()); }

// The service manager's end of notify().
struct manager {
  int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  variable where{"NOTIFY_SOCKET", nullptr};

  explicit manager(const std::string& name) {
    sockaddr_un to{};
    to.sun_family = AF_UNIX;
    std::memcpy(to.sun_path, name.data(), name.size());
    if (name[0] == '@') to.sun_path[0] = '\0';
    const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + name.size() + (name[0] == '/'));
    REQUIRE(bind(fd, reinterpret_cast<sockaddr*>(&to), size) == 0);
    where.set(name.c_str());
  }
  ~manager() { ::close(fd); }
  std::string heard() const {
    char text[500];
    const ssize_t size = ::recv(fd, text, sizeof text, 0);
    return size < 0 ? "" : std::string(text, static_cast<std::size_t>(size));
  }
};

inline std::string abstract_name() { return "@hub_daemon." + own_pid(); }

inline bool is_close_on_exec(int fd) { return fcntl(fd, F_GETFD) & FD_CLOEXEC; }

inline std::string content(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

inline void check_ended_well(const child& c, int line) {
  CAPTURE(line);
  INFO(c.output);
  CHECK(c.status == 0);
}
#define CHECK_CHILD(...) check_ended_well((__VA_ARGS__), __LINE__)

inline void need(bool so, int line) {
  if (so) return;
  dprintf(2, "line %d is not so\n", line);
  _exit(99);
}
#define NEED(...) need((__VA_ARGS__), __LINE__)

}  // namespace testing

#endif
