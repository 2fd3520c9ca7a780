// SPDX-License-Identifier: MIT
// Unwinding one greenlet from outside: its last handle has gone, or its thread ends.
#include "thread.hpp"

#include <exception>
#include <utility>

namespace greenlets::detail {

void unwind_one(thread_record& t, body* b, greenlet_exit::reason why) noexcept {
  body* const self = t.running();
  // While it dies it is our child, so that control comes back here.
  ref(self);
  body* const parent = exchange_parent(b, self);
  {
    // Suspended in a destructor that an exception is running, or in that of its callable, it must not be
    // thrown at: that would be std::terminate. It is on its way out already; it goes on, and finds
    // nothing sent. One that has not begun is told when its callable's destructor is over.
    parcel exit;
    if (b->beginning)
      b->told = b->told.value_or(why);
    else if (b->exceptions.uncaught == 0 && !b->ending)
      exit.thrown = std::make_exception_ptr(greenlet_exit(why));
    arrival how;
    parcel got = jump(t, b, std::move(exit), how);
    if (how.traced) trace(t, got, how.origin);
    if (got.thrown) {
      if ((how.left == b && b->dead()) || t.exited.load(std::memory_order_relaxed))
        report_unraisable(b, std::move(got.thrown));
      else  // somebody threw into us, and we are in a destructor
        hold(t, self, std::move(got.thrown));
    }
    if (got.forced && !t.unwinding) {
      t.forced_state = got.forced_state;
      t.raise(attention::forced);
    }
  }
  if (b->parent.load(std::memory_order_relaxed) == self)
    restore_parent(b, parent);
  else
    unref(parent);  // it chose another parent meanwhile, and we are already dropped
}

void hold(thread_record& t, body* b, std::exception_ptr e) noexcept {
  if (b->held) return report_unraisable(b, std::move(e));
  b->held = std::move(e);
  ++t.holding;
  t.raise(attention::held);
}

std::exception_ptr take_held(thread_record& t, body* b) noexcept {
  if (b->held && --t.holding == 0) t.lower(attention::held);
  return std::exchange(b->held, nullptr);
}

// To where the thread looks at them alone.
static void take_queue(thread_record& t) noexcept {
  body** end = &t.to_kill;
  while (*end) end = &(*end)->next_dropped;
  *end = t.dropped.take_all();
}

bool take_dropped(thread_record& t, body* b) noexcept {
  take_queue(t);
  body** at = &t.to_kill;
  while (*at && *at != b) at = &(*at)->next_dropped;
  if (!*at) return false;
  *at = std::exchange(b->next_dropped, nullptr);
  left_queue(b);
  return true;
}

void flush_dropped(thread_record& t) noexcept {
  t.lower(attention::dropped);
  take_queue(t);
  // One at a time from the thread's own list: whoever enters the library while one is being unwound
  // takes the next, for that one may keep us waiting.
  while (body* b = t.to_kill) {
    t.to_kill = std::exchange(b->next_dropped, nullptr);
    if (t.to_kill) t.raise(attention::dropped);
    left_queue(b);
    unref(b);
  }
}

}  // namespace greenlets::detail
