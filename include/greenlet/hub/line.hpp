// SPDX-License-Identifier: MIT
// line: greenlets of one thread that wait for the same thing, first come, first served. What the nouns of waiting
// (mutex, queue, ...) are made of. Not for users.
#ifndef GREENLET_HUB_LINE_HPP
#define GREENLET_HUB_LINE_HPP

#include <greenlet/detail/api.hpp>
#include <greenlet/hub/deadline.hpp>

#include <cstddef>
#include <cstdint>

namespace greenlets::hub::detail {

struct waiter;

/// Greenlets that wait for something another greenlet of the thread does; first come, first served.
class GREENLET_API wait_list {
 public:
  wait_list() noexcept = default;
  // What is waited for, for people: a constant, and an object of the user's.
  wait_list(const char* kind, const void* object) noexcept : kind_(kind), object_(object) {}
  wait_list(const wait_list&) = delete;
  wait_list& operator=(const wait_list&) = delete;
  ~wait_list() {
    if (first_) send_away();
  }
  /// Waits to be woken; false when the deadline came first. Switches: to the hub.
  /// `external`: who wakes it is not a greenlet of this thread.
  bool wait(deadline until = {}, bool external = false);
  /// Makes the first, or all, ready to run. Switches: no.
  void wake_one() noexcept;
  void wake_all() noexcept;

 private:
  friend struct waiter;
  void send_away() noexcept;

  waiter* first_ = nullptr;
  waiter* last_ = nullptr;
  [[maybe_unused]] const char* kind_ = nullptr;  // for who reads records
  [[maybe_unused]] const void* object_ = nullptr;
};

struct watching;
class place;

class GREENLET_API line {
 public:
  // As a wait_list's.
  line(const char* kind, const void* object) noexcept : kind_(kind), object_(object) {}
  line(const line&) = delete;
  line& operator=(const line&) = delete;
  ~line() {
    if (first_) send_away();
  }

  bool empty() const noexcept { return !first_; }
  place* first() const noexcept { return first_; }
  // Gives all that stand there what they wait for.
  void give_all() noexcept;
  // Has them all go on with nothing.
  void send_away() noexcept;

 private:
  friend class place;
  place* first_ = nullptr;
  place* last_ = nullptr;
  const char* kind_;
  const void* object_;
};

// A greenlet's place in a line: on its own stack, and left when that is unwound. Who gives it what it waits for
// does so at that moment, and not when the greenlet runs; when something is thrown into the greenlet in between, it
// has to give it on (see given()).
class GREENLET_API place {
 public:
#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 12
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdangling-pointer"  // the destructor takes it out of the line
#endif
  // At the end of `l`. Several places may share a gate: the first that is given opens it.
  explicit place(line& l, wait_list* gate = nullptr) noexcept
      : own_(l.kind_, l.object_), gate_(gate ? gate : &own_), in_(&l), previous_(l.last_) {
    (l.last_ ? l.last_->next_ : l.first_) = this;
    l.last_ = this;
  }
#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 12
#pragma GCC diagnostic pop
#endif
  place(const place&) = delete;
  place& operator=(const place&) = delete;
  ~place() { leave(); }

  // Waits until it has been given: true. False when the deadline came first, or the line has gone.
  bool wait(deadline until) {
    if (!given_ && in_) gate_->wait(until);
    return given_;
  }
  // Takes it out of the line, and makes the greenlet ready. Switches: no.
  void give() noexcept;
  bool given() const noexcept { return given_; }
  // Whether the line is still there.
  bool stands() const noexcept { return in_; }
  void leave() noexcept {
    if (!in_) return;
    (previous_ ? previous_->next_ : in_->first_) = next_;
    (next_ ? next_->previous_ : in_->last_) = previous_;
    in_ = nullptr;
    next_ = previous_ = nullptr;
  }

  // The line's owner's business.
  void* what = nullptr;
  std::size_t amount = 0;

 private:
  friend class line;

  wait_list own_;
  wait_list* gate_;
  line* in_;
  place* next_ = nullptr;
  place* previous_ = nullptr;
  bool given_ = false;
};

// When what was given is lost on the way to whom it was given: something was thrown in, or he came too late.
template <class F>
class unless_done {
 public:
  explicit unless_done(F f) noexcept : f_(static_cast<F&&>(f)) {}
  unless_done(const unless_done&) = delete;
  unless_done& operator=(const unless_done&) = delete;
  ~unless_done() {
    if (!done) f_();
  }
  bool done = false;

 private:
  F f_;
};

}  // namespace greenlets::hub::detail

#endif
