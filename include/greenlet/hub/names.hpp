// SPDX-License-Identifier: MIT
// Names of hosts: their addresses, and connecting by name.
#ifndef GREENLET_HUB_NAMES_HPP
#define GREENLET_HUB_NAMES_HPP

#include <greenlet/hub/tcp.hpp>

#include <cstdint>
#include <string>
#include <system_error>
#include <vector>

namespace greenlets::hub {

/// Of the codes EAI_* of getaddrinfo(3), as <netdb.h> has them; the texts are those of gai_strerror(3).
GREENLET_API const std::error_category& name_category() noexcept;

/// What became of a look-up.
struct resolution {
  /// For stream sockets, in the order of the system (RFC 6724), each once; none when there is an error.
  std::vector<address> addresses;
  /// In name_category(); or the system's, in std::generic_category(): where that says EAI_SYSTEM, when the name cannot
  /// be one, and timed_out when the deadline came first.
  std::error_code error;

  explicit operator bool() const noexcept { return !error; }
  bool timed_out() const noexcept { return error == std::errc::timed_out; }
};

/// Looks up a host, as getaddrinfo(3) does (POSIX.1-2008), on a thread of libuv's pool (see offload()), of which names
/// take at most half. A numeric address is answered at once. A name in other letters than ASCII (UTF-8) is looked up
/// as IDNA has it. The service is a port's number or a name of services(5).
///
/// When the deadline comes, or something is thrown into the caller, the caller goes on at once; the system's look-up
/// goes on too, has a thread of the pool until it ends, and the hub's end waits for it.
///
/// Switches: to the hub, unless the address is numeric. Thread: any, in its own hub. Throws: std::bad_alloc; what
/// making the hub throws (std::system_error); what is thrown into the caller meanwhile.
GREENLET_API resolution resolve(const std::string& host, const std::string& service, deadline until = {});
GREENLET_API resolution resolve(const std::string& host, std::uint16_t port, deadline until = {});

/// Looks up the host, and connects to the first of its addresses that can be connected to, one after the other. On
/// success `to` is open; otherwise it is what it was, and the error is the look-up's, or the last address's. The
/// deadline bounds all of it. Switches, thread, throws: as resolve() and connect().
GREENLET_API io_result connect(connection& to, const std::string& host, std::uint16_t port, deadline until = {});

}  // namespace greenlets::hub

#endif
