// SPDX-License-Identifier: MIT
// creation: when and where a greenlet was made, when that is asked for.
#ifndef LIB_CREATION_HPP
#define LIB_CREATION_HPP

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace greenlets::detail {

struct body;

// In memory of malloc's; the addresses follow. The body's, and freed with what it holds.
struct creation {
  std::uint64_t made;  // nanoseconds of CLOCK_MONOTONIC
  std::size_t count;   // addresses, innermost first

  void** addresses() noexcept { return reinterpret_cast<void**>(this + 1); }
};

// Looked at where a thread takes numbers for its greenlets (spare.hpp), and by who makes one the slow way: a creation that
// is not recorded sees nothing of it.
extern std::atomic<bool> records_creation;

// For the caller's caller. Without memory it stays unknown.
void note_creation(body* made) noexcept;

}  // namespace greenlets::detail

#endif
