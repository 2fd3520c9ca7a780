// SPDX-License-Identifier: MIT
// waiter: one greenlet's wait, from its park() to its waking. Pooled by its loop; never on a stack,
// because a counted handle there would be one of the greenlet to itself.
#ifndef LIB_HUB_WAITER_HPP
#define LIB_HUB_WAITER_HPP

#include <greenlet/greenlet.hpp>
#include <greenlet/hub/run.hpp>

#include <cstddef>
#include <cstdint>
#include <exception>

namespace greenlets::hub::detail {

class loop;

// Its first line of a cache is all that a wait without a deadline touches.
struct alignas(64) waiter {
  enum class kind : std::uint8_t { wait, start, raise, none };  // resume a wait; start a greenlet; throw into one; not in use
  enum class end : std::uint8_t { none, woken, timeout, closed };

  kind what = kind::none;
  end why = end::none;     // set when it becomes ready
  bool told = false;       // shutdown() has cancelled it
  bool external = false;   // what it waits for may come from outside the thread
  bool unwinding = false;  // waits in a destructor, out of which nothing may be thrown
  bool timed = false;      // is in the loop's heap
  bool parked = false;     // somebody waits by it just now (kind::wait only)
  greenlet who;            // kept for as long as it waits
  waiter** slot = nullptr; // the reader's or writer's place in a poller

  // In one list at a time: a wait_list, the loop's ready list, or its pool.
  waiter* next = nullptr;
  waiter* previous = nullptr;
  wait_list* in = nullptr;

  loop* home = nullptr;
  std::exception_ptr thrown;  // raise only
  clock::time_point when;  // when it is timed
  std::size_t timer = 0;   // and its place in the loop's heap

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
  // It is the first, or there is none.
  static void pop_front(wait_list& l) noexcept {
    waiter* const w = l.first_;
    (w->next ? w->next->previous : l.last_) = nullptr;
    l.first_ = w->next;
    w->in = nullptr;
    w->next = nullptr;
  }
  static constexpr std::size_t kind_in_list() noexcept { return offsetof(wait_list, kind_); }
  static constexpr std::size_t object_in_list() noexcept { return offsetof(wait_list, object_); }
  static waiter* front(const wait_list& l) noexcept { return l.first_; }
  // In no list, heap or poller any more. Who it was kept for stays.
  void retire() noexcept {
    what = kind::none;
    why = end::none;
    told = external = unwinding = parked = false;
  }
  void unlink() noexcept {
    if (!in) return;
    (previous ? previous->next : in->first_) = next;
    (next ? next->previous : in->last_) = previous;
    in = nullptr;
    next = previous = nullptr;
  }
};

#ifdef __LP64__
static_assert(sizeof(waiter) == 128);
#endif

// Who reads records from outside looks at each, in use or not, and follows no list.
struct waiter_chunk {
  static constexpr std::size_t count = 31;

  waiter_chunk* next = nullptr;
  waiter all[count];
};

// A loop's waiters, in chunks that stay until it goes: so that all who wait are found without a list of them, whose
// neighbours every wait would have to touch.
class waiter_pool {
 public:
  waiter_pool() noexcept = default;
  waiter_pool(const waiter_pool&) = delete;
  waiter_pool& operator=(const waiter_pool&) = delete;
  ~waiter_pool() {
    while (waiter_chunk* const c = chunks_) {
      chunks_ = c->next;
      delete c;
    }
  }

  // Throws std::bad_alloc.
  waiter* take(loop* home) {
    if (__builtin_expect(!free_, 0)) add_chunk(home);
    waiter* const w = free_;
    free_ = w->next;
    w->next = nullptr;
    return w;
  }
  void give(waiter* w) noexcept {
    w->next = free_;
    free_ = w;
  }
  // Calls f(waiter*) for everyone that somebody waits by, until it returns false.
  template <class F>
  void for_each_parked(F&& f) const {
    for (waiter_chunk* c = chunks_; c; c = c->next)
      for (waiter& w : c->all)
        if (w.parked && !f(&w)) return;
  }

  static constexpr std::size_t offset_of_chunks() noexcept { return offsetof(waiter_pool, chunks_); }

 private:
  void add_chunk(loop* home);

  waiter_chunk* chunks_ = nullptr;
  waiter* free_ = nullptr;
};

}  // namespace greenlets::hub::detail

#endif
