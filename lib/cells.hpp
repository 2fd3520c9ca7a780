// SPDX-License-Identifier: MIT
// cells: the memory of bodies, in chunks that are never unmapped.
//
// So whoever wants to know which greenlets there are looks at each cell, and follows no list that their owners change
// meanwhile: a snapshot needs no lock, nor does a debugger (anchor.hpp). In a cell that nobody uses the id is 0.
// With a collector bodies have its memory.
#ifndef LIB_CELLS_HPP
#define LIB_CELLS_HPP

#include "body.hpp"

#include <cstddef>
#include <cstdint>

namespace greenlets::detail {

// One that nobody uses. They are passed on in chains; the first of one says how many these are, and which chain is next.
struct cell {
  cell* next;
  cell* next_chain;
  std::size_t count;
};

// `cells` begin at `first`, and are `stride` bytes apart; each is whole lines of a cache.
struct cell_chunk {
  static constexpr std::size_t bytes = std::size_t{1} << 20;  // of a million greenlets five hundred mappings
  static constexpr std::size_t first = 64;
  static constexpr std::size_t stride = (sizeof(body) + 63) & ~std::size_t{63};
  static constexpr std::size_t cells = (bytes - first) / stride;

  cell_chunk* next;  // written once
};

// What a thread has at hand of cells that nobody uses, so that many threads do not wait for each other: part of a chain, and
// perhaps a whole one.
class cell_cache {
 public:
  cell_cache() noexcept = default;
  cell_cache(const cell_cache&) = delete;
  cell_cache& operator=(const cell_cache&) = delete;
  // Gives back what is there. Thread: the one that has it.
  void trim() noexcept;

 private:
  friend void* take_cell();
  friend void give_cell(void* memory) noexcept;

  // A sanitizer is to see who uses a body that is gone: there each is used again as late as possible.
  static constexpr std::size_t in_chain = sanitizer::instrumented ? 1 : 32;

  cell* pop() noexcept;
  void push(cell* c) noexcept;

  cell* first_ = nullptr;
  std::size_t count_ = 0;
  cell* whole_ = nullptr;
};

// For a body. Throws std::bad_alloc.
void* take_cell();
// From now on nobody is in there.
void give_cell(void* memory) noexcept;

// For fork().
void lock_cells() noexcept;
void unlock_cells() noexcept;

}  // namespace greenlets::detail

#endif
