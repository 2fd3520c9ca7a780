// SPDX-License-Identifier: MIT
// loop: a thread's hub. A greenlet that runs a libuv loop; who waits switches to it.
//
//   a greenlet            the hub's greenlet                      libuv
//   park() ------------>  turn(): the ready list, then uv_run  -> poll callback
//   (goes on)  <---------------------------- resume() <---------- (a waiter's descriptor)
//                         timers, messages, closed descriptors fill the ready list
//
// Waiters are resumed from poll callbacks directly, because libuv polls up to 48 times 1,024 events
// before it does anything else. Each time a budget is used up the ready list and the timers have their turn,
// in the callback: what is ready and not resumed would be polled again and again meanwhile.
#ifndef LIB_HUB_LOOP_HPP
#define LIB_HUB_LOOP_HPP

#include "timers.hpp"
#include "waiter.hpp"

#include <greenlet/hub/run.hpp>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <string>
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

class loop {
 public:
  loop(const loop&) = delete;
  loop& operator=(const loop&) = delete;

  // The calling thread's hub. mine() makes it at need.
  static loop& mine();
  static loop* mine_if_any() noexcept;

  // --- For who waits.
  // A fresh waiter for the running greenlet. Throws std::bad_alloc.
  waiter* take();
  // Switches to the hub until the waiter is ready, or something is thrown in; then takes the waiter
  // out of everything and back into the pool.
  waiter::end park(waiter* w, deadline until);

  wait_list& ready() noexcept { return ready_; }

  // --- For who wakes.
  // Makes a parked waiter ready; one that is ready already stays as it is.
  void make_ready(waiter* w, waiter::end why) noexcept;
  // For poll callbacks, first: when the turn's budget is used up, those have their turn who do not wait for a
  // descriptor, and there is a new one. User code runs.
  void breathe() noexcept;
  // Resumes it at once when the turn's budget allows; for poll callbacks.
  void resume_soon(waiter* w, waiter::end why) noexcept;
  void start_soon(const greenlet& g);
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

  static constexpr unsigned resumes_a_turn = 1024;
  static constexpr unsigned most_rounds = 16;

  loop();
  ~loop();

  // loop.cpp: the hub's greenlet.
  void run();
  void turn();
  void run_ready();
  void resume(waiter* w);
  void expire() noexcept;
  bool may_get_messages() const;
  void give_up_waiting();
  void close() noexcept;

  // wait.cpp
  void enroll(waiter* w) noexcept;
  void release(waiter* w) noexcept;
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
  timers timers_;
  clock::time_point timer_at_ = clock::time_point::max();  // what timer_ is set to
  waiter* parked_ = nullptr;
  waiter* pool_ = nullptr;
  std::size_t waiting_ = 0;
  std::size_t external_ = 0;  // of those, who may be woken from outside the thread
  std::size_t unwinding_ = 0;  // of those, who wait in a destructor
  wait_list unwound_;          // shutdown(), until there are none of these
  unsigned budget_ = 0;
  std::exception_ptr escaped_;  // an exception on its way round libuv's frames
  std::uint64_t switches_ = 0, turns_ = 0;
};

// Keeps a loop's memory, also when it is closed. Counted without atomics: a loop has one thread.
class loop_ref {
 public:
  explicit loop_ref(loop& l) noexcept : loop_(&l) { ++l.references_; }
  loop_ref(const loop_ref& other) noexcept : loop_ref(*other.loop_) {}
  loop_ref& operator=(const loop_ref&) = delete;
  ~loop_ref() {
    if (--loop_->references_ == 0) delete loop_;
  }
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
