// SPDX-License-Identifier: MIT
// A lock that walkers share and fork() has alone.
#include "forks.hpp"

#include <ctime>
#include <pthread.h>
#include <system_error>

namespace greenlets::detail {
namespace {

// Threads that walk one after the other would keep it from fork() for ever by the default.
#ifdef PTHREAD_RWLOCK_WRITER_NONRECURSIVE_INITIALIZER_NP
constexpr pthread_rwlock_t fresh = PTHREAD_RWLOCK_WRITER_NONRECURSIVE_INITIALIZER_NP;
#else
constexpr pthread_rwlock_t fresh = PTHREAD_RWLOCK_INITIALIZER;
#endif
pthread_rwlock_t gate = fresh;
__thread bool closed __attribute__((tls_model("initial-exec"))) = false;  // by this thread, which forks

// Who walks may itself wait for a lock that the one who forks holds: the dynamic linker's, when a library's constructor forks.
constexpr int patience_s = 2;

void before() {
  timespec until = {};
  clock_gettime(CLOCK_REALTIME, &until);
  until.tv_sec += patience_s;
  const bool got = pthread_rwlock_timedwrlock(&gate, &until) == 0;
  if (got) closed = true;
}

void in_parent() {
  if (!closed) return;
  closed = false;
  pthread_rwlock_unlock(&gate);
}

// It remembers the thread by a number that is another's there.
void in_child() {
  closed = false;
  gate = fresh;
}

}  // namespace

out_of_forks::out_of_forks() noexcept { pthread_rwlock_rdlock(&gate); }
out_of_forks::~out_of_forks() { pthread_rwlock_unlock(&gate); }

void guard_against_forks() {
  static const bool once = [] {
    if (const int code = pthread_atfork(before, in_parent, in_child))
      throw std::system_error(code, std::system_category(), "pthread_atfork");
    return true;
  }();
  static_cast<void>(once);
}

}  // namespace greenlets::detail
