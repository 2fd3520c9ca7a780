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
  std::atomic<std::size_t> threads{0};
};

extern census_t census;  // trivially destructible, so never gone

}  // namespace greenlets::detail

#endif
