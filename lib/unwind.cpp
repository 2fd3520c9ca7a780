// SPDX-License-Identifier: MIT
// A thread's end: every greenlet of it is unwound, on it, before it can be joined.
#include <greenlet/thread.hpp>

#include "collector.hpp"
#include "own.hpp"
#include "thread.hpp"

#include <exception>
#include <utility>

namespace greenlets::detail {
namespace {

body* next_of_round(thread_record& t, unsigned round) noexcept {
  for (body* b = t.active; b; b = b->next_active)
    if (b->kills < round) return b;
  return nullptr;
}

// Makes an active greenlet dead whose stack will never run again. Its memory stays: the objects on
// it were not destroyed, and others may point at them.
void give_up(thread_record& t, body* b) noexcept {
  ref(b);
  b->wear();
  unlist(t, b);
  unhook(t, b);
  b->memory = nullptr;
  end_fp_env(t, b);
  count_together(b);
  b->state.store(life::unwound, std::memory_order_release);
  // User code: only now that it is dead. An exit that it could not take is no news.
  if (std::exception_ptr held = take_held(t, b); held && !is_exit(held)) report_unraisable(b, std::move(held));
  if (std::exchange(b->orphan, false)) unref(b);
  if (std::exchange(b->abandoned, false)) unref(b);
  unref(b);
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
  *t.exceptions = std::exchange(t.main->exceptions, {});
  if (t.wants(attention::fp_env)) carry_fp_env(t, t.main);
  t.current.store(t.main, std::memory_order_relaxed);
  report_refusal(lost);
  give_up(t, lost);
}

// Those given while they are told are told as well.
void tell(thread_record& t) noexcept {
  while (!t.at_unwind.empty()) {
    const std::function<void()> f = std::move(t.at_unwind.back());
    t.at_unwind.pop_back();
    try {
      f();
    } catch (...) {
      report_unraisable(t.running(), std::current_exception());
    }
  }
}

// The greenlet that has asked for its thread's unwinding is none from now on, but its function goes on,
// on its stack; the record stays for when that ends.
void survive(thread_record& t, body* self) noexcept {
  ref(self);
  ref(t.main);
  ref(t);
  pin(self);  // from now on no collector knows of them by their thread's record
  pin(t.main);
  self->wear();
  t.survivor = std::exchange(self->memory, nullptr);
  end_fp_env(t, self);
  count_together(self);
  unhook(t, self);
  self->state.store(life::unwound, std::memory_order_release);
  if (std::exchange(self->orphan, false)) unref(self);
  if (std::exchange(self->abandoned, false)) unref(self);
  t.survives_in = std::exchange(surviving_record(), &t);
}

bool is_in_use(thread_record& t, body* self) noexcept {
  return t.active || t.wants(attention::dropped | attention::condemned) || !t.at_unwind.empty() || has_own(t, t.main) || has_own(t, self);
}

}  // namespace

void unwind(thread_record& t) noexcept {
  const pinned pin(t);
  tell(t);
  if (t.exited.load(std::memory_order_relaxed)) return;  // one of those who were told has unwound the thread
  t.unwinding = 1;
  t.raise(attention::ending);
  body* const self = t.running();
  if (self != t.main) unlist(t, self);  // the one who has asked for it goes on
  for (; t.unwinding <= most_rounds && is_in_use(t, self); ++t.unwinding) {
    flush_dropped(t);
    flush_condemned(t);
    while (body* b = next_of_round(t, t.unwinding)) {
      b->kills = t.unwinding;
      ref(b);
      unwind_one(t, b, greenlet_exit::reason::thread_exit);
      unref(b);
    }
    destroy_own(t, t.main, t.unwinding);
    if (self != t.main) destroy_own(t, self, t.unwinding);
    tell(t);  // what has come meanwhile
  }
  if (has_own(t, t.main)) report_own(t.main);
  if (self != t.main && has_own(t, self)) report_own(self);
  for (body* b : {t.main, self})
    if (std::exception_ptr held = take_held(t, b)) report_unraisable(b, std::move(held));
  give_up_the_rest(t);
  // Their destructors are user code; what that starts and drops goes as everything else.
  t.tracer = nullptr;
  t.tracer_of_all = nullptr;
  t.tracer_of_all_threw = true;
  std::vector<std::function<void()>>().swap(t.at_unwind);
  // From here on whoever drops a last handle finds the queue closed and the greenlet dead.
  wait_for_kill(t, t.dropped.close());
  drop_waiting(t);
  give_up_the_rest(t);  // what destructors of values have started just now
  t.pool.trim();
  if (self != t.main) survive(t, self);
  end_record(t);
}

void leave_survivor(thread_record& t, parcel&& result) noexcept {
  body* const self = t.running();
  stack* const own = t.survivor;
  if (thread_record* now = this_thread_if_any()) now->native = t.native;
  t.slot = std::move(result);
  *t.exceptions = std::exchange(t.main->exceptions, {});
  if (self->own_fp_env) machine::load(t.fp_env);  // which was put away when control came here
  t.left = self;
  t.left_stack = own;
  t.left_by_force = true;  // nobody will use this stack again
  t.current.store(t.main, std::memory_order_relaxed);
  machine::jump(own->place(), t.main->place(), t.machine, in_slot, true);
  impossible("a stack was used again after its thread's greenlets were unwound");
}

void exit_thread(thread_record& t) noexcept {
  if (collects) the_collector->attach();  // it may have taken its leave of this thread already
  come_back_to_main(t);
  unwind(t);
  if (collects) the_collector->detach();
}

}  // namespace greenlets::detail

namespace greenlets {

void unwind_thread() {
  detail::thread_record* const t = detail::this_thread_if_any();
  if (!t || t->unwinding) return;
  detail::check_no_hook(*t);
  detail::unwind(*t);
}

void at_thread_unwind(std::function<void()> f) {
  if (f) detail::this_thread().at_unwind.push_back(std::move(f));
}

}  // namespace greenlets
