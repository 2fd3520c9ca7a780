// SPDX-License-Identifier: MIT
// loop: a thread's hub. A greenlet that runs a libuv loop; who waits switches to it.
//
//   a greenlet            the hub's greenlet                      libuv
//   park() ------------>  turn(): the ready list, then uv_run  -> poll callback
//   (goes on)  <---------------------------- resume() <---------- (a waiter's descriptor)
//   park() -> another     timers, messages, closed descriptors fill the ready list
//
// Who waits while others are ready makes the first of them go on by itself.
//
// Poll callbacks make waiters ready, and each 32nd of them resumes them, because libuv polls up to 48 times 1,024 events
// before it does anything else. Each time a budget is used up, of greenlets or of time, the ready list and the timers
// have their turn, in the callback: what is ready and not resumed would be polled again and again meanwhile.
#ifndef LIB_HUB_LOOP_HPP
#define LIB_HUB_LOOP_HPP

#include "anchor.hpp"
#include "go.hpp"
#include "timers.hpp"
#include "waiter.hpp"

#include <greenlet/hub/run.hpp>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <uv.h>

namespace greenlets::hub {

// Where other threads leave messages for a hub.
struct mailbox {
  std::mutex lock;
  std::list<std::function<void()>> messages;  // put back without memory
  uv_async_t* bell = nullptr;  // null when the hub has gone
};

namespace detail {

class loop_ref;
class loop;

// Set while the thread's hub lives. Trivially destructible: greenlets are unwound after C++ thread_locals are gone, and
// their destructors look here. Not thread_local, which would be a call each time.
extern __thread loop* this_threads_loop __attribute__((tls_model("initial-exec"), visibility("hidden")));

class loop {
 public:
  loop(const loop&) = delete;
  loop& operator=(const loop&) = delete;

  // The calling thread's hub. mine() makes it at need.
  static loop& mine() {
    loop* const l = this_threads_loop;
    return __builtin_expect(l != nullptr, 1) ? *l : make();
  }
  static loop* mine_if_any() noexcept { return this_threads_loop; }

  // --- For who waits.
  // A waiter for the running greenlet, which is to park() by it. No user code runs. Throws std::bad_alloc.
  waiter* begin() {
    waiter* w = last_;
    if (__builtin_expect(w && is_running(w->who), 1)) {
      last_ = nullptr;
    } else {
      w = pool_.take(this);
      keep_running(w);
    }
    w->what = waiter::kind::wait;
    return w;
  }
  // Switches to who is ready, or the hub, until the waiter is ready, or something is thrown in; then takes the waiter
  // out of everything and back into the pool.
  waiter::end park(waiter* w, deadline until);
  waiter::end park_here(waiter* w, deadline until);  // without a call, in wait.cpp

  wait_list& ready() noexcept { return ready_; }

  // --- For who wakes.
  // Makes a parked waiter ready; one that is ready already stays as it is.
  void make_ready(waiter* w, waiter::end why) noexcept;
  void make_ready_here(waiter* w, waiter::end why) noexcept;
  // The same for poll callbacks: resumes it before they all have been called, when they are many.
  void resume_soon(waiter* w, waiter::end why) noexcept;
  void start_soon(greenlet&& g);
  void raise_soon(const greenlet& g, std::exception_ptr e);
  // Has it thrown into `g` then. `slot` is set to nothing when that has been done, or forgotten, or the hub has ended.
  waiter* raise_at(const greenlet& g, std::exception_ptr e, clock::time_point when, waiter** slot);
  static void forget(waiter* w) noexcept { w->home->release(w); }

  bool closed() const noexcept { return closed_; }
  const greenlet& handle() const noexcept { return runner_; }
  uv_loop_t* uv() noexcept { return &uv_; }
  const std::shared_ptr<mailbox>& box() const noexcept { return box_; }
  hub_statistics statistics() const noexcept { return {switches_, turns_, waiting_}; }
  // Cancels everybody who waits, then ends the hub's greenlet.
  void shut_down();

 private:
  friend class loop_ref;

  // Of resumed greenlets. After each slice the time is looked at.
  static constexpr unsigned budget_of_turn = 1024, slice_of_budget = 32;
  // By poll callbacks before they are resumed: not more than fit in the nearest cache.
  static constexpr unsigned most_gathered = 32;
  static constexpr unsigned most_rounds = 16;

  loop();
  ~loop();
  static loop& make();
  // For who reads records, lib/anchor.hpp.
  static greenlets::detail::hub_layout layout() noexcept;

  // loop.cpp: the hub's greenlet.
  void run();
  void turn();
  void begin_budget() noexcept {
    budget_ = slice_of_budget;
    slices_ = budget_of_turn / slice_of_budget - 1;
  }
  bool has_budget() noexcept { return __builtin_expect(budget_ > 0, 1) || renew_budget(); }
  bool renew_budget() noexcept;
  void run_ready();
  void run_gathered() noexcept;
  // The first of the ready list, who goes on now. Who is the next begins to come from memory meanwhile: among many thousands
  // nothing of him is in a cache.
  void take_first(waiter* w) noexcept {
    if (const waiter* const next = w->next) fetch_stack(next->who);
    waiter::pop_front(ready_);
    if (w->why == waiter::end::none) w->why = waiter::end::woken;  // it only yielded
  }
  void resume(waiter* w) {
    if (__builtin_expect(w->what != waiter::kind::wait, 0)) return start_or_throw(w);
    switches_ += 2;
    w->who.switch_to();
    forget_last();
  }
  void start_or_throw(waiter* w);
  void start_or_throw_slowly(waiter* w);
  // Where the one begins that it is for, who has been started by that; null when that is no plain start, and nothing has
  // been done. Then keep_started() it, and begin_at().
  greenlets::detail::machine::context* try_start(const waiter* w) const noexcept {
    return w->what == waiter::kind::start && !last_ ? start_if_plain(w->who) : nullptr;
  }
  // For the first wait of who has been started.
  void keep_started(waiter* w) noexcept {
    w->retire();
    last_ = w;
  }
  // What has run last has gone elsewhere without waiting here again, or has ended.
  void unref() noexcept {
    if (__builtin_expect(--references_ == 0, 0)) delete this;
  }
  void forget_last() noexcept {
    if (__builtin_expect(last_ != nullptr, 0)) give_back(std::exchange(last_, nullptr));
  }
  void let_others() noexcept;
  void expire() noexcept;
  bool may_get_messages() const;
  void give_up_waiting();
  void close() noexcept;

  // wait.cpp
  static void keep_running(waiter* w) noexcept;
  bool may_wait();
  void give_deadline(waiter* w, clock::time_point when);
  void enroll(waiter* w) noexcept;
  static waiter::end leave(waiter* w, waiter::end why) noexcept;
  void go_on(const waiter* w);
  void start_next(waiter* next);
  void release(waiter* w) noexcept;
  void release_here(waiter* w) noexcept;
  void give_back(waiter* w) noexcept;
  void arm_timer() noexcept;
  std::string who_waits() const;
  // Whether it waits in a destructor while an exception is on its way.
  bool is_unwinding(const greenlet& g) const noexcept;

  static void on_timer(uv_timer_t* timer);
  static void on_bell(uv_async_t* bell);

  uv_loop_t uv_;
  uv_timer_t timer_;
  uv_async_t bell_;
  std::shared_ptr<mailbox> box_;
  greenlet runner_;
  std::size_t references_ = 0;  // of this thread only
  bool closed_ = false;

  wait_list ready_;
  // By which the last to be resumed has waited, for the next wait of the same; it keeps its greenlet. To drop the handle
  // and take it again would leave the running greenlet without one in between, mostly, for nobody else keeps a task: its
  // next switch would be none of the straight ones.
  waiter* last_ = nullptr;
  timers timers_;
  clock::time_point timer_at_ = clock::time_point::max();  // what timer_ is set to
  waiter_pool pool_;
  std::size_t waiting_ = 0;
  std::size_t external_ = 0;  // of those, who may be woken from outside the thread
  std::size_t unwinding_ = 0;  // of those, who wait in a destructor
  wait_list unwound_{"shutdown", nullptr};  // shutdown(), until there are none of these
  unsigned budget_ = 0, slices_ = 0;
  unsigned gather_ = most_gathered;  // so many more before they are resumed
  std::exception_ptr escaped_;  // an exception on its way round libuv's frames
  std::uint64_t switches_ = 0, turns_ = 0;
  std::atomic<bool>* in_poll_ = nullptr;  // for who watches the thread
};

// Keeps a loop's memory, also when it is closed. Counted without atomics: a loop has one thread.
class loop_ref {
 public:
  explicit loop_ref(loop& l) noexcept : loop_(&l) { ++l.references_; }
  loop_ref(const loop_ref& other) noexcept : loop_ref(*other.loop_) {}
  loop_ref& operator=(const loop_ref&) = delete;
  ~loop_ref() { loop_->unref(); }
  loop* operator->() const noexcept { return loop_; }
  loop& operator*() const noexcept { return *loop_; }

 private:
  loop* loop_;
};

// Throws std::system_error for a libuv error code.
void check_uv(int code, const char* call);

}  // namespace detail
}  // namespace greenlets::hub

#endif
