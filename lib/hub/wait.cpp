// SPDX-License-Identifier: MIT
// Waiting and waking: a waiter's way through the lists of its loop.
#include "loop.hpp"

#include "suspension.hpp"

#include <cxxabi.h>
#include <iterator>
#include <utility>

namespace greenlets::hub::detail {

waiter* loop::one_more() {
  auto* const w = new waiter;
  w->home = this;
  return w;
}

inline void loop::enroll(waiter* w) noexcept {
  w->previous_parked = nullptr;
  w->next_parked = parked_;
  if (parked_) parked_->previous_parked = w;
  parked_ = w;
  ++waiting_;
  if (w->timed) w->external = true;
  if (w->external) ++external_;
  w->unwinding = greenlets::detail::hot_thread_v1->exceptions->uncaught > 0;  // std::uncaught_exceptions(), at its price
  if (w->unwinding) ++unwinding_;
}

// Takes the waiter out of everything, whatever of it has been done.
inline void loop::release_here(waiter* w) noexcept {
  w->unlink();
  timers_.remove(w);
  if (w->slot) *std::exchange(w->slot, nullptr) = nullptr;
  if (w->previous_parked || w->next_parked || parked_ == w) {
    (w->previous_parked ? w->previous_parked->next_parked : parked_) = w->next_parked;
    if (w->next_parked) w->next_parked->previous_parked = w->previous_parked;
    w->previous_parked = w->next_parked = nullptr;
    --waiting_;
    if (w->external) --external_;
    if (w->unwinding && --unwinding_ == 0) unwound_.wake_one();
  } else if (w->external && w->what == waiter::kind::raise) {
    --external_;
  }
  w->why = waiter::end::none;
  w->told = w->external = w->unwinding = false;
  if (w->thrown) w->thrown = nullptr;
  greenlet last = std::move(w->who);
  if (w->what == waiter::kind::wait && !closed_) last.swap(last_);
  w->what = waiter::kind::wait;
  w->next = pool_;
  pool_ = w;
}

void loop::release(waiter* w) noexcept { release_here(w); }

waiter::end loop::park(waiter* w, deadline until) {
  const loop_ref keep(*this);
  struct releaser {
    loop& l;
    waiter* w;
    ~releaser() { l.release_here(w); }
  } at_any_exit{*this, w};
  const greenlet& self = current();  // user code, which may end this hub
  if (closed_) return waiter::end::closed;
  if (self == runner_) throw error(errc::not_running, "a function that the hub itself calls cannot wait");
  if (last_ == self)
    w->who = std::move(last_);
  else
    w->who = self;
  if (!until.never()) {
    w->when = until.at();
    timers_.add(w);
    arm_timer();
  }
  enroll(w);
  // A greenlet that waits may be switched to by somebody who does not know. It waits on.
  while (w->why == waiter::end::none) next_to(w).switch_to();
  return w->why;
}

// Who goes on when `w` waits: the first that is ready, by this one switch, when all that the hub would do is to make
// another. It does what else there is, and has its turn when the budget is used up.
inline const greenlet& loop::next_to(const waiter* w) noexcept {
  waiter* const next = waiter::front(ready_);
  if (!next || next == w || next->what != waiter::kind::wait || escaped_ || !has_budget()) return runner_;
  --budget_;
  next->unlink();
  ++switches_;
  if (next->why == waiter::end::none) next->why = waiter::end::woken;  // it only yielded
  return next->who;
}

void loop::make_ready(waiter* w, waiter::end why) noexcept {
  if (w->why != waiter::end::none) return;
  w->why = why;
  w->unlink();
  waiter::push_back(ready_, w);
}

// Another slice, unless there were enough, or what they did takes long: then those who wait for something else would
// have to wait for a thousand of the like. Against the loop's own time, which is as old as its last poll, or older.
bool loop::renew_budget() noexcept {
  constexpr std::uint64_t long_ms = 2, ms = 1'000'000;
  if (slices_ == 0 || uv_hrtime() / ms >= uv_now(&uv_) + long_ms) return false;
  --slices_;
  budget_ = slice_of_budget;
  return true;
}

void loop::let_others() noexcept {
  begin_budget();
  expire();
  try {
    run_ready();
  } catch (...) {
    // As in resume_soon().
    escaped_ = std::current_exception();
    uv_stop(&uv_);
  }
  begin_budget();  // it may have taken as many as the descriptors had
}

void loop::resume_soon(waiter* w, waiter::end why) noexcept {
  if (budget_ == 0 || escaped_) return make_ready(w, why);
  if (w->why != waiter::end::none) return;
  --budget_;
  w->why = why;
  w->unlink();
  try {
    resume(w);
  } catch (...) {
    // Round libuv's frames, not through them: run() throws it again. A forced unwind never comes
    // here from a greenlet (it goes on in the main one).
    escaped_ = std::current_exception();
    uv_stop(&uv_);
  }
}

void loop::start_soon(const greenlet& g) {
  waiter* w = take();
  w->what = waiter::kind::start;
  w->who = g;
  waiter::push_back(ready_, w);
}

void loop::raise_soon(const greenlet& g, std::exception_ptr e) {
  waiter* w = take();
  w->what = waiter::kind::raise;
  w->who = g;
  w->thrown = std::move(e);
  if (g.started())
    waiter::push_back(ready_, w);
  else
    waiter::push_front(ready_, w);  // before its turn to start
}

waiter* loop::raise_at(const greenlet& g, std::exception_ptr e, clock::time_point when, waiter** slot) {
  waiter* const w = take();
  w->when = when;
  try {
    timers_.add(w);
  } catch (...) {
    release(w);
    throw;
  }
  w->what = waiter::kind::raise;
  w->who = g;
  w->thrown = std::move(e);
  w->slot = slot;
  w->external = true;
  ++external_;
  arm_timer();
  return w;
}

void loop::arm_timer() noexcept {
  const clock::time_point when = timers_.earliest()->when;
  if (when >= timer_at_) return;  // it fires no later: on_timer looks again
  timer_at_ = when;
  uv_update_time(&uv_);  // else a long run would make it early
  const auto now = clock::now();
  const auto left = when > now ? std::chrono::ceil<std::chrono::milliseconds>(when - now).count() : 0;
  uv_timer_start(&timer_, on_timer, static_cast<std::uint64_t>(left), 0);
}

// Whose time has come is ready.
void loop::expire() noexcept {
  if (timers_.empty()) return;
  const auto now = clock::now();
  while (!timers_.empty() && timers_.earliest()->when <= now) {
    waiter* const w = timers_.earliest();
    timers_.remove(w);
    make_ready(w, waiter::end::timeout);
  }
}

void loop::on_timer(uv_timer_t* timer) {
  loop& self = *static_cast<loop*>(timer->data);
  self.timer_at_ = clock::time_point::max();
  self.expire();
  // A time that has passed when uv_run() begins is found before it polls. It must not block then.
  uv_stop(timer->loop);
  if (!self.timers_.empty()) self.arm_timer();
}

bool loop::is_unwinding(const greenlet& g) const noexcept {
  if (unwinding_ > 0)
    for (const waiter* w = parked_; w; w = w->next_parked)
      if (w->unwinding && w->who == g) return true;
  return false;
}

// Where it waits, when the program has who can tell; without what is the library's own.
static std::string frames_of(const greenlet& g) {
  const auto* const source = greenlets::detail::frames_source();
  if (!source) return {};
  void* addresses[40];
  std::string text;
  for (const std::string& line : source->describe(addresses, source->addresses(g, addresses, std::size(addresses)))) {
    if (line.find(" greenlets::hub::detail::complete<") != std::string::npos) break;  // what calls a task's function
    const bool ours = line.find(" greenlets::hub::detail::") != std::string::npos ||
                      line.find(" greenlets::detail::") != std::string::npos || line.find("inlined ") == 0;
    if (!text.empty() || !ours) text += "\n    " + line;
  }
  return text;
}

std::string loop::who_waits() const {
  constexpr int most_named = 20;
  std::string text;
  int named = 0;
  for (const waiter* w = parked_; w && named < most_named; w = w->next_parked, ++named) {
    text += "\n  greenlet " + std::to_string(w->who.id());
    if (const std::string name = w->who.name(); !name.empty()) text += " \"" + name + "\"";
    if (w->who.is_main()) text += " (main)";
    text += " waits for another greenlet" + frames_of(w->who);
  }
  if (waiting_ > most_named) text += "\n  and " + std::to_string(waiting_ - most_named) + " more";
  if (waiting_ == 0) text = "\n  nobody waits here: the main greenlet has left to one that ended or waits elsewhere";
  return text;
}

void loop::shut_down() {
  if (!current().is_main()) throw error(errc::not_running, "a hub is shut down by its thread's main greenlet");
  const loop_ref keep(*this);
  const auto exit = std::make_exception_ptr(greenlet_exit(greenlet_exit::reason::cancelled));
  for (unsigned round = 0; round < most_rounds && (waiting_ > 0 || waiter::front(ready_)); ++round) {
    for (waiter* w = waiter::front(ready_); w; w = w->next)
      if (w->what == waiter::kind::start) {
        w->what = waiter::kind::raise;
        w->thrown = exit;
      }
    for (waiter* w = parked_; w; w = w->next_parked)
      if (!w->told) {
        raise_soon(w->who, exit);  // when there is no memory for it, the next shutdown() tries again
        w->told = true;
      }
    yield();  // the ready list is first come, first served: when we go on, they have had their turn
    try {
      while (unwinding_ > 0) unwound_.wait();
    } catch (const would_block_forever&) {
      // Destructors that wait for somebody who waits as well: the next round may help.
    }
  }
  runner_.throw_in(greenlet_exit(greenlet_exit::reason::cancelled));
}

wait_list::~wait_list() {
  while (waiter* w = first_) w->home->make_ready(w, waiter::end::closed);
}

bool wait_list::wait(deadline until, bool external) {
  loop& l = loop::mine();
  waiter* w = l.take();
  w->external = external;
  waiter::push_back(*this, w);
  return l.park(w, until) == waiter::end::woken;
}

void wait_list::wake_one() noexcept {
  if (first_) first_->home->make_ready(first_, waiter::end::woken);
}

void wait_list::wake_all() noexcept {
  while (first_) wake_one();
}

}  // namespace greenlets::hub::detail
