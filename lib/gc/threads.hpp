// SPDX-License-Identifier: MIT
// What is kept of each thread that the collector stops for us, and where its stop has found it.
#ifndef LIB_GC_THREADS_HPP
#define LIB_GC_THREADS_HPP

#include "../thread.hpp"
#include "registry.hpp"
#include "stacks.hpp"

#include <atomic>
#include <csignal>
#include <cstddef>
#include <cstdint>

namespace greenlets::gc::detail {

using greenlets::detail::thread_record;

struct thread {
  thread* next = nullptr;
  thread_record* record = nullptr;  // null before and after
  thread_record* const* survives_in = nullptr;  // where it says on whose survivor's stack it is
  bool ours = false;                // we have registered it, and so take it off again
  void* handle = nullptr;           // libgc's; good while the thread is registered
  GC_stack_base native{};           // where its own stack begins
  const char* native_low = nullptr;

  // Written by its handler of the stop signal, and read while it is in there.
  volatile std::sig_atomic_t in_stop = 0;
  std::uintptr_t stop_sp = 0;
  const char* signal_low = nullptr;  // its alternate signal stack
  const char* signal_high = nullptr;

  thread* next_exchanged = nullptr;  // whose stack's beginning is exchanged as well, for the time of a scan
  entry* condemned = nullptr;  // of its greenlets; under the lock
  bool to_wake = false;        // ... and it has not been told

  bool is_native(const void* address) const noexcept {
    return address >= native_low && address < native.mem_base;
  }
};

extern __thread thread* me __attribute__((tls_model("initial-exec")));
extern thread* first_thread;  // changed under the lock
extern std::atomic<std::size_t> attached;  // threads, with those that wait to be

// Makes the calling thread known to the collector, if it is not.
void attach();
// Its end.
void detach() noexcept;
void uses(thread_record* t) noexcept;

// The thread that has this record now; null when there is none. Under the lock.
thread* thread_of(const thread_record* t) noexcept;

// At enable(): the key whose destructor detaches, and fork(). Throws std::system_error.
void begin_threads();

// Puts ours before libgc's handler of the signal that stops threads.
void watch_stops();
// In libgc's event: threads that are stopped go on.
void threads_start() noexcept;

}  // namespace greenlets::gc::detail

#endif
