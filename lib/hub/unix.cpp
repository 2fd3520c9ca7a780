// SPDX-License-Identifier: MIT
// Unix domain sockets: credentials, and messages with descriptors.
#include <greenlet/hub/unix.hpp>

#include "system.hpp"

#include <cstring>
#include <stdexcept>
#include <sys/socket.h>

namespace greenlets::hub {
namespace {

// Room for one control message with so many descriptors; aligned as cmsg(3) wants it.
union control {
  cmsghdr header;
  char bytes[CMSG_SPACE(most_descriptors * sizeof(int))];
};

// The first piece, with the descriptors. Switches when it has to wait.
io_result send_first(descriptor& c, const msghdr& m, deadline until) {
  for (;;) {
    if (const io_result r = c.try_write(nullptr, 0); !r) return r;  // usable here and now
    if (const ssize_t n = ::sendmsg(c.fd(), &m, MSG_NOSIGNAL); n >= 0) return io_result::done(static_cast<std::size_t>(n));
    if (errno == EAGAIN) {
      if (const io_result r = c.wait(direction::writable, until); !r) return r;
    } else if (errno != EINTR) {
      return io_result::failed(errno);
    }
  }
}

// Those that came with a message; the caller has reserved the room.
void take_descriptors(msghdr& m, std::vector<owned_fd>& fds) noexcept {
  for (cmsghdr* h = CMSG_FIRSTHDR(&m); h; h = CMSG_NXTHDR(&m, h)) {
    if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS) continue;
    for (std::size_t at = CMSG_LEN(0); at < h->cmsg_len; at += sizeof(int)) {
      int fd;
      std::memcpy(&fd, reinterpret_cast<char*>(h) + at, sizeof fd);
      fds.emplace_back(fd);
    }
  }
}

}  // namespace

credentials peer_credentials(const descriptor& c) {
  ucred u{};
  socklen_t size = sizeof u;
  detail::check(getsockopt(c.fd(), SOL_SOCKET, SO_PEERCRED, &u, &size), "getsockopt(SO_PEERCRED)");
  return {u.pid, u.uid, u.gid};
}

std::pair<connection, connection> connection_pair() {
  int fd[2];
  detail::check(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fd), "socketpair");
  owned_fd second(fd[1]);
  owned_fd first(fd[0]);
  std::pair<connection, connection> both;
  both.first = connection(first.get());
  first.release();
  both.second = connection(second.get());
  second.release();
  return both;
}

io_result send_descriptors(descriptor& c, const void* data, std::size_t size, const int* fds, std::size_t count, deadline until) {
  if (size == 0) throw std::invalid_argument("greenlets::hub::send_descriptors: descriptors go with a byte of data at least");
  if (count > most_descriptors)
    throw std::invalid_argument("greenlets::hub::send_descriptors: " + std::to_string(count) + " descriptors; 253 go in one message");
  if (count == 0) return c.write_all(data, size, until);
  control room{};
  iovec piece{const_cast<void*>(data), size};
  msghdr m{};
  m.msg_iov = &piece;
  m.msg_iovlen = 1;
  m.msg_control = &room;
  m.msg_controllen = CMSG_SPACE(count * sizeof(int));
  room.header.cmsg_level = SOL_SOCKET;
  room.header.cmsg_type = SCM_RIGHTS;
  room.header.cmsg_len = CMSG_LEN(count * sizeof(int));
  std::memcpy(CMSG_DATA(&room.header), fds, count * sizeof(int));
  const io_result first = send_first(c, m, until);
  if (!first) return first;
  io_result rest = c.write_all(static_cast<const char*>(data) + first.bytes, size - first.bytes, until);
  rest.bytes += first.bytes;
  return rest;
}

io_result receive_descriptors(descriptor& c, void* data, std::size_t size, std::vector<owned_fd>& fds, deadline until) {
  if (size == 0) return io_result::done(0);
  fds.reserve(fds.size() + most_descriptors);
  for (;;) {
    if (const io_result r = c.try_write(nullptr, 0); !r) return r;
    control room;
    iovec piece{data, size};
    msghdr m{};
    m.msg_iov = &piece;
    m.msg_iovlen = 1;
    m.msg_control = &room;
    m.msg_controllen = sizeof room;
    const ssize_t n = ::recvmsg(c.fd(), &m, MSG_CMSG_CLOEXEC);
    if (n < 0) {
      if (errno == EAGAIN) {
        if (const io_result r = c.wait(direction::readable, until); !r) return r;
      } else if (errno != EINTR) {
        return io_result::failed(errno);
      }
      continue;
    }
    take_descriptors(m, fds);
    const auto got = static_cast<std::size_t>(n);
    // recvmsg(2) has room for all: it is the process that has none.
    if (m.msg_flags & MSG_CTRUNC) return io_result::failed(std::errc::too_many_files_open, got);
    return got == 0 ? io_result::at_end(0) : io_result::done(got);
  }
}

}  // namespace greenlets::hub
