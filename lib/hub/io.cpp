// SPDX-License-Identifier: MIT
// Descriptors in blocking style.
#include <greenlet/hub/io.hpp>

#include "poller.hpp"
#include "system.hpp"

#include <algorithm>
#include <fcntl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>

namespace greenlets::hub {
namespace {

using detail::poller;
using detail::waiter;

// The system calls, again when a signal came between.
ssize_t read_now(int fd, void* data, std::size_t size) noexcept {
  for (;;)
    if (const ssize_t n = ::read(fd, data, size); n >= 0 || errno != EINTR) return n;
}

ssize_t write_now(const poller& p, const void* data, std::size_t size) noexcept {
  for (;;) {
    const ssize_t n = p.socket ? ::send(p.fd, data, size, MSG_NOSIGNAL) : (detail::sigpipe_held(), ::write(p.fd, data, size));
    if (n >= 0 || errno != EINTR) return n;
  }
}

ssize_t write_now(const poller& p, const iovec* pieces, std::size_t count) noexcept {
  msghdr m{};
  m.msg_iov = const_cast<iovec*>(pieces);
  m.msg_iovlen = count;
  for (;;) {
    const ssize_t n = p.socket ? ::sendmsg(p.fd, &m, MSG_NOSIGNAL)
                               : (detail::sigpipe_held(), ::writev(p.fd, pieces, static_cast<int>(count)));
    if (n >= 0 || errno != EINTR) return n;
  }
}

bool would_block() noexcept { return errno == EAGAIN || errno == EWOULDBLOCK; }

// One that has not the hub of this thread.
__attribute__((noinline, cold)) poller* unusable(poller* p) {
  if (p && !p->home->closed())
    throw error(errc::different_thread, "a descriptor belongs to the hub of a different thread",
                "  descriptor " + std::to_string(p->fd));
  return nullptr;
}

// The poller, when it can be used here and now.
inline poller* usable(poller* p) {
  return __builtin_expect(p && &*p->home == detail::loop::mine_if_any(), 1) ? p : unusable(p);
}

io_result ended(waiter::end why, std::size_t moved) noexcept {
  return io_result::failed(why == waiter::end::timeout ? std::errc::timed_out : std::errc::operation_canceled, moved);
}

// What a write gave.
io_result taken(ssize_t n) noexcept {
  if (n >= 0) return io_result::done(static_cast<std::size_t>(n));
  return would_block() ? io_result::done(0) : io_result::failed(errno);
}

constexpr std::size_t most_pieces = 64;  // in one call; Linux takes 1,024, but the list is copied

}  // namespace

descriptor::descriptor(int fd) : poller_(poller::make(fd)) {}

void descriptor::close() noexcept {
  if (const int fd = release(); fd >= 0) ::close(fd);
}

int descriptor::release() noexcept {
  poller* const p = std::exchange(poller_, nullptr);
  return p ? p->release() : -1;
}

bool descriptor::is_open() const noexcept { return poller_ != nullptr; }

int descriptor::fd() const noexcept { return poller_ ? poller_->fd : -1; }

io_result descriptor::wait(direction d, deadline until) {
  poller* const p = usable(poller_);
  if (!p) return ended(waiter::end::closed, 0);
  const waiter::end why = p->wait(d, until);
  return why == waiter::end::woken ? io_result::done(0) : ended(why, 0);
}

io_result descriptor::read_some(void* data, std::size_t size, deadline until) {
  if (size == 0) return io_result::done(0);
  for (;;) {
    poller* const p = usable(poller_);
    if (!p) return ended(waiter::end::closed, 0);
    if (!p->drained || !(p->armed & UV_READABLE)) {
      const ssize_t n = read_now(p->fd, data, size);
      if (n == 0) return io_result::at_end(0);
      if (n > 0) {
        p->drained = static_cast<std::size_t>(n) < size;
        return io_result::done(static_cast<std::size_t>(n));
      }
      if (!would_block()) return io_result::failed(errno);
    }
    // Closed: this object may be gone as well.
    if (const waiter::end why = p->wait(direction::readable, until); why != waiter::end::woken) return ended(why, 0);
  }
}

io_result descriptor::read_exactly(void* data, std::size_t size, deadline until) {
  std::size_t moved = 0;
  while (moved < size) {
    io_result r = read_some(static_cast<char*>(data) + moved, size - moved, until);
    moved += r.bytes;
    r.bytes = moved;
    if (!r) return r;
  }
  return io_result::done(moved);
}

io_result descriptor::try_write(const void* data, std::size_t size) {
  poller* const p = usable(poller_);
  if (!p) return ended(waiter::end::closed, 0);
  return size == 0 ? io_result::done(0) : taken(write_now(*p, data, size));
}

io_result descriptor::try_write_pieces(const iovec* pieces, std::size_t count) {
  poller* const p = usable(poller_);
  if (!p) return ended(waiter::end::closed, 0);
  return count == 0 ? io_result::done(0) : taken(write_now(*p, pieces, std::min(count, most_pieces)));
}

io_result descriptor::write_all(const void* data, std::size_t size, deadline until) {
  std::size_t moved = 0;
  for (;;) {
    io_result r = try_write(static_cast<const char*>(data) + moved, size - moved);
    moved += r.bytes;
    r.bytes = moved;
    if (!r || moved == size) return r;
    if (const waiter::end why = poller_->wait(direction::writable, until); why != waiter::end::woken)
      return ended(why, moved);
  }
}

io_result descriptor::write_pieces(const iovec* pieces, std::size_t count, deadline until) {
  std::size_t moved = 0, begun = 0;  // of the first piece
  for (;;) {
    iovec now[most_pieces];
    const std::size_t n = std::min(count, most_pieces);
    std::copy_n(pieces, n, now);
    if (begun) now[0] = {static_cast<char*>(now[0].iov_base) + begun, now[0].iov_len - begun};
    const io_result r = try_write_pieces(now, n);
    if (!r) return io_result::failed(r.error.value(), moved);
    moved += r.bytes;
    for (begun += r.bytes; count > 0 && begun >= pieces->iov_len; --count) begun -= pieces++->iov_len;
    if (count == 0) return io_result::done(moved);
    if (begun == 0 && r.bytes > 0) continue;  // whole pieces went: perhaps all that were offered
    if (const waiter::end why = poller_->wait(direction::writable, until); why != waiter::end::woken)
      return ended(why, moved);
  }
}

io_result descriptor::send_file(int file, std::uint64_t offset, std::size_t size, deadline until) {
  constexpr std::size_t at_once = 1024 * 1024;  // then the others have their turn
  std::size_t moved = 0;
  for (;;) {
    poller* const p = usable(poller_);
    if (!p) return ended(waiter::end::closed, moved);
    if (moved == size) return io_result::done(moved);
    auto at = static_cast<off_t>(offset + moved);
    const ssize_t n = (detail::sigpipe_held(), ::sendfile(p->fd, file, &at, std::min(size - moved, at_once)));
    if (n == 0) return io_result::at_end(moved);
    if (n > 0) {
      moved += static_cast<std::size_t>(n);
      if (static_cast<std::size_t>(n) == at_once) yield();
    } else if (would_block()) {
      if (const waiter::end why = p->wait(direction::writable, until); why != waiter::end::woken) return ended(why, moved);
    } else if (errno != EINTR) {
      return io_result::failed(errno, moved);
    }
  }
}

io_result wait(int fd, direction d, deadline until) {
  // A descriptor of our own to the same open file: should its owner close his meanwhile, libuv would
  // find a number that is not open, or somebody else's, and abort.
  detail::unowned_fd own(fcntl(fd, F_DUPFD_CLOEXEC, 0), "fcntl(F_DUPFD_CLOEXEC)");
  const int flags = fcntl(fd, F_GETFL);
  descriptor watched(own.get());
  own.taken();
  fcntl(fd, F_SETFL, flags);  // libuv has made it non-blocking, which the two share
  return watched.wait(d, until);
}

}  // namespace greenlets::hub
