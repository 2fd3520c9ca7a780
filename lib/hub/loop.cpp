// SPDX-License-Identifier: MIT
// The hub's greenlet: its making, its turns, its end.
#include "loop.hpp"

#include "child.hpp"
#include "poller.hpp"
#include "sanitizer.hpp"
#include "system.hpp"

#include <cxxabi.h>
#include <new>
#include <sys/eventfd.h>
#include <system_error>
#include <utility>

namespace greenlets::hub::detail {

__thread loop* this_threads_loop = nullptr;

void check_uv(int code, const char* call) {
  if (code < 0) throw std::system_error(-code, std::generic_category(), call);
}

loop& loop::make() {
  const loop_ref made(*new loop);
  made->runner_ = greenlet(attributes().name("hub").parent(main_greenlet()), [made](const greenlet* maker) {
    struct closer {
      loop& l;
      ~closer() { l.close(); }
    } at_any_exit{*made};
    maker->switch_to();
    made->run();
  });
  try {
    // Started at once, so that the thread's exit finds it and unwinds it.
    made->runner_.switch_to(&current());
  } catch (...) {
    made->runner_ = {};  // unstarted, it keeps what it runs, which keeps the loop, which keeps it
    throw;
  }
  if (this_threads_loop) {  // user code that ran on the way has made one
    made->runner_ = {};
    return *this_threads_loop;
  }
  this_threads_loop = &*made;
  made->in_poll_ = greenlets::detail::set_hub(&*made, layout());
  greenlets::detail::set_waker([](void* bell) { uv_async_send(static_cast<uv_async_t*>(bell)); }, &made->bell_);
  return *this_threads_loop;
}

loop::loop() {
  // In a program without standard streams libuv would have their numbers, and aborts in a forked process which finds
  // it so (t/hub_end.cpp).
  const low_numbers standard(3, "eventfd", [] { return eventfd(0, EFD_CLOEXEC); });
  check_uv(uv_loop_init(&uv_), "uv_loop_init");
  try {
    check_uv(uv_async_init(&uv_, &bell_, on_bell), "uv_async_init");
    uv_timer_init(&uv_, &timer_);
    bell_.data = timer_.data = this;
    uv_unref(reinterpret_cast<uv_handle_t*>(&timer_));
    box_ = std::make_shared<mailbox>();
    box_->bell = &bell_;
  } catch (...) {
    uv_walk(&uv_, [](uv_handle_t* h, void*) { uv_close(h, nullptr); }, nullptr);
    uv_run(&uv_, UV_RUN_DEFAULT);
    uv_loop_close(&uv_);
    throw;
  }
}

loop::~loop() {
  if (!closed_) close();  // its greenlet could not be started
}

GREENLET_CATCHES_FORCED_UNWIND void loop::run() {
  for (unsigned refusals = 0;;) {
    bool exiting = false;
    try {
      for (;;) turn();
    } catch (const greenlet_exit& e) {
      exiting = e.why == greenlet_exit::reason::thread_exit;
      // The thread unwinds its greenlets in several rounds. Who waits here may still need us in its
      // destructors: they first.
      if (!exiting || waiting_ == 0 || ++refusals == most_rounds / 2) throw;
    } catch (abi::__forced_unwind&) {
      throw;
    } catch (...) {
      report_unraisable(runner_, std::current_exception());  // somebody threw into the hub
    }
    try {
      if (exiting) switch_to_parent();
    } catch (const greenlet_exit&) {
      if (waiting_ == 0) throw;
    }
  }
}

void loop::turn() {
  current();  // unwinds what other threads have dropped
  begin_budget();
  run_ready();
  const bool idle = !waiter::front(ready_);
  if (idle && external_ == 0 && !may_get_messages()) return give_up_waiting();
  ++turns_;
  in_poll_->store(idle, std::memory_order_relaxed);
  uv_run(&uv_, idle ? UV_RUN_ONCE : UV_RUN_NOWAIT);
  in_poll_->store(false, std::memory_order_relaxed);
  if (escaped_) std::rethrow_exception(std::exchange(escaped_, nullptr));
}

// Whether somebody could still post one, or has.
bool loop::may_get_messages() const {
  if (box_.use_count() > 1) return true;
  const std::lock_guard lock(box_->lock);
  return !box_->messages.empty();
}

void loop::run_ready() {
  for (waiter* w; (w = waiter::front(ready_)) && has_budget();) {
    --budget_;  // before it runs, and others after it by switches of their own
    take_first(w);
    resume(w);
  }
}

// As resume(): gives control to whom it concerns, and comes back when that one waits again or has ended. Throws
// what is thrown into the hub's greenlet itself, which is only its end.
GREENLET_CATCHES_FORCED_UNWIND void loop::start_or_throw(waiter* w) {
  auto* const there = try_start(w);
  if (!there) return start_or_throw_slowly(w);
  switches_ += 2;
  keep_started(w);
  try {
    begin_at(w->who, *there);
  } catch (const greenlet_exit&) {
    throw;
  } catch (abi::__forced_unwind&) {
    throw;
  } catch (...) {
    // Mostly it has come out of the one that was started, and has not waited: a task keeps what it throws, but it may
    // have been given something else to run.
    const greenlet who = last_ == w ? w->who : runner_;  // the handler may have others wait
    report_unraisable(who, std::current_exception());
  }
  forget_last();
}

GREENLET_CATCHES_FORCED_UNWIND void loop::start_or_throw_slowly(waiter* w) {
  switches_ += 2;
  const waiter::kind what = w->what;
  const greenlet who = std::move(w->who);
  std::exception_ptr thrown = std::move(w->thrown);
  release(w);
  try {
    if (what == waiter::kind::start) {
      if (!who.started() && who.has_run()) who.switch_to();  // else cancelled, or started by somebody else
    } else if (!who.dead() && !is_unwinding(who)) {
      who.throw_in(std::move(thrown));
    }
    forget_last();
  } catch (const greenlet_exit&) {
    throw;
  } catch (abi::__forced_unwind&) {
    throw;
  } catch (...) {
    // It could not be started (no memory for a stack), or what was thrown into it came out.
    const std::exception_ptr error = std::current_exception();
    if (!who.started()) who.reset_run();  // whoever joins it is told
    report_unraisable(who, error);
  }
}

// Everybody waits for somebody else. The main greenlet is told; it is always suspended here. When there
// is no memory to say who waits, it is told that: nobody else would ever wake it.
void loop::give_up_waiting() {
  std::exception_ptr told;
  try {
    told = std::make_exception_ptr(would_block_forever(who_waits()));
  } catch (const std::bad_alloc&) {
    told = std::current_exception();
  }
  main_greenlet().throw_in(std::move(told));
}

void loop::close() noexcept {
  closed_ = true;
  if (this_threads_loop == this) {
    this_threads_loop = nullptr;
    greenlets::detail::set_hub(nullptr, layout());
    greenlets::detail::set_waker(nullptr, nullptr);
  }
  forget_last();
  std::list<std::function<void()>> undelivered;
  {
    const std::lock_guard lock(box_->lock);
    box_->bell = nullptr;
    undelivered.swap(box_->messages);
  }
  while (waiter* w = waiter::front(ready_)) {
    w->unlink();
    if (w->what != waiter::kind::wait) release(w);
  }
  while (!timers_.empty()) {
    waiter* const w = timers_.earliest();
    timers_.remove(w);
    if (w->what != waiter::kind::wait) release(w);
  }
  // Who waits even now has refused every greenlet_exit; nobody will wake it.
  pool_.for_each_parked([](waiter* w) {
    w->unlink();  // whoever wakes a list would find it there again and again
    w->why = waiter::end::closed;
    return true;
  });
  uv_walk(
      &uv_,
      [](uv_handle_t* h, void*) {
        if (uv_is_closing(h)) return;
        if (h->type == UV_POLL)
          static_cast<poller*>(h->data)->detach();
        else if (h->type == UV_PROCESS)
          static_cast<child*>(h->data)->detach();
        else if (h->type == UV_SIGNAL)
          uv_close(h, [](uv_handle_t* s) { delete reinterpret_cast<uv_signal_t*>(s); });
        else
          uv_close(h, nullptr);
      },
      nullptr);
  while (uv_run(&uv_, UV_RUN_DEFAULT) != 0) {
  }
  for (int fd : {uv_.backend_fd, uv_.async_io_watcher.fd, uv_.signal_pipefd[0], uv_.signal_pipefd[1]})
    greenlets::detail::sanitizer::closes(fd);
  uv_loop_close(&uv_);
}

// Starts what was there when it began; what something thrown into us keeps it from stays, first in the box,
// and the bell rings again for it.
GREENLET_CATCHES_FORCED_UNWIND void loop::on_bell(uv_async_t* bell) {
  loop& self = *static_cast<loop*>(bell->data);
  struct taken {
    mailbox& box;
    std::list<std::function<void()>> messages;
    ~taken() {
      if (messages.empty()) return;
      const std::lock_guard lock(box.lock);
      if (!box.bell) return;  // the hub has ended meanwhile; they go with us, after the lock
      box.messages.splice(box.messages.begin(), messages);
      uv_async_send(box.bell);
    }
  } now{*self.box_, {}};
  {
    const std::lock_guard lock(now.box.lock);
    now.messages.swap(now.box.messages);
  }
  try {
    while (!now.messages.empty() && !self.escaped_) {
      current();  // what is thrown into us comes here, where it costs no message
      auto f = std::move(now.messages.front());
      now.messages.pop_front();
      spawn(std::move(f));
    }
  } catch (abi::__forced_unwind&) {
    throw;
  } catch (...) {
    // As in run_gathered(). No memory for a greenlet: run() reports it, and the next may have it.
    self.escaped_ = std::current_exception();
    uv_stop(&self.uv_);
  }
}

}  // namespace greenlets::hub::detail
