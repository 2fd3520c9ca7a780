// SPDX-License-Identifier: MIT
// Taking cells and giving them back.
#include "cells.hpp"

#include "anchor.hpp"
#include "fault.hpp"
#include "spinlock.hpp"
#include "thread.hpp"

#include <algorithm>
#include <new>
#include <sys/mman.h>
#include <utility>

namespace greenlets::detail {
namespace {

constexpr std::size_t stride = cell_chunk::stride;
// How many chains wait before one of them is used again.
constexpr std::size_t held_back = sanitizer::instrumented ? 4096 : 0;

// Under it nothing is touched but these and the first cells of chains.
class chains_lock {
 public:
  chains_lock() noexcept {
    lock.lock();
    sanitizer::after(&lock);
  }
  chains_lock(const chains_lock&) = delete;
  chains_lock& operator=(const chains_lock&) = delete;
  ~chains_lock() {
    sanitizer::before(&lock);
    lock.unlock();
  }

  static inline spinlock lock;
};

cell* first_chain = nullptr;  // in the order in which they are used again
cell* last_chain = nullptr;
std::size_t chains = 0;
char* fresh = nullptr;        // those of the newest chunk that never were used: their pages cost nothing yet
std::size_t fresh_left = 0;

cell* pop_chain() noexcept {
  if (chains <= held_back) return nullptr;
  cell* const c = first_chain;
  sanitizer::show(c, stride);
  first_chain = c->next_chain;
  if (!first_chain) last_chain = nullptr;
  --chains;
  return c;
}

// Of the first cell, which is shown until then.
void push_chain(cell* first, std::size_t count) noexcept {
  first->count = count;
  if (held_back != 0 && last_chain) {
    first->next_chain = nullptr;
    sanitizer::show(last_chain, stride);
    last_chain->next_chain = first;
    sanitizer::hide(last_chain, stride);
    last_chain = first;
  } else {
    first->next_chain = first_chain;
    first_chain = first;
    if (!last_chain) last_chain = first;
  }
  ++chains;
  sanitizer::hide(first, stride);
}

// Takes some that never were used; how many there are, at most `count`.
char* take_fresh(std::size_t& count) noexcept {
  count = std::min(count, fresh_left);
  char* const taken = fresh;
  fresh += count * stride;
  fresh_left -= count;
  return taken;
}

// Makes them a chain.
cell* link(char* low, std::size_t count) noexcept {
  for (std::size_t i = 0; i < count; ++i) {
    auto* const c = reinterpret_cast<cell*>(low + i * stride);
    c->next = i + 1 < count ? reinterpret_cast<cell*>(low + (i + 1) * stride) : nullptr;
    if (i > 0) sanitizer::hide(c, stride);
  }
  return reinterpret_cast<cell*>(low);
}

// Nobody waits for the system under the lock.
void one_more_chunk() {
  void* const memory = mmap(nullptr, cell_chunk::bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  sanitizer::refers(memory, cell_chunk::bytes);
  auto* const made = static_cast<cell_chunk*>(memory);
  const chains_lock hold;
  made->next = greenlet_anchor_v1.cells.load(std::memory_order_relaxed);
  greenlet_anchor_v1.cells.store(made, std::memory_order_release);
  // Another thread may have made one meanwhile.
  std::size_t left = fresh_left;
  if (char* const others = take_fresh(left); left > 0) push_chain(link(others, left), left);
  fresh = static_cast<char*>(memory) + cell_chunk::first;
  fresh_left = cell_chunk::cells;
}

// A chain, whose first cell is shown, and how many it has.
cell* take_chain(std::size_t wanted, std::size_t& count) {
  for (;; one_more_chunk()) {
    char* low = nullptr;
    {
      const chains_lock hold;
      if (cell* const c = pop_chain()) {
        count = c->count;
        return c;
      }
      count = wanted;
      low = take_fresh(count);
    }
    if (count > 0) return link(low, count);
  }
}

}  // namespace

inline cell* cell_cache::pop() noexcept {
  cell* const c = first_;
  sanitizer::show(c, stride);
  first_ = c->next;
  --count_;
  return c;
}

inline void cell_cache::push(cell* c) noexcept {
  c->next = first_;
  first_ = c;
  ++count_;
}

void* take_cell() {
  GREENLET_MAY_LACK(body_memory);
  thread_record* const t = this_thread_if_any();
  if (t && !t->cells.first_ && t->cells.whole_) {
    t->cells.first_ = std::exchange(t->cells.whole_, nullptr);
    t->cells.count_ = cell_cache::in_chain;
  }
  if (t && t->cells.first_) return t->cells.pop();
  std::size_t count = 0;
  cell* const taken = take_chain(t ? cell_cache::in_chain : 1, count);
  if (cell* const rest = taken->next; rest && t) {
    t->cells.first_ = rest;
    t->cells.count_ = count - 1;
  } else if (rest) {
    sanitizer::show(rest, stride);
    const chains_lock hold;
    push_chain(rest, count - 1);
  }
  return taken;
}

void give_cell(void* memory) noexcept {
  // For who looks at cells: nobody is there. Not the body's member any more, but its place.
  *reinterpret_cast<volatile std::uint64_t*>(static_cast<char*>(memory) + greenlet_anchor_v1.body.id) = 0;
  auto* const c = static_cast<cell*>(memory);
  thread_record* const t = this_thread_if_any();
  if (!t || cell_cache::in_chain == 1) {
    c->next = nullptr;
    const chains_lock hold;
    return push_chain(c, 1);
  }
  cell_cache& mine = t->cells;
  mine.push(c);
  if (mine.count_ < cell_cache::in_chain) return sanitizer::hide(c, stride);
  if (cell* const whole = std::exchange(mine.whole_, mine.first_)) {
    sanitizer::show(whole, stride);
    const chains_lock hold;
    push_chain(whole, cell_cache::in_chain);
  }
  sanitizer::hide(c, stride);
  mine.first_ = nullptr;
  mine.count_ = 0;
}

void cell_cache::trim() noexcept {
  const chains_lock hold;
  for (const auto& [chain, count] : {std::pair(first_, count_), std::pair(whole_, in_chain)})
    if (chain) {
      sanitizer::show(chain, stride);
      push_chain(chain, count);
    }
  first_ = whole_ = nullptr;
  count_ = 0;
}

void lock_cells() noexcept { chains_lock::lock.lock(); }
void unlock_cells() noexcept { chains_lock::lock.unlock(); }

}  // namespace greenlets::detail
