// SPDX-License-Identifier: MIT
// The end of what a greenlet has of its own: on its own stack, while it still runs.
#include "own.hpp"

#include <stdexcept>

namespace greenlets::detail {

bool has_own(thread_record& t, body* b) noexcept {
  return has_locals(b) || (t.unwinding && has_context(b));
}

void destroy_own(thread_record& t, body* b, unsigned round) noexcept {
  destroy_locals(b, round);
  if (t.unwinding) drop_context(b);
}

void report_own(body* b) noexcept {
  std::exception_ptr e;
  try {
    e = std::make_exception_ptr(
        std::runtime_error("destructors went on making more of what is destroyed with " + describe(b)));
  } catch (...) {
    e = std::current_exception();
  }
  report_unraisable(b, e);
}

void finish_slowly(thread_record& t, body* b) noexcept {
  b->ending = true;
  if (!b->worn.load(std::memory_order_relaxed)) {  // mostly it has nothing but what it ran
    b->run.call = nullptr;
    b->run.callable.reset();
    if (!b->worn.load(std::memory_order_relaxed)) return;
  }
  b->run = {};
  forget(b->run.callable);
  if (b->special) b->special->unused_run = {};
  if (b->c) free_c_record(b);
  for (unsigned round = 1; has_own(t, b); ++round) {
    if (round > most_rounds) return report_own(b);
    destroy_own(t, b, round);
  }
  if (b->locals) lose_locals(b);
}

void bury_own(body* b) noexcept {
  if (b->c) free_c_record(b);
  if (b->variables) drop_context(b);
  if (b->locals) lose_locals(b);
}

}  // namespace greenlets::detail
