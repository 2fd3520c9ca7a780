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
    b->wear();
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
  b->wear();
  b->held = std::move(e);
  ++t.holding;
  t.raise(attention::held);
}

std::exception_ptr take_held(thread_record& t, body* b) noexcept {
  if (b->held && --t.holding == 0) t.lower(attention::held);
  return std::exchange(b->held, nullptr);
}

void wait_for_kill(thread_record& t, body* oldest) noexcept {
  for (body* b = oldest; b; b = b->next_dropped) {
    b->previous_dropped = t.to_kill_last;
    (t.to_kill_last ? t.to_kill_last->next_dropped : t.to_kill) = b;
    t.to_kill_last = b;
  }
}

static void take_out(thread_record& t, body* b) noexcept {
  (b->previous_dropped ? b->previous_dropped->next_dropped : t.to_kill) = b->next_dropped;
  (b->next_dropped ? b->next_dropped->previous_dropped : t.to_kill_last) = b->previous_dropped;
  b->next_dropped = b->previous_dropped = nullptr;
  left_queue(b);
}

bool take_dropped(thread_record& t, body* b) noexcept {
  wait_for_kill(t, t.dropped.take_all());
  if (t.to_kill != b && !b->previous_dropped) return false;
  take_out(t, b);
  return true;
}

void drop_waiting(thread_record& t) noexcept {
  while (body* b = t.to_kill) {
    take_out(t, b);
    if (t.to_kill) t.raise(attention::dropped);
    unref(b);
  }
}

void flush_dropped(thread_record& t) noexcept {
  t.lower(attention::dropped);
  wait_for_kill(t, t.dropped.take_all());
  // One at a time from the thread's own list: whoever enters the library while one is being unwound
  // takes the next, for that one may keep us waiting.
  drop_waiting(t);
}

}  // namespace greenlets::detail
