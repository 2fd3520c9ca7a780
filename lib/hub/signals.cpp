// SPDX-License-Identifier: MIT
// signals: libuv's signal handles in front of a queue.
#include <greenlet/hub/signals.hpp>

#include "loop.hpp"

#include <deque>
#include <utility>
#include <vector>

namespace greenlets::hub {

// Hidden, though a member of an exported class.
struct __attribute__((visibility("hidden"))) signals::state {
  detail::loop_ref home;
  std::vector<uv_signal_t*> handles;
  std::deque<int> caught;
  detail::wait_list waiting;
  bool stopped = false;

  explicit state(detail::loop& l) noexcept : home(l) {}
  ~state() { stop(); }

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
    self.caught.push_back(number);
    self.waiting.wake_one();
  }
};

signals::signals(std::initializer_list<int> numbers) : state_(std::make_shared<state>(detail::loop::mine())) {
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
  while (s.caught.empty())
    if (s.stopped || s.home->closed() || (!s.waiting.wait(until, true) && s.caught.empty())) return std::nullopt;
  const int number = s.caught.front();
  s.caught.pop_front();
  return number;
}

}  // namespace greenlets::hub
