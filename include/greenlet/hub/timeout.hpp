// SPDX-License-Identifier: MIT
// timeout: a bound on all that a greenlet waits for in a scope.
//
//   hub::timeout limit(std::chrono::seconds(5));
//   try {
//     serve(connection);                       // whatever it waits for in there
//   } catch (const hub::timed_out& e) {
//     if (!limit.threw(e)) throw;              // an outer scope's
//   }
#ifndef GREENLET_HUB_TIMEOUT_HPP
#define GREENLET_HUB_TIMEOUT_HPP

#include <greenlet/detail/api.hpp>
#include <greenlet/hub/deadline.hpp>

#include <cstdint>
#include <optional>
#include <stdexcept>
#include <type_traits>
#include <utility>

namespace greenlets::hub {

namespace detail {

struct waiter;

// What there is of `f()` when it came in time.
template <class R>
struct in_time {
  using type = std::optional<R>;
};
template <>
struct in_time<void> {
  using type = bool;
};
template <class F>
using if_timely = typename in_time<std::decay_t<std::invoke_result_t<F&>>>::type;

}  // namespace detail

/// What a timeout throws.
class GREENLET_API timed_out : public std::runtime_error {
 public:
  explicit timed_out(std::uint64_t by);
  ~timed_out() override;
  timed_out(const timed_out&) = default;
  timed_out& operator=(const timed_out&) = default;

 private:
  friend class timeout;
  std::uint64_t by_;
};

/// From when it is made to when it goes: at the deadline timed_out is thrown into the greenlet that made it, wherever
/// that waits; once. Scopes may nest, and each knows its own. It is not thrown into a destructor that waits while an
/// exception is on its way already. A greenlet that does not wait is not interrupted.
class GREENLET_API timeout {
 public:
  /// Switches: no, once the thread has a hub. Throws: std::bad_alloc, what making the hub throws (std::system_error).
  explicit timeout(deadline until);
  timeout(const timeout&) = delete;
  timeout& operator=(const timeout&) = delete;
  ~timeout() { cancel(); }

  /// From now on it throws nothing. Switches: no.
  void cancel() noexcept;
  /// Whether it has thrown.
  bool expired() const noexcept { return !armed_ && !cancelled_; }
  bool threw(const timed_out& e) const noexcept { return e.by_ == number_; }

 private:
  detail::waiter* armed_ = nullptr;
  std::uint64_t number_;
  bool cancelled_ = false;
};

/// Calls `f` in such a scope, and gives its result (true, when it returns nothing); nothing (false) when the deadline
/// came first. Throws: as timeout(), and what `f` throws.
template <class F>
detail::if_timely<F> with_timeout(deadline until, F&& f) {
  timeout limit(until);
  try {
    if constexpr (std::is_void_v<std::invoke_result_t<F&>>) {
      f();
      return true;
    } else {
      return f();
    }
  } catch (const timed_out& e) {
    if (!limit.threw(e)) throw;
  }
  return {};
}

}  // namespace greenlets::hub

#endif
