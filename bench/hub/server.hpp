// SPDX-License-Identifier: MIT
// What the servers in C++ have alike: the listening socket, the port that is told, the options of what is accepted.
// Each is one way to serve on one thread: it listens on a free port of 127.0.0.1, prints it, and sends back what it
// gets on each connection, until the other side ends it. None looks at a byte, or counts.
//
// All read into 16 KiB that are there once for all connections; 1 KiB for each where others may run between a read
// and the end of its write, and what is left is not copied (Asio, State Threads, Go).
#ifndef BENCH_HUB_SERVER_HPP
#define BENCH_HUB_SERVER_HPP

#include <arpa/inet.h>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

constexpr int backlog = 4096;
constexpr std::size_t buffer_size = 16 * 1024;

inline void check(long result, const char* call) {
  if (result >= 0) return;
  std::perror(call);
  std::exit(1);
}

inline void say_port(unsigned port) {
  std::printf("%u\n", port);
  std::fflush(stdout);
}

// Does not block; its port has been told.
inline int listening_socket() {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  check(fd, "socket");
  sockaddr_in where{};
  where.sin_family = AF_INET;
  where.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof where;
  check(::bind(fd, reinterpret_cast<sockaddr*>(&where), size), "bind");
  check(::listen(fd, backlog), "listen");
  check(::getsockname(fd, reinterpret_cast<sockaddr*>(&where), &size), "getsockname");
  say_port(ntohs(where.sin_port));
  return fd;
}

// libgreenlet-hub, Asio and Go do it for each connection; so do the others.
inline void no_delay(int fd) {
  const int on = 1;
  check(::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on), "setsockopt(TCP_NODELAY)");
}

#endif
