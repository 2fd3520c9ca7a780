// SPDX-License-Identifier: MIT
// What sanitizers and valgrind must be told of stacks and switches; nothing in a plain build.
//
// Only this header knows them, so that the code that switches has no #ifdef.
#ifndef LIB_SANITIZER_HPP
#define LIB_SANITIZER_HPP

#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include <cstddef>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define GREENLET_ASAN 1
#endif
#if __has_feature(thread_sanitizer)
#define GREENLET_TSAN 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define GREENLET_ASAN 1
#endif
#if defined(__SANITIZE_THREAD__)
#define GREENLET_TSAN 1
#endif

#ifdef GREENLET_ASAN
#include <pthread.h>
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef GREENLET_TSAN
#include <sanitizer/tsan_interface.h>
extern "C" void __sanitizer_syscall_pre_impl_close(long fd);
#endif
#ifdef HAVE_VALGRIND_VALGRIND_H
#include <valgrind/valgrind.h>
#endif

namespace greenlets::detail::sanitizer {

// One for each stack, the thread's own included. `low` and `size` are the stack's bounds.
struct fiber {
#ifdef GREENLET_ASAN
  const void* low = nullptr;
  std::size_t size = 0;
  void* fake_stack = nullptr;  // while it is left
#endif
#ifdef GREENLET_TSAN
  void* handle = nullptr;
#endif
#ifdef HAVE_VALGRIND_VALGRIND_H
  unsigned valgrind_id = 0;
#endif
};

// The stack that the calling thread came with.
inline void describe_native([[maybe_unused]] fiber& f) noexcept {
#ifdef GREENLET_ASAN
  pthread_attr_t attributes;
  if (pthread_getattr_np(pthread_self(), &attributes) == 0) {
    void* low = nullptr;
    pthread_attr_getstack(&attributes, &low, &f.size);
    f.low = low;
    pthread_attr_destroy(&attributes);
  }
#endif
#ifdef GREENLET_TSAN
  f.handle = __tsan_get_current_fiber();
#endif
}

inline void created([[maybe_unused]] fiber& f, [[maybe_unused]] void* low, [[maybe_unused]] std::size_t size) noexcept {
#ifdef GREENLET_ASAN
  f.low = low;
  f.size = size;
#endif
#ifdef GREENLET_TSAN
  f.handle = __tsan_create_fiber(0);
#endif
#ifdef HAVE_VALGRIND_VALGRIND_H
  f.valgrind_id = VALGRIND_STACK_REGISTER(low, static_cast<char*>(low) + size);
#endif
}

inline void destroyed([[maybe_unused]] fiber& f) noexcept {
#ifdef GREENLET_ASAN
  // What lay there must not stay poisoned for whoever maps these addresses next.
  ASAN_UNPOISON_MEMORY_REGION(f.low, f.size);
#endif
#ifdef GREENLET_TSAN
  __tsan_destroy_fiber(f.handle);
#endif
#ifdef HAVE_VALGRIND_VALGRIND_H
  VALGRIND_STACK_DEREGISTER(f.valgrind_id);
#endif
}

// Just before the stack pointer leaves `from`; `for_good` when nothing there will run again.
inline void leave([[maybe_unused]] fiber& from, [[maybe_unused]] fiber& to, [[maybe_unused]] bool for_good) noexcept {
#ifdef GREENLET_ASAN
  // Poison left by frames that a forced unwind or a kill went over would be reported later.
  __sanitizer_start_switch_fiber(for_good ? nullptr : &from.fake_stack, to.low, to.size);
#endif
#ifdef GREENLET_TSAN
  __tsan_switch_to_fiber(to.handle, 0);
#endif
}

// Just after the stack pointer has come to `self`.
inline void arrive([[maybe_unused]] fiber& self) noexcept {
#ifdef GREENLET_ASAN
  void* fake_stack = self.fake_stack;
  self.fake_stack = nullptr;
  __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr);
#endif
}

// A library that is not instrumented is about to close this with a system call of its own. Another
// thread may get the number at once, which without this would look like a race.
inline void closes([[maybe_unused]] int fd) noexcept {
#ifdef GREENLET_TSAN
  __sanitizer_syscall_pre_impl_close(fd);
#endif
}

}  // namespace greenlets::detail::sanitizer

#if defined(GREENLET_ASAN)
#define GREENLET_NO_ASAN __attribute__((no_sanitize("address")))
#else
#define GREENLET_NO_ASAN
#endif

// For a handler of abi::__forced_unwind: libstdc++ has no C++ object there, and binds the reference to
// null, which UBSan would report.
#define GREENLET_CATCHES_FORCED_UNWIND __attribute__((no_sanitize("null")))

#endif
