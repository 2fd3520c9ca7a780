// SPDX-License-Identifier: MIT
// TCP in blocking style.
#include <greenlet/hub/tcp.hpp>

#include "system.hpp"

#include <arpa/inet.h>
#include <cstring>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdexcept>

namespace greenlets::hub {
namespace {

using detail::check;
using detail::unowned_fd;

int new_socket(const address& a) {
  return ::socket(a.data()->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
}

void set_option(int fd, int level, int name, const char* call) {
  const int on = 1;
  check(setsockopt(fd, level, name, &on, sizeof on), call);
}

connection take(unowned_fd& fd) {
  set_option(fd.get(), IPPROTO_TCP, TCP_NODELAY, "setsockopt(TCP_NODELAY)");
  connection c(fd.get());
  fd.taken();
  return c;
}

template <int (*get)(int, sockaddr*, socklen_t*)>
address name_of(int fd, const char* call) {
  sockaddr_storage s{};
  socklen_t size = sizeof s;
  check(get(fd, reinterpret_cast<sockaddr*>(&s), &size), call);
  return {reinterpret_cast<const sockaddr*>(&s), size};
}

}  // namespace

address::address(const std::string& ip, std::uint16_t port) {
  auto* four = reinterpret_cast<sockaddr_in*>(&storage_);
  auto* six = reinterpret_cast<sockaddr_in6*>(&storage_);
  if (inet_pton(AF_INET, ip.c_str(), &four->sin_addr) == 1) {
    four->sin_family = AF_INET;
    four->sin_port = htons(port);
    size_ = sizeof *four;
  } else if (inet_pton(AF_INET6, ip.c_str(), &six->sin6_addr) == 1) {
    six->sin6_family = AF_INET6;
    six->sin6_port = htons(port);
    size_ = sizeof *six;
  } else {
    throw std::invalid_argument("greenlets::hub::address: not a numeric IPv4 or IPv6 address: \"" + ip + "\"");
  }
}

address::address(const sockaddr* from, socklen_t size) noexcept
    : size_(size < sizeof storage_ ? size : static_cast<socklen_t>(sizeof storage_)) {
  std::memcpy(&storage_, from, size_);
}

std::uint16_t address::port() const noexcept {
  switch (data()->sa_family) {
    case AF_INET: return ntohs(reinterpret_cast<const sockaddr_in*>(&storage_)->sin_port);
    case AF_INET6: return ntohs(reinterpret_cast<const sockaddr_in6*>(&storage_)->sin6_port);
    default: return 0;
  }
}

std::string address::text() const {
  char buffer[INET6_ADDRSTRLEN] = "";
  switch (data()->sa_family) {
    case AF_INET:
      inet_ntop(AF_INET, &reinterpret_cast<const sockaddr_in*>(&storage_)->sin_addr, buffer, sizeof buffer);
      return std::string(buffer) + ":" + std::to_string(port());
    case AF_INET6:
      inet_ntop(AF_INET6, &reinterpret_cast<const sockaddr_in6*>(&storage_)->sin6_addr, buffer, sizeof buffer);
      return "[" + std::string(buffer) + "]:" + std::to_string(port());
    default: return "no address";
  }
}

io_result connection::shutdown_write() {
  if (!is_open()) return io_result::failed(std::errc::operation_canceled);
  return ::shutdown(fd(), SHUT_WR) == 0 ? io_result::done(0) : io_result::failed(errno);
}

address connection::peer() const { return name_of<getpeername>(fd(), "getpeername"); }

address connection::local() const { return name_of<getsockname>(fd(), "getsockname"); }

io_result connect(connection& to, const address& where, deadline until) {
  unowned_fd fd(new_socket(where), "socket");
  const int started = ::connect(fd.get(), where.data(), where.size());
  const int error = errno;
  // EINTR: POSIX has the connection go on by itself, as with EINPROGRESS.
  if (started < 0 && error != EINPROGRESS && error != EINTR) return io_result::failed(error);
  connection c = take(fd);
  if (started < 0) {
    if (const io_result r = c.wait(direction::writable, until); !r) return r;
    int outcome = 0;
    socklen_t size = sizeof outcome;
    check(getsockopt(c.fd(), SOL_SOCKET, SO_ERROR, &outcome, &size), "getsockopt(SO_ERROR)");
    if (outcome != 0) return io_result::failed(outcome);
  }
  to = std::move(c);
  return io_result::done(0);
}

listener::listener(const address& where, const options& how) {
  unowned_fd fd(new_socket(where), "socket");
  set_option(fd.get(), SOL_SOCKET, SO_REUSEADDR, "setsockopt(SO_REUSEADDR)");
  if (how.share_port) set_option(fd.get(), SOL_SOCKET, SO_REUSEPORT, "setsockopt(SO_REUSEPORT)");
  check(::bind(fd.get(), where.data(), where.size()), "bind");
  check(::listen(fd.get(), how.backlog), "listen");
  descriptor_ = descriptor(fd.get());
  fd.taken();
}

listener::listener(int fd) {
  int listens = 0;
  socklen_t size = sizeof listens;
  check(getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size), "getsockopt(SO_ACCEPTCONN)");
  if (!listens) throw std::invalid_argument("greenlets::hub::listener: the socket does not listen: descriptor " + std::to_string(fd));
  descriptor_ = descriptor(fd);
}

io_result listener::accept(connection& to, deadline until) {
  for (;;) {
    // Nobody is taken from the system who could not be given: on another thread, or after the hub's end.
    if (const io_result r = descriptor_.try_write(nullptr, 0); !r) return r;
    const int got = ::accept4(descriptor_.fd(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (got >= 0) {
      unowned_fd fd(got, "accept4");
      to = take(fd);
      return io_result::done(0);
    }
    switch (errno) {
      case EAGAIN:
        if (const io_result r = descriptor_.wait(direction::readable, until); !r) return r;
        break;
      // accept(2): errors of the one that came, or of the network it came by.
      case EINTR: case ECONNABORTED: case ENETDOWN: case EPROTO: case ENOPROTOOPT: case EHOSTDOWN: case ENONET:
      case EHOSTUNREACH: case EOPNOTSUPP: case ENETUNREACH:
        break;
      default: return io_result::failed(errno);
    }
  }
}

address listener::local() const { return name_of<getsockname>(descriptor_.fd(), "getsockname"); }

}  // namespace greenlets::hub
