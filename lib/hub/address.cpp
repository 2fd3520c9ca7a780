// SPDX-License-Identifier: MIT
// address: its forms, and its text.
#include <greenlet/hub/address.hpp>

#include <arpa/inet.h>
#include <cstddef>
#include <cstring>
#include <netinet/in.h>
#include <stdexcept>
#include <sys/un.h>

namespace greenlets::hub {
namespace {

constexpr std::size_t path_at = offsetof(sockaddr_un, sun_path);

// unix(7): `size` is 0 of a socket without a name; a name that begins with a zero byte is abstract, and all of its
// bytes count; a path ends with one, or with the address.
std::string unix_text(const char* path, std::size_t size) {
  if (size == 0) return "unnamed";
  if (path[0] == 0) return "@" + std::string(path + 1, size - 1);
  return {path, strnlen(path, size)};
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
    case AF_UNIX: return unix_text(reinterpret_cast<const sockaddr_un*>(&storage_)->sun_path, size_ - path_at);
    default: return "no address";
  }
}

address unix_address(const std::string& path) {
  sockaddr_un a{};
  a.sun_family = AF_UNIX;
  const bool abstract = !path.empty() && path[0] == '@';
  // The byte after a path is 0; an abstract name has its length instead.
  if (path.empty() || path.size() >= sizeof a.sun_path || (!abstract && path.find('\0') != std::string::npos))
    throw std::invalid_argument("greenlets::hub::unix_address: not 1 to 107 bytes without a zero byte: \"" + path + "\"");
  path.copy(a.sun_path, sizeof a.sun_path);
  if (abstract) a.sun_path[0] = 0;
  return {reinterpret_cast<const sockaddr*>(&a), static_cast<socklen_t>(path_at + path.size() + (abstract ? 0 : 1))};
}

}  // namespace greenlets::hub
