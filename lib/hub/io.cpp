// SPDX-License-Identifier: MIT
// Descriptors in blocking style.
#include <greenlet/hub/io.hpp>

#include "poller.hpp"
#include "system.hpp"

#include <fcntl.h>
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
    const ssize_t n = p.socket ? ::send(p.fd, data, size, MSG_NOSIGNAL) : ::write(p.fd, data, size);
    if (n >= 0 || errno != EINTR) return n;
  }
}

bool would_block() noexcept { return errno == EAGAIN || errno == EWOULDBLOCK; }

// The poller, when it can be used here and now.
poller* usable(poller* p) {
  if (p && !p->home->closed() && &*p->home != detail::loop::mine_if_any())
    throw error(errc::different_thread, "a descriptor belongs to the hub of a different thread",
                "  descriptor " + std::to_string(p->fd));
  return p && !p->home->closed() ? p : nullptr;
}

io_result ended(waiter::end why, std::size_t moved) noexcept {
  return io_result::failed(why == waiter::end::timeout ? std::errc::timed_out : std::errc::operation_canceled, moved);
}

}  // namespace

descriptor::descriptor(int fd) : poller_(poller::make(fd)) {}

void descriptor::close() noexcept {
  if (poller* p = std::exchange(poller_, nullptr)) p->close();
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
  if (size == 0) return io_result::done(0);
  const ssize_t n = write_now(*p, data, size);
  if (n >= 0) return io_result::done(static_cast<std::size_t>(n));
  return would_block() ? io_result::done(0) : io_result::failed(errno);
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
