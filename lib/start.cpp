// SPDX-License-Identifier: MIT
// A greenlet's beginning and end: its first frame, its function, and who gets the result.
#include "fault.hpp"
#include "own.hpp"
#include "thread.hpp"

#include <cxxabi.h>
#include <mutex>
#include <utility>

namespace greenlets::detail {
namespace {

// Called with `b` active.
void enlist(thread_record& t, body* b) noexcept {
  b->previous_active = nullptr;
  b->next_active = t.active;
  if (t.active) t.active->previous_active = b;
  t.active = b;
}

// What a greenlet does before its function: what a tracer throws ends it here, and so does a kill.
void begin(thread_record& t, body* self, parcel& first) {
  {
    arrival how;
    settle(t, how);
    if (how.traced) trace(t, first, how.origin, &self->run);
  }
  if (self->unused_run) {
    self->beginning = true;
    self->unused_run = {};  // user code, which may switch
    self->beginning = false;
    if (self->told) throw greenlet_exit(*self->told);
    if (std::exception_ptr held = take_held(t, self)) std::rethrow_exception(std::move(held));
  }
  if (first.thrown) std::rethrow_exception(std::move(first.thrown));
}

// Calls what the greenlet is to run. Throws only a forced unwind.
GREENLET_CATCHES_FORCED_UNWIND parcel run(thread_record& t, body* self) {
  parcel first = std::exchange(self->slot, {});
  parcel result;
  try {
    begin(t, self, first);
    result.sent = self->run.call(self->run.callable, std::move(first.sent));
  } catch (const greenlet_exit&) {
    result.sent = from_thrown(std::current_exception());
  } catch (abi::__forced_unwind&) {
    throw;
  } catch (...) {
    result.thrown = std::current_exception();
    if (!result.thrown) impossible("an exception of another language has left a greenlet");
  }
  // The callable goes while the greenlet is still current and active: its destructor may switch.
  finish_own(t, self);
  // What is held for its next switch is thrown by this one, its last, in place of the result. That is
  // destroyed here, by user code.
  while (std::exception_ptr held = take_held(t, self)) {
    if (result.thrown)
      report_unraisable(self, std::move(held));
    else
      exit_to_value(result = parcel(std::move(held)));
  }
  return result;
}

// Makes the greenlet that is running dead and `next`, which has been found for it, current. After
// this only the jump is left to do.
void hand_over(thread_record& t, body* next, parcel&& p) noexcept {
  body* const self = t.running();
  if (t.wants(attention::hooked)) call_leave(t, self);
  unhook(t, self);
  if (self->held && --t.holding == 0) t.lower(attention::held);  // destroyed with the body, not here: user code
  unlist(t, self);
  if (t.wants(attention::fp_env)) carry_fp_env(t, next);
  end_fp_env(t, self);
  self->active_on.store(nullptr, std::memory_order_relaxed);
  self->state.store(t.unwinding ? life::unwound : life::finished, std::memory_order_release);
  next->slot = std::move(p);
  *t.exceptions = next->exceptions;
  t.left = self;
  t.left_stack = std::exchange(self->memory, nullptr);
  t.current.store(next, std::memory_order_relaxed);
}

// In the handler that has caught a forced unwind at the first frame. It must not be left, for the
// unwinder aborts the process when such an exception is not rethrown: the handler is abandoned
// with its stack, and the unwind goes on in the main greenlet (parcel.cpp).
[[noreturn]] void leave_by_force(thread_record& t) noexcept {
  body* const self = t.running();
  finish_own(t, self);
  parcel rest;
  rest.forced = true;
  rest.forced_state = *t.exceptions;
  t.left_by_force = true;
  if (t.survivor) leave_survivor(t, std::move(rest));
  hand_over(t, t.main, std::move(rest));
  machine::jump(t.left_stack->place(), t.main->place(), t.machine, in_slot, true);
  impossible("a stack was used again after a forced unwind");
}

}  // namespace

// The first function of every stack; it parks here between one greenlet and the next. Nothing of it
// may be on ASan's fake stack, which ends with each greenlet.
GREENLET_NO_ASAN GREENLET_CATCHES_FORCED_UNWIND void first_function(void* argument) {
  thread_record& t = *static_cast<thread_record*>(argument);
  for (;;) {
    try {
      parcel result = run(t, t.running());
      if (t.survivor) leave_survivor(t, std::move(result));
      body* const parent = t.running()->parent.load(std::memory_order_relaxed);
      hand_over(t, route(t, parent, result, sender::dying), std::move(result));
    } catch (abi::__forced_unwind&) {
      leave_by_force(t);
    }
    machine::jump(t.left_stack->place(), t.running()->place(), t.machine, in_slot, true);
  }
}

stack* take_stack(thread_record& t, body* b) {
  GREENLET_MAY_REFUSE(first_switch);
  return t.pool.take(b->stack_size, &first_function, &t, t.machine);
}

void start(thread_record& t, body* b, std::uint64_t as_of, closure& resolved, stack* memory) {
  // Under the lock, for another thread may be doing the same, or moving it to another tree.
  for (bool ours = true; ours; ours = belongs_to(t, b)) {
    const std::lock_guard lock(b->lock);
    if (!b->is(life::unstarted) || !(b->run || resolved)) break;
    if (const std::uint64_t now = lineage_now(); now != as_of) {
      as_of = now;
      continue;
    }
    ref(t);
    b->memory = memory;
    b->where = memory->parked;
    b->fiber = &memory->fiber;
    b->active_on.store(&t, std::memory_order_relaxed);
    begin_fp_env(t, b);
    b->kills = t.unwinding;
    if (resolved) {
      b->unused_run = std::move(b->run);
      b->run = std::move(resolved);
    }
    b->owner.store(&t, std::memory_order_release);
    b->state.store(life::active, std::memory_order_release);
    enlist(t, b);
    hook(t, b);
    return;
  }
  t.pool.give(memory);
  check_thread(t, b);
  throw error(errc::no_run, "the greenlet has nothing to run", "  another thread has just taken it: " + describe(b));
}

void die_unstarted(thread_record& t, body* b) noexcept {
  closure old;
  {
    const std::lock_guard lock(b->lock);
    if (b->is(life::unstarted)) old = std::exchange(b->run, {});  // a moved-from one would seem to be there
  }
  old = {};  // user code, which may even give it another run and start it
  {
    const std::lock_guard lock(b->lock);
    if (!b->is(life::unstarted)) return;
    old = std::exchange(b->run, {});  // nobody will run it; and it may hold a handle to its own greenlet
    ref(t);
    b->owner.store(&t, std::memory_order_release);
    b->state.store(life::finished, std::memory_order_release);
  }
}

void unlist(thread_record& t, body* b) noexcept {
  (b->previous_active ? b->previous_active->next_active : t.active) = b->next_active;
  if (b->next_active) b->next_active->previous_active = b->previous_active;
  b->previous_active = b->next_active = nullptr;
}

}  // namespace greenlets::detail
