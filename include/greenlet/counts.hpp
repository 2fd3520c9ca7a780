// SPDX-License-Identifier: MIT
// counts: how many greenlets, stacks and threads the library keeps just now, and the stacks in detail.
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

/// The stacks of all threads of this process.
struct process_stacks {
  std::size_t mapped;               ///< a count: stacks for which memory is mapped, in use, pooled, or none yet
  std::size_t mapped_bytes;         ///< addresses that they take, guard pages included; memory is what was touched
  std::size_t guarded;              ///< a count: of those mapped, with a guard page below; all of them
  std::size_t guarded_by_mprotect;  ///< a count: of those guarded, each of which splits a mapping (vm.max_map_count)
  std::size_t in_use;               ///< a count: with a greenlet that is started and not dead
  std::size_t pooled;               ///< a count: waiting to be used again, as counts().pooled_stacks
  std::size_t high_water;           ///< a count: the most that were in use and pooled together, ever
  std::size_t high_water_bytes;     ///< the most that mapped_bytes ever was
};

/// What counts() says of stacks, and more: in_use and pooled together are counts().stacks.
/// Switches: no. Thread: any; while others work the numbers are from about the same moment.
GREENLET_API process_stacks stack_statistics() noexcept;

/// From now on, or no longer, it is counted how often each greenlet is switched to, its start included, for snapshots
/// (<greenlet/snapshot.hpp>). While that is on, each switch is a call of the library, which takes some four times as long as one
/// without; nothing while off. Every thread, those that exist and those to come.
/// Switches: no. Thread: any. Throws: nothing.
GREENLET_API void count_switches(bool on) noexcept;

/// Gives the calling thread's pooled stacks back to the system. By itself the library keeps at most 256 a
/// thread, and fewer, of which only the first page or two, after many have ended of which none was needed again.
/// Switches: no. Thread: any.
GREENLET_API void trim_stacks() noexcept;

}  // namespace greenlets

#endif
