// SPDX-License-Identifier: MIT
// What the core does for a garbage collector, and has done by it.
#include "census.hpp"
#include "collector.hpp"
#include "describe.hpp"
#include "probes.hpp"
#include "thread.hpp"

#include <new>

namespace greenlets::detail {

bool collects = false;
const collector* the_collector = nullptr;

void check_install(std::size_t version) {
  if (version != collector::version)
    throw error(errc::already_started, "libgreenlet and libgreenlet-gc are of different versions");
  if (collects) throw error(errc::already_started, "the collector has been enabled already");
  if (census.threads.load(std::memory_order_acquire) != 0 || census.greenlets.load(std::memory_order_relaxed) != 0 ||
      census.stacks.load(std::memory_order_relaxed) != 0)
    throw error(errc::already_started, "it is too late to enable the collector: greenlets have been used",
                "  greenlets::gc::enable() belongs at the beginning of main()" + describe_here());
}

void install(const collector& c) noexcept {
  the_collector = &c;
  collects = true;
}

thread_record& entered_thread() { return entered(); }
thread_record* thread_in_use() noexcept { return this_thread_if_any(); }
void keep_thread(thread_record& t) noexcept { ref(t); }
void wake_kept_thread(thread_record& t) noexcept {
  t.wake();
  unref(t);
}

void reference_moved(body* b, const void* to, const void* from) noexcept {
  if (!is_traced(b)) return;
  // First what keeps it, for it may be the only one.
  const bool pins = to && !the_collector->traces(to);
  const bool pinned_before = from && !the_collector->traces(from);
  if (pins == pinned_before) return;
  if (pins)
    the_collector->pin(b);
  else
    the_collector->unpin(b);
}

void* allocate_seen(std::size_t bytes, std::size_t alignment) { return the_collector->allocate_seen(bytes, alignment); }

// It may be from before there was a collector.
void free_seen(void* p, std::size_t alignment) noexcept {
  if (the_collector->owns(p)) return the_collector->free(p);
  if (alignment > __STDCPP_DEFAULT_NEW_ALIGNMENT__)
    ::operator delete(p, std::align_val_t(alignment));
  else
    ::operator delete(p);
}

void* allocate_box(std::size_t bytes, std::size_t alignment) { return the_collector->allocate_box(bytes, alignment); }
void free_box(void* box, std::size_t alignment, void* pin) noexcept {
  if (pin) the_collector->free(pin);
  free_seen(box, alignment);
}
void place_box(void* box, void*& pin, const void* at) noexcept { the_collector->place_box(box, pin, at); }

namespace {

// Frees what an unreachable one holds that will not run: its callable, its value, its place in the tree.
void release(body* b) noexcept {
  body* const parent = bury_contents(b);
  the_collector->make_husk(b);
  if (parent) unref(parent);
}

// Whether it is on its way out, though it has switched away meanwhile.
bool is_ending(const body* b) noexcept { return b->exceptions.uncaught != 0 || b->ending || b->beginning; }

}  // namespace

void flush_condemned(thread_record& t) noexcept {
  if (!collects) return;
  t.lower(attention::condemned);
  if (t.wants(attention::in_hook)) return t.raise(attention::condemned);
  while (body* const b = the_collector->next_condemned(t)) {
    GREENLET_PROBE(condemn, b);
    bool unwound_now = false;
    if (b->is(life::unstarted)) {
      die_unstarted(t, b);  // user code, which may have started it
      if (b->dead()) release(b);
    } else if (b->is(life::active) && b->thread() == &t && b != t.running()) {
      unwind_one(t, b, greenlet_exit::reason::collected);
      unwound_now = b->dead();
      if (!unwound_now && !is_ending(b)) {
        the_collector->refused(b);
        report_refusal(b);
      }
    } else if (b->dead()) {
      release(b);
    }
    the_collector->unwound(b, unwound_now);
    unref(b);
    if (t.exited.load(std::memory_order_relaxed)) return;
  }
}

}  // namespace greenlets::detail
