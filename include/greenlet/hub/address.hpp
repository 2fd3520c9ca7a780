// SPDX-License-Identifier: MIT
// address: where a socket is.
#ifndef GREENLET_HUB_ADDRESS_HPP
#define GREENLET_HUB_ADDRESS_HPP

#include <greenlet/detail/api.hpp>

#include <cstdint>
#include <string>
#include <sys/socket.h>

namespace greenlets::hub {

/// An IPv4 or IPv6 address with a port, or the address of a Unix domain socket.
class GREENLET_API address {
 public:
  address() noexcept = default;
  /// From a number in text ("127.0.0.1", "::1"); names are not looked up.
  /// Throws: std::invalid_argument.
  address(const std::string& ip, std::uint16_t port);
  address(const sockaddr* from, socklen_t size) noexcept;

  int family() const noexcept { return storage_.ss_family; }  ///< AF_INET, AF_INET6, AF_UNIX; AF_UNSPEC of none
  std::uint16_t port() const noexcept;                        ///< 0 of a Unix domain socket
  /// "127.0.0.1:80", "[::1]:80", "/run/d.sock", "@abstract"; for people.
  std::string text() const;
  const sockaddr* data() const noexcept { return reinterpret_cast<const sockaddr*>(&storage_); }
  socklen_t size() const noexcept { return size_; }

 private:
  sockaddr_storage storage_{};
  socklen_t size_ = 0;
};

/// The address of a Unix domain socket: a path, or with "@" in front a name in Linux's abstract namespace, which is
/// no file and goes with its socket. Throws: std::invalid_argument: empty, a zero byte in a path, or more than the
/// 107 bytes that unix(7) has room for.
GREENLET_API address unix_address(const std::string& path);

}  // namespace greenlets::hub

#endif
