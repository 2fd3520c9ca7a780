// SPDX-License-Identifier: MIT
// queue, channel: objects that greenlets of one thread hand to each other.
//
//   hub::queue<request> todo(100);
//   hub::spawn([&] { while (auto r = todo.pop()) handle(*r); });
//   todo.push(request(...));     // waits while there are 100
//   todo.close();                // the loop above ends when the queue is empty
#ifndef GREENLET_HUB_QUEUE_HPP
#define GREENLET_HUB_QUEUE_HPP

#include <greenlet/hub/line.hpp>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <type_traits>
#include <utility>

namespace greenlets::hub {

/// First in, first out, and so are those that wait at either end. Nothing is lost: what has been given to a greenlet
/// into which something is thrown before it runs goes to the next. Thread: one; other threads post() a function that
/// pushes. Whoever waits when the queue is destroyed is told that it is closed.
template <class T>
class queue {
  static_assert(std::is_nothrow_move_constructible_v<T>, "what is handed on must not get stuck on the way");

 public:
  static constexpr std::size_t unlimited = SIZE_MAX;

  /// Holds at most `capacity`; of 0 it holds nothing, and push() waits until somebody has taken it.
  explicit queue(std::size_t capacity = unlimited) noexcept : capacity_(capacity) {}
  queue(const queue&) = delete;
  queue& operator=(const queue&) = delete;

  /// Appends it, when there is room; false when the deadline came first, or the queue is closed. `object` has
  /// been moved from only when it is true. Switches: to the hub, while it is full. Throws: std::bad_alloc, what making the
  /// hub throws (std::system_error), and what is thrown into the caller meanwhile, who knows from `object` how far it came.
  bool push(T&& object, deadline until = {}) {
    if (try_push(std::move(object))) return true;
    if (closed_) return false;
    detail::place mine(givers_);
    mine.what = &object;
    tell_takers();
    return mine.wait(until);
  }
  bool push(const T& object, deadline until = {}) {
    T copy(object);
    return push(std::move(copy), until);
  }
  /// The same without waiting. Switches: no. Throws: std::bad_alloc.
  bool try_push(T&& object) {
    if (closed_ || !givers_.empty()) return false;
    if (detail::place* const taker = takers_.first()) {
      static_cast<std::optional<T>*>(taker->what)->emplace(std::move(object));
      taker->give();
      return true;
    }
    if (objects_.size() >= capacity_) return false;
    objects_.push_back(std::move(object));
    tell_takers();
    return true;
  }

  /// Takes the first; nothing when the deadline came first, or when it is closed and empty. Switches: to the hub, while it
  /// is empty. Throws: as push(); then it has taken nothing.
  std::optional<T> pop(deadline until = {}) {
    std::optional<T> taken = try_pop();
    if (taken || closed_) return taken;
    detail::place mine(takers_);
    mine.what = &taken;
    detail::unless_done lost([&] {
      if (taken) put_back(std::move(*taken));
    });
    lost.done = mine.wait(until);
    return taken;
  }
  /// The same without waiting. Switches: no.
  std::optional<T> try_pop() noexcept {
    std::optional<T> taken;
    if (!objects_.empty()) {
      taken.emplace(std::move(objects_.front()));
      objects_.pop_front();
      refill();
    } else if (detail::place* const giver = givers_.first()) {
      taken.emplace(std::move(*static_cast<T*>(giver->what)));
      giver->give();
    }
    return taken;
  }

  /// Nothing more is taken in; what there is can still be popped. Who waits to push is told at once, who waits to pop
  /// when it is empty. Switches: no.
  void close() noexcept {
    closed_ = true;
    givers_.send_away();
    takers_.send_away();
    watchers_.give_all();
  }
  bool closed() const noexcept { return closed_; }
  std::size_t size() const noexcept { return objects_.size(); }
  bool empty() const noexcept { return objects_.empty(); }
  /// For wait_any(): whether pop() would not wait.
  bool is_ready() const noexcept { return closed_ || !objects_.empty() || !givers_.empty(); }

 private:
  friend struct detail::watching;

  void tell_takers() noexcept {
    if (!watchers_.empty()) watchers_.give_all();
  }
  // There is room again.
  void refill() noexcept {
    while (objects_.size() < capacity_) {
      detail::place* const giver = givers_.first();
      if (!giver) return;
      try {
        objects_.push_back(std::move(*static_cast<T*>(giver->what)));
      } catch (...) {
        return;  // no memory: he waits for the next one
      }
      giver->give();
    }
  }
  // It was given to somebody who did not live to have it.
  void put_back(T&& object) {
    if (detail::place* const taker = takers_.first()) {
      static_cast<std::optional<T>*>(taker->what)->emplace(std::move(object));
      taker->give();
    } else {
      objects_.push_front(std::move(object));
      tell_takers();
    }
  }

  std::size_t capacity_;
  bool closed_ = false;
  std::deque<T> objects_;
  detail::line givers_{"queue push", this};  // `what`: T*
  detail::line takers_{"queue pop", this};  // `what`: std::optional<T>*
  detail::line watchers_{"queue", this};
};

/// A rendezvous: who sends waits until somebody receives.
template <class T>
class channel {
 public:
  /// False when the deadline came first, or the channel is closed. As queue::push().
  bool send(T&& object, deadline until = {}) { return queue_.push(std::move(object), until); }
  bool send(const T& object, deadline until = {}) { return queue_.push(object, until); }
  /// Nothing when the deadline came first, or it is closed and nobody sends. As queue::pop().
  std::optional<T> receive(deadline until = {}) { return queue_.pop(until); }
  std::optional<T> try_receive() noexcept { return queue_.try_pop(); }
  void close() noexcept { queue_.close(); }
  bool closed() const noexcept { return queue_.closed(); }
  bool is_ready() const noexcept { return queue_.is_ready(); }

 private:
  friend struct detail::watching;
  queue<T> queue_{0};
};

}  // namespace greenlets::hub

#endif
