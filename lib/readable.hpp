// SPDX-License-Identifier: MIT
// Reading this process's memory where it may be none, or be gone at any moment.
#ifndef LIB_READABLE_HPP
#define LIB_READABLE_HPP

#include <cstddef>
#include <cstdint>

namespace greenlets::detail {

// Copies from `from`, as far as there is memory, at most `most` bytes, and returns how many; -1: the system has no such
// call, or forbids it. Async-signal-safe; takes some 300 bytes of the stack.
std::ptrdiff_t copy_readable(char* to, std::uintptr_t from, std::size_t most) noexcept;

}  // namespace greenlets::detail

#endif
