// SPDX-License-Identifier: MIT
// timers: the deadlines of a loop's waiters, the earliest on top. A binary heap in which each waiter
// knows its place, so that a wait that ends otherwise takes its deadline out.
#ifndef LIB_HUB_TIMERS_HPP
#define LIB_HUB_TIMERS_HPP

#include "waiter.hpp"

#include <cstdint>
#include <vector>

namespace greenlets::hub::detail {

class timers {
 public:
  bool empty() const noexcept { return heap_.empty(); }
  std::size_t size() const noexcept { return heap_.size(); }
  waiter* earliest() const noexcept { return heap_.front().who; }

  // Throws std::bad_alloc; `w` is then as it was.
  void add(waiter* w) {
    heap_.push_back({w->when, order_++, w});
    w->timed = true;
    w->timer = heap_.size() - 1;
    up(w->timer);
  }

  void remove(waiter* w) noexcept {
    if (!w->timed) return;
    w->timed = false;
    const std::size_t at = w->timer;
    const entry last = heap_.back();
    heap_.pop_back();
    if (at == heap_.size()) return;
    place(last, at);
    up(at);
    down(last.who->timer);
  }

 private:
  struct entry {
    clock::time_point when;
    std::uint64_t order;  // equal times: first come, first served
    waiter* who;
    bool before(const entry& e) const noexcept { return when != e.when ? when < e.when : order < e.order; }
  };

  void place(const entry& e, std::size_t at) noexcept {
    heap_[at] = e;
    e.who->timer = at;
  }
  void up(std::size_t at) noexcept {
    const entry moving = heap_[at];
    for (; at > 0 && moving.before(heap_[(at - 1) / 2]); at = (at - 1) / 2) place(heap_[(at - 1) / 2], at);
    place(moving, at);
  }
  void down(std::size_t at) noexcept {
    const entry moving = heap_[at];
    for (std::size_t child; (child = 2 * at + 1) < heap_.size(); at = child) {
      if (child + 1 < heap_.size() && heap_[child + 1].before(heap_[child])) ++child;
      if (!heap_[child].before(moving)) break;
      place(heap_[child], at);
    }
    place(moving, at);
  }

  std::vector<entry> heap_;
  std::uint64_t order_ = 0;
};

}  // namespace greenlets::hub::detail

#endif
