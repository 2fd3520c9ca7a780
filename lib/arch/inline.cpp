// SPDX-License-Identifier: MIT
// Switches out of line, and first frames, for go().
#include "machine.hpp"

#include "impossible.hpp"

#include <cstdint>

namespace greenlets::detail::machine {

#if defined(GREENLET_HAS_GO) && !defined(GREENLET_SWITCH_UCONTEXT)

namespace {

// Lies at the stack's beginning.
struct beginning {
  entry call;
  void* argument;
  sanitizer::fiber* fiber;
};

// Jumped to by go(), whose contexts are its arguments. Nobody has called it: the return address is 0, where unwinders stop;
// and for those that would take that for a function it is said once more.
#ifdef __x86_64__
#define GREENLET_CALLED_BY_NOBODY __asm__ volatile("" GREENLET_CFI(".cfi_undefined rip"))
#else
#define GREENLET_CALLED_BY_NOBODY __asm__ volatile("" GREENLET_CFI(".cfi_undefined x30"))
#endif
[[noreturn]] GREENLET_NO_ASAN void first(const context*, const context* self) {
  GREENLET_CALLED_BY_NOBODY;
  const beginning& b = *static_cast<const beginning*>(self->base);
  b.call(b.argument);
  impossible("a greenlet's first function has returned");
}

// The same where a sanitizer is to be told.
[[noreturn]] GREENLET_NO_ASAN void first_followed(const context*, const context* self) {
  GREENLET_CALLED_BY_NOBODY;
  const beginning& b = *static_cast<const beginning*>(self->base);
  sanitizer::arrive(*b.fiber);
  b.call(b.argument);
  impossible("a greenlet's first function has returned");
}

// With jump()'s own parameters, so that it has none to move.
__attribute__((noinline)) GREENLET_NO_ASAN cargo jump_otherwise(place from, place to, shared& s, const cargo& c,
                                                                bool for_good) noexcept {
  if (s.swaps) return swap(from, to, s, c, for_good);
  sanitizer::leave(from.fiber, to.fiber, for_good);
  context* self;
  const cargo got = go(from.at, to.at, c, self);
  sanitizer::arrive(from.fiber);
  return got;
}

}  // namespace

bool must_swap() noexcept {
  if (sanitizer::watches_threads()) return true;
#ifdef __x86_64__
  std::uintptr_t shadow_stack = 0;
  __asm__ volatile("rdsspq %0" : "+r"(shadow_stack));  // does nothing where there is none
  return shadow_stack != 0;
#else
  return false;
#endif
}

void make(place p, void* low, std::size_t size, entry call, void* argument, shared& s) noexcept {
  if (s.swaps) return make_swapped(p, low, size, call, argument, s);
  char* const top = static_cast<char*>(low) + size - ((sizeof(beginning) + 15) & ~std::size_t{15});
  auto* const b = reinterpret_cast<beginning*>(top);
  *b = {call, argument, &p.fiber};
  p.at = {};
  p.at.base = b;
  p.at.pc = reinterpret_cast<void*>(s.plain ? &first : &first_followed);
#ifdef __x86_64__
  // As after a call: the return address, below an aligned stack pointer.
  void** const sp = reinterpret_cast<void**>(top) - 1;
  *sp = nullptr;
  p.at.sp = sp;
#else
  p.at.sp = top;
#endif
}

__attribute__((noinline)) GREENLET_NO_ASAN cargo jump(place from, place to, shared& s, const cargo& c,
                                                      bool for_good) noexcept {
  if (__builtin_expect(!s.plain, 0)) return jump_otherwise(from, to, s, c, for_good);
  context* self;
  return go(from.at, to.at, c, self);
}

#else

bool must_swap() noexcept { return true; }

void make(place p, void* low, std::size_t size, entry call, void* argument, shared& s) noexcept {
  make_swapped(p, low, size, call, argument, s);
}

cargo jump(place from, place to, shared& s, const cargo& c, bool for_good) noexcept {
  return swap(from, to, s, c, for_good);
}

#endif

}  // namespace greenlets::detail::machine
