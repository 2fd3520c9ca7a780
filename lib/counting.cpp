// SPDX-License-Identifier: MIT
// Having switches counted: each is then the library's, which sees the reason in its thread's attention.
#include "threads.hpp"

#include <greenlet/counts.hpp>

#include <mutex>

namespace greenlets {

bool detail::switches_are_counted = false;

void count_switches(bool on) noexcept {
  using namespace detail;
  const std::lock_guard lock(threads_lock);
  switches_are_counted = on;
  for (thread_record* t = first_thread(); t; t = t->next_thread) on ? t->raise(attention::counted) : t->lower(attention::counted);
}

}  // namespace greenlets
