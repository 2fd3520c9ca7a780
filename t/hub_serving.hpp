// SPDX-License-Identifier: MIT
// What the tests of servers share.
#ifndef T_HUB_SERVING_HPP
#define T_HUB_SERVING_HPP

#include "hub_testing.hpp"

#include <stdexcept>
#include <sys/resource.h>
#include <sys/socket.h>

namespace testing {

inline hub::listener anywhere() { return hub::listener(hub::address("127.0.0.1", 0)); }

// Says who it is, and then what it is told, until the other side ends.
inline void echo(hub::connection& c) {
  char buffer[256];
  while (const auto got = c.read_some(buffer, sizeof buffer))
    if (!c.write_all(buffer, got.bytes)) break;
}

inline hub::connection client_of(const hub::address& where) {
  hub::connection c;
  REQUIRE(hub::connect(c, where, hang_guard()));
  return c;
}

inline bool has_ended(hub::connection& c) {
  char byte;
  const auto r = c.read_some(&byte, 1, hang_guard());
  return r.end() || r.reset();
}

struct oops : std::runtime_error {
  oops() : std::runtime_error("oops") {}
};

// Leaves the process, a child, so many descriptors for the rest of its life.
inline void leave_descriptors(int count) {
  show_system_error();
  const int free = lowest_free();
  rlimit limit;
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = static_cast<rlim_t>(free + count);
  setrlimit(RLIMIT_NOFILE, &limit);
}

// A connected socket that the hub does not know, with two bytes on their way.
inline int raw_client(const hub::address& where) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0 || ::connect(fd, where.data(), where.size()) != 0 || ::write(fd, "hi", 2) != 2) _exit(9);
  return fd;
}

}  // namespace testing

#endif
