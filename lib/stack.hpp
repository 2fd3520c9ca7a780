// SPDX-License-Identifier: MIT
// A greenlet's stack: its own mapping with a guard page, pooled per thread.
//
//   low address                                                      high address
//   | guard page | ...............  usable  ............. <-- grows | struct stack |
//                ^ low()                                            ^ this
//
// A stack whose greenlet has finished keeps its trampoline parked in its first frame; the next
// greenlet on it starts by jumping there, so a first frame is made once per stack.
#ifndef LIB_STACK_HPP
#define LIB_STACK_HPP

#include "arch/machine.hpp"

#include <cstddef>

namespace greenlets::detail {

struct stack {
  machine::context parked;  // where its next greenlet begins
  sanitizer::fiber fiber;
  void* mapping;
  std::size_t mapped;  // bytes, with guard page and this struct
  std::size_t usable;  // bytes, as asked for
  stack* next;         // in a pool

  char* low() noexcept;
  machine::place place() noexcept { return {parked, fiber}; }
};

constexpr std::size_t default_stack_size = 256 * 1024;
constexpr std::size_t least_stack_size = 16 * 1024;

// Rounds what a user asked for (0: the default). Throws std::invalid_argument.
std::size_t round_stack_size(std::size_t bytes);

// The stacks of one thread that wait to be used again, last in, first out.
class stack_pool {
 public:
  stack_pool() noexcept = default;
  stack_pool(const stack_pool&) = delete;
  stack_pool& operator=(const stack_pool&) = delete;
  ~stack_pool() { trim(); }

  // Gives a stack of `usable` bytes with a first frame that calls `call(argument)`.
  // Throws std::system_error (mmap, mprotect), error(stack_limit).
  stack* take(std::size_t usable, machine::entry call, void* argument, machine::shared& s);
  // Takes back a stack that nobody stands on.
  void give(stack* s) noexcept;
  // The same for one whose trampoline is not parked: it cannot be used again.
  void discard(stack* s) noexcept;
  void trim() noexcept;

 private:
  static constexpr std::size_t most_pooled = 256;
  stack* first_ = nullptr;
  std::size_t count_ = 0;
};

}  // namespace greenlets::detail

#endif
