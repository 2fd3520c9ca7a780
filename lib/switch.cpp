// SPDX-License-Identifier: MIT
// The switch: from the public call to the jump, and what is done on arrival.
#include "thread.hpp"

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
    return thread_.guests[0] = std::exchange(body_, nullptr);
  }

 private:
  thread_record& thread_;
  body* body_;
};

void drop_guests(thread_record& t) noexcept {
  for (body*& g : t.guests)
    if (body* b = std::exchange(g, nullptr)) unref(b);
}

parcel deliver(thread_record& t, body* target, parcel&& p) {
  if (!target) throw error(errc::empty_handle, "the handle refers to no greenlet");
  body* const next = route(t, target, p, sender::caller);
  if (next == t.running()) {
    drop_guests(t);
    return std::move(p);
  }
  return jump(t, next, std::move(p));
}

// The same after user code may have run, and with a reference that is given away.
parcel send_kept(thread_record& t, guest kept, parcel&& p) {
  enter(t);
  body* const b = kept.hand_over();
  try {
    return deliver(t, b, std::move(p));
  } catch (...) {
    drop_guests(t);
    throw;
  }
}

parcel send(const greenlet& target, parcel&& p) {
  thread_record& t = this_thread();
  if (t.attention.load(std::memory_order_relaxed) == 0) return deliver(t, access::body_of(target), std::move(p));
  return send_kept(t, guest(t, target), std::move(p));
}

}  // namespace

void enter_slowly(thread_record& t) {
  if (t.wants(attention::dropped)) flush_dropped(t);
  body* const self = t.running();
  if (t.wants(attention::forced) && self == t.main) {
    t.lower(attention::forced);
    parcel rest;
    rest.forced = true;
    rest.forced_state = t.forced_state;
    open(std::move(rest));
  }
  if (self->held) {
    if (--t.holding == 0) t.lower(attention::held);
    std::rethrow_exception(std::exchange(self->held, nullptr));
  }
}

void check_thread(thread_record& t, body* b) {
  if (belongs_to(t, b)) return;
  greenlet ancestor;
  body* started = b;
  thread_record* owner;
  while (!(owner = started->thread())) {
    ancestor = parent_of(started);
    started = access::body_of(ancestor);
    if (!started) impossible("an unstarted greenlet without a started ancestor");
  }
  if (owner == &t) return;

  const std::string details = "  running: " + describe(t.running()) + "\n  target:  " + describe(b) +
                              (b == started ? "" : "\n  its tree belongs to " + describe(*owner));
  if (!owner->exited.load(std::memory_order_acquire))
    throw error(errc::different_thread, "cannot switch to a different thread", details);
  if (b->main) throw error(errc::collected, "cannot switch to a garbage collected greenlet", details);
  throw error(errc::thread_exited, "cannot switch to a different thread (which happens to have exited)", details);
}

parcel jump(thread_record& t, body* to, parcel&& p, body** came_from) noexcept {
  body* const from = t.running();
  to->slot = std::move(p);
  from->exceptions = *t.exceptions;
  *t.exceptions = to->exceptions;
  t.left = from;
  t.current.store(to, std::memory_order_relaxed);
  machine::jump(*from->context, *to->context, t.machine);
  if (came_from) *came_from = t.left;
  // Out of the slot before any user code can run, for that code may send us something else.
  parcel mine = std::exchange(from->slot, {});
  settle(t);
  return mine;
}

void settle(thread_record& t) noexcept {
  body* const left = std::exchange(t.left, nullptr);
  // The stack of a greenlet that has finished could not be given back by itself: it stood on it.
  if (stack* s = std::exchange(t.left_stack, nullptr)) {
    if (std::exchange(t.left_by_force, false))
      t.pool.discard(s);
    else
      t.pool.give(s);
  }
  if (left->orphan || (left->abandoned && left->dead())) {
    left->orphan = left->abandoned = false;
    unref(left);
  }
  drop_guests(t);
}

value switch_to(const greenlet& target, value&& sent) { return open(send(target, parcel(std::move(sent)))); }

value throw_in(const greenlet& target, std::exception_ptr thrown) {
  if (!thrown) throw error(errc::wrong_arguments, "throw_in needs an exception; the exception_ptr is null");
  return open(send(target, parcel(std::move(thrown))));
}

value switch_giving(greenlet&& target, value&& sent) {
  thread_record& t = this_thread();
  return open(send_kept(t, guest(t, std::move(target)), parcel(std::move(sent))));
}

value throw_giving(greenlet&& target, std::exception_ptr thrown) {
  thread_record& t = this_thread();
  return open(send_kept(t, guest(t, std::move(target)), parcel(std::move(thrown))));
}

void set_waker(void (*wake)(void*), void* data) {
  thread_record& t = this_thread();
  const std::lock_guard lock(t.waker_lock);
  t.waker = wake;
  t.waker_data = data;
}

value switch_to_parent(value&& sent) {
  thread_record& t = this_thread();
  enter(t);
  body* const parent = t.running()->parent.load(std::memory_order_relaxed);
  if (!parent)
    throw error(errc::main_parent, "a main greenlet has no parent to switch to", "  " + describe(t.running()));
  return open(deliver(t, parent, parcel(std::move(sent))));
}

}  // namespace greenlets::detail

namespace greenlets {

const greenlet& current() {
  detail::thread_record& t = detail::this_thread();
  detail::enter(t);
  return t.running()->self;
}

greenlet main_greenlet() {
  detail::thread_record& t = detail::this_thread();
  detail::enter(t);
  return t.main->self;
}

}  // namespace greenlets
