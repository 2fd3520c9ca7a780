// SPDX-License-Identifier: MIT
// The portable way: makecontext and swapcontext (POSIX.1-2001) for every switch.
//
// swapcontext also saves and restores the signal mask and the floating-point environment. To us
// these belong to the thread, so each switch carries them over; that costs a second system call.
#include "machine.hpp"

#include "fault.hpp"
#include "impossible.hpp"

#include <cstdint>
#include <ucontext.h>

namespace greenlets::detail::machine {
namespace {

// Lies on the suspended stack; context::sp points at it.
struct saved {
  ucontext_t registers;
  // The first frame only:
  sanitizer::fiber* fiber;
  entry call;
  void* argument;
  shared* common;
};

saved& saved_at(context& c) noexcept { return *static_cast<saved*>(c.sp); }

void arrived(sanitizer::fiber& self, shared& s) noexcept {
  sanitizer::arrive(self);
  std::fesetenv(&s.fp_env);
}

// makecontext passes ints, hence a pointer in two halves.
void begin(unsigned high, unsigned low) {
  saved& first = *reinterpret_cast<saved*>(std::uintptr_t{high} << 16 << 16 | low);
  arrived(*first.fiber, *first.common);
  first.call(first.argument);
  impossible("a greenlet's first function has returned");
}

}  // namespace

void make_swapped(place p, void* low, std::size_t size, entry call, void* argument, shared& s) noexcept {
  const std::size_t room = (sizeof(saved) + 63) & ~std::size_t{63};
  auto* first = reinterpret_cast<saved*>(static_cast<char*>(low) + size - room);
  if (GREENLET_MAY_FAIL(getcontext, -1, &first->registers) != 0) impossible("getcontext failed");
  first->registers.uc_stack.ss_sp = low;
  first->registers.uc_stack.ss_size = size - room;
  first->registers.uc_link = nullptr;
  first->fiber = &p.fiber;
  first->call = call;
  first->argument = argument;
  first->common = &s;
  const auto address = reinterpret_cast<std::uintptr_t>(first);
  makecontext(&first->registers, reinterpret_cast<void (*)()>(begin), 2, static_cast<unsigned>(address >> 16 >> 16),
              static_cast<unsigned>(address));
  p.at.sp = first;
}

// Not instrumented by ASan: `here` must lie on the stack itself, and not on the fake one that ASan
// frees when the stack is left for good.
__attribute__((noinline)) GREENLET_NO_ASAN cargo swap(place from, place to, shared& s, const cargo& c,
                                                      bool for_good) noexcept {
  saved here;
  here.registers.uc_stack = {};  // ASan's swapcontext looks there
  saved& there = saved_at(to.at);
  std::fegetenv(&s.fp_env);
  sanitizer::mask_before_switch(there.registers.uc_sigmask);
  from.at.sp = &here;
  s.carried = c;
  sanitizer::leave(from.fiber, to.fiber, for_good);
  if (GREENLET_MAY_FAIL(swapcontext, -1, &here.registers, &there.registers) != 0) impossible("swapcontext failed");
  arrived(from.fiber, s);
  return s.carried;
}

}  // namespace greenlets::detail::machine
