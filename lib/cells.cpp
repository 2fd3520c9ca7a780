// SPDX-License-Identifier: MIT
// Taking cells and giving them back.
#include "cells.hpp"

#include "anchor.hpp"
#include "fault.hpp"
#include "spinlock.hpp"
#include "thread.hpp"

#include <new>
#include <sys/mman.h>

namespace greenlets::detail {

namespace {

constexpr std::size_t stride = cell_chunk::stride;
constexpr unsigned at_once = 32;
// How many wait before one of them is used again.
constexpr std::size_t held_back = sanitizer::instrumented ? 4096 : 0;

spinlock lock;
cell* oldest = nullptr;   // those that nobody uses, in the order in which they are used again
cell* newest = nullptr;
std::size_t waiting = 0;
char* fresh = nullptr;    // those of the newest chunk that never were used: their pages cost nothing yet
std::size_t fresh_left = 0;

// Nobody waits for the system under the lock.
void one_more_chunk() {
  void* const memory = mmap(nullptr, cell_chunk::bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  sanitizer::refers(memory, cell_chunk::bytes);
  auto* const made = static_cast<cell_chunk*>(memory);
  lock.lock();
  made->next = greenlet_anchor_v1.cells.load(std::memory_order_relaxed);
  greenlet_anchor_v1.cells.store(made, std::memory_order_release);
  // What is left of the one before, when another thread has made that meanwhile, is used first.
  for (; fresh_left > 0; --fresh_left, fresh += stride) {
    auto* const c = reinterpret_cast<cell*>(fresh);
    c->next = oldest;
    oldest = c;
    if (!newest) newest = c;
    ++waiting;
  }
  fresh = static_cast<char*>(memory) + cell_chunk::first;
  fresh_left = cell_chunk::cells;
  sanitizer::before(&lock);
  lock.unlock();
}

// Under the lock; null: there is none.
cell* pop() noexcept {
  if (waiting > held_back) {
    cell* const c = oldest;
    sanitizer::show(c, stride);
    oldest = c->next;
    if (!oldest) newest = nullptr;
    --waiting;
    return c;
  }
  if (fresh_left == 0) return nullptr;
  auto* const c = reinterpret_cast<cell*>(fresh);
  --fresh_left;
  fresh += stride;
  return c;
}

// Under the lock.
void push(cell* c) noexcept {
  if constexpr (held_back != 0) {
    c->next = nullptr;
    if (newest) {
      sanitizer::show(newest, stride);
      newest->next = c;
      sanitizer::hide(newest, stride);
    } else {
      oldest = c;
    }
    newest = c;
  } else {
    c->next = oldest;
    oldest = c;
    if (!newest) newest = c;
  }
  ++waiting;
  sanitizer::hide(c, stride);
}

}  // namespace

void* take_cell() {
  GREENLET_MAY_LACK(body_memory);
  thread_record* const t = this_thread_if_any();
  if (t && t->cells.first_) {
    cell* const c = t->cells.first_;
    sanitizer::show(c, stride);
    t->cells.first_ = c->next;
    --t->cells.count_;
    return c;
  }
  for (;; one_more_chunk()) {
    lock.lock();
    sanitizer::after(&lock);
    cell* const c = pop();
    for (unsigned more = t && c && cell_cache::most ? at_once - 1 : 0; more > 0; --more) {
      cell* const ahead = pop();
      if (!ahead) break;
      ahead->next = t->cells.first_;
      t->cells.first_ = ahead;
      ++t->cells.count_;
      sanitizer::hide(ahead, stride);
    }
    lock.unlock();
    if (c) return c;
  }
}

void give_cell(void* memory) noexcept {
  // For who looks at cells: nobody is there. Not the body's member any more, but its place.
  *reinterpret_cast<volatile std::uint64_t*>(static_cast<char*>(memory) + greenlet_anchor_v1.body.id) = 0;
  auto* const c = static_cast<cell*>(memory);
  thread_record* const t = this_thread_if_any();
  if (t && t->cells.count_ < cell_cache::most) {
    c->next = t->cells.first_;
    t->cells.first_ = c;
    ++t->cells.count_;
    return sanitizer::hide(c, stride);
  }
  lock.lock();
  push(c);
  for (unsigned more = t && cell_cache::most ? at_once : 0; more > 0; --more) {
    cell* const kept = t->cells.first_;
    sanitizer::show(kept, stride);
    t->cells.first_ = kept->next;
    --t->cells.count_;
    push(kept);
  }
  sanitizer::before(&lock);
  lock.unlock();
}

void cell_cache::trim() noexcept {
  lock.lock();
  while (cell* const c = first_) {
    sanitizer::show(c, stride);
    first_ = c->next;
    push(c);
  }
  sanitizer::before(&lock);
  lock.unlock();
  count_ = 0;
}

void lock_cells() noexcept { lock.lock(); }
void unlock_cells() noexcept { lock.unlock(); }

}  // namespace greenlets::detail
