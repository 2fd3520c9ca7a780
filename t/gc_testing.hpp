// SPDX-License-Identifier: MIT
// What the tests of the collector share. Each program enables it before anything else.
#ifndef T_GC_TESTING_HPP
#define T_GC_TESTING_HPP

#include "testing.hpp"

#include <greenlet/gc.hpp>

#define GC_THREADS 1
#define GC_NO_THREAD_REDIRECTS 1
#include <gc/gc.h>
#include <gc/gc_mark.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <thread>

namespace gc_testing {

using namespace greenlets;

// AddressSanitizer's frames are large, and what lay in them stays there: conservative scanning keeps more than the
// tests of completeness allow.
#ifdef T_ASAN
constexpr bool frames_keep = true;
#else
constexpr bool frames_keep = false;
#endif

// ThreadSanitizer holds a signal back until the thread calls something that it knows, so now and then libgc stops none for
// 15 seconds and ends the process: always when one waits for libgc's lock. It takes 8,128 greenlets at most, and
// pthread_exit only on a thread's own stack. So with it these are tests by hand (GREENLET_TEST_GC_TSAN=1), for what it has
// to say of our code; without what cannot be, and with those collections only that are asked for.
#ifdef T_TSAN
constexpr bool under_tsan = true;
#else
constexpr bool under_tsan = false;
#endif

// Before `enabling`, for a program of which nothing would be left.
struct left_out_under_tsan {
  explicit left_out_under_tsan(bool always = true) {
    if (!under_tsan || !(always || !std::getenv("GREENLET_TEST_GC_TSAN"))) return;
    std::puts("skipped: Boehm GC cannot stop threads under ThreadSanitizer");
    std::fflush(stdout);
    _exit(77);
  }
};

// How libgc is set up: GREENLET_TEST_GC_MODE (t/gc_modes.sh).
inline bool mode_is(const char* name) {
  const char* const mode = std::getenv("GREENLET_TEST_GC_MODE");
  return mode && std::string(mode) == name;
}

// For who waits by asking again.
inline void let_others_run() {
  if constexpr (under_tsan)
    std::this_thread::sleep_for(std::chrono::microseconds(1));  // which it knows
  else
    std::this_thread::yield();
}

// Before main(), where the first greenlet is.
struct enabling {
  explicit enabling(gc::options with = {}) {
    const left_out_under_tsan unless_by_hand(false);
    if (mode_is("no-interior-pointers")) GC_set_all_interior_pointers(0);
    if (mode_is("no-java-finalization")) GC_set_java_finalization(0);
    if (mode_is("finalize-on-demand")) GC_set_finalize_on_demand(1);
    if (under_tsan) with.collect_after_bytes = with.collect_after_greenlets = SIZE_MAX / 4;
    gc::enable(std::move(with));
    if (under_tsan) GC_expand_hp(std::size_t{256} << 20);
    if (mode_is("incremental")) {
      GC_enable_incremental();
      sigaction(SIGSEGV, nullptr, &libgcs_segv());
    }
  }
  // By which it learns what has been written to; doctest takes the signal for itself in each case.
  static struct sigaction& libgcs_segv() {
    static struct sigaction action;
    return action;
  }
  static void give_segv_back() {
    if (mode_is("incremental")) sigaction(SIGSEGV, &libgcs_segv(), nullptr);
  }
};

// How long the storms last: a moment, unless GREENLET_TEST_GC_SECONDS says more.
inline std::chrono::milliseconds duration() {
  if (const char* const s = std::getenv("GREENLET_TEST_GC_SECONDS")) return std::chrono::seconds(std::atoi(s));
  return std::chrono::milliseconds(std::getenv("GREENLET_TEST_GC_MODE") ? 250 : 700);
}

// An object of the collected heap that knows whether it is intact. Its words are no pointers.
struct witness {
  static constexpr std::uint64_t cookie = 0x5a17c0de5a17c0de;
  std::uint64_t first;
  std::uint64_t number;
  std::uint64_t last;

  bool intact() const noexcept { return first == cookie && last == ~number; }
};

inline std::atomic<std::uint64_t> witnesses{0};

// Made out of sight: its address is in the result and nowhere else.
__attribute__((noinline)) inline witness* make_witness() {
  if (!GC_thread_is_registered()) current();  // libgc knows a thread from its first use of the library on
  auto* const w = static_cast<witness*>(GC_MALLOC(sizeof(witness)));
  w->number = ++witnesses;
  w->first = witness::cookie;
  w->last = ~w->number;
  return w;
}

// For a greenlet's stack: says when it goes, and whether it found its object and its thread as they were.
namespace on_a_stack {

inline std::atomic<int> round{0};  // the case; what an earlier one has kept may go in a later one, and does not count
inline std::atomic<int> destroyed{0};
inline std::atomic<int> damaged{0};
inline std::atomic<int> elsewhere{0};

struct looks {
  witness* const object = make_witness();
  const std::thread::id thread = std::this_thread::get_id();
  const int made_in = round;
  ~looks() {
    if (made_in == round) ++destroyed;
    if (!object->intact()) ++damaged;
    if (std::this_thread::get_id() != thread) ++elsewhere;
  }
};

}  // namespace on_a_stack

// Overwrites what calls have left below this frame; not with a memset, which would be optimised away.
__attribute__((noinline)) inline void wipe_stack() {
  char dead[24 * 1024];
  __builtin_memset(dead, 0, sizeof dead);
  __asm__ volatile("" : : "r"(dead) : "memory");
}

// Calls `f` so deep that what its frames leave is none of the frames of who comes next, but is wiped.
template <class F>
__attribute__((noinline)) void far_below(F&& f) {
  char gap[8 * 1024];
  __asm__ volatile("" : : "r"(gap) : "memory");
  f();
  __asm__ volatile("" : : "r"(gap) : "memory");
}

// Two collections, which is how many it may take.
inline gc::collection collect_twice() {
  wipe_stack();
  const gc::collection first = gc::collect();
  wipe_stack();
  if (mode_is("finalize-on-demand")) GC_invoke_finalizers();
  const gc::collection second = gc::collect();
  return {first.found + second.found, first.unwound + second.unwound};
}

// Fills what has been freed with something else.
inline void use_free_memory() {
  for (int i = 0; i < 2000; ++i) {
    void* const p = GC_MALLOC(sizeof(witness));
    __builtin_memset(p, 0x11, sizeof(witness));
  }
}

}  // namespace gc_testing

#endif
