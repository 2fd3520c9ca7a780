// SPDX-License-Identifier: MIT
// datagram_socket: messages without a connection, by UDP or between Unix domain sockets.
//
//   hub::datagram_socket socket(hub::address("127.0.0.1", 5353));
//   char buffer[1500];
//   hub::address from;
//   while (auto got = socket.receive_from(buffer, sizeof buffer, from))
//     socket.send_to(buffer, got.bytes, from);
#ifndef GREENLET_HUB_DATAGRAM_HPP
#define GREENLET_HUB_DATAGRAM_HPP

#include <greenlet/hub/address.hpp>
#include <greenlet/hub/io.hpp>

#include <cstddef>

namespace greenlets::hub {

/// A socket for datagrams. A datagram is sent and received as a whole; one without bytes is one too, and no end.
/// Thread, throws: as descriptor; one greenlet may receive while another sends.
class GREENLET_API datagram_socket {
 public:
  struct options {
    bool share_port = false;  ///< SO_REUSEPORT: the kernel spreads senders over the sockets
    bool broadcast = false;   ///< SO_BROADCAST: may send to broadcast addresses
    bool only_v6 = false;     ///< IPV6_V6ONLY: of "::" no IPv4 comes in
  };

  datagram_socket() noexcept = default;
  /// Binds (port 0: the system chooses one). The file of a Unix domain socket stays when it is closed.
  /// Throws: std::system_error with the call; std::bad_alloc.
  explicit datagram_socket(const address& where) : datagram_socket(where, options()) {}
  datagram_socket(const address& where, const options& how);
  /// One that is not bound: AF_INET, AF_INET6 or AF_UNIX. The system gives it a port when it sends; a Unix domain
  /// socket that is not bound cannot be answered.
  explicit datagram_socket(int family) : datagram_socket(family, options()) {}
  datagram_socket(int family, const options& how);

  /// From now on send() goes there, only what comes from there is received, and what the other side's system answers
  /// ("connection refused") is an error of the next operation. Switches: no.
  io_result connect(const address& where);

  /// Sends one datagram, or waits until the system takes it. More than fits in one: EMSGSIZE. Switches: to the hub, when
  /// it has to wait.
  io_result send(const void* data, std::size_t size, deadline until = {});
  io_result send_to(const void* data, std::size_t size, const address& where, deadline until = {});
  /// Receives one, or waits for it. Of one with more than `size` bytes the rest is lost, and the error is message_size, with
  /// `size` bytes. Switches: to the hub, when it has to wait.
  io_result receive(void* data, std::size_t size, deadline until = {});
  io_result receive_from(void* data, std::size_t size, address& from, deadline until = {});

  /// Receives also what is sent to a multicast group, on the interface with this number (if_nametoindex(3)), or on
  /// the one that the system chooses. Switches: no. Throws: std::system_error.
  void join(const address& group, unsigned interface = 0);
  void leave(const address& group, unsigned interface = 0);

  void close() noexcept { descriptor_.close(); }  ///< as descriptor::close()
  bool is_open() const noexcept { return descriptor_.is_open(); }
  int fd() const noexcept { return descriptor_.fd(); }  ///< -1 when closed; still owned here
  /// Where it is bound. Switches: no. Throws: std::system_error when it is closed.
  address local() const;

 private:
  void open(int family, const options& how, const address* where);
  io_result send_message(const void* data, std::size_t size, const address* where, deadline until);
  io_result receive_message(void* data, std::size_t size, address* from, deadline until);
  void change_group(int add, const address& group, unsigned interface, const char* call);

  descriptor descriptor_;
};

}  // namespace greenlets::hub

#endif
