// SPDX-License-Identifier: MIT
// What the program's files tell about an address: their symbols, and their debugging information.
#ifndef LIB_BACKTRACE_DEBUG_INFORMATION_HPP
#define LIB_BACKTRACE_DEBUG_INFORMATION_HPP

#include <greenlet/backtrace.hpp>

#include <vector>

namespace greenlets::detail::debug_information {

// Adds `known`, which was found otherwise, with what is told about `inside` besides, and before it what was inlined
// there. Returns false, and adds nothing, when nothing is told. Throws std::bad_alloc.
bool describe(std::vector<frame>& to, const frame& known, const void* inside);

}  // namespace greenlets::detail::debug_information

#endif
