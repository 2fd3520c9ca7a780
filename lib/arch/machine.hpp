// SPDX-License-Identifier: MIT
// The machine layer's contract: make a first frame, and switch. A backend is one .cpp beside this.
//
// A suspended stack is three words: stack pointer, frame pointer, and the address to go on at.
// The caller of jump() must take every other register for lost, so a backend may be a few inline
// instructions that store the three words and jump; or, as ucontext.cpp does, save the rest on the
// stack itself and let `sp` point at it.
//
// Neither function knows greenlets, allocates, takes a lock or throws. jump() returns when somebody
// jumps back to `from`; it may never. Nothing below the suspended stack pointer is used, except that
// a backend whose jump() is inline leaves the red zone of its caller (x86-64: 128 bytes) live.
#ifndef LIB_ARCH_MACHINE_HPP
#define LIB_ARCH_MACHINE_HPP

#include "sanitizer.hpp"

#include <cfenv>
#include <cstddef>

namespace greenlets::detail::machine {

struct context {
  void* sp = nullptr;
  void* fp = nullptr;
  void* pc = nullptr;
  // Whether this stack has a floating-point environment of its own, instead of the thread's.
  bool own_fp_env = false;
  sanitizer::fiber fiber;
};

// What a thread's stacks share: its floating-point environment, while one with its own runs.
struct shared {
  std::fenv_t fp_env;
};

// The function that a first frame calls; it must not return.
using entry = void (*)(void* argument);

// Makes the stack [low, low + size) ready to be jumped to: `call(argument)` runs there. `s` must
// outlive the stack. Uses some bytes at the stack's top; the top must be aligned to 16.
void make(context& c, void* low, std::size_t size, entry call, void* argument, shared& s) noexcept;

// Leaves `from` and goes on in `to`. `for_good` when `from` will be jumped to only to begin anew.
void jump(context& from, context& to, shared& s, bool for_good = false) noexcept;

}  // namespace greenlets::detail::machine

#endif
