// SPDX-License-Identifier: MIT
// slab: a mapping that holds several stacks of one size, each with its guard page.
#ifndef LIB_SLAB_HPP
#define LIB_SLAB_HPP

#include <cstddef>
#include <cstdint>

namespace greenlets::detail {

// Lies at its own end, above the last stack.
struct slab {
  static constexpr unsigned most = 64;

  char* base;
  std::size_t stride;  // bytes from one stack's guard page to the next one's
  std::size_t usable;  // bytes of each
  unsigned slots;
  bool advised;        // its guard pages are there by advice
  std::uint64_t free;  // a bit for each
  slab* previous;      // in the list of those with a free place
  slab* next;

  char* guard(unsigned slot) const noexcept { return base + slot * stride; }
  // Tops that are a whole number of pages apart would meet in the same few lines of every cache.
  char* top(unsigned slot) const noexcept {
    const std::size_t colour = slot % 16 * 64;
    return guard(slot) + stride - (slot == slots - 1 ? room_for_slab() : 0) - colour;
  }
  static constexpr std::size_t room_for_slab() noexcept;
  std::uint64_t all() const noexcept { return ~std::uint64_t{0} >> (most - slots); }
};

constexpr std::size_t slab::room_for_slab() noexcept { return (sizeof(slab) + 63) & ~std::size_t{63}; }

std::size_t page_size() noexcept;

// Maps one with guard pages. With `advised` they are installed by advice, which leaves the mapping whole; else,
// or where the system does not know that (before Linux 6.13; locked memory), by protection, and then there is
// one stack. `advised` is set to what was done. Throws std::system_error (mmap, mprotect), error(stack_limit).
slab* map_slab(std::size_t usable, unsigned slots, bool& advised);
void unmap_slab(slab* s) noexcept;
// Gives the pages of a stack back that nobody uses.
void give_pages_back(slab& s, unsigned slot) noexcept;
// The same for those below `lowest`, which lies on the stack.
void give_pages_back(slab& s, unsigned slot, const void* lowest) noexcept;

}  // namespace greenlets::detail

#endif
