// SPDX-License-Identifier: MIT
// bell: one thread waits for it; any other rings it, from signal handlers too.
#ifndef LIB_BACKTRACE_BELL_HPP
#define LIB_BACKTRACE_BELL_HPP

#include <atomic>
#include <cerrno>
#include <chrono>
#include <climits>
#include <cstdint>
#include <ctime>
#include <linux/futex.h>
#include <optional>
#include <sys/syscall.h>
#include <unistd.h>

namespace greenlets::detail {

// Nothing but a word of this process' memory: no descriptor, which a daemon could close and a child would share.
class bell {
 public:
  using clock = std::chrono::steady_clock;

  // In so long; what is too far away is never.
  static clock::time_point in(std::chrono::nanoseconds time) noexcept {
    const auto now = clock::now();
    return time < clock::time_point::max() - now ? now + time : clock::time_point::max();
  }

  std::uint32_t rung() const noexcept { return count_.load(std::memory_order_acquire); }
  // Async-signal-safe.
  void ring() noexcept {
    const int before = errno;
    count_.fetch_add(1, std::memory_order_acq_rel);
    syscall(SYS_futex, &count_, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);
    errno = before;
  }
  // Waits until it has been rung since it was `seen`, or until that time. May come back sooner.
  void wait(std::uint32_t seen, std::optional<clock::time_point> until) noexcept {
    timespec left = {};
    if (until) {
      const auto ns = std::chrono::duration_cast<std::chrono::nanoseconds>(*until - clock::now()).count();
      if (ns <= 0) return;
      left.tv_sec = static_cast<std::time_t>(ns / 1'000'000'000);
      left.tv_nsec = static_cast<long>(ns % 1'000'000'000);
    }
    syscall(SYS_futex, &count_, FUTEX_WAIT_PRIVATE, seen, until ? &left : nullptr, nullptr, 0);
  }

 private:
  static_assert(sizeof(std::atomic<std::uint32_t>) == 4 && std::atomic<std::uint32_t>::is_always_lock_free);
  std::atomic<std::uint32_t> count_{0};
};

}  // namespace greenlets::detail

#endif
