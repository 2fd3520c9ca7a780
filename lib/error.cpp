// SPDX-License-Identifier: MIT
// class error; and what cannot happen.
#include <greenlet/error.hpp>

#include "impossible.hpp"
#include "thread.hpp"

#include <cstdio>
#include <cstdlib>

namespace greenlets {

error::error(errc code, const std::string& summary, const std::string& details)
    : std::logic_error(details.empty() ? summary : summary + "\n" + details),
      code_(code),
      summary_length_(summary.size()) {}

error::~error() = default;

namespace detail {

void impossible_at(const char* what, const char* file, int line) noexcept {
  const thread_record* t = this_thread_if_any();
  const body* b = t ? t->running() : nullptr;
  // No allocation: memory may be what is broken.
  std::fprintf(stderr, "libgreenlet: %s:%d: %s (in greenlet %llu of thread %ld)\n", file, line, what,
               b ? static_cast<unsigned long long>(b->id) : 0ULL, t ? static_cast<long>(t->tid) : 0L);
  std::abort();
}

}  // namespace detail
}  // namespace greenlets
