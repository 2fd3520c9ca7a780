// SPDX-License-Identifier: MIT
// Connections in blocking style: TCP, and Unix domain stream sockets.
#ifndef GREENLET_HUB_TCP_HPP
#define GREENLET_HUB_TCP_HPP

#include <greenlet/hub/address.hpp>
#include <greenlet/hub/io.hpp>

namespace greenlets::hub {

/// One end of a connection, by TCP, where TCP_NODELAY is on, or of a Unix domain stream socket. Reading and writing are
/// descriptor's.
class GREENLET_API connection : public descriptor {
 public:
  connection() noexcept = default;
  /// Takes a connected stream socket. Owns, throws: as descriptor's.
  explicit connection(int fd) : descriptor(fd) {}
  /// Says that nothing more will be written (FIN); reading goes on. Switches: no.
  io_result shutdown_write();
  /// The other end's address, and this end's. Switches: no. Throws: std::system_error with the call,
  /// when it is closed for instance.
  address peer() const;
  address local() const;
};

/// Connects. On success `to` is open; otherwise it is what it was. Switches: to the hub. Thread: any; the
/// connection is this one's. Throws: std::system_error when no socket can be made, or the hub cannot;
/// std::bad_alloc; what is thrown into the caller meanwhile.
GREENLET_API io_result connect(connection& to, const address& where, deadline until = {});

/// A listening socket. Thread: as descriptor. The file of a Unix domain socket stays when it is closed: another process
/// may listen there by then.
class GREENLET_API listener {
 public:
  struct options {
    int backlog = 4096;
    bool share_port = false;    ///< SO_REUSEPORT: the kernel spreads connections over the listeners
    bool remove_stale = false;  ///< the file of a Unix domain socket on which nobody listens any more is removed first
  };

  listener() noexcept = default;
  /// Binds (port 0: the system chooses one) and listens. Throws: std::system_error with the call.
  explicit listener(const address& where) : listener(where, options()) {}
  listener(const address& where, const options& how);
  /// Takes a socket that listens already, from whoever started this program for instance. Owns, throws: as
  /// descriptor's; std::invalid_argument when it does not listen.
  explicit listener(int fd);

  /// Waits for a connection. Errors that concern only the one that came are passed over. Without
  /// descriptors or memory the error is too_many_files_open (or the like) and the listener stays as
  /// it is: wait a little, and accept again.
  /// Switches: to the hub, when nobody is there. Throws: std::bad_alloc, when there is no memory to wait,
  /// or for the one that came, which is then closed; so it is when the system refuses to watch it, which is
  /// std::system_error; error (different_thread, already_waiting); what is thrown into the caller meanwhile.
  io_result accept(connection& to, deadline until = {});
  /// Accepts who is there, for whichever thread: `to` is the caller's to close or to make a connection of. When nobody
  /// is there the error is operation_would_block; else as accept(). Switches: no. Throws: std::system_error, when the
  /// one that came cannot be set up (and is closed); error(different_thread).
  io_result try_accept(int& to);
  /// Waits until somebody may be there. Switches, throws: as descriptor::wait().
  io_result wait(deadline until = {}) { return descriptor_.wait(direction::readable, until); }
  void close() noexcept { descriptor_.close(); }
  /// As descriptor's: gives the socket up, which listens on. Switches: no.
  int release() noexcept { return descriptor_.release(); }
  bool is_open() const noexcept { return descriptor_.is_open(); }
  int fd() const noexcept { return descriptor_.fd(); }  ///< -1 when closed; still owned here
  /// Where it listens. Switches: no. Throws: std::system_error when it is closed.
  address local() const;

 private:
  descriptor descriptor_;
};

}  // namespace greenlets::hub

#endif
