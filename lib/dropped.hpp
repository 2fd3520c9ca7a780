// SPDX-License-Identifier: MIT
// dropped_queue: greenlets whose last handle went on another thread, on their way to their own.
#ifndef LIB_DROPPED_HPP
#define LIB_DROPPED_HPP

#include "body.hpp"

#include <atomic>

namespace greenlets::detail {

// Many producers, one consumer, without a lock. Each entry carries the last reference to its body.
class dropped_queue {
 public:
  // False when the queue is closed: the owner has exited, and has unwound the greenlet.
  bool push(body* b) noexcept {
    body* head = head_.load(std::memory_order_acquire);
    do {
      if (head == closed()) return false;
      b->next_dropped = head;
    } while (!head_.compare_exchange_weak(head, b, std::memory_order_release, std::memory_order_acquire));
    return true;
  }

  // All of them, oldest first. Only the consumer closes it.
  body* take_all() noexcept {
    if (head_.load(std::memory_order_relaxed) == closed()) return nullptr;
    return reversed(head_.exchange(nullptr, std::memory_order_acquire));
  }
  // The rest; nothing can be pushed afterwards.
  body* close() noexcept { return reversed(head_.exchange(closed(), std::memory_order_acq_rel)); }

 private:
  static body* closed() noexcept { return reinterpret_cast<body*>(1); }
  static body* reversed(body* list) noexcept {
    body* result = nullptr;
    while (list && list != closed()) {
      body* next = list->next_dropped;
      list->next_dropped = result;
      result = list;
      list = next;
    }
    return result;
  }

  std::atomic<body*> head_{nullptr};
};

}  // namespace greenlets::detail

#endif
