// SPDX-License-Identifier: MIT
// wait_any: waiting for the first of several things.
//
//   switch (hub::wait_any(requests, stop)) { ... }
#ifndef GREENLET_HUB_WAIT_ANY_HPP
#define GREENLET_HUB_WAIT_ANY_HPP

#include <greenlet/hub/event.hpp>
#include <greenlet/hub/queue.hpp>
#include <greenlet/hub/result.hpp>
#include <greenlet/hub/run.hpp>
#include <greenlet/hub/semaphore.hpp>

#include <cstddef>
#include <optional>
#include <type_traits>
#include <utility>

namespace greenlets::hub {

namespace detail {

// Where whoever waits for any of several things stands.
struct watching {
  template <class W>
  static line& line_of(W& w) noexcept {
    if constexpr (std::is_same_v<W, event>)
      return w.waiting_;
    else
      return w.watchers_;
  }
  template <class T>
  static line& line_of(result<T>& r) noexcept {
    return line_of(r.there_);
  }
  template <class T>
  static line& line_of(channel<T>& c) noexcept {
    return c.queue_.watchers_;
  }
  template <class T>
  static line& line_of(task<T>& t) noexcept {
    return t.state_->joiners_;
  }
};

template <class... W, std::size_t... I>
std::optional<std::size_t> first_ready(std::index_sequence<I...>, const W&... each) noexcept {
  std::optional<std::size_t> found;
  static_cast<void>(((each.is_ready() && (found = I, true)) || ...));
  return found;
}

}  // namespace detail

/// Waits until one of them is ready: an event that is set, a result that is there, a queue or channel from which
/// something can be taken, a semaphore, a latch, a task that has ended. Gives its place among the arguments, of
/// several that are ready the first; nothing when the deadline came first. It takes nothing: whoever runs between
/// may, so ask again without waiting (try_pop() and the like).
/// Switches: to the hub, unless one is ready. Thread: theirs. Throws: as event::wait().
template <class... W>
std::optional<std::size_t> wait_any_until(deadline until, W&... each) {
  for (;;) {
    if (const auto found = detail::first_ready(std::index_sequence_for<W...>(), each...)) return found;
    detail::wait_list gate("any of several", nullptr);
    const detail::place places[] = {detail::place(detail::watching::line_of(each), &gate)...};
    static_cast<void>(places);
    if (!gate.wait(until)) return detail::first_ready(std::index_sequence_for<W...>(), each...);
  }
}
template <class... W>
std::size_t wait_any(W&... each) {
  return *wait_any_until({}, each...);
}

}  // namespace greenlets::hub

#endif
