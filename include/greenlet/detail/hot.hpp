// SPDX-License-Identifier: MIT
// The hot part: all that code inlined into programs touches of the library's records.
//
// It is frozen. Programs have it compiled in, so any change here, to value or to value_ops, is a change of the
// ABI: hot_thread_v1 gets another name, and the shared library another version.
#ifndef GREENLET_DETAIL_HOT_HPP
#define GREENLET_DETAIL_HOT_HPP

#include <greenlet/detail/api.hpp>
#include <greenlet/detail/machine.hpp>

#include <atomic>
#include <cstddef>
#include <cstdint>

// A sanitizer has to be told of each switch, and the library does that.
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define GREENLET_NO_INLINE_SWITCH 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define GREENLET_NO_INLINE_SWITCH 1
#endif

#if defined(GREENLET_HAS_GO) && !defined(GREENLET_NO_INLINE_SWITCH)
#define GREENLET_INLINE_SWITCH 1
#endif

#define GREENLET_ALWAYS_INLINE __attribute__((always_inline)) inline

namespace greenlets::detail {

struct body;

// The C++ exceptions being handled and thrown, which belong to a greenlet and not to its thread: a
// __cxa_eh_globals (Itanium C++ ABI, Exception Handling, section 2.2.2).
struct exception_state {
  void* caught = nullptr;
  unsigned int uncaught = 0;
#ifdef __ARM_EABI__  // the compiler's own; what <unwind.h> defines not everybody has seen here
  void* propagating = nullptr;
#endif
};

struct hot_thread;

// Of hot_body::shared. The lowest bit says that the body waits in its thread's queue, which holds a reference; the
// next, that a collector owns its memory, so that where a handle lies matters (collected.hpp). With either, all
// counting is the library's.
constexpr std::ptrdiff_t is_queued = 1;
constexpr std::ptrdiff_t is_collected = 2;
constexpr std::ptrdiff_t counts_slowly = is_queued | is_collected;
constexpr std::ptrdiff_t one_reference = 4;

// The beginning of every body.
struct hot_body {
  machine::context where;           // while suspended
  std::atomic<hot_thread*> active_on{nullptr};  // its thread, while it is active, else null; others may look
  std::atomic<body*> parent{nullptr};
  exception_state exceptions;  // while suspended; else empty
  // The references that its thread has taken while it is active, and not dropped, and one. Only that thread
  // touches it, so it counts without a locked instruction. All others are in `shared`, counted in fours.
  std::atomic<std::size_t> here{1};
  std::atomic<std::ptrdiff_t> shared{one_reference};
};

// The beginning of every thread's record.
struct hot_thread {
  std::atomic<std::uint32_t> attention{0};  // reasons to leave the straight path; 0: none
  std::atomic<body*> current{nullptr};
  exception_state* exceptions = nullptr;    // the thread's own
};

// The bit of attention for which a switch stays inline: a greenlet has its own floating-point environment.
constexpr std::uint32_t attention_fp_env = 1;
// The bit that a debugger sets in a thread's record, so that each switch of it is a call into the library, in
// which it can stop. Nothing else changes; the library never touches it.
constexpr std::uint32_t attention_debugger = std::uint32_t{1} << 31;

// What a switch carries: nothing (null); or a value's operations, and the one word of it; or, with this bit,
// the address of a value, on the stack of who has switched; or, with these, what is thrown and how; or this: what
// is sent or thrown lies in the slot of the thread, and there is more to do for him.
constexpr std::uintptr_t in_memory = 2;
constexpr std::uintptr_t to_be_thrown = 3;
inline const machine::cargo in_slot{reinterpret_cast<void*>(1), nullptr};
inline bool is_in_slot(const machine::cargo& c) noexcept { return reinterpret_cast<std::uintptr_t>(c.kind) == 1; }
inline bool is_thrown(const machine::cargo& c) noexcept {
  return (reinterpret_cast<std::uintptr_t>(c.kind) & to_be_thrown) == to_be_thrown;
}

// The calling thread's record; before it has one, a record that asks for attention and owns nobody.
extern GREENLET_API __thread hot_thread* hot_thread_v1 __attribute__((tls_model("initial-exec")));

inline bool is_empty(const exception_state& s) noexcept {
#ifdef __ARM_EABI__
  if (s.propagating) return false;
#endif
  return (reinterpret_cast<std::uintptr_t>(s.caught) | s.uncaught) == 0;
}

// Puts the exceptions of who runs away, and those of `to` in their place. Mostly neither has any, and nothing is
// written.
GREENLET_ALWAYS_INLINE void exchange_exceptions(hot_thread* t, hot_body* from, hot_body* to) noexcept {
  exception_state& now = *t->exceptions;
  if (__builtin_expect(is_empty(now), 1) && __builtin_expect(is_empty(to->exceptions), 1)) return;
  from->exceptions = now;
  now = to->exceptions;
  to->exceptions = exception_state();
}

// `at` is where the handle is that refers to it; null: the library's own reference, of which a collector knows.
GREENLET_API void ref_elsewhere(body* b, const void* at) noexcept;
GREENLET_API void unref_last(body* b, const void* at) noexcept;  // perhaps

// Takes a reference that this thread, which is `t`, counts apart. Returns false when it does not.
inline bool ref_here(body* b, const hot_thread* t = hot_thread_v1) noexcept {
  auto* const hot = reinterpret_cast<hot_body*>(b);
  if (__builtin_expect(hot->active_on.load(std::memory_order_relaxed) != t ||
                           hot->shared.load(std::memory_order_relaxed) & counts_slowly,
                       0))
    return false;
  hot->here.store(hot->here.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
  return true;
}

inline void ref(body* b, const void* at = nullptr) noexcept {
  if (!ref_here(b)) ref_elsewhere(b, at);
}

// Drops a reference that this thread has counted apart. Returns false when there is none, or it may be the last.
inline bool unref_here(body* b, const hot_thread* t = hot_thread_v1) noexcept {
  auto* const hot = reinterpret_cast<hot_body*>(b);
  if (__builtin_expect(hot->active_on.load(std::memory_order_relaxed) != t, 0)) return false;
  const std::size_t count = hot->here.load(std::memory_order_relaxed);
  if (__builtin_expect(count == 1 || hot->shared.load(std::memory_order_relaxed) & counts_slowly, 0)) return false;
  hot->here.store(count - 1, std::memory_order_relaxed);
  return true;
}

inline void unref(body* b, const void* at = nullptr) noexcept {
  if (!unref_here(b)) unref_last(b, at);
}

#ifdef __LP64__
static_assert(sizeof(machine::context) == 32 && offsetof(machine::context, pc) == 16);
static_assert(sizeof(hot_body) == 80 && offsetof(hot_body, active_on) == 32 && offsetof(hot_body, parent) == 40 &&
              offsetof(hot_body, exceptions) == 48 && offsetof(hot_body, here) == 64 &&
              offsetof(hot_body, shared) == 72);
static_assert(sizeof(hot_thread) == 24 && offsetof(hot_thread, current) == 8 && offsetof(hot_thread, exceptions) == 16);
#endif

}  // namespace greenlets::detail

#endif
