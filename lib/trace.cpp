// SPDX-License-Identifier: MIT
// Tracers: one for a thread, one for all; called on arrival, with what has arrived in hand.
#include <greenlet/trace.hpp>

#include "immortal.hpp"
#include "threads.hpp"

#include <atomic>
#include <cxxabi.h>
#include <utility>

namespace greenlets {
namespace detail {

std::mutex tracer_lock;

namespace {

using shared_tracer = std::shared_ptr<const tracer>;

immortal<shared_tracer> of_all;            // under the lock
std::atomic<std::uint64_t> generation{0};  // changes with each settrace_all_threads(), under the lock

shared_tracer made(tracer&& t) { return t ? std::make_shared<const tracer>(std::move(t)) : nullptr; }
tracer copied(const shared_tracer& t) { return t ? *t : tracer(); }

shared_tracer of_all_now() noexcept {
  const std::lock_guard lock(tracer_lock);
  return of_all.value;
}

void lower_if_none(thread_record& t) noexcept {
  if (t.tracer || (t.tracer_of_all && !t.tracer_of_all_threw)) return;
  t.lower(attention::traced);
  look_for_tracers(t);  // another thread may just have set one, and raised what we have lowered
}

// Calls one; what it throws becomes what has arrived. Returns whether it has returned.
GREENLET_CATCHES_FORCED_UNWIND bool told(const shared_tracer& f, thread_record& t, parcel& p, const greenlet& origin,
                                         const closure* starts) {
  const greenlet& target = t.running()->self;
  try {
    const bool thrown = p.thrown || p.forced;
    (*f)(trace_event(thrown ? trace_event::thrown : trace_event::switched, p.thrown, starts ? &starts->callable.type() : nullptr),
         origin, target);
    return true;
  } catch (abi::__forced_unwind&) {
    throw;
  } catch (...) {
    if (p.forced) {
      report_unraisable(t.running(), std::current_exception());
    } else {
      p.thrown = std::current_exception();
      p.sent.reset();
    }
    return false;
  }
}

}  // namespace

void look_for_tracers(thread_record& t) noexcept {
  shared_tracer before;  // destroyed after the lock
  if (t.tracer_generation != generation.load(std::memory_order_acquire)) {
    const std::lock_guard lock(tracer_lock);
    before = std::exchange(t.tracer_of_all, of_all.value);
    t.tracer_generation = generation.load(std::memory_order_relaxed);
    t.tracer_of_all_threw = false;
  }
  if (t.tracer || (t.tracer_of_all && !t.tracer_of_all_threw)) t.raise(attention::traced);
}

void trace(thread_record& t, parcel& arrived, const greenlet& origin, const closure* starts) {
  look_for_tracers(t);
  // Copies: a tracer may replace itself, and end this record.
  if (const shared_tracer f = t.tracer_of_all_threw ? nullptr : t.tracer_of_all) {
    const std::uint64_t as_of = t.tracer_generation;
    if (!told(f, t, arrived, origin, starts) && t.tracer_generation == as_of) t.tracer_of_all_threw = true;
  }
  if (const shared_tracer f = t.tracer)
    if (!told(f, t, arrived, origin, starts)) t.tracer = nullptr;
  lower_if_none(t);
}

}  // namespace detail

tracer settrace(tracer next) {
  detail::shared_tracer made = detail::made(std::move(next));
  const detail::shared_tracer kept = detail::this_thread().tracer;
  tracer before = detail::copied(kept);  // user code, which may end the thread's record
  detail::thread_record& t = detail::this_thread();
  t.tracer.swap(made);
  if (t.tracer)
    t.raise(detail::attention::traced);
  else
    detail::lower_if_none(t);
  return before;  // the old one's destructor may use the library
}

tracer gettrace() {
  const detail::thread_record* t = detail::this_thread_if_any();
  const detail::shared_tracer now = t ? t->tracer : nullptr;
  return detail::copied(now);
}

tracer settrace_all_threads(tracer next) {
  detail::shared_tracer made = detail::made(std::move(next));
  for (;;) {
    // The old one is copied first, for that may fail; and not under the lock, for it is user code.
    const detail::shared_tracer before = detail::of_all_now();
    tracer old = detail::copied(before);
    const std::lock_guard list(detail::threads_lock);
    const std::lock_guard lock(detail::tracer_lock);
    if (detail::of_all.value != before) continue;
    made.swap(detail::of_all.value);
    detail::generation.fetch_add(1, std::memory_order_release);
    if (detail::of_all.value)
      for (detail::thread_record* t = detail::first_thread(); t; t = t->next_thread) t->raise(detail::attention::traced);
    return old;
  }
}

tracer gettrace_all_threads() { return detail::copied(detail::of_all_now()); }

}  // namespace greenlets
