// SPDX-License-Identifier: MIT
// What the core and a library that walks stacks know of each other. doc/design.md, "Frames".
#ifndef LIB_SUSPENSION_HPP
#define LIB_SUSPENSION_HPP

#include "arch/registers.hpp"

#include <greenlet/handle.hpp>

#include <cstddef>
#include <cstdint>
#include <string>
#include <ucontext.h>
#include <vector>

namespace greenlets::detail {

// A stack as it was at one moment: another thread may go on with it at the next.
struct suspension_v1 {
  machine::registers at;
  std::uintptr_t low = 0;   // the address of the first byte
  bool running = false;     // it is the caller's own
  std::vector<char> bytes;
};

// Copies the stack of `g` and the registers with which it goes on. Returns whether there is one: it is suspended, in
// any thread; or it is current in the calling thread, which goes on in `here`. Throws std::bad_alloc.
GREENLET_API bool copy_suspended(const greenlet& g, const ucontext_t& here, suspension_v1& to);

// The library that walks stacks, when the program has it; for those that would have it tell what they find.
struct frames_source_v1 {
  // The innermost `most` addresses, innermost first; returns how many. Throws std::bad_alloc.
  std::size_t (*addresses)(const greenlet& g, void** room, std::size_t most);
  // What is at such addresses, for people: not of each a line, and of some several. Throws std::bad_alloc.
  std::vector<std::string> (*describe)(void* const* addresses, std::size_t number);
};
GREENLET_API void set_frames_source(const frames_source_v1* source) noexcept;
GREENLET_API const frames_source_v1* frames_source() noexcept;

}  // namespace greenlets::detail

#endif
