// SPDX-License-Identifier: MIT
// What is at an address of the program.
#ifndef LIB_BACKTRACE_SYMBOLS_HPP
#define LIB_BACKTRACE_SYMBOLS_HPP

#include "walk.hpp"

#include <greenlet/backtrace.hpp>

#include <vector>

namespace greenlets::detail {

// Adds the function that is there, and before it those that were inlined into it. Throws std::bad_alloc.
void describe(std::vector<frame>& to, const place_in_code& p);

}  // namespace greenlets::detail

#endif
