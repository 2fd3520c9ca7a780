// SPDX-License-Identifier: MIT
// What a greenlet that has been found held alive.
#ifndef LIB_GC_HOLDING_HPP
#define LIB_GC_HOLDING_HPP

#include "registry.hpp"

#include <cstdint>
#include <vector>

namespace greenlets::gc::detail {

// At enable(), when it is to be told. Throws std::system_error.
void begin_holding();

// At the end of marking, with all threads stopped: counts, for those that follow until the next one, what nothing else
// keeps. What two of them hold is counted for the first.
void begin_counting() noexcept;
void count_held(entry& e, body* b) noexcept;

// The greenlets to which there seem to be handles on its stack and in what it was to run, but for its parent. Thread:
// its own. Throws std::bad_alloc.
std::vector<std::uint64_t> held_greenlets(body* b);

}  // namespace greenlets::gc::detail

#endif
