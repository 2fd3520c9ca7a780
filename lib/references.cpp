// SPDX-License-Identifier: MIT
// Counting the references to a body, and what happens when the last one goes.
//
// Biased counting (Choi, Shull, Torrellas: Biased Reference Counting: Minimizing Atomic Operations in Garbage
// Collection, PACT 2018): while a greenlet is active, its thread counts what it takes and drops in `here`, and
// all other threads in `shared`. A reference may be taken on one thread and dropped on another, so only the sum
// means something, and only the greenlet's own thread can form it. Hence
//
//   * another thread never brings `shared` below one reference: it gives what may be the last one to the
//     greenlet's own thread, by its queue. While it waits there, others may go below: its owner will look.
//   * the greenlet's own thread takes it out of the queue when it drops a reference itself, so that this one may
//     be the last; but not one that was. It drops from `here` first. When `here` is 1 and `shared` one reference, that
//     reference is the last.
//   * at its end, and at its thread's, a greenlet's references are counted together, and from then on by all
//     threads alike, as they were before its start.
#include "body.hpp"
#include "collector.hpp"
#include "thread.hpp"

#include <mutex>

namespace greenlets::detail {
namespace {

// Without what else stands in the number.
std::ptrdiff_t counted(std::ptrdiff_t shared) noexcept { return shared & ~counts_slowly; }

void merge(body* b) noexcept {
  if (const std::size_t own = b->here.load(std::memory_order_relaxed) - 1; own != 0) {
    b->here.store(1, std::memory_order_relaxed);
    b->shared.fetch_add(static_cast<std::ptrdiff_t>(own) * one_reference, std::memory_order_acq_rel);
  }
}

bool drop_one(body* b, std::ptrdiff_t now) noexcept {
  return b->shared.compare_exchange_strong(now, now - one_reference, std::memory_order_acq_rel);
}

// What waits in a queue is wanted still, though a collector sees no handle to it.
bool mark_queued(body* b, std::ptrdiff_t now) noexcept {
  pin(b);
  if (b->shared.compare_exchange_strong(now, now | is_queued, std::memory_order_acq_rel)) return true;
  unpin(b);
  return false;
}

// Before this thread takes a reference: if the only one waits in its queue, it has been the last.
void note_last(body* b) noexcept {
  if (b->shared.load(std::memory_order_relaxed) & is_queued &&
      b->active_on.load(std::memory_order_relaxed) == hot_thread_v1 && references(b) == 1)
    b->last_is_queued = true;
}

// Gives a reference to the thread that `b` is active on. Returns false when the caller still holds it.
bool give_to(thread_record& owner, body* b) noexcept {
  // Once pushed, `b` may be gone at any moment, and its owner may exit: the record must stay for us.
  ref(owner);
  bool given = owner.dropped.push(b);
  if (given) {
    owner.raise(attention::dropped);
    owner.wake();
  } else {
    // The owner is ending, and gives up what is active still: it holds each while it counts it together.
    const std::lock_guard lock(b->lock);
    given = b->active_on.load(std::memory_order_acquire) != nullptr;
    unpin(b);
    b->shared.fetch_sub(given ? one_reference + is_queued : is_queued, std::memory_order_acq_rel);
  }
  unref(owner);
  return given;
}

// The last reference to an active greenlet of this thread is being dropped. Returns true when the caller still
// holds it and is to look again, false when it has been given away. Kept until we know: a weak handle must
// resolve while the greenlet is being unwound.
bool let_go(thread_record& t, body* b) noexcept {
  if (t.running() == b) {
    b->orphan = true;
    t.raise(attention::orphan);
    return false;
  }
  if (t.wants(attention::in_hook))  // nobody can be switched to: as if another thread had dropped it
    return !mark_queued(b, b->shared.load(std::memory_order_relaxed)) || !give_to(t, b);
  const pinned pin(t);
  unwind_one(t, b, greenlet_exit::reason::last_handle);
  if (b->dead() || references(b) > 1) return true;
  // It has swallowed its exit and switched away, and nobody has kept it. Trying again might go on
  // for ever; freeing its stack would free objects that were never destroyed.
  b->abandoned = true;
  if (is_traced(b)) the_collector->refused(b);
  report_refusal(b);
  return false;
}

// Each of these returns whom the caller is to go on with: the same body when it is to look again, its parent
// when it has been buried, or nobody.

body* drop_own(thread_record& t, body* b, std::ptrdiff_t shared) noexcept {
  if (shared & is_queued && take_back(t, b)) return b;
  if (const std::size_t own = b->here.load(std::memory_order_relaxed); own > 1) {
    b->here.store(own - 1, std::memory_order_relaxed);
    return nullptr;
  }
  if (counted(shared) == one_reference) return let_go(t, b) ? b : nullptr;
  return drop_one(b, shared) ? nullptr : b;
}

body* drop_of(thread_record& owner, body* b, std::ptrdiff_t shared) noexcept {
  if (shared & is_queued || counted(shared) > one_reference) return drop_one(b, shared) ? nullptr : b;
  return mark_queued(b, shared) && give_to(owner, b) ? nullptr : b;
}

// Nobody can come to a body whose only reference is ours, if there are no weak ones. But what another thread has
// counted apart and then together may have been added after we have looked.
bool is_sole(const body* b) noexcept {
  const thread_record* const owner = b->thread();
  return b->weak.load(std::memory_order_acquire) == 1 && (!owner || owner == this_thread_if_any());
}

// Under the lock it is not started meanwhile, by somebody who has it from a weak reference.
bool drop_last(body* b) noexcept {
  const std::lock_guard lock(b->lock);
  std::ptrdiff_t now = b->shared.load(std::memory_order_relaxed);
  return counted(now) == one_reference && !b->active_on.load(std::memory_order_acquire) &&
         b->shared.compare_exchange_strong(now, now - one_reference, std::memory_order_acq_rel);
}

body* drop_idle(body* b, std::ptrdiff_t shared) noexcept {
  if (counted(shared) > one_reference) return drop_one(b, shared) ? nullptr : b;
  if (!is_sole(b) && !drop_last(b)) return b;
  b->shared.store(shared & is_collected, std::memory_order_relaxed);
  return bury(b);
}

}  // namespace

void ref_elsewhere(body* b, const void* at) noexcept {
  if (at && is_traced(b)) placed(b, at);
  note_last(b);
  b->shared.fetch_add(one_reference, std::memory_order_relaxed);
}

void unref_last(body* b, const void* at) noexcept {
  if (at && is_traced(b)) taken(b, at);
  while (b) {
    // In this order: who has left a single reference has known whether it was active.
    const std::ptrdiff_t shared = b->shared.load(std::memory_order_acquire);
    hot_thread* const on = b->active_on.load(std::memory_order_acquire);
    if (!on)
      b = drop_idle(b, shared);
    else if (on == hot_thread_v1)
      b = drop_own(*static_cast<thread_record*>(on), b, shared);
    else
      b = drop_of(*static_cast<thread_record*>(on), b, shared);
  }
}

bool take_back(thread_record& t, body* b) noexcept {
  if (!(b->shared.load(std::memory_order_relaxed) & is_queued) || b->last_is_queued || references(b) == 1 ||
      !take_dropped(t, b))
    return false;
  b->shared.fetch_sub(one_reference, std::memory_order_acq_rel);
  return true;
}

std::ptrdiff_t references(const body* b) noexcept {
  return counted(b->shared.load(std::memory_order_acquire)) / one_reference +
         static_cast<std::ptrdiff_t>(b->here.load(std::memory_order_relaxed)) - 1;
}

void count_together(body* b) noexcept {
  const std::lock_guard lock(b->lock);
  end_own_count(b);
}

void end_own_count(body* b) noexcept {
  merge(b);
  b->active_on.store(nullptr, std::memory_order_release);
}

void left_queue(body* b) noexcept {
  b->last_is_queued = false;
  merge(b);  // others may have dropped what was counted in `here`
  unpin(b);
  b->shared.fetch_sub(is_queued, std::memory_order_acq_rel);
}

bool ref_if_any(body* b) noexcept {
  std::ptrdiff_t now = b->shared.load(std::memory_order_relaxed);
  note_last(b);
  while (counted(now) != 0)
    if (b->shared.compare_exchange_weak(now, now + one_reference, std::memory_order_acq_rel)) {
      if (now & is_collected) the_collector->wanted_again(b);
      return true;
    }
  return false;
}

void weak_unref(body* b) noexcept {
  if (b->weak.load(std::memory_order_acquire) == 1 || b->weak.fetch_sub(1, std::memory_order_acq_rel) == 1) delete b;
}

}  // namespace greenlets::detail
