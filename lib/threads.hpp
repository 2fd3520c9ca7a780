// SPDX-License-Identifier: MIT
// Every thread's record, for what concerns all of them: tracers for all threads, and fork().
#ifndef LIB_THREADS_HPP
#define LIB_THREADS_HPP

#include "thread.hpp"

#include <mutex>

namespace greenlets::detail {

// Over the list. Taken before every other lock, and user code is never called under it.
extern std::mutex threads_lock;
thread_record* first_thread() noexcept;  // under the lock

// Whether they are to count switches (counting.cpp). Under the lock.
extern bool switches_are_counted;

void enlist(thread_record& t) noexcept;
void forget(thread_record& t) noexcept;

// The locks that fork() must find free, besides those of threads and bodies; each is a leaf.
extern std::mutex tracer_lock;      // trace.cpp
std::mutex& unraisable_lock() noexcept;  // unraisable.cpp
void lock_lineage() noexcept;       // parent.cpp
void unlock_lineage() noexcept;

// Has fork() take every lock of the library, so that the child, in which the other threads do not
// exist, finds them free and what they guard whole. Throws std::system_error.
void watch_forks();

}  // namespace greenlets::detail

#endif
