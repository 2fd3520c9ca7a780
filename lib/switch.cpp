// SPDX-License-Identifier: MIT
// The switch: from the public call to the jump, and what is done on arrival.
#include "collector.hpp"
#include "fault.hpp"
#include "overflow.hpp"
#include "probes.hpp"
#include "threads.hpp"
#include "watching.hpp"

#include <cxxabi.h>
#include <mutex>
#include <utility>

namespace greenlets::detail {
namespace {

// Keeps the target of a switch alive while user code runs before the jump, without leaving a
// counted handle on the switcher's stack: the reference is dropped by the one who arrives.
class guest {
 public:
  guest(thread_record& t, greenlet g) noexcept : thread_(t), body_(access::release(std::move(g))) {}
  guest(const guest&) = delete;
  guest& operator=(const guest&) = delete;
  ~guest() {
    if (body_) unref(body_);
  }
  // The place is taken when an outer switch runs user code in the middle of its routing, and that switches:
  // the outer one needs its guest no longer.
  body* hand_over() noexcept {
    while (body* before = std::exchange(thread_.guests[0], nullptr)) unref(before);
    if (body_) thread_.raise(attention::guests);
    return thread_.guests[0] = std::exchange(body_, nullptr);
  }

 private:
  thread_record& thread_;
  body* body_;
};

void drop_guests(thread_record& t) noexcept {
  if (!t.wants(attention::guests)) return;
  t.lower(attention::guests);
  for (body*& g : t.guests)
    if (body* b = std::exchange(g, nullptr)) unref(b);
}

body* parent_of_running(thread_record& t) {
  if (body* const parent = t.running()->parent.load(std::memory_order_relaxed)) return parent;
  throw error(errc::main_parent, "a main greenlet has no parent to switch to", "  " + describe(t.running()));
}

// A switch to oneself, or to somebody in whose place one finds oneself.
parcel keep(thread_record& t, parcel&& p) {
  parcel got = std::move(p);
  drop_guests(t);
  if (t.wants(attention::traced)) trace(t, got, t.running()->self);
  return got;
}

// `pin` is the caller's, if user code has run before.
parcel deliver(thread_record& t, body* target, parcel&& p, pinned& pin) {
  body* next = target;
  try {
    if (!target) throw error(errc::empty_handle, "the handle refers to no greenlet");
    if (target->is(life::active) && target->thread() == &t && target != t.running()) {
      GREENLET_MAY_REFUSE(next_switch);
    } else if (p.thrown || !start_plainly(t, target)) {
      pin.pin(t);  // user code may run from here on
      next = route(t, target, p, sender::caller);
    }
  } catch (...) {
    drop_guests(t);
    throw;
  }
  if (next == t.running()) return keep(t, std::move(p));
  pin.release();
  arrival how;
  parcel got = jump(t, next, std::move(p), how);
  if (how.traced) trace(t, got, how.origin);
  return got;
}

// The same after user code may have run, and with a reference that is given away.
parcel send_kept(thread_record& t, guest kept, parcel&& p) {
  pinned pin(t);
  check_no_hook(t);
  enter(t);
  return deliver(t, kept.hand_over(), std::move(p), pin);
}

parcel send(const greenlet& target, parcel&& p) {
  thread_record& t = this_thread();
  pinned none;
  if (!t.is_busy()) return deliver(t, access::body_of(target), std::move(p), none);
  return send_kept(t, guest(t, target), std::move(p));
}

}  // namespace

void enter_slowly(thread_record& t) {
  if (t.wants(attention::signal_stack)) {
    t.lower(attention::signal_stack);
    try_signal_stack(t);
  }
  if (t.wants(attention::errand)) {
    t.lower(attention::errand);
    run_errand();
  }
  if (t.wants(attention::in_hook)) return;
  const pinned pin(t);
  if (t.wants(attention::dropped)) flush_dropped(t);
  if (t.wants(attention::condemned)) flush_condemned(t);
  if (t.exited.load(std::memory_order_relaxed)) return;
  body* const self = t.running();
  if (t.wants(attention::forced) && self == t.main) {
    t.lower(attention::forced);
    parcel rest;
    rest.forced = true;
    rest.forced_state = t.forced_state;
    open(std::move(rest));
  }
  if (self->held) std::rethrow_exception(take_held(t, self));
}

thread_record& entered_slowly() {
  thread_record& t = this_thread();
  if (!t.is_busy()) return t;
  enter_slowly(t);
  return this_thread();  // another, when what ran meanwhile has ended the first
}

void check_thread(thread_record& t, body* b) {
  const bool here = !t.exited.load(std::memory_order_relaxed);  // not so after unwind_thread() in the middle of a switch
  if (here && belongs_to(t, b)) return;
  greenlet ancestor;
  body* started = b;
  thread_record* owner;
  while (!(owner = started->thread())) {
    ancestor = parent_of(started);
    started = access::body_of(ancestor);
    if (!started) impossible("an unstarted greenlet without a started ancestor");
  }
  if (here && owner == &t) return;

  const std::string details = "  running: " + describe(t.running()) + "\n  target:  " + describe(b) +
                              (b == started ? "" : "\n  its tree belongs to " + describe(*owner));
  if (!owner->exited.load(std::memory_order_acquire))
    throw error(errc::different_thread, "cannot switch to a different thread", details);
  if (b->main) throw error(errc::collected, "cannot switch to a garbage collected greenlet", details);
  throw error(errc::thread_exited, "cannot switch to a different thread (which happens to have exited)", details);
}

parcel jump(thread_record& t, body* to, parcel&& p, arrival& how) noexcept {
  body* const from = t.running();
  if (t.wants(attention::hooked)) call_leave(t, from);
  t.slot = std::move(p);
  exchange_exceptions(&t, from, to);
  t.left = from;
  if (t.wants(attention::fp_env | attention::watched | attention::counted)) {
    if (t.wants(attention::fp_env)) carry_fp_env(t, to);
    if (t.wants(attention::watched)) t.lower(attention::watched);
    if (t.wants(attention::counted)) count_switch(to);
  }
  t.current.store(to, std::memory_order_relaxed);
  GREENLET_PROBE_PAIR(switch, from, to);
  const machine::cargo got = machine::jump(from->place(), to->place(), t.machine, in_slot);
  // By inline code there is nothing more to do, for nothing else was due.
  if (!is_in_slot(got)) return parcel_of(got);
  parcel mine = take_slot(t);
  settle(t, how);
  return mine;
}

parcel arrived(body* self) {
  thread_record& t = *self->thread();  // which may have been unwound, and not be this_thread() any more
  arrival how;
  parcel mine = take_slot(t);
  settle(t, how);
  if (how.traced) trace(t, mine, how.origin);
  return mine;
}

value arrive(body* self) { return open(arrived(self)); }

// The function of the thread's survivor is over, and the main greenlet goes on, which is long dead.
static void end_survivor(thread_record& t, arrival& how) noexcept {
  how.pin.pin(t);
  t.survivor = nullptr;
  // Whatever the thread has begun meanwhile is on the thread's own stack from now on. Not before: until here
  // a collector needs to know that this stack waits.
  surviving_record() = t.survives_in;
  if (thread_record* now = this_thread_if_any()) now->survives_in = t.survives_in;
  unpin(how.left);
  unref(how.left);
  unpin(t.main);
  unref(t.main);
  unref(t);
}

void settle(thread_record& t, arrival& how) noexcept {
  body* const left = std::exchange(t.left, nullptr);
  how.left = left;
  // The stack of a greenlet that has finished could not be given back by itself: it stood on it.
  if (stack* s = std::exchange(t.left_stack, nullptr)) {
    if (std::exchange(t.left_by_force, false))
      t.pool.discard(s);
    else
      t.pool.give(s);
  }
  if (t.survivor) return end_survivor(t, how);
  if (t.wants(attention::hooked)) call_enter(t, t.running());
  if (t.wants(attention::traced)) {
    how.pin.pin(t);
    how.traced = true;
    ref(left);  // else the tracer might be told of one that is gone
    how.origin = access::adopt(left);
  }
  const bool over = left->orphan || (left->abandoned && left->dead());
  if (!over && !t.wants(attention::guests)) return;
  how.pin.pin(t);
  if (over) {
    if (left->orphan) t.lower(attention::orphan);
    left->orphan = left->abandoned = false;
    unref(left);
  }
  drop_guests(t);
}

GREENLET_CATCHES_FORCED_UNWIND parcel exchange(body* target, parcel&& p) {
  thread_record& t = this_thread();
  pinned pin;
  if (t.is_busy()) {
    pin.pin(t);
    check_no_hook(t);
    guest kept(t, target ? target->self : greenlet());
    try {
      enter_slowly(t);
    } catch (abi::__forced_unwind&) {
      throw;
    } catch (...) {
      return parcel(std::current_exception());  // what was held for us
    }
    if (target) target = kept.hand_over();
  }
  return deliver(t, target ? target : parent_of_running(t), std::move(p), pin);
}

value switch_to(const greenlet& target, value&& sent) {
  return open(send(target, parcel(std::move(sent))));
}

value throw_in(const greenlet& target, std::exception_ptr thrown) {
  if (!thrown) throw error(errc::wrong_arguments, "throw_in needs an exception; the exception_ptr is null");
  if (body* const b = access::body_of(target)) GREENLET_PROBE(throw, b);
  return open(send(target, parcel(std::move(thrown))));
}

void set_waker(void (*wake)(void*), void* data) {
  thread_record& t = this_thread();
  const std::lock_guard lock(t.waker_lock);
  t.waker = wake;
  t.waker_data = data;
}

value switch_to_parent(value&& sent) {
  thread_record& t = this_thread();
  pinned pin;
  if (t.is_busy()) {
    pin.pin(t);
    check_no_hook(t);
    enter_slowly(t);
  }
  return open(deliver(t, parent_of_running(t), parcel(std::move(sent)), pin));
}

}  // namespace greenlets::detail

namespace greenlets {

const greenlet& current() { return detail::entered().running()->self; }

greenlet main_greenlet() { return detail::entered().main->self; }

}  // namespace greenlets
