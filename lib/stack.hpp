// SPDX-License-Identifier: MIT
// A greenlet's stack, its guard page, and the pool of its thread.
//
//   low address                                                        high address
//   | guard page | ...............  usable  ............. <-- grows | struct stack | ... |
//                ^ low()                                            ^ this
//
// Stacks lie side by side in slabs, mappings of up to 64. A stack whose greenlet has finished keeps its
// trampoline parked in its first frame; the next greenlet on it starts by jumping there, so a first frame is
// made once per stack.
#ifndef LIB_STACK_HPP
#define LIB_STACK_HPP

#include "arch/machine.hpp"
#include "slab.hpp"

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace greenlets::detail {

struct stack {
  machine::context parked;  // where its next greenlet begins
  sanitizer::fiber fiber;
  slab* home;
  unsigned slot;        // there
  std::size_t usable;   // bytes, as asked for
  stack* next;          // in a pool
  const void* high;     // with a collector: where the frames of its greenlet begin

  char* low() noexcept;
  machine::place place() noexcept { return {parked, fiber}; }
};

// The one in that place of a slab, which need not be there.
inline stack* stack_of(const slab& home, unsigned slot) noexcept {
  return reinterpret_cast<stack*>(home.top(slot) - ((sizeof(stack) + 63) & ~std::size_t{63}));
}

constexpr std::size_t default_stack_size = 256 * 1024;
constexpr std::size_t least_stack_size = 16 * 1024;

// Rounds what a user asked for (0: the default). Throws std::invalid_argument.
std::size_t round_stack_size(std::size_t bytes);

// The stacks of one thread.
class stack_pool {
 public:
  stack_pool() noexcept = default;
  stack_pool(const stack_pool&) = delete;
  stack_pool& operator=(const stack_pool&) = delete;
  ~stack_pool() { trim(); }

  // Gives a stack of `usable` bytes with a first frame that calls `call(argument)`: the last that was given
  // back, or a new one. Throws std::system_error (mmap, mprotect), error(stack_limit).
  stack* take(std::size_t usable, machine::entry call, void* argument, machine::shared& s);
  // The same for one that waits on top: whether it does, and that.
  bool has(std::size_t usable) const noexcept { return first_ && first_->usable == usable; }
  stack* pop() noexcept {
    stack* const top = first_;
    first_ = top->next;
    pooled(-1);
    return top;
  }
  bool has_room() const noexcept { return count() < limit_; }
  // Takes back a stack that nobody stands on.
  void give(stack* s) noexcept {
    if (has_room())
      push(s);
    else
      give_up(s);
  }
  // The same when there is room.
  void push(stack* s) noexcept {
    s->next = first_;
    first_ = s;
    pooled(+1);
  }
  // The same for one whose trampoline is not parked: it is not used again as it is.
  void discard(stack* s) noexcept;
  // Gives back to the system what waits to be used again.
  void trim() noexcept;
  // How many wait. Thread: any.
  std::size_t count() const noexcept { return count_.load(std::memory_order_relaxed); }

 private:
  static constexpr std::size_t most_pooled = 256;
  static constexpr std::size_t least_pooled = 4;

  void pooled(int more) noexcept {
    count_.store(count() + static_cast<std::size_t>(more), std::memory_order_relaxed);
  }
  // Takes back one more than are kept.
  void give_up(stack* s) noexcept;
  // Of those parked, keeps the `n` that were used last.
  void shrink(std::size_t n) noexcept;
  slab* with_room(std::size_t usable);
  void link(slab* s) noexcept;
  void unlink(slab* s) noexcept;

  stack* first_ = nullptr;  // those parked, last in, first out
  std::atomic<std::size_t> count_{0};  // written by the thread, read by others
  std::size_t limit_ = most_pooled;  // how many are kept
  std::size_t given_up_ = 0;         // since the last one was made
  slab* open_ = nullptr;    // slabs that have a free place
  unsigned grown_ = 1;      // stacks in the next slab
  bool advised_ = true;     // guard pages by advice, as far as is known
};

}  // namespace greenlets::detail

#endif
