// SPDX-License-Identifier: MIT
// Descriptors in blocking style: reading, writing, waiting.
#ifndef GREENLET_HUB_IO_HPP
#define GREENLET_HUB_IO_HPP

#include <greenlet/detail/api.hpp>
#include <greenlet/hub/deadline.hpp>

#include <cstddef>
#include <cstdint>
#include <sys/uio.h>
#include <system_error>
#include <unistd.h>
#include <utility>

namespace greenlets::hub {

namespace detail {
struct poller;
}  // namespace detail

/// How an operation on a descriptor went. What the other side or the clock does is a result and
/// not an exception.
struct io_result {
  std::size_t bytes = 0;  ///< moved, also when an error came after some
  std::error_code error;  ///< std::generic_category(): the system's

  /// Done, and not the end of the stream.
  explicit operator bool() const noexcept { return !error && !end_; }
  /// The other side will send nothing more.
  bool end() const noexcept { return end_; }
  bool timed_out() const noexcept { return is(std::errc::timed_out); }
  /// The other side has gone without saying good-bye.
  bool reset() const noexcept { return is(std::errc::connection_reset) || is(std::errc::broken_pipe); }
  /// The descriptor was closed here, by another greenlet, while this one waited, or before.
  bool closed() const noexcept { return is(std::errc::operation_canceled); }

  static io_result at_end(std::size_t moved) noexcept {
    io_result r;
    r.bytes = moved;
    r.end_ = true;
    return r;
  }
  static io_result failed(std::errc e, std::size_t moved = 0) noexcept { return {moved, std::make_error_code(e), false}; }
  static io_result failed(int code, std::size_t moved = 0) noexcept {
    return {moved, std::error_code(code, std::generic_category()), false};
  }
  static io_result done(std::size_t moved) noexcept { return {moved, {}, false}; }

  bool end_ = false;

 private:
  // error == e would be two virtual calls.
  bool is(std::errc e) const noexcept { return error.value() == static_cast<int>(e); }
};

/// What to wait for.
enum class direction { readable, writable };

/// A descriptor that the hub does not know, of a file for instance: owned, and no more. Move-only. Thread: any.
class owned_fd {
 public:
  owned_fd() noexcept = default;
  explicit owned_fd(int fd) noexcept : fd_(fd) {}
  owned_fd(owned_fd&& other) noexcept : fd_(other.release()) {}
  owned_fd& operator=(owned_fd&& other) noexcept {
    owned_fd(std::move(other)).swap(*this);
    return *this;
  }
  ~owned_fd() {
    if (fd_ >= 0) ::close(fd_);
  }

  int get() const noexcept { return fd_; }  ///< -1: none
  int release() noexcept { return std::exchange(fd_, -1); }
  void swap(owned_fd& other) noexcept { std::swap(fd_, other.fd_); }

 private:
  int fd_ = -1;
};

/// Owns a descriptor (socket, pipe, terminal: whatever epoll takes), which it makes non-blocking.
/// Move-only. Everything below is for the thread that made it; one greenlet may read while another
/// writes, but two that read at once are an error(already_waiting).
///
/// What reads, writes or waits throws: error (different_thread, already_waiting); when it has to wait also
/// std::bad_alloc, and what is thrown into the caller meanwhile, who is then not told how much was moved.
class GREENLET_API descriptor {
 public:
  descriptor() noexcept = default;
  /// Takes `fd`; when it throws, the caller still owns it. Throws: std::system_error: epoll does not
  /// take it (a regular file, EPERM), or it is not open (EBADF), or the hub cannot be made; std::bad_alloc.
  /// Switches: no, once the thread has a hub.
  explicit descriptor(int fd);
  descriptor(descriptor&& other) noexcept : poller_(std::exchange(other.poller_, nullptr)) {}
  descriptor& operator=(descriptor&& other) noexcept {
    if (this != &other) {
      close();
      poller_ = std::exchange(other.poller_, nullptr);
    }
    return *this;
  }
  ~descriptor() { close(); }

  /// Closes it now; greenlets that wait on it find closed(). Switches: no.
  void close() noexcept;
  /// Gives it up, open and non-blocking: the caller owns it now, and may take it to another thread. Greenlets that
  /// wait on it find closed(). Returns -1 when it is closed. Switches: no.
  int release() noexcept;
  bool is_open() const noexcept;
  int fd() const noexcept;  ///< -1 when closed; still owned here

  /// Reads what there is, at most `size` bytes; waits while there is nothing. `size` 0: nothing.
  /// Switches: to the hub, when it has to wait.
  io_result read_some(void* data, std::size_t size, deadline until = {});
  /// Reads exactly `size` bytes, unless the end or an error comes first. Switches: as read_some().
  io_result read_exactly(void* data, std::size_t size, deadline until = {});
  /// Writes what the system takes now, perhaps nothing. Switches: no.
  io_result try_write(const void* data, std::size_t size);
  io_result try_write_pieces(const iovec* pieces, std::size_t count);
  /// Writes all of it; waits while the other side does not keep up. Switches: to the hub, when it has to wait.
  io_result write_all(const void* data, std::size_t size, deadline until = {});
  /// The same of several pieces, one after the other, in few system calls (writev).
  io_result write_pieces(const iovec* pieces, std::size_t count, deadline until = {});
  /// Writes `size` bytes of a file from `offset` on, without a copy in this process (sendfile); waits as write_all().
  /// at_end() when the file has less. The thread waits for the disk, when the bytes are not in memory. What cannot be read
  /// that way (a pipe, a socket) is an error, EINVAL or ESPIPE.
  io_result send_file(int file, std::uint64_t offset, std::size_t size, deadline until = {});
  /// Waits until the system says that it can be read or written, which is a hint. Switches: to the hub.
  io_result wait(direction d, deadline until = {});

 private:
  detail::poller* poller_ = nullptr;
};

/// Waits on somebody else's descriptor, which stays theirs and as it is: enough to drive any library
/// that gives one. A greenlet that waits here does not notice that it is closed.
/// Switches: to the hub. Thread: any, with the hub of its own. Throws: std::system_error as descriptor's
/// constructor, std::bad_alloc, and what is thrown into the caller meanwhile.
GREENLET_API io_result wait(int fd, direction d, deadline until = {});

}  // namespace greenlets::hub

#endif
