// SPDX-License-Identifier: MIT
// The two hooks in libgc: before it scans the threads' stacks, and at each event of a collection.
//
// libgc scans a thread's stack from where it was stopped to the beginning of the thread's own. A thread in a greenlet
// is on another stack: for the time of the scan, and with all threads stopped, that one's beginning is put in the
// place of the thread's; what waits on the thread's own is pushed by us. So a switch has nothing to do.
#include "roots.hpp"

#include "finding.hpp"
#include "marking.hpp"
#include "threads.hpp"

#include "../arch/leftovers.hpp"

#include <algorithm>
#include <atomic>
#include <utility>

namespace greenlets::gc::detail {
namespace {

GC_push_other_roots_proc push_before = nullptr;
GC_on_collection_event_proc event_before = nullptr;

bool stopped = false;          // all threads, but the one that collects
bool in_cycle = false;         // from the stop to the end of the reclaiming
bool pushed = false;           // in this cycle
std::atomic<bool> lost{false};

// Those whose stack's beginning has been exchanged.
thread* exchanged = nullptr;

void exchange_bottom(thread& t, char* high) noexcept {
  GC_stack_base base = t.native;
  base.mem_base = high;
  GC_set_stackbottom(t.handle, &base);
  t.next_exchanged = std::exchange(exchanged, &t);
}

void restore_bottoms() noexcept {
  while (thread* const t = exchanged) {
    exchanged = t->next_exchanged;
    GC_set_stackbottom(t->handle, &t->native);
  }
}

// Where the thread is; null when nobody has seen it.
char* place_of(const thread& t) noexcept {
  if (&t == me) return static_cast<char*>(__builtin_frame_address(0));
  return t.in_stop ? reinterpret_cast<char*>(t.stop_sp) : nullptr;
}

// The beginning of the stack that this is on: a greenlet's, or else the thread's own.
char* high_of(const thread& t, const void* sp) noexcept {
  stack* const s = stack_at(sp);
  return s ? end_of(*s, sp) : static_cast<char*>(t.native.mem_base);
}

// Its record, and those whose survivors it is on: they have a main greenlet each, which waits on some stack.
template <class F>
void each_record(const thread& t, F&& f) {
  if (t.record) f(*t.record);
  for (const thread_record* x = *t.survives_in; x; x = x->survives_in)
    if (x != t.record) f(*x);
}

// Where it is when only its records say so.
struct said {
  stack* on;
  const void* sp;
};
said said_place_of(const thread& t) noexcept {
  if (const body* const b = t.record ? t.record->running() : nullptr; b && b->memory) return {b->memory, b->where.sp};
  if (const thread_record* const x = *t.survives_in) return {x->survivor, x->running()->where.sp};
  return {nullptr, nullptr};
}

// A stack of the thread's that it is not on, where its record's main greenlet waits.
void push_main(const thread& t, const thread_record& r, const stack* on) noexcept {
  const auto& where = r.main->where;
  if (!where.sp) return;
  if (stack_at(where.sp) != on) push_context(where, high_of(t, where.sp));
}

char* below(char* sp, char* low) noexcept {
  const auto aligned = reinterpret_cast<std::uintptr_t>(sp) & ~(sizeof(void*) - 1);
  return std::max(low, reinterpret_cast<char*>(aligned) - 128);
}

// A handler on an alternate stack has interrupted something, in the middle of a switch perhaps. Where, is among the
// words that lie there; so whatever one of them points to is taken for it.
GREENLET_NO_ASAN void push_below_signal(thread& t, char* sp) noexcept {
  exchange_bottom(t, const_cast<char*>(t.signal_high));
  char* const native_high = static_cast<char*>(t.native.mem_base);
  char* native = native_high;
  stack* last = nullptr;
  char* last_from = nullptr;
  auto* const end = reinterpret_cast<char* const*>(t.signal_high);
  for (auto* at = reinterpret_cast<char* const*>(reinterpret_cast<std::uintptr_t>(sp) & ~std::uintptr_t{7}); at + 1 <= end; ++at) {
    char* const word = *at;
    if (t.is_native(word)) {
      native = std::min(native, word);
    } else if (stack* const s = stack_at(word)) {
      if (s == last && word >= last_from) continue;
      push_range(below(word, low_of(*s)), end_of(*s, word));
      last = s;
      last_from = word;
    }
  }
  push_range(below(native, const_cast<char*>(t.native_low)), native_high);
  // Not on any stack of a greenlet's, so all of them are scanned by what they have saved, too.
  each_record(t, [&t](const thread_record& r) {
    if (r.main->where.sp) push_context(r.main->where, high_of(t, r.main->where.sp));
  });
}

void push_thread(thread& t) noexcept {
  const thread_record* const r = t.record;
  char* const sp = place_of(t);
  // In GC_do_blocking a thread is not stopped, and does not switch.
  const auto [on, at] = sp ? said{stack_at(sp), sp} : said_place_of(t);
  if (r) {
    push(r->running());
    push(r->left);
    for (body* const guest : r->guests) push(guest);
  }
  each_record(t, [](const thread_record& each) { push_value(each.slot.sent); });
  const bool on_signal_stack = sp && !on && t.signal_low && sp >= t.signal_low && sp < t.signal_high;
  if (on_signal_stack && !t.is_native(sp)) return push_below_signal(t, sp);
  each_record(t, [&, on = on](const thread_record& each) { push_main(t, each, on); });
  if (!on) return;
  stands_on(on);
  exchange_bottom(t, end_of(*on, at));
}

void push_bodies(bool all) noexcept {
  const bool incremental = GC_is_incremental_mode();
  for_each([&](entry& e, body* b) {
    if (all || e.is_root()) push(b);
    // It was marked before its stack was as it is now.
    if (incremental && b->is(greenlets::detail::life::active) && GC_is_marked(b)) push_again(b);
  });
}

void push_roots() {
  if (!stopped) {
    // Everything that a root reaches is marked already, and running threads cannot be scanned.
    if (in_cycle || GC_is_incremental_mode()) return;
    lost.store(true, std::memory_order_relaxed);  // nobody has told us of the stop: whoever comes may not find it all
  }
  const stopwatch threads;
  pushed = true;
  nobody_stands();
  for (thread* t = first_thread; t; t = t->next) push_thread(*t);
  threads.stop();
  if (push_before) push_before();
  restore_bottoms();
  const stopwatch bodies;
  push_bodies(!stopped || keeps_all());
  // libgc looks at this stack only now, as far as it had got when the threads were pushed: at the addresses of those
  // that nothing reaches, too.
  greenlets::detail::machine::forget_frames();
  bodies.stop();
}

void on_event(GC_EventType event) {
  switch (event) {
    case GC_EVENT_PRE_STOP_WORLD:
      in_cycle = true;
      pushed = false;
      break;
    case GC_EVENT_POST_STOP_WORLD: stopped = true; break;
    case GC_EVENT_MARK_END:
      if (!stopped) break;
      if (!pushed) lost.store(true, std::memory_order_relaxed);
      marking_ended(pushed);
      break;
    case GC_EVENT_PRE_START_WORLD:
      stopped = false;
      nobody_stands();
      threads_start();
      break;
    case GC_EVENT_RECLAIM_END:
      in_cycle = false;
      reclaimed();
      greenlets::detail::machine::forget_vectors();
      break;
    default: break;
  }
  if (event_before) event_before(event);
}

}  // namespace

void hook_collections() {
  with_lock([] {
    push_before = GC_get_push_other_roots();
    GC_set_push_other_roots(&push_roots);
  });
  event_before = GC_get_on_collection_event();
  GC_set_on_collection_event(&on_event);
}

bool hooks_lost() noexcept { return lost.exchange(false, std::memory_order_relaxed); }

}  // namespace greenlets::gc::detail
