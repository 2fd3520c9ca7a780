// SPDX-License-Identifier: MIT
// A thread's end: every greenlet of it is unwound, on it, before it can be joined.
#include "thread.hpp"

#include <exception>
#include <utility>

namespace greenlets::detail {
namespace {

// How often a greenlet is told to end before it is reported and left; also how many generations of
// greenlets may start others while they die.
constexpr unsigned most_rounds = 16;

body* next_of_round(thread_record& t, unsigned round) noexcept {
  for (body* b = t.active; b; b = b->next_active)
    if (b->kills < round) return b;
  return nullptr;
}

// Makes an active greenlet dead whose stack will never run again. Its memory stays: the objects on
// it were not destroyed, and others may point at them.
void give_up(thread_record& t, body* b) noexcept {
  unlist(t, b);
  b->memory = nullptr;
  b->context = nullptr;
  if (std::exchange(b->held, nullptr)) --t.holding;
  b->state.store(life::unwound, std::memory_order_release);
  if (std::exchange(b->orphan, false)) unref(b);
  if (std::exchange(b->abandoned, false)) unref(b);
}

void give_up_the_rest(thread_record& t) noexcept {
  while (body* b = t.active) {
    ref(b);
    report_refusal(b);
    give_up(t, b);
    unref(b);
  }
}

// pthread_exit in code without unwind information goes straight to the thread's first frame. The
// greenlet that called it is then still current, and its frames are lost.
void come_back_to_main(thread_record& t) noexcept {
  body* const lost = t.running();
  if (lost == t.main) return;
  *t.exceptions = t.main->exceptions;
  t.current.store(t.main, std::memory_order_relaxed);
  report_refusal(lost);
  give_up(t, lost);
}

void unref_all(body* dropped) noexcept {
  while (body* b = dropped) {
    dropped = std::exchange(b->next_dropped, nullptr);
    unref(b);
  }
}

}  // namespace

void unwind(thread_record& t) noexcept {
  come_back_to_main(t);
  for (t.unwinding = 1; t.unwinding <= most_rounds && (t.active || t.wants(attention::dropped)); ++t.unwinding) {
    flush_dropped(t);
    while (body* b = next_of_round(t, t.unwinding)) {
      b->kills = t.unwinding;
      ref(b);
      unwind_one(t, b, greenlet_exit::reason::thread_exit);
      unref(b);
    }
  }
  if (std::exception_ptr held = take_held(t, t.main)) report_unraisable(t.main, std::move(held));
  give_up_the_rest(t);
  // From here on whoever drops a last handle finds the queue closed and the greenlet dead.
  unref_all(std::exchange(t.to_kill, nullptr));
  unref_all(t.dropped.close());
  give_up_the_rest(t);  // what destructors of values have started just now
  t.pool.trim();
  end_record(t);
}

}  // namespace greenlets::detail
