// SPDX-License-Identifier: MIT
// go_to: a switch for who has no use for what is sent. No value is made of it, on a stack that has been left for long
// and is in no cache.
#ifndef LIB_HUB_GO_HPP
#define LIB_HUB_GO_HPP

#include "body.hpp"

#include <greenlet/greenlet.hpp>

#include <cstdint>

namespace greenlets::hub::detail {

inline bool is_running(const greenlet& g) noexcept {
  return access::body_of(g) == greenlets::detail::hot_thread_v1->current.load(std::memory_order_relaxed);
}

// Begins to bring what a switch to it will touch: its record; and what is on its stack, when the record is there.
inline void fetch_record(const greenlet& g) noexcept {
  __builtin_prefetch(static_cast<greenlets::detail::hot_body*>(access::body_of(g)));
}
inline void fetch_stack(const greenlet& g) noexcept {
  constexpr unsigned lines = 6;
  const greenlets::detail::hot_body* const b = access::body_of(g);
  const auto from = reinterpret_cast<std::uintptr_t>(b->where.sp) - 64;  // where it will call; that of one that is unstarted is null
  for (unsigned i = 0; i < lines; ++i) __builtin_prefetch(reinterpret_cast<const void*>(from + 64 * i));
}

// Every other switch than the straight one.
__attribute__((noinline)) void go_slowly(const greenlet& target);

#ifdef GREENLET_INLINE_SWITCH

// Destroys what was sent, or throws what was thrown.
__attribute__((noinline)) void drop(greenlets::detail::machine::cargo c, greenlets::detail::machine::context* self);

GREENLET_ALWAYS_INLINE void go_straight_to(greenlets::detail::hot_thread* t, greenlets::detail::hot_body* from,
                                           greenlets::detail::hot_body* to, greenlets::detail::machine::context& there) {
  using namespace greenlets::detail;
  exchange_exceptions(t, from, to);
  t->current.store(static_cast<body*>(to), std::memory_order_relaxed);
  machine::context* self;
  const machine::cargo got = machine::go(from->where, there, {}, self);
  if (__builtin_expect(got.kind != nullptr, 0)) drop(got, self);
}

GREENLET_ALWAYS_INLINE void go_to(const greenlet& target) {
  using namespace greenlets::detail;
  hot_thread* const t = hot_thread_v1;
  hot_body* const to = access::body_of(target);
  hot_body* const from = t->current.load(std::memory_order_relaxed);
  if (__builtin_expect(to == from || !is_straight(t, to), 0)) return go_slowly(target);
  go_straight_to(t, from, to, to->where);
}

// Where one begins that is unstarted, and has been started by this; null when that is no plain start, and nothing has
// been done.
inline greenlets::detail::machine::context* start_if_plain(const greenlet& target) noexcept {
  return greenlets::detail::start_straight(greenlets::detail::hot_thread_v1, access::body_of(target));
}

// Who has been started by that goes there.
GREENLET_ALWAYS_INLINE void begin_at(const greenlet& target, greenlets::detail::machine::context& there) {
  using namespace greenlets::detail;
  hot_thread* const t = hot_thread_v1;
  go_straight_to(t, t->current.load(std::memory_order_relaxed), access::body_of(target), there);
}

#else

inline void go_to(const greenlet& target) { go_slowly(target); }
inline greenlets::detail::machine::context* start_if_plain(const greenlet&) noexcept { return nullptr; }
inline void begin_at(const greenlet&, greenlets::detail::machine::context&) {}

#endif

}  // namespace greenlets::hub::detail

#endif
