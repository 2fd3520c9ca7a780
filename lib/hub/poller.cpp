// SPDX-License-Identifier: MIT
// poller: arming, events, and a descriptor's end.
#include "poller.hpp"

#include <memory>
#include <sys/stat.h>
#include <utility>

namespace greenlets::hub::detail {

poller::poller(loop& l, int descriptor) noexcept : fd(descriptor), socket(false), owned(true), home(l) {}

poller* poller::make(int fd) {
  auto p = std::make_unique<poller>(loop::mine(), fd);
  check_uv(uv_poll_init(p->home->uv(), &p->handle, fd), "uv_poll_init");
  p->handle.data = p.get();
  // Whether to block is decided by who waits (loop::turn), not by what is armed.
  uv_unref(reinterpret_cast<uv_handle_t*>(&p->handle));
  struct stat s;
  p->socket = fstat(fd, &s) == 0 && S_ISSOCK(s.st_mode);
  return p.release();
}

void poller::watch(int mask) {
  if (mask == armed) return;  // starting anew with the same mask would not be free
  if (mask)
    check_uv(uv_poll_start(&handle, mask, on_event), "uv_poll_start");
  else
    uv_poll_stop(&handle);
  armed = static_cast<std::uint8_t>(mask);
}

// Apart, for it has what needs room on the stack of every wait.
static __attribute__((noinline, cold)) void throw_already_waiting(const poller& p, direction d, const waiter& other) {
  throw error(errc::already_waiting, d == direction::readable ? "another greenlet already waits to read"
                                                              : "another greenlet already waits to write",
              "  descriptor " + std::to_string(p.fd) + ", greenlet " + std::to_string(other.who.id()));
}

waiter::end poller::wait(direction d, deadline until) {
  waiter*& place = d == direction::readable ? reader : writer;
  if (place) throw_already_waiting(*this, d, *place);
  if (home->closed()) return waiter::end::closed;
  watch(armed | (d == direction::readable ? UV_READABLE : UV_WRITABLE));
  waiter* w = home->begin();
  place = w;
  w->slot = &place;
  w->external = true;
  return home->park(w, until);  // `this` may be gone afterwards
}

void poller::on_event(uv_poll_t* handle, int status, int events) {
  poller& p = *reinterpret_cast<poller*>(handle);  // its first member
  p.drained = false;
  if (status < 0) {
    // libuv has stopped the handle. What happened, the next read or write will tell.
    p.armed = 0;
    events = UV_READABLE | UV_WRITABLE;
  }
  waiter* const reads = events & UV_READABLE ? p.reader : nullptr;
  waiter* const writes = events & UV_WRITABLE ? p.writer : nullptr;
  int unwanted = 0;
  if (events & UV_READABLE && !reads) unwanted |= UV_READABLE;
  if (events & UV_WRITABLE && !writes) unwanted |= UV_WRITABLE;
  if (unwanted & p.armed) p.watch(p.armed & ~unwanted);
  loop& l = *p.home;
  if (reads && writes) l.make_ready(reads, waiter::end::woken);
  if (reads || writes) l.resume_soon(writes ? writes : reads, waiter::end::woken);
}

int poller::release() noexcept {
  const loop_ref keep = home;
  owned = false;
  for (waiter** place : {&reader, &writer})
    if (waiter* w = std::exchange(*place, nullptr)) {
      w->slot = nullptr;
      keep->make_ready(w, waiter::end::closed);
      w->why = waiter::end::closed;  // also when it is ready already: its descriptor may be gone when it goes on
    }
  const int released = std::exchange(fd, -1);
  detach();  // libuv takes the number out of its epoll set at once: afterwards it may be closed, or watched elsewhere
  return released;
}

void poller::detach() noexcept {
  auto* h = reinterpret_cast<uv_handle_t*>(&handle);
  if (in_loop && !uv_is_closing(h))
    uv_close(h, on_closed);
  else if (!in_loop && !owned)
    delete this;
}

void poller::on_closed(uv_handle_t* handle) {
  auto* p = static_cast<poller*>(handle->data);
  p->in_loop = false;
  if (!p->owned) delete p;
}

}  // namespace greenlets::hub::detail
