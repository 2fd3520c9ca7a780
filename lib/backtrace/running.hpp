// SPDX-License-Identifier: MIT
// The frames of greenlets that run, for a snapshot.
#ifndef LIB_BACKTRACE_RUNNING_HPP
#define LIB_BACKTRACE_RUNNING_HPP

#include "interrupt.hpp"

#include "../watching.hpp"

#include <greenlet/snapshot.hpp>

#include <chrono>
#include <cstddef>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace greenlets::detail {

// All threads. `note`: has the next switch of each noted. Throws std::bad_alloc.
std::vector<watched_thread_v1> all_threads(bool note);

// For how long its hub has not looked for events; none when it waits for some, or there is none.
std::optional<std::chrono::nanoseconds> time_in_turn(const watched_thread_v1& t) noexcept;

// How threads are interrupted.
struct interrupting {
  int signal;
  std::chrono::nanoseconds patience;
};

// A snapshot that has them. Throws std::bad_alloc.
process_snapshot snapshot_with_running(const snapshot_options& with, const interrupting& how);

}  // namespace greenlets::detail

#endif
