// SPDX-License-Identifier: MIT
// registry: every body there is, in memory that the collector does not look at.
//
// It is walked while all threads are stopped at any instruction. So its memory is never given back, an entry is
// there from the moment on that `hidden` is stored, and the lists are changed under libgc's lock only.
#ifndef LIB_GC_REGISTRY_HPP
#define LIB_GC_REGISTRY_HPP

#include "../anchor.hpp"
#include "../body.hpp"
#include "libgc.hpp"

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace greenlets::gc::detail {

using greenlets::detail::body;

// What is known of a greenlet's reachability. All but `none` keep it.
enum class fate : unsigned char {
  none,
  condemned,  // found unreachable; waits for its thread
  dying,      // its thread unwinds it
  refused,    // it was told to end and did not
  leaked,     // reported, and left
  lost,       // its thread does not exist in this process
  husk,       // what it held is freed; kept only for weak references
};

// Whether there are weak handles. The strong ones together hold one weak reference, as long as there are any.
inline bool has_weak(const body* b) noexcept {
  const bool strong = (b->shared.load(std::memory_order_acquire) & ~greenlets::detail::is_collected) != 0;
  return b->weak.load(std::memory_order_relaxed) > (strong ? 1 : 0);
}

struct entry {
  std::atomic<std::uintptr_t> hidden{0};  // the body, as no pointer looks; 0: free
  std::atomic<std::uint32_t> pins{0};     // references from where the collector does not look
  std::atomic<fate> what{fate::none};
  unsigned char tries = 0;                // how often it was told to end
  bool suspended = false;                 // when it was condemned
  bool told = false;                      // ... and has been reported since
  // Then, when that is to be told: the objects of the collected heap that nothing else kept.
  static constexpr std::size_t granule = 16;
  std::uint32_t held_objects = 0;
  std::uint32_t held_granules = 0;
  entry* next = nullptr;                  // of those that are free; of its thread's condemned
  std::uint64_t made = 0;                 // nanoseconds of the steady clock
  void** made_at = nullptr;               // return addresses, null at the end; when asked for

  body* get() const noexcept {
    const std::uintptr_t h = hidden.load(std::memory_order_acquire);
    return h ? reinterpret_cast<body*>(~h) : nullptr;
  }
  bool is_root() const noexcept {
    if (pins.load(std::memory_order_relaxed) != 0) return true;
    switch (what.load(std::memory_order_relaxed)) {
      case fate::none: return false;
      case fate::husk: return has_weak(get());
      case fate::refused: case fate::leaked: return !get()->dead();  // until it has ended by itself
      default: return true;
    }
  }
};

// A body's memory ends with the address of its entry; null while there is none.
constexpr std::size_t body_bytes = sizeof(body) + sizeof(entry*);
inline entry*& entry_of(const void* b) noexcept {
  return *reinterpret_cast<entry**>(const_cast<char*>(static_cast<const char*>(b)) + sizeof(body));
}

struct chunk {
  static constexpr std::size_t entries = 1000;
  static constexpr std::size_t most_ahead = 4;
  chunk* next;
  entry none[most_ahead];  // never in use: so that who looks ahead from an entry need not ask where it lies
  entry all[entries];
};

// Newest first; read by the collector.
extern std::atomic<chunk*> first_chunk;
// How many are in use.
extern std::atomic<std::size_t> registered;

// Throws std::bad_alloc.
entry* take_entry();
// Under the lock. One that is among the condemned stays there, without its body.
void give_entry(entry* e) noexcept;

// For who reads records.
greenlets::detail::registry_layout registry_layout() noexcept;

template <class F>
void for_each(F&& f) {
  for (chunk* c = first_chunk.load(std::memory_order_acquire); c; c = c->next)
    for (entry& e : c->all)
      if (body* const b = e.get()) f(e, b);
}

}  // namespace greenlets::gc::detail

#endif
