// SPDX-License-Identifier: MIT
// Locks for a handful of instructions: one, and those of all objects of a kind.
#ifndef LIB_SPINLOCK_HPP
#define LIB_SPINLOCK_HPP

#include <atomic>
#include <cstdint>
#include <sched.h>

namespace greenlets::detail {

// Held only over a few loads and stores: nothing is allocated, called or switched under it.
class spinlock {
 public:
  void lock() noexcept {
    for (int tries = 0; locked_.exchange(true, std::memory_order_acquire); ++tries)
      if (tries > 100) sched_yield();
  }
  bool try_lock() noexcept { return !locked_.exchange(true, std::memory_order_acquire); }
  void unlock() noexcept { locked_.store(false, std::memory_order_release); }

 private:
  std::atomic<bool> locked_{false};
};

// An object's lock is one of a few that all of its kind share, chosen by its address: so that fork() can
// take all there are, and the child never finds one that a thread held which does not exist there. Hence
// nobody may hold two of a kind at once.
template <class Kind>
class shared_lock {
 public:
  void lock() noexcept { mine().lock(); }
  bool try_lock() noexcept { return mine().try_lock(); }
  void unlock() noexcept { mine().unlock(); }

  static void lock_all() noexcept {
    for (shard& s : all) s.lock.lock();
  }
  static void unlock_all() noexcept {
    for (shard& s : all) s.lock.unlock();
  }

 private:
  struct alignas(64) shard {
    spinlock lock;
  };
  static inline shard all[64];

  spinlock& mine() noexcept { return all[reinterpret_cast<std::uintptr_t>(this) / 64 % 64].lock; }
};

using body_lock = shared_lock<struct body>;
using context_lock = shared_lock<struct context_map>;  // a leaf

}  // namespace greenlets::detail

#endif
