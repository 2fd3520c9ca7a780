// SPDX-License-Identifier: MIT
// waiter: one greenlet's wait, from its park() to its waking. Pooled by its loop; never on a stack,
// because a counted handle there would be one of the greenlet to itself.
#ifndef LIB_HUB_WAITER_HPP
#define LIB_HUB_WAITER_HPP

#include <greenlet/greenlet.hpp>
#include <greenlet/hub/run.hpp>

#include <cstddef>
#include <exception>

namespace greenlets::hub::detail {

class loop;

struct waiter {
  enum class kind { wait, start, raise };  // resume a wait; start a greenlet; throw into one
  enum class end { none, woken, timeout, closed };

  static constexpr std::size_t no_timer = static_cast<std::size_t>(-1);

  kind what = kind::wait;
  end why = end::none;          // set when it becomes ready
  bool told = false;            // shutdown() has cancelled it
  greenlet who;                 // kept for as long as it waits
  std::exception_ptr thrown;    // raise only
  loop* home = nullptr;

  // In one list at a time: a wait_list, the loop's ready list, or its pool.
  waiter* next = nullptr;
  waiter* previous = nullptr;
  wait_list* in = nullptr;

  // Among the loop's parked waiters (kind::wait only).
  waiter* next_parked = nullptr;
  waiter* previous_parked = nullptr;

  waiter** slot = nullptr;       // the reader's or writer's place in a poller
  bool external = false;         // what it waits for may come from outside the thread
  bool unwinding = false;        // waits in a destructor, out of which nothing may be thrown
  clock::time_point when;        // with timer != no_timer
  std::size_t timer = no_timer;  // its place in the loop's heap

  // wait_list's insides are for us alone.
  static void push_back(wait_list& l, waiter* w) noexcept {
    w->in = &l;
    w->next = nullptr;
    w->previous = l.last_;
    (l.last_ ? l.last_->next : l.first_) = w;
    l.last_ = w;
  }
  static void push_front(wait_list& l, waiter* w) noexcept {
    w->in = &l;
    w->previous = nullptr;
    w->next = l.first_;
    (l.first_ ? l.first_->previous : l.last_) = w;
    l.first_ = w;
  }
  static waiter* front(const wait_list& l) noexcept { return l.first_; }
  void unlink() noexcept {
    if (!in) return;
    (previous ? previous->next : in->first_) = next;
    (next ? next->previous : in->last_) = previous;
    in = nullptr;
    next = previous = nullptr;
  }
};

}  // namespace greenlets::hub::detail

#endif
