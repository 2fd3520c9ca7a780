// SPDX-License-Identifier: MIT
// What is allocated in the collected heap, and what an address says of who sees it.
#include "memory.hpp"

#include "../impossible.hpp"
#include "finding.hpp"
#include "marking.hpp"
#include "threads.hpp"

#include <greenlet/gc.hpp>

#include <cstdint>
#include <cstdlib>
#include <execinfo.h>
#include <new>
#include <utility>

namespace greenlets::gc::detail {
namespace {

// libgc's numbers of its own kinds, which are those of 6.0 still: without pointers 0, and 3.
constexpr int normal = 1;
constexpr int uncollectable = 2;

void** trace_of_caller() noexcept {
  constexpr int most = 16;
  constexpr int own = 4;  // this function and those between it and the program's
  void* frames[most + own];
  const int n = backtrace(frames, most + own);
  if (n <= own) return nullptr;
  auto** const kept = static_cast<void**>(std::calloc(static_cast<std::size_t>(n - own + 1), sizeof(void*)));
  for (int i = own; kept && i < n; ++i) kept[i - own] = frames[i];
  return kept;
}

void* aligned(std::size_t bytes, std::size_t alignment, void* (*allocate)(std::size_t)) {
  attach();
  const bool plain = alignment <= 2 * sizeof(void*);
  void* const p = allocate(plain ? bytes : bytes + alignment - 1);
  if (!p) throw std::bad_alloc();
  const auto address = reinterpret_cast<std::uintptr_t>(p);
  return plain ? p : reinterpret_cast<void*>((address + alignment - 1) & ~(alignment - 1));
}

}  // namespace

void collect_now() noexcept {
  if (GC_is_disabled()) return;
  GC_gcollect();
  wake_owners();
}

void* allocate_body() {
  attach();
  if (is_due()) collect_now();
  void* const memory = GC_generic_malloc(body_bytes, body_kind);
  if (!memory) throw std::bad_alloc();
  try {
    entry* const e = take_entry();
    e->made = now_ns();
    e->made_at = chosen->note_creation ? trace_of_caller() : nullptr;
    entry_of(memory) = e;
  } catch (...) {
    GC_free(memory);
    throw;
  }
  one_more();
  return memory;
}

void made(body* b) noexcept {
  b->shared.fetch_or(greenlets::detail::is_collected, std::memory_order_relaxed);
  registered.fetch_add(1, std::memory_order_relaxed);
  entry_of(b)->hidden.store(~reinterpret_cast<std::uintptr_t>(b), std::memory_order_release);
}

void free_body(void* memory) noexcept {
  entry* const e = entry_of(memory);
  if (e) {
    if (e->what.load(std::memory_order_relaxed) == fate::condemned && e->suspended) count_unwound(static_cast<body*>(memory));
    std::free(std::exchange(e->made_at, nullptr));
    with_lock([&] {
      entry_of(memory) = nullptr;
      give_entry(e);
    });
  }
  GC_free(memory);
}

// What lies in the thread's record is on its way to a greenlet; only the thread itself puts anything there.
static bool is_in_record(const void* at) noexcept {
  const greenlets::detail::thread_record* const r = me ? me->record : nullptr;
  return r && at >= static_cast<const void*>(r) && at < static_cast<const void*>(r + 1);
}

bool traces(const void* at) noexcept {
  if (slab_at(at) || is_in_record(at)) return true;
  void* const base = GC_base(const_cast<void*>(at));
  if (!base) return false;
  const int kind = GC_get_kind_and_size(base, nullptr);
  return kind == normal || kind == uncollectable || kind == body_kind;
}

void pin(body* b) noexcept {
  if (entry* const e = entry_of(b)) e->pins.fetch_add(1, std::memory_order_relaxed);
}

void unpin(body* b) noexcept {
  if (entry* const e = entry_of(b)) e->pins.fetch_sub(1, std::memory_order_relaxed);
}

void* allocate_seen(std::size_t bytes, std::size_t alignment) { return aligned(bytes, alignment, &GC_malloc_uncollectable); }

void* allocate_box(std::size_t bytes, std::size_t alignment) { return aligned(bytes, alignment, &GC_malloc); }

// The thread's own stack is scanned, too, and most values live there for a moment.
void place_box(void* box, void*& pin, const void* at) noexcept {
  const bool seen = (me && me->is_native(at)) || traces(at);
  if (seen == !pin) return;
  if (seen) return GC_free(std::exchange(pin, nullptr));
  attach();
  void** const cell = static_cast<void**>(GC_malloc_uncollectable(sizeof(void*)));
  if (!cell) impossible("no memory to keep what a value holds");
  *cell = box;
  pin = cell;
}

bool owns(const void* p) noexcept { return GC_is_heap_ptr(p) != 0; }

void free_seen(void* p) noexcept { GC_free(GC_base(p)); }

void* allocate(std::size_t bytes) {
  return aligned(bytes, 1, [](std::size_t n) -> void* { return GC_malloc(n); });
}

void deallocate(void* p) noexcept { GC_free(p); }

}  // namespace greenlets::gc::detail
