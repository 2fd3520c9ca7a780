// SPDX-License-Identifier: MIT
// From a copy of a stack to the addresses in it.
#ifndef LIB_BACKTRACE_WALK_HPP
#define LIB_BACKTRACE_WALK_HPP

#include "../suspension.hpp"

#include <cstddef>
#include <cstdint>
#include <vector>

namespace greenlets::detail {

// Where a function goes on. `interrupted`: a signal was handled there, or it has left by a switch; else that is after
// a call, which may have been its last instruction.
struct place_in_code {
  void* address;
  bool interrupted;
};

// Those above `beyond`, at most `most`. Throws std::bad_alloc.
std::vector<place_in_code> walk(const suspension_v1& s, std::uintptr_t beyond, std::size_t most);

}  // namespace greenlets::detail

#endif
