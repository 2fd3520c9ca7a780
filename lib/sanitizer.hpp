// SPDX-License-Identifier: MIT
// What sanitizers and valgrind must be told of stacks and switches; nothing in a plain build.
//
// Only this header knows them, so that the code that switches has no #ifdef.
#ifndef LIB_SANITIZER_HPP
#define LIB_SANITIZER_HPP

#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include <csignal>
#include <cstddef>
#include <mutex>

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
#include <sanitizer/lsan_interface.h>
#endif
#ifdef GREENLET_TSAN
#include <sanitizer/tsan_interface.h>
extern "C" void __sanitizer_syscall_pre_impl_close(long fd);
#endif
#ifdef HAVE_VALGRIND_VALGRIND_H
#include <valgrind/valgrind.h>
#endif
#ifdef HAVE_VALGRIND_MEMCHECK_H
#include <valgrind/memcheck.h>
#endif

namespace greenlets::detail::sanitizer {

// Whether it has to be told of every switch.
#if defined(GREENLET_ASAN) || defined(GREENLET_TSAN)
constexpr bool follows_switches = true;
#else
constexpr bool follows_switches = false;
#endif

// One for each stack, the thread's own included. `low` and `size` are the stack's bounds.
struct fiber {
#ifdef GREENLET_ASAN
  const void* low = nullptr;
  std::size_t size = 0;
  void* fake_stack = nullptr;  // while it is left
  bool native = false;
  const void* left_at = nullptr;  // native, and left: a root for LeakSanitizer from here to its end
#endif
#ifdef GREENLET_TSAN
  void* handle = nullptr;
#endif
#ifdef HAVE_VALGRIND_VALGRIND_H
  unsigned valgrind_id = 0;
#endif
};

// LeakSanitizer's list of roots has a lock of its own, which nobody takes over a fork(): the child would
// wait for ever for a thread that held it. The library comes to that lock through this one, and takes it.
#ifdef GREENLET_ASAN
inline std::mutex roots;

inline void add_root(const void* low, std::size_t size) noexcept {
  const std::lock_guard lock(roots);
  __lsan_register_root_region(low, size);
}

inline void remove_root(const void* low, std::size_t size) noexcept {
  const std::lock_guard lock(roots);
  __lsan_unregister_root_region(low, size);
}
#endif

// Memory that no allocator knows refers to some that one does.
inline void refers([[maybe_unused]] const void* low, [[maybe_unused]] std::size_t size) noexcept {
#ifdef GREENLET_ASAN
  add_root(low, size);
#endif
}

// Memory that nobody may touch from now on, and that somebody may.
inline void hide([[maybe_unused]] void* memory, [[maybe_unused]] std::size_t bytes) noexcept {
#ifdef GREENLET_ASAN
  ASAN_POISON_MEMORY_REGION(memory, bytes);
#endif
#ifdef HAVE_VALGRIND_MEMCHECK_H
  VALGRIND_MAKE_MEM_NOACCESS(memory, bytes);
#endif
}
inline void show([[maybe_unused]] void* memory, [[maybe_unused]] std::size_t bytes) noexcept {
#ifdef GREENLET_ASAN
  ASAN_UNPOISON_MEMORY_REGION(memory, bytes);
#endif
#ifdef HAVE_VALGRIND_MEMCHECK_H
  VALGRIND_MAKE_MEM_DEFINED(memory, bytes);  // a link lies there
#endif
}

inline void lock_for_fork() noexcept {
#ifdef GREENLET_ASAN
  roots.lock();
#endif
}

inline void unlock_after_fork() noexcept {
#ifdef GREENLET_ASAN
  roots.unlock();
#endif
}

// The stack that the calling thread came with.
inline void describe_native([[maybe_unused]] fiber& f) noexcept {
#ifdef GREENLET_ASAN
  pthread_attr_t attributes;
  if (pthread_getattr_np(pthread_self(), &attributes) == 0) {
    void* low = nullptr;
    pthread_attr_getstack(&attributes, &low, &f.size);
    f.low = low;
    f.native = true;
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
  // LeakSanitizer looks on the stack that a thread is running on, and nowhere else.
  add_root(low, size);
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
  remove_root(f.low, f.size);
#endif
#ifdef GREENLET_TSAN
  __tsan_destroy_fiber(f.handle);
#endif
#ifdef HAVE_VALGRIND_VALGRIND_H
  VALGRIND_STACK_DEREGISTER(f.valgrind_id);
#endif
}

#ifdef GREENLET_ASAN
// What is on the thread's own stack must be found, too, when the process ends in a greenlet.
inline std::size_t bytes_above(const fiber& f, const void* from) noexcept {
  return static_cast<std::size_t>(static_cast<const char*>(f.low) + f.size - static_cast<const char*>(from));
}
#endif

// Reads the thread's signal mask, which the switch that follows at once must restore.
inline void mask_before_switch(sigset_t& now) noexcept {
#ifdef GREENLET_TSAN
  // ThreadSanitizer runs a handler at the next call that it knows, and keeps what is to run with the
  // fiber: a signal that came just before a switch would wait until that fiber runs again. This call
  // runs what has come, and lets nothing more in.
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &now);
#else
  pthread_sigmask(SIG_SETMASK, nullptr, &now);
#endif
}

// Just before the stack pointer leaves `from`; `for_good` when nothing there will run again.
inline void leave([[maybe_unused]] fiber& from, [[maybe_unused]] fiber& to, [[maybe_unused]] bool for_good) noexcept {
#ifdef GREENLET_ASAN
  if (from.native) {
    constexpr std::size_t room = 4096;  // for the registers, which are saved below this frame's address
    from.left_at = static_cast<const char*>(__builtin_frame_address(0)) - room;
    add_root(from.left_at, bytes_above(from, from.left_at));
  }
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
  if (self.left_at) {
    remove_root(self.left_at, bytes_above(self, self.left_at));
    self.left_at = nullptr;
  }
#endif
}

// A library that is not instrumented is about to close this with a system call of its own. Another
// thread may get the number at once, which without this would look like a race.
inline void closes([[maybe_unused]] int fd) noexcept {
#ifdef GREENLET_TSAN
  __sanitizer_syscall_pre_impl_close(fd);
#endif
}

// Whether a handler is called later than its signal has come, when the thread calls something that the sanitizer knows:
// then the handler's context is of an earlier moment.
#ifdef GREENLET_TSAN
constexpr bool holds_signals_back = true;
#else
constexpr bool holds_signals_back = false;
#endif

// What one thread has done before, another that comes to it by a way that is not instrumented sees after.
inline void before([[maybe_unused]] void* meeting) noexcept {
#ifdef GREENLET_TSAN
  __tsan_release(meeting);
#endif
}
inline void after([[maybe_unused]] void* meeting) noexcept {
#ifdef GREENLET_TSAN
  __tsan_acquire(meeting);
#endif
}

}  // namespace greenlets::detail::sanitizer

#if defined(GREENLET_ASAN)
#define GREENLET_NO_ASAN __attribute__((no_sanitize("address")))
#else
#define GREENLET_NO_ASAN
#endif

// For what reads what another thread may be writing, and knows it.
#if defined(GREENLET_TSAN)
#define GREENLET_NO_TSAN __attribute__((no_sanitize("thread"), noinline))
#else
#define GREENLET_NO_TSAN
#endif

// For a handler of abi::__forced_unwind: libstdc++ has no C++ object there, and binds the reference to
// null, which UBSan would report.
#define GREENLET_CATCHES_FORCED_UNWIND __attribute__((no_sanitize("null")))

#endif
