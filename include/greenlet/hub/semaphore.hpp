// SPDX-License-Identifier: MIT
// semaphore, latch: counting up, and counting down.
#ifndef GREENLET_HUB_SEMAPHORE_HPP
#define GREENLET_HUB_SEMAPHORE_HPP

#include <greenlet/hub/line.hpp>

#include <cstddef>

namespace greenlets::hub {

/// So many of something that greenlets of one thread share. First come, first served: who wants many is not overtaken
/// by those that come after it and want few. Whoever waits when it is destroyed goes on with nothing.
class GREENLET_API semaphore {
 public:
  explicit semaphore(std::size_t free) noexcept : free_(free) {}
  semaphore(const semaphore&) = delete;
  semaphore& operator=(const semaphore&) = delete;

  /// Takes `n`; false when the deadline came first. Switches: to the hub, unless they are there. Throws:
  /// std::bad_alloc, what making the hub throws (std::system_error), and what is thrown into the caller meanwhile:
  /// then nothing was taken.
  bool acquire(std::size_t n = 1, deadline until = {});
  /// Takes them if they are there and nobody waits. Switches: no.
  bool try_acquire(std::size_t n = 1) noexcept;
  /// Puts `n` back, which need not have been taken. Switches: no.
  void release(std::size_t n = 1) noexcept;
  std::size_t free() const noexcept { return free_; }
  /// For wait_any(): whether one could be taken.
  bool is_ready() const noexcept { return free_ != 0 && waiting_.empty(); }

 private:
  friend struct detail::watching;
  void serve() noexcept;

  std::size_t free_;
  detail::line waiting_{"semaphore", this};
  detail::line watchers_{"semaphore", this};
};

/// Opens when it has been counted down to 0, for good.
class GREENLET_API latch {
 public:
  explicit latch(std::size_t count) noexcept : count_(count) {}
  latch(const latch&) = delete;
  latch& operator=(const latch&) = delete;

  /// Not below 0. Switches: no.
  void count_down(std::size_t n = 1) noexcept;
  bool is_ready() const noexcept { return count_ == 0; }
  /// Waits until it is open; false when the deadline came first. Switches, throws: as semaphore::acquire().
  bool wait(deadline until = {});
  bool arrive_and_wait(deadline until = {}) {
    count_down();
    return wait(until);
  }

 private:
  friend struct detail::watching;
  std::size_t count_;
  detail::line watchers_{"latch", this};
};

}  // namespace greenlets::hub

#endif
