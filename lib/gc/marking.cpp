// SPDX-License-Identifier: MIT
// Mark procedures: called by several threads at once, also for memory that is free, and now and then while
// threads run. They allocate nothing, lock nothing and push nothing but what they are given to push with.
#include "marking.hpp"

#include "finding.hpp"

#include <algorithm>
#include <atomic>
#include <cstdint>

namespace greenlets::gc::detail {

int body_kind = -1;
int keeper_kind = -1;

namespace {

using greenlets::detail::value_access;

constexpr std::size_t most_noted = 256;
std::atomic<stack*> stood_on[most_noted];
std::atomic<std::size_t> noted{0};

// The running greenlet's saved stack pointer is old, and what lies below its real one dead.
bool is_stood_on(const stack* s) noexcept {
  const std::size_t n = noted.load(std::memory_order_acquire);
  for (std::size_t i = 0; i < n; ++i)
    if (stood_on[i].load(std::memory_order_relaxed) == s) return true;
  return false;
}

bool interior_pointers() noexcept {
  static const bool all = GC_get_all_interior_pointers();
  return all;
}

struct marker {
  GC_ms_entry* top;
  GC_ms_entry* limit;

  GREENLET_NO_ASAN void mark(void* word) noexcept {
    if (!word) return;
    if (!interior_pointers()) {  // then libgc would not know one that is found on a stack
      if (void* const base = GC_base(word)) top = GC_MARK_AND_PUSH(base, top, limit, nullptr);
    } else {
      top = GC_MARK_AND_PUSH(word, top, limit, nullptr);
    }
  }
  GREENLET_NO_ASAN void mark(char* low, char* high) noexcept {
    for (char* at = low; at + sizeof(void*) <= high; at += sizeof(void*)) mark(*reinterpret_cast<void**>(at));
  }
};

// Also of one that says that it holds nothing: it says so a moment before what it held is copied elsewhere.
template <class F>
GREENLET_NO_ASAN void each_word(value& v, F&& f) {
  void* words[3];
  __builtin_memcpy(words, value_access::storage(v).bytes, sizeof words);
  for (void* word : words) f(word);
}

// What a body refers to, its stack and registers apart. Not everything in it: it is in lists, too, that keep nobody.
template <class F>
GREENLET_NO_ASAN void each_word(body* b, F&& f) {
  f(b->parent.load(std::memory_order_relaxed));
  each_word(b->run.callable, f);
  f(b->special.get());
  f(b->user_data.load(std::memory_order_relaxed));
}

// Inline in a function that calls nobody, so that no address gets on the stack: libgc may be about to look at it.
__attribute__((always_inline)) inline void fetch(const void* first, std::uintptr_t end) noexcept {
  for (auto line = reinterpret_cast<std::uintptr_t>(first); line < end; line += 64)
    __builtin_prefetch(reinterpret_cast<const void*>(line));
}

// A stack that has not run for long is in no cache, nor is its page's address. Roots are marked from the last that was
// pushed, or by several threads that take five of them at a time, each from the last: so the entries before this one
// are next, mostly. First the record, of which the stack is known then.
__attribute__((noinline)) void fetch_next(const entry* e) noexcept {
#if defined __OPTIMIZE__ && !defined GREENLET_ASAN
  constexpr std::uintptr_t record_bytes = sizeof(body) + sizeof(entry*), stack_bytes = 640;
  if (const body* const later = e[-4].get()) fetch(later, reinterpret_cast<std::uintptr_t>(later) + record_bytes);
  if (const body* const soon = e[-2].get(); soon && soon->where.sp) {
    const auto low = reinterpret_cast<std::uintptr_t>(soon->where.sp) - 128;  // about; its stack may be gone
    fetch(reinterpret_cast<const void*>(low), std::min(low + stack_bytes, reinterpret_cast<std::uintptr_t>(soon->memory)));
  }
#else
  static_cast<void>(e);
#endif
}
static_assert(chunk::most_ahead >= 4);

GREENLET_NO_ASAN GC_ms_entry* mark_body(GC_word* address, GC_ms_entry* top, GC_ms_entry* limit, GC_word) {
  // Free memory is all zero, but for its first word.
  entry* const e = entry_of(address);
  if (!e || e->hidden.load(std::memory_order_acquire) != ~reinterpret_cast<std::uintptr_t>(address)) return top;
  fetch_next(e);
  auto* const b = reinterpret_cast<body*>(address);
  marker m{top, limit};
  each_word(b, [&m](void* word) { m.mark(word); });
  const range live = live_part(b);
  if (live.low) {
    m.mark(b->where.fp);
    m.mark(b->where.base);
    m.mark(live.low, live.high);
  }
  return m.top;
}

GC_ms_entry* mark_kept(GC_word*, GC_ms_entry* top, GC_ms_entry* limit, GC_word) {
  marker m{top, limit};
  each_kept([&m](body* b) { m.mark(b); });
  return m.top;
}

int make_kind(GC_mark_proc f) noexcept {
  return static_cast<int>(GC_new_kind(GC_new_free_list(), GC_MAKE_PROC(GC_new_proc(f), 0), 0, 1));
}

}  // namespace

void make_kinds() {
  interior_pointers();
  body_kind = make_kind(&mark_body);
  keeper_kind = make_kind(&mark_kept);
}

void stands_on(stack* s) noexcept {
  const std::size_t n = noted.load(std::memory_order_relaxed);
  if (n == most_noted) return;  // a little more is scanned
  stood_on[n].store(s, std::memory_order_relaxed);
  noted.store(n + 1, std::memory_order_release);
}

void nobody_stands() noexcept { noted.store(0, std::memory_order_release); }

char* live_from(const greenlets::detail::machine::context& c) noexcept {
  const auto address = reinterpret_cast<std::uintptr_t>(greenlets::detail::machine::lowest_live(c));
  return reinterpret_cast<char*>(address & ~(sizeof(void*) - 1));
}

// Its thread may be running now, so that this is neither here nor there; but on the stack it is.
range live_part(const body* b) noexcept {
  stack* const s = b->memory;
  if (!s || !b->where.sp || is_stood_on(s)) return {nullptr, nullptr};
  char* const high = end_of(*s, b->where.sp);
  char* const bottom = low_of(*s);
  char* low = live_from(b->where);
  if (low >= high) return {nullptr, nullptr};
  if (low < bottom) low = bottom;
  return {low, high};
}

void each_reference_beside_stack(const body* b, void (*f)(void*, void*), void* data) {
  each_word(const_cast<body*>(b), [&](void* word) { f(data, word); });
}

void push(const void* object) noexcept {
  const void* word[1] = {object};
  GC_push_all_eager(word, word + 1);
}

void push_value(const value& v) noexcept {
  each_word(const_cast<value&>(v), [](void* word) { push(word); });
}

void push_range(char* low, char* high) noexcept {
  if (low < high) GC_push_all_eager(low, high);
}

void push_again(const body* b) noexcept {
  each_word(const_cast<body*>(b), [](void* word) { push(word); });
  const range live = live_part(b);
  if (live.low) push_context(b->where, live.high);
}

void push_context(const greenlets::detail::machine::context& c, char* high) noexcept {
  push(c.fp);
  push(c.base);
  push_range(live_from(c), high);
}

}  // namespace greenlets::gc::detail
