// SPDX-License-Identifier: MIT
// roots: what the collector begins with, beyond what it knows itself; and its events.
#ifndef LIB_GC_ROOTS_HPP
#define LIB_GC_ROOTS_HPP

#include <cstdint>

namespace greenlets::gc::detail {

// Puts our hooks before those that are there. Once, from enable().
void hook_collections();
// Whether one of them has been lost: somebody has put his own there, which does not call ours. Under no lock.
bool hooks_lost() noexcept;

}  // namespace greenlets::gc::detail

#endif
