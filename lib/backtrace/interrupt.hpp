// SPDX-License-Identifier: MIT
// Where another thread is that runs: a signal has it copy its registers and its stack.
#ifndef LIB_BACKTRACE_INTERRUPT_HPP
#define LIB_BACKTRACE_INTERRUPT_HPP

#include "walk.hpp"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <sys/types.h>
#include <vector>

namespace greenlets::detail {

// What is known of a thread that was interrupted.
struct interrupted_thread {
  std::uint64_t greenlet = 0;  // that it ran; 0: none
  std::string name;            // of that
  bool is_main = false;
  bool is_hub = false;
  std::vector<place_in_code> places;  // innermost first
};

// Gets a signal ready for it; 0: one that nobody uses. Returns which. It stays ready as long as the process lives: one that
// is on its way must never find the default, which ends the process. What others send by the same number goes to who had
// it before. Throws std::invalid_argument, std::system_error (sigaction).
int prepare_interrupts(int signal);

// Interrupts a thread, when it does not block that signal, and waits for it so long. Returns whether it has answered.
// One caller at a time. Throws std::bad_alloc.
bool interrupt(pid_t tid, int signal, std::chrono::nanoseconds patience, std::size_t most_frames, interrupted_thread& to);

// For a child of fork(): who was waiting is not here.
void forget_interrupts() noexcept;

}  // namespace greenlets::detail

#endif
