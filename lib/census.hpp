// SPDX-License-Identifier: MIT
// What the process holds just now, counted where it is made and freed.
#ifndef LIB_CENSUS_HPP
#define LIB_CENSUS_HPP

#include <atomic>
#include <cstddef>

namespace greenlets::detail {

// Each thread counts in its record what it does often; here is what is counted for all, and what threads without
// a record have counted, or those whose record has ended.
struct census_t {
  std::atomic<std::ptrdiff_t> greenlets{0};
  std::atomic<std::size_t> main_greenlets{0};
  std::atomic<std::size_t> stacks{0};
  std::atomic<std::size_t> pooled_stacks{0};  // of threads that fork() has not brought along
  std::atomic<std::size_t> most_stacks{0};     // that there were at once
  // Written where memory is mapped and unmapped.
  std::atomic<std::size_t> stack_places{0};    // stacks for which there is room, each with its guard page
  std::atomic<std::size_t> stack_protected{0};  // of those, guarded by mprotect
  std::atomic<std::size_t> stack_bytes{0};
  std::atomic<std::size_t> most_stack_bytes{0};
  std::atomic<std::size_t> threads{0};
};

// Adds to a number of which the highest is kept.
inline void add(std::atomic<std::size_t>& number, std::atomic<std::size_t>& most, std::size_t n) noexcept {
  const std::size_t now = number.fetch_add(n, std::memory_order_relaxed) + n;
  std::size_t before = most.load(std::memory_order_relaxed);
  while (before < now && !most.compare_exchange_weak(before, now, std::memory_order_relaxed)) continue;
}

extern census_t census;  // trivially destructible, so never gone

}  // namespace greenlets::detail

#endif
