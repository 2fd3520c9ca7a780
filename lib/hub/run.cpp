// SPDX-License-Identifier: MIT
// The public functions of running: spawn, yield, sleep, tasks, other threads.
#include <greenlet/hub/run.hpp>

#include "loop.hpp"

#include <stdexcept>
#include <string>
#include <utility>

namespace greenlets::hub {
namespace detail {

completion::~completion() {
  if (__builtin_expect(thrown_ != nullptr, 0) && !asked_) report_unraisable(who_, thrown_);
}

bool completion::wait(deadline until) {
  return done_ || place(joiners_).wait(until);
}

void completion::check() {
  if (!done_) throw error(errc::not_running, "the hub has ended while a greenlet waited for a task's result");
  asked_ = true;
  if (thrown_) std::rethrow_exception(thrown_);
  if (cancelled_) throw cancelled();
}

void completion::finish(std::exception_ptr thrown) noexcept {
  try {
    if (thrown) who_ = current();
  } catch (...) {
    // Something was thrown in meanwhile; the report will not say who it was.
  }
  thrown_ = std::move(thrown);
  done_ = true;
  joiners_.give_all();
}

void completion::finish_cancelled() noexcept {
  done_ = cancelled_ = true;
  joiners_.give_all();
}

void check(const attributes& how, const char* who) {
  using namespace std::literals;
  if (!how.parent().empty()) throw std::invalid_argument(who + ": the parent of what the hub runs is the hub"s);
  if (access::has_resolver(how)) throw std::invalid_argument(who + ": on_start() has no say in what the hub runs"s);
}

static greenlet start_made(greenlet g, const greenlet& runner) {
  loop& l = loop::mine();  // another, when user code on the way has ended that one
  if (l.handle() != runner) g.set_parent(l.handle());
  l.start_soon(greenlet(g));
  return g;
}

greenlet start_soon(greenlets::detail::closure&& run) {
  const greenlet runner = loop::mine().handle();
  return start_made(greenlets::detail::make_greenlet(std::move(run), runner), runner);
}

greenlet start_soon(greenlets::detail::closure&& run, const attributes& how) {
  check(how, "hub::spawn");
  const greenlet runner = loop::mine().handle();
  return start_made(access::adopt(greenlets::detail::new_body(std::move(run), &runner, how, nullptr)), runner);
}

}  // namespace detail

would_block_forever::would_block_forever(const std::string& who_waits)
    : std::runtime_error("this operation would block forever" + who_waits) {}
would_block_forever::~would_block_forever() = default;

cancelled::cancelled() : std::runtime_error("the task was cancelled") {}
cancelled::~cancelled() = default;

void yield() {
  detail::loop& l = detail::loop::mine();
  detail::waiter* w = l.begin();
  detail::waiter::push_back(l.ready(), w);
  l.park(w, {});
}

void sleep_until(clock::time_point when) {
  if (when <= clock::now()) return yield();
  detail::loop& l = detail::loop::mine();
  l.park(l.begin(), when);
}

void cancel(const greenlet& g, std::exception_ptr e) {
  if (g.empty()) throw error(errc::empty_handle, "the handle refers to no greenlet");
  if (g.dead()) return;
  greenlets::detail::check_here(g);
  if (!e) e = std::make_exception_ptr(greenlet_exit(greenlet_exit::reason::cancelled));
  detail::loop::mine().raise_soon(g, std::move(e));
}

void shutdown() {
  if (detail::loop* l = detail::loop::mine_if_any()) l->shut_down();
}

bool remote::post(std::function<void()> f) const {
  if (!box_) return false;
  const std::lock_guard lock(box_->lock);
  if (!box_->bell) return false;
  const bool asleep = box_->messages.empty();
  box_->messages.push_back(std::move(f));
  if (asleep) uv_async_send(box_->bell);
  return true;
}

remote this_hub() {
  remote r;
  r.box_ = detail::loop::mine().box();
  return r;
}

hub_statistics statistics() noexcept {
  const detail::loop* l = detail::loop::mine_if_any();
  return l ? l->statistics() : hub_statistics{};
}

}  // namespace greenlets::hub
