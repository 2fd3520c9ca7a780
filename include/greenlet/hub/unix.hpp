// SPDX-License-Identifier: MIT
// What only Unix domain sockets can: who the other side is, and handing it descriptors.
//
//   hub::listener listener(hub::unix_address("/run/d.sock"), options);
//   hub::connection c;
//   listener.accept(c);
//   if (hub::peer_credentials(c).uid != 0) return;
//   hub::send_descriptors(c, "f", 1, {file});
#ifndef GREENLET_HUB_UNIX_HPP
#define GREENLET_HUB_UNIX_HPP

#include <greenlet/hub/tcp.hpp>

#include <cstddef>
#include <initializer_list>
#include <sys/types.h>
#include <utility>
#include <vector>

namespace greenlets::hub {

/// Who connected, or listened when this side connected: as it was then, whatever it has become (SO_PEERCRED, unix(7)).
struct credentials {
  pid_t pid;
  uid_t uid;
  gid_t gid;
};

/// Of the other side of a Unix domain stream socket. Switches: no. Throws: std::system_error, when it is closed for instance.
GREENLET_API credentials peer_credentials(const descriptor& c);

/// Both ends of a Unix domain stream socket without a name. Throws: std::system_error, std::bad_alloc. Thread: any; the
/// ends are this one's.
GREENLET_API std::pair<connection, connection> connection_pair();

/// Most descriptors that one message can carry (Linux's SCM_MAX_FD).
inline constexpr std::size_t most_descriptors = 253;

/// Writes all of `data`, of which there has to be a byte at least, and with the first of it copies of the descriptors
/// `fds`, which stay the caller's. Switches: to the hub, when it has to wait. Throws: as descriptor::write_all();
/// std::invalid_argument: no data, or too many descriptors. An EBADF is a result: nothing was sent then.
GREENLET_API io_result send_descriptors(descriptor& c, const void* data, std::size_t size, const int* fds, std::size_t count,
                                        deadline until = {});
inline io_result send_descriptors(descriptor& c, const void* data, std::size_t size, std::initializer_list<int> fds,
                                  deadline until = {}) {
  return send_descriptors(c, data, size, fds.begin(), fds.size(), until);
}

/// As descriptor::read_some(), and appends to `fds` the descriptors that came with what was read. Who reads them otherwise
/// loses them: the kernel closes them. When this process has no room for more descriptors the error is
/// too_many_files_open, with `bytes` read and those appended for which there was room.
/// Switches, throws: as read_some(); std::bad_alloc, before anything is read.
GREENLET_API io_result receive_descriptors(descriptor& c, void* data, std::size_t size, std::vector<owned_fd>& fds, deadline until = {});

}  // namespace greenlets::hub

#endif
