// SPDX-License-Identifier: MIT
// What ELF and DWARF tell about an address of any process: the function there, its line, and what was inlined.
#ifndef LIB_BACKTRACE_DWARF_FRAMES_HPP
#define LIB_BACKTRACE_DWARF_FRAMES_HPP

#include <greenlet/backtrace.hpp>

#include <elfutils/libdwfl.h>
#include <vector>

namespace greenlets::detail::debug_information {

// `known`, which was found otherwise, with what is told about `inside` besides, and before it what was inlined there.
// Nothing when no file is loaded there. For one thread at a time: libdw has no lock. Throws std::bad_alloc.
std::vector<frame> look_up(Dwfl* loaded, const frame& known, Dwarf_Addr inside);

}  // namespace greenlets::detail::debug_information

#endif
