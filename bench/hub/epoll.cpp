// SPDX-License-Identifier: MIT
// epoll and nothing else, level-triggered: what the others are compared with. Reads when there is something, once.
#include "server.hpp"

#include <cerrno>
#include <string>
#include <sys/epoll.h>
#include <unistd.h>

namespace {

int epoll;

struct connection {
  int fd;
  std::string rest{};  // what the other side was not ready for

  void watch(int operation, unsigned what) {
    epoll_event e{};
    e.events = what;
    e.data.ptr = this;
    check(epoll_ctl(epoll, operation, fd, &e), "epoll_ctl");
  }

  void on_event() {
    static char buffer[buffer_size];
    if (!rest.empty()) return write_rest();
    const ssize_t got = ::read(fd, buffer, sizeof buffer);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0) return end();
    const ssize_t sent = ::send(fd, buffer, static_cast<std::size_t>(got), MSG_NOSIGNAL);
    if (sent == got) return;
    if (sent < 0 && errno != EAGAIN && errno != EINTR) return end();
    rest.assign(buffer + (sent < 0 ? 0 : sent), buffer + got);
    watch(EPOLL_CTL_MOD, EPOLLOUT);
  }

  void write_rest() {
    const ssize_t sent = ::send(fd, rest.data(), rest.size(), MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN && errno != EINTR) return end();
    if (sent > 0) rest.erase(0, static_cast<std::size_t>(sent));
    if (rest.empty()) watch(EPOLL_CTL_MOD, EPOLLIN);
  }

  // Each has one event at most in a batch: nothing there refers to it any more.
  void end() {
    ::close(fd);
    delete this;
  }
};

void accept_all(int listener) {
  int fd;
  while ((fd = ::accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
    no_delay(fd);
    (new connection{fd})->watch(EPOLL_CTL_ADD, EPOLLIN);
  }
  if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) check(-1, "accept4");
}

}  // namespace

int main() {
  check(epoll = epoll_create1(EPOLL_CLOEXEC), "epoll_create1");
  connection listener{listening_socket()};
  listener.watch(EPOLL_CTL_ADD, EPOLLIN);
  static epoll_event events[1024];  // as many as libuv
  for (;;) {
    const int n = epoll_wait(epoll, events, 1024, -1);
    if (n < 0 && errno != EINTR) check(n, "epoll_wait");
    for (int i = 0; i < n; ++i) {
      auto* const c = static_cast<connection*>(events[i].data.ptr);
      if (c == &listener)
        accept_all(listener.fd);
      else
        c->on_event();
    }
  }
}
