// SPDX-License-Identifier: MIT
// datagram_socket: one message, one system call.
#include <greenlet/hub/datagram.hpp>

#include "system.hpp"

#include <cstring>
#include <netinet/in.h>

namespace greenlets::hub {

using detail::check;

void datagram_socket::open(int family, const options& how, const address* where) {
  detail::unowned_fd fd(::socket(family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), "socket");
  const auto set = [&fd](bool wanted, int level, int name, const char* call) {
    const int on = 1;
    if (wanted) check(setsockopt(fd.get(), level, name, &on, sizeof on), call);
  };
  set(how.share_port, SOL_SOCKET, SO_REUSEPORT, "setsockopt(SO_REUSEPORT)");
  set(how.broadcast, SOL_SOCKET, SO_BROADCAST, "setsockopt(SO_BROADCAST)");
  set(how.only_v6, IPPROTO_IPV6, IPV6_V6ONLY, "setsockopt(IPV6_V6ONLY)");
  if (where) check(::bind(fd.get(), where->data(), where->size()), "bind");
  descriptor_ = descriptor(fd.get());
  fd.taken();
}

datagram_socket::datagram_socket(const address& where, const options& how) { open(where.family(), how, &where); }

datagram_socket::datagram_socket(int family, const options& how) { open(family, how, nullptr); }

io_result datagram_socket::connect(const address& where) {
  if (const io_result r = descriptor_.try_write(nullptr, 0); !r) return r;
  return ::connect(fd(), where.data(), where.size()) == 0 ? io_result::done(0) : io_result::failed(errno);
}

io_result datagram_socket::send_message(const void* data, std::size_t size, const address* where, deadline until) {
  detail::retries pause;
  for (bool waited = false;;) {
    if (const io_result r = descriptor_.try_write(nullptr, 0); !r) return r;
    const ssize_t n = ::sendto(fd(), data, size, MSG_NOSIGNAL, where ? where->data() : nullptr, where ? where->size() : 0);
    if (n >= 0) return io_result::done(static_cast<std::size_t>(n));
    if (errno == EINTR) continue;
    if (errno != EAGAIN) return io_result::failed(errno);
    // A receiver's queue is full. Of one to which this socket is not connected poll() does not tell, and says "writable".
    if (waited && !pause.wait(until)) return io_result::failed(std::errc::timed_out);
    if (const io_result r = descriptor_.wait(direction::writable, until); !r) return r;
    waited = true;
  }
}

io_result datagram_socket::receive_message(void* data, std::size_t size, address* from, deadline until) {
  for (;;) {
    if (const io_result r = descriptor_.try_write(nullptr, 0); !r) return r;
    sockaddr_storage s;
    iovec piece{data, size};
    msghdr m{};
    m.msg_iov = &piece;
    m.msg_iovlen = 1;
    m.msg_name = &s;
    m.msg_namelen = sizeof s;
    const ssize_t n = ::recvmsg(fd(), &m, MSG_CMSG_CLOEXEC);
    if (n >= 0) {
      // A sender without a name: no more than that is known of it.
      if (m.msg_namelen == 0) s.ss_family = AF_UNIX, m.msg_namelen = sizeof s.ss_family;
      if (from) *from = address(reinterpret_cast<const sockaddr*>(&s), m.msg_namelen);
      const auto got = static_cast<std::size_t>(n);
      return m.msg_flags & MSG_TRUNC ? io_result::failed(std::errc::message_size, got) : io_result::done(got);
    }
    if (errno == EAGAIN) {
      if (const io_result r = descriptor_.wait(direction::readable, until); !r) return r;
    } else if (errno != EINTR) {
      return io_result::failed(errno);
    }
  }
}

io_result datagram_socket::send(const void* data, std::size_t size, deadline until) {
  return send_message(data, size, nullptr, until);
}

io_result datagram_socket::send_to(const void* data, std::size_t size, const address& where, deadline until) {
  return send_message(data, size, &where, until);
}

io_result datagram_socket::receive(void* data, std::size_t size, deadline until) {
  return receive_message(data, size, nullptr, until);
}

io_result datagram_socket::receive_from(void* data, std::size_t size, address& from, deadline until) {
  return receive_message(data, size, &from, until);
}

// RFC 3678, the protocol-independent calls.
void datagram_socket::change_group(int change, const address& group, unsigned interface, const char* call) {
  group_req which{};
  which.gr_interface = interface;
  std::memcpy(&which.gr_group, group.data(), group.size());
  check(setsockopt(fd(), group.family() == AF_INET6 ? IPPROTO_IPV6 : IPPROTO_IP, change, &which, sizeof which), call);
}

void datagram_socket::join(const address& group, unsigned interface) {
  change_group(MCAST_JOIN_GROUP, group, interface, "setsockopt(MCAST_JOIN_GROUP)");
}

void datagram_socket::leave(const address& group, unsigned interface) {
  change_group(MCAST_LEAVE_GROUP, group, interface, "setsockopt(MCAST_LEAVE_GROUP)");
}

address datagram_socket::local() const { return detail::name_of<getsockname>(fd(), "getsockname"); }

}  // namespace greenlets::hub
