// SPDX-License-Identifier: MIT
// A lock for a handful of instructions, one byte wide.
#ifndef LIB_SPINLOCK_HPP
#define LIB_SPINLOCK_HPP

#include <atomic>
#include <sched.h>

namespace greenlets::detail {

// Held only over a few loads and stores: nothing is allocated, called or switched under it.
class spinlock {
 public:
  void lock() noexcept {
    for (int tries = 0; locked_.exchange(true, std::memory_order_acquire); ++tries)
      if (tries > 100) sched_yield();
  }
  void unlock() noexcept { locked_.store(false, std::memory_order_release); }

 private:
  std::atomic<bool> locked_{false};
};

}  // namespace greenlets::detail

#endif
