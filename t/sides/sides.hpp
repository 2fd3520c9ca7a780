// SPDX-License-Identifier: MIT
// The two sides between which t/stepping.cpp steps; included by what the compiler optimises, and by what it does not.
//
// Exported (-rdynamic), so that a step that fails has names to tell. T_SIDES is the namespace.
#include "../testing.hpp"

#include <stdexcept>

void t_begin();
void t_end();

namespace T_SIDES {

// So that a call is not the last thing that a function does.
#define after_call() __asm__ volatile("" ::: "memory")

// With live values that the compiler has to keep somewhere: in registers, which a switch loses, or on the stack.
__attribute__((noinline)) int t_leaf(const greenlets::greenlet& to, int a, int b, int c) {
  int got = 0;
  try {
    got = to.switch_to(a + b).get<int>();
  } catch (const std::runtime_error&) {
    got = 1000;
  }
  after_call();
  return got + a * 3 + b * 5 + c * 7;
}

__attribute__((noinline)) int t_middle(const greenlets::greenlet& to, int depth, int a) {
  const int got = depth > 0 ? t_middle(to, depth - 1, a + depth) : t_leaf(to, a, depth, a ^ 5);
  after_call();
  return got + a;
}

// A size that is known only when it runs; and with clang a realigned stack, whose locals are addressed by the base register.
// What GCC says of the end of such a function is wrong: it has restored registers by then that it says are on the stack.
#ifdef __clang__
#define T_ALIGNMENT 64
#else
#define T_ALIGNMENT 16
#endif
__attribute__((noinline)) int t_realigned(const greenlets::greenlet& to, int a) {
  alignas(T_ALIGNMENT) volatile char room[128];
  auto* const more = static_cast<volatile char*>(__builtin_alloca(static_cast<std::size_t>(a % 64 + 16)));
  room[a % 128] = more[0] = static_cast<char>(a);
  const int got = to.switch_to(a).get<int>();
  after_call();
  return got + room[a % 128] + more[0];
}

// What the greenlet runs. Goes on twice, and ends.
__attribute__((noinline)) int t_greenlet_side(int first) {
  const greenlets::greenlet parent = greenlets::main_greenlet();
  int sum = t_middle(parent, 2, first);
  sum += t_realigned(parent, first);
  after_call();
  return sum;
}

__attribute__((noinline)) int t_main_side(const greenlets::greenlet& g, bool throws) {
  t_begin();
  int sum = t_middle(g, 1, 7);  // the first start
  if (throws) {
    try {
      g.throw_in(std::runtime_error("stepped"));
    } catch (const std::runtime_error&) {
      sum += 1;
    }
  } else {
    sum += t_realigned(g, 9);
  }
  sum += t_leaf(g, 1, 2, 3);  // and comes back for good
  t_end();
  after_call();
  return sum;
}

}  // namespace T_SIDES
