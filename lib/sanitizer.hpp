// SPDX-License-Identifier: MIT
// What sanitizers and valgrind must be told of stacks and switches.
//
// A program that is built with a sanitizer uses a library that is not, most of the time. So what a sanitizer wants to be
// told is found when the program runs: the functions of its run time are weak references here, null where there is none. A
// library that is built with one has the same code. Only this header knows them.
#ifndef LIB_SANITIZER_HPP
#define LIB_SANITIZER_HPP

#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include <csignal>
#include <cstddef>
#include <mutex>
#include <pthread.h>

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

// <sanitizer/common_interface_defs.h>, <sanitizer/asan_interface.h>, <sanitizer/lsan_interface.h>,
// <sanitizer/tsan_interface.h>, <sanitizer/linux_syscall_hooks.h>.
extern "C" {
#define GREENLET_IF_ANY __attribute__((weak, visibility("default")))
GREENLET_IF_ANY void __sanitizer_start_switch_fiber(void** fake_stack, const void* low, std::size_t size);
GREENLET_IF_ANY void __sanitizer_finish_switch_fiber(void* fake_stack, const void** low, std::size_t* size);
GREENLET_IF_ANY void __asan_poison_memory_region(const volatile void* low, std::size_t size);
GREENLET_IF_ANY void __asan_unpoison_memory_region(const volatile void* low, std::size_t size);
GREENLET_IF_ANY void __lsan_register_root_region(const void* low, std::size_t size);
GREENLET_IF_ANY void __lsan_unregister_root_region(const void* low, std::size_t size);
GREENLET_IF_ANY void* __tsan_get_current_fiber();
GREENLET_IF_ANY void* __tsan_create_fiber(unsigned flags);
GREENLET_IF_ANY void __tsan_destroy_fiber(void* fiber);
GREENLET_IF_ANY void __tsan_switch_to_fiber(void* fiber, unsigned flags);
GREENLET_IF_ANY void __tsan_acquire(void* at);
GREENLET_IF_ANY void __tsan_release(void* at);
GREENLET_IF_ANY void __sanitizer_syscall_pre_impl_close(long fd);
#undef GREENLET_IF_ANY
}

#ifdef HAVE_VALGRIND_VALGRIND_H
#include <valgrind/valgrind.h>
#endif
#ifdef HAVE_VALGRIND_MEMCHECK_H
#include <valgrind/memcheck.h>
#endif

namespace greenlets::detail::sanitizer {

// Whether this library itself is built with one.
#if defined(GREENLET_ASAN) || defined(GREENLET_TSAN)
constexpr bool instrumented = true;
#else
constexpr bool instrumented = false;
#endif

// Which of them is there. Of each, all of its functions are.
inline bool watches_memory() noexcept { return __sanitizer_start_switch_fiber; }
inline bool watches_threads() noexcept { return __tsan_switch_to_fiber; }
inline bool looks_for_leaks() noexcept { return __lsan_register_root_region; }
// Whether it has to be told of every switch.
inline bool follows_switches() noexcept { return watches_memory() || watches_threads(); }

// One for each stack, the thread's own included. `low` and `size` are the stack's bounds, where anybody wants to know.
struct fiber {
  const void* low = nullptr;
  std::size_t size = 0;
  void* fake_stack = nullptr;  // while it is left
  const void* left_at = nullptr;  // native, and left: a root for LeakSanitizer from here to its end
  void* handle = nullptr;         // ThreadSanitizer's
  bool native = false;
  bool root = false;              // for LeakSanitizer, all of it: a greenlet is on it
  unsigned valgrind_id = 0;
};

// LeakSanitizer's list of roots has a lock of its own, which nobody takes over a fork(): the child would
// wait for ever for a thread that held it. The library comes to that lock through this one, and takes it.
inline std::mutex roots;

inline void add_root(const void* low, std::size_t size) noexcept {
  if (!looks_for_leaks()) return;
  const std::lock_guard lock(roots);
  __lsan_register_root_region(low, size);
}

inline void remove_root(const void* low, std::size_t size) noexcept {
  if (!looks_for_leaks()) return;
  const std::lock_guard lock(roots);
  __lsan_unregister_root_region(low, size);
}

// LeakSanitizer looks on the stack that a thread is running on, and nowhere else. What a stack that nobody is on refers to
// is what has been forgotten there.
inline void hold(fiber& f) noexcept {
  if (f.native || f.root || !looks_for_leaks()) return;
  add_root(f.low, f.size);
  f.root = true;
}

inline void let_go(fiber& f) noexcept {
  if (f.root) remove_root(f.low, f.size);
  f.root = false;
}

// Memory that no allocator knows refers to some that one does.
inline void refers(const void* low, std::size_t size) noexcept { add_root(low, size); }

// Memory that nobody may touch from now on, and that somebody may. Only where the library is instrumented: each start of a greenlet
// comes by.
inline void hide([[maybe_unused]] void* memory, [[maybe_unused]] std::size_t bytes) noexcept {
  if constexpr (instrumented)
    if (__asan_poison_memory_region) __asan_poison_memory_region(memory, bytes);
#ifdef HAVE_VALGRIND_MEMCHECK_H
  VALGRIND_MAKE_MEM_NOACCESS(memory, bytes);
#endif
}
inline void show([[maybe_unused]] void* memory, [[maybe_unused]] std::size_t bytes) noexcept {
  if constexpr (instrumented)
    if (__asan_unpoison_memory_region) __asan_unpoison_memory_region(memory, bytes);
#ifdef HAVE_VALGRIND_MEMCHECK_H
  VALGRIND_MAKE_MEM_DEFINED(memory, bytes);  // a link lies there
#endif
}

inline void lock_for_fork() noexcept {
  if (looks_for_leaks()) roots.lock();
}

inline void unlock_after_fork() noexcept {
  if (looks_for_leaks()) roots.unlock();
}

// The stack that the calling thread came with.
inline void describe_native(fiber& f) noexcept {
  pthread_attr_t attributes;
  if ((watches_memory() || looks_for_leaks()) && pthread_getattr_np(pthread_self(), &attributes) == 0) {
    void* low = nullptr;
    pthread_attr_getstack(&attributes, &low, &f.size);
    f.low = low;
    f.native = true;
    pthread_attr_destroy(&attributes);
  }
  if (watches_threads()) f.handle = __tsan_get_current_fiber();
}

inline void created(fiber& f, void* low, std::size_t size) noexcept {
  f.low = low;
  f.size = size;
  if (watches_threads()) f.handle = __tsan_create_fiber(0);
#ifdef HAVE_VALGRIND_VALGRIND_H
  f.valgrind_id = VALGRIND_STACK_REGISTER(low, static_cast<char*>(low) + size);
#endif
}

inline void destroyed(fiber& f) noexcept {
  // What lay there must not stay poisoned for whoever maps these addresses next.
  if (__asan_unpoison_memory_region) __asan_unpoison_memory_region(f.low, f.size);
  let_go(f);
  if (watches_threads()) __tsan_destroy_fiber(f.handle);
#ifdef HAVE_VALGRIND_VALGRIND_H
  VALGRIND_STACK_DEREGISTER(f.valgrind_id);
#endif
}

// What is on the thread's own stack must be found, too, when the process ends in a greenlet.
inline std::size_t bytes_above(const fiber& f, const void* from) noexcept {
  return static_cast<std::size_t>(static_cast<const char*>(f.low) + f.size - static_cast<const char*>(from));
}

// Reads the thread's signal mask, which the switch that follows at once must restore.
inline void mask_before_switch(sigset_t& now) noexcept {
  if (!watches_threads()) {
    pthread_sigmask(SIG_SETMASK, nullptr, &now);
    return;
  }
  // ThreadSanitizer runs a handler at the next call that it knows, and keeps what is to run with the
  // fiber: a signal that came just before a switch would wait until that fiber runs again. This call
  // runs what has come, and lets nothing more in.
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &now);
}

// Just before the stack pointer leaves `from`; `for_good` when nothing there will run again.
inline void leave(fiber& from, fiber& to, bool for_good) noexcept {
  if (from.native && looks_for_leaks()) {
    constexpr std::size_t room = 4096;  // for the registers, which are saved below this frame's address
    from.left_at = static_cast<const char*>(__builtin_frame_address(0)) - room;
    add_root(from.left_at, bytes_above(from, from.left_at));
  }
  if (for_good) let_go(from);
  hold(to);
  // Poison left by frames that a forced unwind or a kill went over would be reported later.
  if (watches_memory()) __sanitizer_start_switch_fiber(for_good ? nullptr : &from.fake_stack, to.low, to.size);
  if (watches_threads()) __tsan_switch_to_fiber(to.handle, 0);
}

// Just after the stack pointer has come to `self`.
inline void arrive(fiber& self) noexcept {
  if (watches_memory()) {
    void* const fake_stack = self.fake_stack;
    self.fake_stack = nullptr;
    __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr);
  }
  if (self.left_at) {
    remove_root(self.left_at, bytes_above(self, self.left_at));
    self.left_at = nullptr;
  }
}

// A library that is not instrumented is about to close this with a system call of its own. Another
// thread may get the number at once, which without this would look like a race.
inline void closes(int fd) noexcept {
  if (watches_threads() && __sanitizer_syscall_pre_impl_close) __sanitizer_syscall_pre_impl_close(fd);
}

// A stack that is no greenlet's: valgrind takes steps from one to another for a stack that grows.
inline unsigned knows_stack([[maybe_unused]] void* low, [[maybe_unused]] std::size_t size) noexcept {
#ifdef HAVE_VALGRIND_VALGRIND_H
  return VALGRIND_STACK_REGISTER(low, static_cast<char*>(low) + size);
#else
  return 0;
#endif
}
inline void forgets_stack([[maybe_unused]] unsigned id) noexcept {
#ifdef HAVE_VALGRIND_VALGRIND_H
  VALGRIND_STACK_DEREGISTER(id);
#endif
}

// Whether a handler is called later than its signal has come, when the thread calls something that the sanitizer knows:
// then the handler's context is of an earlier moment.
inline bool holds_signals_back() noexcept { return watches_threads(); }

// Whether a child of fork() may start threads: of a process of several, ThreadSanitizer ends it.
inline bool starts_threads_in_children() noexcept { return !watches_threads(); }

// What one thread has done before, another that comes to it by a way that is not instrumented sees after.
inline void before(void* meeting) noexcept {
  if (__tsan_release) __tsan_release(meeting);
}
inline void after(void* meeting) noexcept {
  if (__tsan_acquire) __tsan_acquire(meeting);
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
