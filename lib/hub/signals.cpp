// SPDX-License-Identifier: MIT
// signals: libuv's signal handles in front of a queue.
#include <greenlet/hub/signals.hpp>

#include "loop.hpp"

#include <algorithm>
#include <csignal>
#include <deque>
#include <new>
#include <utility>
#include <vector>

namespace greenlets::hub {

// Hidden, though a member of an exported class.
struct __attribute__((visibility("hidden"))) signals::state {
  detail::loop_ref home;
  std::vector<uv_signal_t*> handles;
  std::deque<int> caught;
  std::vector<bool> pending;  // by number: caught when there was no memory to queue it; as a kernel does, once
  detail::wait_list waiting{"signal", nullptr};
  bool stopped = false;

  explicit state(detail::loop& l) : home(l) {}
  ~state() { stop(); }

  bool has_next() const noexcept {
    return !caught.empty() || std::find(pending.begin(), pending.end(), true) != pending.end();
  }

  // Takes out what has been caught.
  std::optional<int> next() noexcept {
    std::optional<int> number;
    if (!caught.empty()) {
      number = caught.front();
      caught.pop_front();
    } else if (const auto at = std::find(pending.begin(), pending.end(), true); at != pending.end()) {
      *at = false;
      number = static_cast<int>(at - pending.begin());
    }
    return number;
  }

  // Catches no more, and lets those go who wait.
  void stop() noexcept {
    stopped = true;
    waiting.wake_all();
    const auto closing = std::move(handles);
    if (home->closed()) return;  // the loop has closed and freed them
    for (uv_signal_t* h : closing)
      uv_close(reinterpret_cast<uv_handle_t*>(h), [](uv_handle_t* closed) { delete reinterpret_cast<uv_signal_t*>(closed); });
  }

  static void on_signal(uv_signal_t* handle, int number) {
    auto& self = *static_cast<state*>(handle->data);
    try {
      self.caught.push_back(number);
    } catch (const std::bad_alloc&) {
      self.pending[static_cast<std::size_t>(number)] = true;
    }
    self.waiting.wake_one();
  }
};

signals::signals(std::initializer_list<int> numbers) : state_(std::make_shared<state>(detail::loop::mine())) {
  // Here: nothing that has been handed to libuv may be lost for want of memory.
  state_->handles.reserve(numbers.size());
  state_->pending.resize(NSIG);
  for (int number : numbers) {
    auto handle = std::make_unique<uv_signal_t>();
    detail::check_uv(uv_signal_init(state_->home->uv(), handle.get()), "uv_signal_init");
    handle->data = state_.get();
    uv_unref(reinterpret_cast<uv_handle_t*>(handle.get()));
    state_->handles.push_back(handle.get());
    uv_signal_t* const h = handle.release();
    detail::check_uv(uv_signal_start(h, state::on_signal, number), "uv_signal_start");
  }
}

signals::~signals() { state_->stop(); }

std::optional<int> signals::wait(deadline until) {
  const auto kept = state_;  // this object may go while we wait
  state& s = *kept;
  for (;;) {
    if (const auto number = s.next()) return number;
    if (s.stopped || s.home->closed()) return std::nullopt;
    try {
      if (!s.waiting.wait(until, true)) return s.next();
    } catch (...) {
      // What woke us, if something did, is for the next who waits.
      if (s.has_next()) s.waiting.wake_one();
      throw;
    }
  }
}

}  // namespace greenlets::hub
