// SPDX-License-Identifier: MIT
// Connections: connecting, listening, accepting.
#include <greenlet/hub/tcp.hpp>

#include "system.hpp"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdexcept>
#include <sys/stat.h>
#include <sys/un.h>

namespace greenlets::hub {
namespace {

using detail::check;
using detail::name_of;
using detail::unowned_fd;

int new_socket(const address& a) {
  return ::socket(a.family(), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
}

void set_option(int fd, int level, int name, const char* call) {
  const int on = 1;
  check(setsockopt(fd, level, name, &on, sizeof on), call);
}

void set_up(int fd) {
  const int on = 1;
  const int set = setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  check(set < 0 && errno == EOPNOTSUPP ? 0 : set, "setsockopt(TCP_NODELAY)");  // a Unix domain socket has none
}

connection take(unowned_fd& fd) {
  set_up(fd.get());
  connection c(fd.get());
  fd.taken();
  return c;
}

// A socket's file on which nobody listens refuses whoever connects.
void remove_stale(const address& where) {
  const auto* const path = reinterpret_cast<const sockaddr_un*>(where.data())->sun_path;
  struct stat s;
  if (where.family() != AF_UNIX || path[0] == 0 || ::lstat(path, &s) < 0 || !S_ISSOCK(s.st_mode)) return;
  const unowned_fd probe(new_socket(where), "socket");
  if (::connect(probe.get(), where.data(), where.size()) < 0 && errno == ECONNREFUSED) ::unlink(path);
}

}  // namespace

io_result connection::shutdown_write() {
  if (!is_open()) return io_result::failed(std::errc::operation_canceled);
  return ::shutdown(fd(), SHUT_WR) == 0 ? io_result::done(0) : io_result::failed(errno);
}

address connection::peer() const { return name_of<getpeername>(fd(), "getpeername"); }

address connection::local() const { return name_of<getsockname>(fd(), "getsockname"); }

io_result connect(connection& to, const address& where, deadline until) {
  unowned_fd fd(new_socket(where), "socket");
  int started, error;
  for (detail::retries pause;;) {
    started = ::connect(fd.get(), where.data(), where.size());
    error = errno;
    if (started == 0 || error != EAGAIN || where.family() != AF_UNIX) break;
    // Its backlog is full, and there is nothing to poll for.
    if (!pause.wait(until)) return io_result::failed(std::errc::timed_out);
  }
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
  if (how.remove_stale) remove_stale(where);
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
    int got = -1;
    const io_result r = try_accept(got);
    if (r) {
      unowned_fd fd(got, "accept4");
      to = connection(got);
      fd.taken();
      return r;
    }
    if (r.error.value() != EAGAIN) return r;
    if (const io_result waited = wait(until); !waited) return waited;
  }
}

io_result listener::try_accept(int& to) {
  for (;;) {
    // Nobody is taken from the system who could not be given: on another thread, or after the hub's end.
    if (const io_result r = descriptor_.try_write(nullptr, 0); !r) return r;
    const int got = ::accept4(descriptor_.fd(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (got >= 0) {
      unowned_fd fd(got, "accept4");
      set_up(fd.get());
      fd.taken();
      to = got;
      return io_result::done(0);
    }
    switch (errno) {
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
