// SPDX-License-Identifier: MIT
// Waiting and waking: a waiter's way through the lists of its loop.
#include "loop.hpp"

#include "suspension.hpp"

#include <cxxabi.h>
#include <iterator>
#include <utility>

namespace greenlets::hub::detail {

void waiter_pool::add_chunk(loop* home) {
  auto* const made = new waiter_chunk;
  made->next = chunks_;
  for (waiter& w : made->all) {
    w.home = home;
    give(&w);
  }
  chunks_ = made;
}

inline void loop::enroll(waiter* w) noexcept {
  w->parked = true;
  ++waiting_;
  if (w->timed) w->external = true;
  if (w->external) ++external_;
  w->unwinding = greenlets::detail::hot_thread_v1->exceptions->uncaught > 0;  // std::uncaught_exceptions(), at its price
  if (w->unwinding) ++unwinding_;
}

// Takes the waiter out of everything, whatever of it has been done.
__attribute__((noinline)) void loop::release(waiter* w) noexcept {
  w->unlink();
  timers_.remove(w);
  if (w->slot) *std::exchange(w->slot, nullptr) = nullptr;
  if (w->parked) {
    --waiting_;
    if (w->external) --external_;
    if (w->unwinding && --unwinding_ == 0) unwound_.wake_one();
  } else if (w->external && w->what == waiter::kind::raise) {
    --external_;
  }
  const bool waited = w->what == waiter::kind::wait;
  w->retire();
  if (w->thrown) w->thrown = nullptr;
  if (waited && !closed_) std::swap(w, last_);
  if (w) give_back(w);
}

void loop::give_back(waiter* w) noexcept {
  const greenlet last = std::move(w->who);  // goes when all is done: its end may be user code
  pool_.give(w);
}

// The same for one that was made ready and has nothing more to be taken out of, without a call.
GREENLET_ALWAYS_INLINE void loop::release_here(waiter* w) noexcept {
  if (__builtin_expect(!w->parked || w->in || w->timed || w->unwinding || last_ || closed_, 0)) return release(w);
  if (w->slot) *std::exchange(w->slot, nullptr) = nullptr;
  --waiting_;
  if (w->external) --external_;
  w->retire();
  last_ = w;
}

GREENLET_ALWAYS_INLINE waiter::end loop::leave(waiter* w, waiter::end why) noexcept {
  loop& home = *w->home;
  home.release_here(w);
  home.unref();
  return why;
}

__attribute__((noinline)) void loop::keep_running(waiter* w) noexcept {
  w->who = greenlets::detail::hot_thread_v1->current.load(std::memory_order_relaxed)->self;
}

// Whether the running greenlet can wait here, after what is due before a switch: user code, which may end this hub.
__attribute__((noinline)) bool loop::may_wait() {
  if (current() == runner_) throw error(errc::not_running, "a function that the hub itself calls cannot wait");
  return !closed_;
}

__attribute__((noinline)) void loop::give_deadline(waiter* w, clock::time_point when) {
  w->when = when;
  timers_.add(w);
  arm_timer();
}

// What it needs when it goes on is in few lines of a cache, for by then they are in none: of its stack, little more than
// the registers of who called it.
GREENLET_ALWAYS_INLINE waiter::end loop::park_here(waiter* w, deadline until) {
  ++references_;
  waiter::end why = waiter::end::closed;
  try {
    const bool plain = greenlets::detail::hot_thread_v1->attention.load(std::memory_order_relaxed) == 0;
    if (__builtin_expect(!plain || closed_ || w->who == runner_, 0) && !may_wait()) return leave(w, why);
    if (!until.never()) give_deadline(w, until.at());
    enroll(w);
    // A greenlet that waits may be switched to by somebody who does not know. It waits on.
    while ((why = w->why) == waiter::end::none) w->home->go_on(w);
  } catch (...) {
    leave(w, why);
    throw;
  }
  return leave(w, why);
}

waiter::end loop::park(waiter* w, deadline until) { return park_here(w, until); }

void go_slowly(const greenlet& target) { target.switch_to(); }

#ifdef GREENLET_INLINE_SWITCH
void drop(greenlets::detail::machine::cargo c, greenlets::detail::machine::context* self) {
  const value dropped = greenlets::detail::landed(c, reinterpret_cast<greenlets::detail::body*>(self));
}
#endif

// Who goes on when `w` waits: the first that is ready, by this one switch, when all that the hub would do is to make
// another. It does what else there is, and has its turn when the budget is used up.
GREENLET_ALWAYS_INLINE void loop::go_on(const waiter* w) {
  waiter* const next = waiter::front(ready_);
  if (!next || next == w || escaped_ || !has_budget()) return go_to(runner_);
  if (__builtin_expect(next->what != waiter::kind::wait, 0)) return start_next(next);
  --budget_;
  take_first(next);
  ++switches_;
  go_to(next->who);
}

__attribute__((noinline)) void loop::start_next(waiter* next) {
  auto* const there = try_start(next);
  if (!there) return go_to(runner_);
  --budget_;
  take_first(next);
  ++switches_;
  keep_started(next);
  begin_at(next->who, *there);
}

GREENLET_ALWAYS_INLINE void loop::make_ready_here(waiter* w, waiter::end why) noexcept {
  if (w->why != waiter::end::none) return;
  w->why = why;
  w->unlink();
  waiter::push_back(ready_, w);
}

void loop::make_ready(waiter* w, waiter::end why) noexcept { make_ready_here(w, why); }

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
    // As in run_gathered().
    escaped_ = std::current_exception();
    uv_stop(&uv_);
  }
  begin_budget();  // it may have taken as many as the descriptors had
}

// Not at once: several together are a chain of switches from one to the next, each of which knows who comes after it.
void loop::resume_soon(waiter* w, waiter::end why) noexcept {
  if (w->why != waiter::end::none) return;
  make_ready(w, why);
  fetch_record(w->who);
  if (--gather_ == 0) run_gathered();
}

// In a poll callback.
void loop::run_gathered() noexcept {
  gather_ = most_gathered;
  if (escaped_) return;
  if (!has_budget()) return let_others();
  try {
    run_ready();
  } catch (...) {
    // Round libuv's frames, not through them: run() throws it again. A forced unwind never comes
    // here from a greenlet (it goes on in the main one).
    escaped_ = std::current_exception();
    uv_stop(&uv_);
  }
}

void loop::start_soon(greenlet&& g) {
  waiter* w = pool_.take(this);
  w->what = waiter::kind::start;
  w->who = std::move(g);
  waiter::push_back(ready_, w);
}

void loop::raise_soon(const greenlet& g, std::exception_ptr e) {
  waiter* w = pool_.take(this);
  w->what = waiter::kind::raise;
  w->who = g;
  w->thrown = std::move(e);
  if (g.started())
    waiter::push_back(ready_, w);
  else
    waiter::push_front(ready_, w);  // before its turn to start
}

waiter* loop::raise_at(const greenlet& g, std::exception_ptr e, clock::time_point when, waiter** slot) {
  waiter* const w = pool_.take(this);
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
  bool found = false;
  if (unwinding_ > 0) pool_.for_each_parked([&](const waiter* w) { return !(found = w->unwinding && w->who == g); });
  return found;
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
  pool_.for_each_parked([&](const waiter* w) {
    text += "\n  greenlet " + std::to_string(w->who.id());
    if (const std::string name = w->who.name(); !name.empty()) text += " \"" + name + "\"";
    if (w->who.is_main()) text += " (main)";
    text += " waits for another greenlet" + frames_of(w->who);
    return ++named < most_named;
  });
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
    pool_.for_each_parked([&](waiter* w) {
      if (!w->told) {
        raise_soon(w->who, exit);  // when there is no memory for it, the next shutdown() tries again
        w->told = true;
      }
      return true;
    });
    yield();  // the ready list is first come, first served: when we go on, they have had their turn
    try {
      while (unwinding_ > 0) unwound_.wait();
    } catch (const would_block_forever&) {
      // Destructors that wait for somebody who waits as well: the next round may help.
    }
  }
  runner_.throw_in(greenlet_exit(greenlet_exit::reason::cancelled));
}

void wait_list::send_away() noexcept {
  while (waiter* w = first_) w->home->make_ready(w, waiter::end::closed);
}

bool wait_list::wait(deadline until, bool external) {
  loop& l = loop::mine();
  waiter* w = l.begin();
  w->external = external;
  waiter::push_back(*this, w);
  return l.park_here(w, until) == waiter::end::woken;
}

void wait_list::wake_one() noexcept {
  if (first_) first_->home->make_ready(first_, waiter::end::woken);
}

void wait_list::wake_all() noexcept {
  while (first_) wake_one();
}

void place::give() noexcept {
  leave();
  given_ = true;
  if (waiter* const w = waiter::front(*gate_)) w->home->make_ready_here(w, waiter::end::woken);
}

}  // namespace greenlets::hub::detail
