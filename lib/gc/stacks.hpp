// SPDX-License-Identifier: MIT
// Which greenlet's stack an address lies on; for code that may take no lock.
#ifndef LIB_GC_STACKS_HPP
#define LIB_GC_STACKS_HPP

#include "../collector.hpp"
#include "../stack.hpp"

namespace greenlets::gc::detail {

using greenlets::detail::slab;
using greenlets::detail::stack;

// The slab that it lies in; or null.
slab* slab_at(const void* address) noexcept;
// The stack that it lies on; or null.
stack* stack_at(const void* address) noexcept;
// Its lowest address, above the guard page.
char* low_of(const stack& s) noexcept;
// Where what is to be looked at ends, seen from `sp`: its greenlet's frames, or all of it where that has not begun.
inline char* end_of(const stack& s, const void* sp) noexcept {
  return static_cast<char*>(const_cast<void*>(sp < s.high ? s.high : &s));
}

void mapped(slab* s) noexcept;
void unmap(slab* s) noexcept;
// Address space that stacks take.
std::size_t mapped_bytes() noexcept;

}  // namespace greenlets::gc::detail

#endif
