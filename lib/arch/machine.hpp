// SPDX-License-Identifier: MIT
// The machine layer's contract: make a first frame, and switch.
//
// inline.cpp switches with go(), the few instructions of <greenlet/detail/machine.hpp>; ucontext.cpp with
// swapcontext, which saves the rest on the stack itself and lets `sp` point at it. A thread does all its
// switches in one of the two ways.
//
// No function knows greenlets, allocates, takes a lock or throws. jump() returns when somebody jumps back
// to `from`; it may never. Nothing below the suspended stack pointer is used, except that go() leaves the
// red zone of its caller (x86-64: 128 bytes) live.
#ifndef LIB_ARCH_MACHINE_HPP
#define LIB_ARCH_MACHINE_HPP

#include "interrupted.hpp"
#include "sanitizer.hpp"

#include <greenlet/detail/machine.hpp>

#include <cfenv>
#include <cstddef>
#include <cstdint>

namespace greenlets::detail::machine {

// What a thread's stacks share.
struct shared {
  bool plain = true;   // by go(), and nobody is to be told
  bool swaps = false;  // by swapcontext
  // While a swapcontext is under way:
  cargo carried;
  std::fenv_t fp_env;
};

// A stack to leave or to go to.
struct place {
  context& at;
  sanitizer::fiber& fiber;
};

// What lies lower on a suspended stack is not used any more: below the red zone of who called go(), or below what
// swapcontext has saved as the stack pointer, where `sp` points. Of a stack that is not suspended neither is so, and
// anything may be there: then it is somewhere near.
GREENLET_NO_ASAN inline const void* lowest_live(const context& c) noexcept {
  constexpr std::uintptr_t frame = 4096, unknown = 1024;  // of swap(), and of what a sanitizer puts below
  const auto sp = reinterpret_cast<std::uintptr_t>(c.sp);
  if (c.pc) return reinterpret_cast<const void*>(sp - 128);
  const std::uintptr_t saved = interrupted_at(c.sp).sp;
  return reinterpret_cast<const void*>(saved <= sp && sp - saved <= frame ? saved : sp - unknown);
}

// The function that a first frame calls; it must not return.
using entry = void (*)(void* argument);

// Whether the calling thread has to switch by swapcontext: because the library was configured so, or for
// want of go(), or because shadow stacks are on, which swapcontext knows about; or for ThreadSanitizer, whose pending
// signals are to be seen to first.
bool must_swap() noexcept;

// Makes the stack [low, low + size) ready to be jumped to: `call(argument)` runs there. `s` and the fiber
// must outlive the stack. Uses some bytes at the stack's top; the top must be aligned to 16.
void make(place p, void* low, std::size_t size, entry call, void* argument, shared& s) noexcept;

// Leaves `from` and goes on in `to`, which finds the cargo; returns that of whoever comes back, be it
// by jump() or by go(). `for_good` when `from` will be jumped to only to begin anew.
cargo jump(place from, place to, shared& s, const cargo& c, bool for_good = false) noexcept;

// The same in the caller's own frame, for good: to return from a function that was gone back to by a jump, the
// processor has lost the place. Not for a thread that switches by swapcontext, nor when a sanitizer is to be told.
__attribute__((always_inline)) inline cargo jump_here(place from, place to, shared& s, const cargo& c) noexcept {
#if defined(GREENLET_HAS_GO) && !defined(GREENLET_SWITCH_UCONTEXT)
  if constexpr (!sanitizer::instrumented) {
    context* self;
    return go(from.at, to.at, c, self);
  }
#endif
  return jump(from, to, s, c, true);
}

// ucontext.cpp: the same by swapcontext.
void make_swapped(place p, void* low, std::size_t size, entry call, void* argument, shared& s) noexcept;
cargo swap(place from, place to, shared& s, const cargo& c, bool for_good) noexcept;

// A floating-point environment: of x86-64 what calls preserve (System V ABI, AMD64 supplement, 3.2.1).
#ifdef __x86_64__
struct fp_env {
  unsigned int mxcsr;
  unsigned short x87;
};
inline void save(fp_env& e) noexcept { __asm__ volatile("stmxcsr %0\n\tfnstcw %1" : "=m"(e.mxcsr), "=m"(e.x87)); }
inline void load(const fp_env& e) noexcept { __asm__ volatile("ldmxcsr %0\n\tfldcw %1" : : "m"(e.mxcsr), "m"(e.x87)); }
#else
struct fp_env {
  std::fenv_t all;
};
inline void save(fp_env& e) noexcept { std::fegetenv(&e.all); }
inline void load(const fp_env& e) noexcept { std::fesetenv(&e.all); }
#endif

}  // namespace greenlets::detail::machine

#endif
