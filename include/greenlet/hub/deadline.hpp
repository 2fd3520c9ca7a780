// SPDX-License-Identifier: MIT
// deadline: when a wait gives up.
#ifndef GREENLET_HUB_DEADLINE_HPP
#define GREENLET_HUB_DEADLINE_HPP

#include <chrono>

namespace greenlets::hub {

using clock = std::chrono::steady_clock;

/// When a wait gives up: never (the default), at a time, or so long after now. What can be done without a wait is done
/// also when the time has passed: a peer that never lets anybody wait is bounded by sizes, or by a clock of one's own.
///
///   connection.read_some(buffer, sizeof buffer, std::chrono::seconds(30));
class deadline {
 public:
  constexpr deadline() noexcept = default;
  constexpr deadline(clock::time_point at) noexcept : at_(at) {}  // NOLINT: conversions are the point
  template <class Rep, class Period>
  deadline(std::chrono::duration<Rep, Period> from_now) : at_(add(from_now)) {}  // NOLINT

  constexpr bool never() const noexcept { return at_ == clock::time_point::max(); }
  constexpr clock::time_point at() const noexcept { return at_; }

 private:
  template <class D>
  static clock::time_point add(D d) {
    const auto now = clock::now();
    // A duration too long to be added means never; a negative one, which may be too long as well, now.
    const std::chrono::duration<double> so_long = d;
    if (so_long >= std::chrono::duration<double>(clock::time_point::max() - now)) return clock::time_point::max();
    if (so_long.count() <= 0) return now;
    return now + std::chrono::ceil<clock::duration>(d);
  }

  clock::time_point at_ = clock::time_point::max();
};

}  // namespace greenlets::hub

#endif
