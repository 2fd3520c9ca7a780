// SPDX-License-Identifier: MIT
// counts: how many greenlets, stacks and threads the library keeps just now.
#ifndef GREENLET_COUNTS_HPP
#define GREENLET_COUNTS_HPP

#include <greenlet/detail/api.hpp>

#include <cstddef>

namespace greenlets {

/// What the library keeps in this process. For tests and for the status page of a daemon.
struct process_counts {
  std::size_t greenlets;       ///< bodies: every greenlet to which a handle is left, main ones too
  std::size_t main_greenlets;  ///< of those, main greenlets; that of an exited thread counts while referenced
  std::size_t stacks;          ///< stacks mapped, in use or pooled
  std::size_t pooled_stacks;   ///< of those, waiting to be used again
  std::size_t threads;         ///< threads that use greenlets now
};

/// Switches: no. Thread: any; while others work the numbers are from about the same moment.
GREENLET_API process_counts counts() noexcept;

/// Gives the calling thread's pooled stacks back to the system. Switches: no. Thread: any.
GREENLET_API void trim_stacks() noexcept;

}  // namespace greenlets

#endif
