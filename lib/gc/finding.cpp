// SPDX-License-Identifier: MIT
// At the end of marking, with all threads stopped, what is not marked and no root is unreachable. What it refers to
// is kept for this collection by the keeper: a strong toggle reference of libgc's, which is marked after that moment,
// and before finalizers are chosen and weak links cleared. So a greenlet that is unwound finds everything as it was.
#include "finding.hpp"

#include "holding.hpp"
#include "marking.hpp"

#include "../collector.hpp"

#include <algorithm>
#include <new>
#include <utility>

namespace greenlets::gc::detail {

options* chosen = nullptr;
totals_t totals;
std::uint64_t stopwatch::spent = 0;

namespace {

using greenlets::detail::life;
namespace attention = greenlets::detail::attention;

std::uintptr_t keeper = 0;  // hidden
GC_toggleref_func toggle_before = nullptr;
bool keep_everything = false;  // this time: the roots were not all pushed

std::atomic<bool> waking{false};
// After the last collection, and since.
std::atomic<std::size_t> made_since{0};
std::atomic<std::size_t> left_then{0};
std::atomic<std::size_t> mapped_then{0};

GC_ToggleRefStatus on_toggle(void* object) {
  if (~reinterpret_cast<std::uintptr_t>(object) == keeper) return GC_TOGGLE_REF_STRONG;
  return toggle_before ? toggle_before(object) : GC_TOGGLE_REF_DROP;
}

// Whether only weak references are left.
bool has_gone(const body* b) noexcept {
  return (b->shared.load(std::memory_order_acquire) & ~greenlets::detail::is_collected) == 0;
}

// Whose it is to end: its thread's, or else that of whoever collects.
thread* ender_of(const body* b, bool suspended) noexcept {
  const thread_record* owner = b->thread();
  if (!owner)
    for (const body* p = b->parent.load(std::memory_order_relaxed); p && !owner; p = p->parent.load(std::memory_order_relaxed))
      owner = p->thread();
  if (thread* const t = owner ? thread_of(owner) : nullptr) return t;
  if (suspended) return nullptr;
  if (me && me->record) return me;
  for (thread* t = first_thread; t; t = t->next)
    if (t->record) return t;
  return nullptr;
}

void condemn(entry& e, thread& t, bool suspended) noexcept {
  e.what.store(fate::condemned, std::memory_order_relaxed);
  e.next = t.condemned;
  t.condemned = &e;
  t.to_wake = true;
  waking.store(true, std::memory_order_relaxed);
  t.record->raise(attention::condemned);
  e.suspended = suspended;
  e.told = false;
  (suspended ? totals.found : totals.freed).fetch_add(1, std::memory_order_relaxed);
}

void retire(entry& e, body* b) noexcept {
  entry_of(b) = nullptr;
  give_entry(&e);
}

// Returns the bytes of its stack that will be free.
std::size_t decide(entry& e, body* b) noexcept {
  if (e.what.load(std::memory_order_relaxed) == fate::husk) {
    retire(e, b);
    return 0;
  }
  const bool suspended = b->is(life::active);
  if (b->main && suspended) return 0;
  thread* const t = ender_of(b, suspended);
  if (!t) {
    e.what.store(fate::lost, std::memory_order_relaxed);
    return 0;
  }
  condemn(e, *t, suspended);
  return suspended && b->memory ? b->memory->usable : 0;
}

entry* take_condemned(thread& t) noexcept {
  entry* const e = t.condemned;
  if (e) t.condemned = std::exchange(e->next, nullptr);
  return e;
}

template <class F>
void each_condemned(F&& f) noexcept {
  for (thread* t = first_thread; t; t = t->next)
    for (entry* e = t->condemned; e; e = e->next)
      if (e->get()) f(*e);
}

bool reports() noexcept {
  return chosen->unreachable == policy::report || chosen->unreachable == policy::reclaim_and_report;
}

void count_what_they_held() noexcept {
  begin_counting();
  each_condemned([](entry& e) {
    if (e.suspended && !GC_is_marked(e.get())) count_held(e, e.get());
  });
}

}  // namespace

std::uint64_t now_ns() noexcept {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<std::uint64_t>(t.tv_sec) * 1000000000U + static_cast<std::uint64_t>(t.tv_nsec);
}

void begin_finding() {
  if (reports()) begin_holding();
  if (GC_get_find_leak()) return;  // the keeper would be taken for a leak, and is not needed
  toggle_before = GC_get_toggleref_func();
  GC_set_toggleref_func(&on_toggle);
  void* const made = GC_generic_malloc(15, keeper_kind);
  if (!made) throw std::bad_alloc();
  keeper = ~reinterpret_cast<std::uintptr_t>(made);
  if (GC_toggleref_add(made, 1) != GC_SUCCESS) throw std::bad_alloc();
}

bool keeps_all() noexcept { return chosen->unreachable == policy::ignore; }

void marking_ended(bool roots_were_pushed) noexcept {
  const stopwatch watch;
  totals.collections.fetch_add(1, std::memory_order_relaxed);
  keep_everything = !roots_were_pushed;
  std::size_t going = 0;
  std::size_t bytes = 0;
  const std::size_t found = totals.found.load(std::memory_order_relaxed);
  if (!keep_everything)
    for_each([&](entry& e, body* b) {
      if (e.is_root() || GC_is_marked(b)) return;
      ++going;
      bytes += decide(e, b);
    });
  if (reports() && totals.found.load(std::memory_order_relaxed) != found) count_what_they_held();
  const std::size_t mapped = mapped_bytes();
  mapped_then.store(mapped - std::min(mapped, bytes), std::memory_order_relaxed);
  const std::size_t all = registered.load(std::memory_order_relaxed);
  left_then.store(all - std::min(all, going), std::memory_order_relaxed);
  made_since.store(0, std::memory_order_relaxed);
  watch.stop();
}

void each_kept(void (*f)(void*, body*), void* data) noexcept {
  if (keep_everything) return for_each([&](entry&, body* b) { f(data, b); });
  each_condemned([&](entry& e) { f(data, e.get()); });
}

void reclaimed() noexcept {
  totals.last_ns.store(stopwatch::spent, std::memory_order_relaxed);
  if (stopwatch::spent > totals.most_ns.load(std::memory_order_relaxed))
    totals.most_ns.store(stopwatch::spent, std::memory_order_relaxed);
  stopwatch::spent = 0;
  // Whoever has the lock of a waker may wait for libgc's, which is held here: so only those that are free.
  for (thread* t = first_thread; t; t = t->next) {
    if (!t->to_wake || t == me || !t->record || !t->record->waker_lock.try_lock()) continue;
    if (t->record->waker) t->record->waker(t->record->waker_data);
    t->record->waker_lock.unlock();
    t->to_wake = false;
  }
}

void wake_owners() noexcept {
  while (waking.exchange(false, std::memory_order_relaxed)) {
    for (;;) {
      thread_record* next = nullptr;
      with_lock([&next] {
        for (thread* t = first_thread; t && !next; t = t->next)
          if (std::exchange(t->to_wake, false) && t != me && t->record) greenlets::detail::keep_thread(*(next = t->record));
      });
      if (!next) break;
      greenlets::detail::wake_kept_thread(*next);
    }
  }
}

static bool is_to_be_told(const entry& e) noexcept {
  const body* const b = e.get();
  return b && e.suspended && !e.told && !has_gone(b);
}

// All before the first is unwound: what that lets go of may end by its count, and those were found with it.
static void report_condemned(thread_record& t) noexcept {
  if (!reports()) return;
  for (;;) {
    entry* next = nullptr;
    with_lock([&] {
      if (!me || me->record != &t) return;
      for (next = me->condemned; next && !is_to_be_told(*next); next = next->next) continue;
      if (!next) return;
      next->told = true;
      greenlets::detail::ref(next->get());
    });
    if (!next) return;
    body* const b = next->get();
    note_leak(*next, b);
    greenlets::detail::unref(b);
  }
}

body* next_condemned(thread_record& t) noexcept {
  for (;;) {
    report_condemned(t);
    entry* e = nullptr;
    with_lock([&] {
      if (!me || me->record != &t) return;
      me->to_wake = false;
      while ((e = take_condemned(*me))) {
        body* const b = e->get();
        if (b && !has_gone(b)) {
          e->what.store(fate::dying, std::memory_order_relaxed);
          return greenlets::detail::ref(b);
        }
        // Others that were unwound have dropped its last reference.
        e->what.store(b ? fate::husk : fate::none, std::memory_order_relaxed);
        if (!b) give_entry(e);
      }
    });
    body* const b = e ? e->get() : nullptr;
    if (!b || !b->is(life::active) || chosen->unreachable != policy::report) return b;
    e->what.store(fate::leaked, std::memory_order_relaxed);
    greenlets::detail::unref(b);
  }
}

void count_unwound(const body* b) noexcept {
  totals.unwound.fetch_add(1, std::memory_order_relaxed);
  totals.stack_bytes.fetch_add(b->stack_size, std::memory_order_relaxed);
}

void unwound(body* b, bool was_suspended) noexcept {
  entry& e = *entry_of(b);
  if (was_suspended) count_unwound(b);
  fate now = fate::dying;
  if (b->dead() || ++e.tries < 16) {
    e.what.compare_exchange_strong(now, fate::none, std::memory_order_relaxed);
  } else {
    refused(b);
  }
}

void refused(body* b) noexcept {
  entry& e = *entry_of(b);
  if (e.what.exchange(fate::refused, std::memory_order_relaxed) != fate::refused)
    totals.refused.fetch_add(1, std::memory_order_relaxed);
}

void wanted_again(body* b) noexcept {
  if (entry_of(b)->what.load(std::memory_order_relaxed) != fate::condemned) return;
  // With it, others may be reachable again: they are looked at anew in the next collection.
  with_lock([] {
    for (thread* t = first_thread; t; t = t->next)
      while (entry* const e = take_condemned(*t)) {
        e->what.store(fate::none, std::memory_order_relaxed);
        if (!e->get())
          give_entry(e);
        else
          (e->suspended ? totals.found : totals.freed).fetch_sub(1, std::memory_order_relaxed);
      }
  });
}

bool is_husk(const body* b) noexcept {
  const entry* const e = entry_of(b);
  return !e || e->what.load(std::memory_order_relaxed) == fate::husk;
}

// One of the condemned becomes it when it is taken from there.
void make_husk(body* b) noexcept {
  std::atomic<fate>& what = entry_of(b)->what;
  if (what.load(std::memory_order_relaxed) != fate::condemned) what.store(fate::husk, std::memory_order_relaxed);
}

bool is_due() noexcept {
  const std::size_t left = left_then.load(std::memory_order_relaxed);
  const std::size_t mapped = mapped_then.load(std::memory_order_relaxed);
  return made_since.load(std::memory_order_relaxed) >= 64 &&
         (registered.load(std::memory_order_relaxed) >= left + std::max(chosen->collect_after_greenlets, left) ||
          mapped_bytes() >= mapped + std::max(chosen->collect_after_bytes, mapped));
}

void one_more() noexcept { made_since.fetch_add(1, std::memory_order_relaxed); }

}  // namespace greenlets::gc::detail
