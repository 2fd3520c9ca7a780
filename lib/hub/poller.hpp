// SPDX-License-Identifier: MIT
// poller: what a loop keeps of one descriptor: one uv_poll_t, one reader, one writer.
//
// Interest stays armed between waits: each uv_poll_start or _stop is two or three calls of epoll_ctl,
// more than the read itself. It is taken back when an event finds nobody waiting, else a level that
// nobody consumes would wake the loop for ever.
#ifndef LIB_HUB_POLLER_HPP
#define LIB_HUB_POLLER_HPP

#include "loop.hpp"

#include <greenlet/hub/io.hpp>

#include <cstdint>
#include <uv.h>

namespace greenlets::hub::detail {

// Among many thousands none is in a cache when its event comes. What libuv looks at then is the end of its handle,
// and that with the rest are two lines.
struct alignas(64) poller {
  uv_poll_t handle;
  int fd;
  std::uint8_t armed = 0;    // what libuv watches for: UV_READABLE | UV_WRITABLE
  // The last read brought less than was asked for: the next would block, so it waits at once. Any
  // event takes this back. Right as long as the level is armed before the wait.
  bool drained = false;
  bool socket : 1;           // written to without SIGPIPE by a flag
  bool owned : 1;            // by a descriptor
  bool in_loop = true;       // by libuv, until its close callback
  loop_ref home;
  waiter* reader = nullptr;  // who waits for it
  waiter* writer = nullptr;

  poller(loop& l, int descriptor) noexcept;

  // Throws std::system_error; `fd` is then not taken.
  static poller* make(int fd);

  // Waits; any answer is a hint, except closed: then neither this nor its owner may be touched.
  waiter::end wait(direction d, deadline until);
  // Wakes who waits, and frees this when libuv lets go. The descriptor is the caller's, open, and no longer watched.
  int release() noexcept;
  // The loop ends: nothing can be waited for any more; the descriptor stays open.
  void detach() noexcept;

 private:
  static void on_event(uv_poll_t* handle, int status, int events);
  static void on_closed(uv_handle_t* handle);
  void watch(int mask);
};

#ifdef __LP64__
static_assert(sizeof(poller) == 192);
#endif

}  // namespace greenlets::hub::detail

#endif
