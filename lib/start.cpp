// SPDX-License-Identifier: MIT
// A greenlet's beginning and end: its first frame, its function, and who gets the result.
#include "arch/leftovers.hpp"
#include "fault.hpp"
#include "own.hpp"
#include "probes.hpp"
#include "thread.hpp"

#include <cxxabi.h>
#include <mutex>
#include <utility>

namespace greenlets::detail {
namespace {

// Called with `b` active.
GREENLET_ALWAYS_INLINE void enlist(thread_record& t, body* b) noexcept {
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
  if (self->special && self->special->unused_run) {
    self->beginning = true;
    self->special->unused_run = {};  // user code, which may switch
    self->beginning = false;
    if (self->told) throw greenlet_exit(*self->told);
    if (std::exception_ptr held = take_held(t, self)) std::rethrow_exception(std::move(held));
  }
  if (first.thrown) std::rethrow_exception(std::move(first.thrown));
}

// What a greenlet that has something to do before its function is to find there.
__attribute__((noinline)) value begun(thread_record& t, body* self) {
  parcel first = take_slot(t);
  begin(t, self, first);
  return std::move(first.sent);
}

// Calls what the greenlet is to run. Throws only a forced unwind.
GREENLET_ALWAYS_INLINE GREENLET_CATCHES_FORCED_UNWIND value run(thread_record& t, body* self, const machine::cargo& got,
                                                               std::exception_ptr& thrown) {
  try {
    // Dies before the callable does.
    value first = __builtin_expect(is_in_slot(got), 0) ? begun(t, self) : unloaded(got);
    return self->run.call(self->run.callable, std::move(first));
  } catch (const greenlet_exit&) {
    return from_thrown(std::current_exception());
  } catch (abi::__forced_unwind&) {
    throw;
  } catch (...) {
    thrown = std::current_exception();
    if (!thrown) impossible("an exception of another language has left a greenlet");
    return {};
  }
}

// The next to run looks at this one, and drops a reference to it: until then it must not go, though another
// thread may drop the last.
void keep_until_left(thread_record& t, body* self) noexcept {
  if (self->orphan || self->abandoned) return;
  ref(self);
  self->orphan = true;
  t.raise(attention::orphan);
}

// Makes the greenlet that is running dead and `next`, which has been found for it, current. After
// this only the jump is left to do.
void hand_over(thread_record& t, body* next, parcel&& p) noexcept {
  body* const self = t.running();
  GREENLET_PROBE(finish, self);
  self->wear();
  if (t.wants(attention::hooked)) call_leave(t, self);
  unhook(t, self);
  if (self->held && --t.holding == 0) t.lower(attention::held);  // destroyed with the body, not here: user code
  unlist(t, self);
  if (t.wants(attention::fp_env)) carry_fp_env(t, next);
  if (t.wants(attention::watched)) t.lower(attention::watched);
  if (t.wants(attention::counted)) count_switch(next);
  end_fp_env(t, self);
  if (t.wants(attention::dropped)) take_back(t, self);
  keep_until_left(t, self);
  count_together(self);
  self->state.store(t.unwinding ? life::unwound : life::finished, std::memory_order_release);
  t.slot = std::move(p);
  *t.exceptions = std::exchange(next->exceptions, {});
  t.left = self;
  t.left_stack = std::exchange(self->memory, nullptr);
  t.current.store(next, std::memory_order_relaxed);
}

// Whether the one who goes on waits right there, and nothing else is due.
GREENLET_ALWAYS_INLINE bool ends_straight(thread_record& t, body* self, body* parent) noexcept {
  return t.attention.load(std::memory_order_relaxed) == 0 && !self->abandoned && t.pool.has_room() &&
         parent->active_on.load(std::memory_order_relaxed) == &t;
}

// Then the body's end is this, and he has nothing to clean up.
GREENLET_ALWAYS_INLINE void end_straight(thread_record& t, body* self, body* parent) noexcept {
  unlist(t, self);
  // Its own stack, on which it stands for a moment yet: nobody takes it before the jump.
  t.pool.push(std::exchange(self->memory, nullptr));
  GREENLET_PROBE(finish, self);
  self->state.store(life::finished, std::memory_order_release);
  exchange_exceptions(&t, self, parent);
  t.current.store(parent, std::memory_order_relaxed);  // before: a signal's handler looks at who is current
  std::atomic_signal_fence(std::memory_order_release);
  end_own_count(self);  // from here on another thread may free it
}

// The end of the running greenlet, whose result this is. Returns what the next to run on this stack is sent.
__attribute__((noinline)) machine::cargo end(thread_record& t, value&& sent, std::exception_ptr&& thrown) noexcept {
  body* const self = t.running();
  stack* const own = self->memory;
  self->ending = true;
  parcel result(std::move(sent));
  result.thrown = std::move(thrown);
  // What is held for its next switch is thrown by this one, its last, in place of the result. That is
  // destroyed here, by user code.
  while (std::exception_ptr held = take_held(t, self)) {
    if (result.thrown)
      report_unraisable(self, std::move(held));
    else
      exit_to_value(result = parcel(std::move(held)));
  }
  if (t.survivor) leave_survivor(t, std::move(result));
  body* const parent = self->parent.load(std::memory_order_relaxed);
  // Mostly he waits right here.
  const bool waits = parent->active_on.load(std::memory_order_relaxed) == &t && !GREENLET_REFUSES_SWITCHES;
  hand_over(t, waits ? parent : route(t, parent, result, sender::dying), std::move(result));
  return machine::jump(own->place(), t.running()->place(), t.machine, in_slot, true);
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

// From one parking to the next. With a collector no end is straight: a result would lie, for the few instructions until
// it is taken, on a stack that nobody scans any more.
template <bool collected>
GREENLET_ALWAYS_INLINE GREENLET_NO_ASAN GREENLET_CATCHES_FORCED_UNWIND machine::cargo live(thread_record& t,
                                                                                         const machine::cargo& got) {
  body* const self = t.running();
  try {
    std::exception_ptr thrown;
    value result = run(t, self, got, thrown);
    // The callable goes while the greenlet is still current and active: its destructor may switch.
    finish_own(t, self);
    body* const parent = self->parent.load(std::memory_order_relaxed);
    if (collected || __builtin_expect(thrown || !ends_straight(t, self, parent), 0)) return end(t, std::move(result), std::move(thrown));
    stack* const own = self->memory;
    end_straight(t, self, parent);
    return machine::jump_here(own->place(), parent->place(), t.machine, loaded(result));
  } catch (abi::__forced_unwind&) {
    leave_by_force(t);
  }
}

__attribute__((noinline)) GREENLET_NO_ASAN GREENLET_CATCHES_FORCED_UNWIND machine::cargo live_apart(thread_record& t,
                                                                                                machine::cargo got) {
  t.running()->memory->high = __builtin_frame_address(0);
  return live<true>(t, got);
}

}  // namespace

// The first function of every stack; it parks in here between one greenlet and the next. Nothing of it
// may be on ASan's fake stack, which ends with each greenlet.
GREENLET_NO_ASAN GREENLET_CATCHES_FORCED_UNWIND void first_function(void* argument) {
  thread_record& t = *static_cast<thread_record*>(argument);
  for (machine::cargo got = in_slot;;) got = live<false>(t, got);
}

// The same for a collector, which looks at no more of the stack than what begins with live_apart(): this frame has saved
// what was in the registers when the stack was made.
GREENLET_NO_ASAN GREENLET_CATCHES_FORCED_UNWIND void first_function_collected(void* argument) {
  thread_record& t = *static_cast<thread_record*>(argument);
  for (machine::cargo got = in_slot;; machine::forget_frames()) {
    machine::forget_registers();
    got = live_apart(t, got);
  }
}

stack* take_stack(thread_record& t, body* b) {
  GREENLET_MAY_REFUSE(first_switch);
  // A sanitizer's poison would stay where live_apart() has its frame anew each time.
  const bool apart = collects && !sanitizer::follows_switches();
  return t.pool.take(b->stack_size, apart ? &first_function_collected : &first_function, &t, t.machine);
}

namespace {

// Under its lock, or when nobody else could come to it. Who switches to it goes where the stack is parked, or has that
// copied into its record.
GREENLET_ALWAYS_INLINE void activate(thread_record& t, body* b, stack* memory) noexcept {
  ++t.own_references;
  b->memory = memory;
  b->fiber = &memory->fiber;
  b->active_on.store(&t, std::memory_order_relaxed);
  b->owner.store(&t, std::memory_order_release);
  b->state.store(life::active, std::memory_order_release);
  enlist(t, b);
  GREENLET_PROBE(start, b);
}

// Whether a start of it runs no user code and cannot fail, unless it has hooks or more of its own; under its lock, or
// when nobody else could come to it.
GREENLET_ALWAYS_INLINE bool is_plain(thread_record& t, body* b) noexcept {
  return __builtin_expect(b->is(life::unstarted) && b->run && t.pool.has(b->stack_size) &&
                              b->parent.load(std::memory_order_relaxed)->thread() == &t, 1);  // whom a thread has started stays its own
}

}  // namespace

static void note_unwinding(thread_record& t, body* b) noexcept {
  if (!t.unwinding) return;
  b->wear();
  b->kills = t.unwinding;
}

bool start_plainly(thread_record& t, body* b) noexcept {
  if (GREENLET_REFUSES_SWITCHES) return false;
  const std::lock_guard lock(b->lock);
  if (!is_plain(t, b) || b->special || b->own_fp_env) return false;
  activate(t, b, t.pool.pop());
  b->where = b->memory->parked;
  note_unwinding(t, b);
  return true;
}

// Not by the record: what has been stored there a moment ago would be waited for, and everything after the jump is on
// the stack that it tells.
machine::context* start_straight(hot_thread* on, body* b) noexcept {
  if (__builtin_expect(!b || on->attention.load(std::memory_order_relaxed) != 0, 0)) return nullptr;
  thread_record& t = *static_cast<thread_record*>(on);
  if (__builtin_expect(!is_sole(b) || b->worn.load(std::memory_order_relaxed), 0)) return start_plainly(t, b) ? &b->where : nullptr;
  if (!is_plain(t, b)) return nullptr;
  stack* const memory = t.pool.pop();
  activate(t, b, memory);
  return &memory->parked;
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
    b->wear();
    if (resolved) {
      b->special->unused_run = take_run(b);  // there is the resolver, too
      b->run = std::move(resolved);
    }
    activate(t, b, memory);
    b->where = memory->parked;
    note_unwinding(t, b);
    begin_fp_env(t, b);
    hook(t, b);
    return;
  }
  t.pool.discard(memory);  // perhaps a new one, on which nothing is parked yet
  check_thread(t, b);
  throw error(errc::no_run, "the greenlet has nothing to run", "  another thread has just taken it: " + describe(b));
}

void die_unstarted(thread_record& t, body* b) noexcept {
  const std::uint64_t before = lineage_now();
  closure old;
  {
    const std::lock_guard lock(b->lock);
    if (b->is(life::unstarted)) old = take_run(b);
  }
  old = {};  // user code, which may even give it another run and start it
  {
    const std::lock_guard lock(b->lock);
    if (!b->is(life::unstarted)) return;
    b->wear();
    old = take_run(b);  // nobody will run it; and it may hold a handle to its own greenlet
    ref(t);
    b->owner.store(&t, std::memory_order_release);
    b->state.store(life::finished, std::memory_order_release);
  }
  // It is ours now, though that code may have moved it to another thread's tree.
  if (lineage_now() != before) lineage_has_changed();
}

void unlist(thread_record& t, body* b) noexcept {
  (b->previous_active ? b->previous_active->next_active : t.active) = b->next_active;
  if (b->next_active) b->next_active->previous_active = b->previous_active;
  b->previous_active = b->next_active = nullptr;
}

}  // namespace greenlets::detail
