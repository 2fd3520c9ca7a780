// SPDX-License-Identifier: MIT
// What the core and a garbage collector's library know of each other. Without a collector none of this is called;
// the core links none. doc/design.md, "The collector".
#ifndef LIB_COLLECTOR_HPP
#define LIB_COLLECTOR_HPP

#include "body.hpp"
#include "slab.hpp"

#include <cstddef>
#include <cstdint>

namespace greenlets::detail {

// Installed once. Functions that say nothing else may be called on any thread.
struct collector {
  // The two libraries look into each other's records, so they must be of one build.
  static constexpr std::size_t version = 3 + 16 * sizeof(body);
  // Of slabs: so that the one that an address lies in is found by its higher bits.
  static constexpr std::size_t alignment = 64 * 1024;
  // libgc's allocator clears some 26 KiB below its caller's frame.
  static constexpr std::size_t least_stack_size = 64 * 1024;

  // Bodies. Memory of one; throws std::bad_alloc. Made: it is whole, and may be found from now on.
  void* (*allocate_body)();
  void (*made)(body* b) noexcept;
  void (*free_body)(void* b) noexcept;
  // Whether it has been found, and what it held is freed.
  bool (*is_husk)(const body* b) noexcept;
  void (*make_husk)(body* b) noexcept;

  // References. Whether a handle at `at` is found without being counted, and the count of those that are not.
  bool (*traces)(const void* at) noexcept;
  void (*pin)(body* b) noexcept;
  void (*unpin)(body* b) noexcept;
  // A weak reference has given a strong one: what was condemned is not.
  void (*wanted_again)(body* b) noexcept;

  // Memory for what holds user data.
  void* (*allocate_seen)(std::size_t bytes, std::size_t alignment);
  void* (*allocate_box)(std::size_t bytes, std::size_t alignment);
  void (*place_box)(void* box, void*& pin, const void* at) noexcept;
  bool (*owns)(const void* p) noexcept;
  void (*free)(void* p) noexcept;

  // The calling thread: before its first use of the library, and at its end; which record it has.
  void (*attach)();
  void (*detach)() noexcept;
  void (*uses)(thread_record* t) noexcept;

  // Stacks: a slab has been mapped; it is to be unmapped when nobody looks.
  void (*mapped)(slab* s) noexcept;
  void (*unmap)(slab* s) noexcept;

  // Looks for what is unreachable now.
  void (*collect)() noexcept;

  // What it has found. The next of the thread's, which is the caller's to end, and counted; or null. Then what
  // has become of it; its reference is the collector's to drop.
  body* (*next_condemned)(thread_record& t) noexcept;
  void (*unwound)(body* b, bool was_suspended) noexcept;
  void (*refused)(body* b) noexcept;
};

extern const collector* the_collector;

// Throws error(already_started) when there is one, or when there has been a greenlet.
GREENLET_API void check_install(std::size_t version);
// Installs it, after that.
GREENLET_API void install(const collector& c) noexcept;
// For it: the calling thread's record, made at its first use, after what is due at an entry.
GREENLET_API thread_record& entered_thread();
GREENLET_API thread_record* thread_in_use() noexcept;
// Keeps a record; then wakes its thread, and keeps it no longer.
GREENLET_API void keep_thread(thread_record& t) noexcept;
GREENLET_API void wake_kept_thread(thread_record& t) noexcept;

// Where C keeps its references: nowhere that a collector looks.
inline void* const of_c = reinterpret_cast<void*>(8);

inline bool is_traced(const body* b) noexcept { return b->shared.load(std::memory_order_relaxed) & is_collected; }
inline void pin(body* b) noexcept {
  if (is_traced(b)) the_collector->pin(b);
}
inline void unpin(body* b) noexcept {
  if (is_traced(b)) the_collector->unpin(b);
}
// A reference begins, and ends, in a handle there.
inline void placed(body* b, const void* at) noexcept {
  if (!the_collector->traces(at)) the_collector->pin(b);
}
inline void taken(body* b, const void* at) noexcept {
  if (!the_collector->traces(at)) the_collector->unpin(b);
}

// What a weak reference holds, and back: with a collector, nothing that looks like a pointer.
inline body* hidden(body* b) noexcept {
  return collects ? reinterpret_cast<body*>(~reinterpret_cast<std::uintptr_t>(b)) : b;
}

}  // namespace greenlets::detail

#endif
