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
#include "census.hpp"
#include "collector.hpp"
#include "own.hpp"
#include "thread.hpp"

#include <cstdlib>
#include <mutex>
#include <utility>

namespace greenlets::detail {
namespace {

// What it would be without a collector. While one waits in the queue, others may have taken the rest below nothing.
std::ptrdiff_t plain(std::ptrdiff_t shared) noexcept { return shared & ~is_collected; }

bool drop_one(body* b, std::ptrdiff_t now) noexcept {
  return b->shared.compare_exchange_strong(now, now - one_reference, std::memory_order_acq_rel);
}

// What waits in a queue is wanted still, though a collector sees no handle to it.
bool mark_queued(body* b, std::ptrdiff_t now) noexcept {
  pin(b);
  const bool marked = b->shared.compare_exchange_strong(now, now | is_queued, std::memory_order_acq_rel);
  if (!marked) unpin(b);
  return marked;
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
  b->wear();
  sanitizer::after(b);
  if (t.running() == b) {
    b->orphan = true;
    t.raise(attention::orphan);
    return false;
  }
  if (t.wants(attention::in_hook))  // nobody can be switched to: as if another thread had dropped it
    return !mark_queued(b, one_reference | (b->shared.load(std::memory_order_relaxed) & is_collected)) || !give_to(t, b);
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

__attribute__((noinline)) body* drop_own(thread_record& t, body* b, std::ptrdiff_t shared) noexcept {
  if (shared & is_queued && take_back(t, b)) return b;
  if (const std::size_t own = b->here.load(std::memory_order_relaxed); own > 1) {
    b->here.store(own - 1, std::memory_order_relaxed);
    return nullptr;
  }
  if (plain(shared) == one_reference) return let_go(t, b) ? b : nullptr;
  return drop_one(b, shared) ? nullptr : b;
}

__attribute__((noinline)) body* drop_of(thread_record& owner, body* b, std::ptrdiff_t shared) noexcept {
  if (shared & is_queued || plain(shared) > one_reference) return drop_one(b, shared) ? nullptr : b;
  return mark_queued(b, shared) && give_to(owner, b) ? nullptr : b;
}

// Nobody can come to a body whose only reference is ours, if there are no weak ones. But what another thread has
// counted apart and then together may have been added after we have looked.
bool is_ours_alone(const body* b) noexcept {
  const thread_record* const owner = b->thread();
  return is_sole(b) && (!owner || owner == this_thread_if_any());
}

// Under the lock it is not started meanwhile, by somebody who has it from a weak reference.
bool drop_last(body* b) noexcept {
  const std::lock_guard lock(b->lock);
  std::ptrdiff_t now = b->shared.load(std::memory_order_relaxed);
  return plain(now) == one_reference && !b->active_on.load(std::memory_order_acquire) &&
         b->shared.compare_exchange_strong(now, now - one_reference, std::memory_order_acq_rel);
}

// Destroys what it has. User code.
__attribute__((noinline)) void strip(body* b) noexcept {
  b->run = {};
  forget(b->run.callable);
  b->held = nullptr;
  bury_own(b);
  b->special.reset();
  if (b->delete_user_data) b->delete_user_data(b->user_data.load(std::memory_order_relaxed));
  b->delete_user_data = nullptr;
  b->name.reset();
  std::free(std::exchange(b->created, nullptr));
  if (b->main) census.main_greenlets.fetch_sub(1, std::memory_order_relaxed);
}

__attribute__((noinline)) void renew_wholly(body* b) noexcept {
  b->where = {};
  b->exceptions = {};
  b->here.store(1, std::memory_order_relaxed);
  ::new (static_cast<void*>(static_cast<body_course*>(b))) body_course;
  b->weak.store(1, std::memory_order_relaxed);
  b->user_data.store(nullptr, std::memory_order_relaxed);
  b->worn.store(false, std::memory_order_relaxed);
}

#ifdef _GLIBCXX_ASSERTIONS
void check_not_worn(const body* b) noexcept {
  if (!is_empty(b->exceptions) || b->here != 1 || b->orphan || b->beginning || b->last_is_queued || b->abandoned ||
      b->own_fp_env || b->kills || b->memory || b->previous_active || b->next_active || b->next_dropped ||
      b->previous_dropped || b->lineage_of || b->lineage_at || b->switches || b->stack_size != default_stack_size || b->told ||
      b->delete_user_data || b->variables || b->locals || b->created || b->c || b->weak != 1 || b->run || b->run.callable.has_value() ||
      b->held || b->special || b->user_data || b->name)
    impossible("a greenlet was worn, and nobody has said so");
}
#else
void check_not_worn(const body*) noexcept {}
#endif

// As newly made, but for its number and what its start sets.
GREENLET_ALWAYS_INLINE void renew_unworn(body* b) noexcept {
  check_not_worn(b);
  b->ending = false;
  b->parent.store(nullptr, std::memory_order_relaxed);
  b->shared.store(one_reference, std::memory_order_relaxed);
  b->owner.store(nullptr, std::memory_order_relaxed);
  b->state.store(life::unstarted, std::memory_order_relaxed);
}

void renew(body* b) noexcept {
  if (b->worn.load(std::memory_order_relaxed)) renew_wholly(b);
  renew_unworn(b);
}

// Nothing refers to it, and it has nothing.
GREENLET_ALWAYS_INLINE void free_body(body* b) noexcept {
  if (!record || b->main || is_traced(b) || !record->spare.has_room()) {
    delete b;
    return;
  }
  renew(b);
  record->spare.give(b);
}

// From its thread, its parent and the number of greenlets. Returns the parent, whose reference is the caller's.
GREENLET_ALWAYS_INLINE body* leave_tree(body* b) noexcept {
  if (thread_record* t = b->thread()) unref(*t);
  body* const parent = b->parent.load(std::memory_order_relaxed);
  b->parent.store(nullptr, std::memory_order_relaxed);
  if (record)
    record->count(-1);
  else
    census.greenlets.fetch_sub(1, std::memory_order_relaxed);
  return parent;
}

__attribute__((noinline)) body* bury_collected(body* b) noexcept {
  body* const parent = the_collector->is_husk(b) ? nullptr : bury_contents(b);
  the_collector->make_husk(b);  // for as long as there are weak references
  weak_unref(b);
  return parent;
}

// Frees what a body holds, whose last reference has gone. Returns its parent, whose reference the caller is to
// drop: a loop there, and not recursion, because a chain of unstarted greenlets may be long.
GREENLET_ALWAYS_INLINE body* bury(body* b) noexcept {
  if (__builtin_expect(is_traced(b), 0)) return bury_collected(b);
  if (b->worn.load(std::memory_order_relaxed) || b->run) strip(b);
  body* const parent = leave_tree(b);
  if (b->weak.load(std::memory_order_acquire) == 1)
    free_body(b);
  else
    weak_unref(b);
  return parent;
}

GREENLET_ALWAYS_INLINE body* drop_idle(body* b, std::ptrdiff_t shared) noexcept {
  if (plain(shared) > one_reference) return drop_one(b, shared) ? nullptr : b;
  if (!is_ours_alone(b) && !drop_last(b)) return b;
  sanitizer::after(b);
  b->shared.store(shared & is_collected, std::memory_order_relaxed);
  return bury(b);
}

}  // namespace

body* bury_contents(body* b) noexcept {
  strip(b);
  return leave_tree(b);
}

bool is_gone(const body* b) noexcept {
  const std::ptrdiff_t shared = b->shared.load(std::memory_order_acquire);
  return plain(shared) == 0 || (shared & is_collected && the_collector->is_husk(b));
}

void ref_elsewhere(body* b, const void* at) noexcept {
  if (at && is_traced(b)) placed(b, at);
  note_last(b);
  b->shared.fetch_add(one_reference, std::memory_order_relaxed);
}

namespace {

// Whether it has finished, on this thread, and left nothing but its parent, and nobody can come to it but the caller.
GREENLET_ALWAYS_INLINE bool is_spent(const thread_record* t, const body* b) noexcept {
  return !b->active_on.load(std::memory_order_acquire) && is_sole(b) && t && b->thread() == t &&
         !b->worn.load(std::memory_order_relaxed) && t->spare.has_room();
}

__attribute__((noinline)) void drop(body* b) noexcept {
  do {
    sanitizer::before(b);
    // In this order: who has left a single reference has known whether it was active.
    const std::ptrdiff_t shared = b->shared.load(std::memory_order_acquire);
    hot_thread* const on = b->active_on.load(std::memory_order_acquire);
    if (!on)
      b = drop_idle(b, shared);
    else if (on == hot_thread_v1)
      b = drop_own(*static_cast<thread_record*>(on), b, shared);
    else
      b = drop_of(*static_cast<thread_record*>(on), b, shared);
  } while (b && !unref_here(b));
}

}  // namespace

void unref_last(body* b, const void* at) noexcept {
  thread_record* const t = this_thread_if_any();
  if (__builtin_expect(is_spent(t, b), 1)) {  // as most are: what drop() does comes to a few words then
    body* const parent = b->parent.load(std::memory_order_relaxed);
    --t->own_references;
    t->count(-1);
    renew_unworn(b);
    t->spare.give(b);
    if (unref_here(parent, t)) return;
    b = parent;
  } else if (at && is_traced(b)) {
    taken(b, at);
  }
  drop(b);
}

bool take_back(thread_record& t, body* b) noexcept {
  if (!(b->shared.load(std::memory_order_relaxed) & is_queued) || b->last_is_queued || references(b) == 1 ||
      !take_dropped(t, b))
    return false;
  b->shared.fetch_sub(one_reference, std::memory_order_acq_rel);
  return true;
}

std::ptrdiff_t references(const body* b) noexcept {
  return (b->shared.load(std::memory_order_acquire) & ~counts_slowly) / one_reference +
         static_cast<std::ptrdiff_t>(b->here.load(std::memory_order_relaxed)) - 1;
}

void count_together(body* b) noexcept {
  const std::lock_guard lock(b->lock);
  end_own_count(b);
}

void merge(body* b) noexcept {
  const std::size_t own = b->here.load(std::memory_order_relaxed) - 1;
  b->here.store(1, std::memory_order_relaxed);
  b->shared.fetch_add(static_cast<std::ptrdiff_t>(own) * one_reference, std::memory_order_acq_rel);
}

void left_queue(body* b) noexcept {
  b->last_is_queued = false;
  b->wear();
  if (b->here.load(std::memory_order_relaxed) != 1) merge(b);  // others may have dropped what was counted in `here`
  unpin(b);
  b->shared.fetch_sub(is_queued, std::memory_order_acq_rel);
}

bool ref_if_any(body* b) noexcept {
  std::ptrdiff_t now = b->shared.load(std::memory_order_relaxed);
  note_last(b);
  while (plain(now) != 0)
    if (b->shared.compare_exchange_weak(now, now + one_reference, std::memory_order_acq_rel)) {
      if (now & is_collected) the_collector->wanted_again(b);
      return true;
    }
  return false;
}

void weak_unref(body* b) noexcept {
  if (b->weak.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
  b->wear();
  free_body(b);
}

}  // namespace greenlets::detail
