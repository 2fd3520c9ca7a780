// SPDX-License-Identifier: MIT
// result: an object, or an exception, that will be there later.
#ifndef GREENLET_HUB_RESULT_HPP
#define GREENLET_HUB_RESULT_HPP

#include <greenlet/error.hpp>
#include <greenlet/hub/event.hpp>

#include <exception>
#include <optional>
#include <type_traits>
#include <utility>

namespace greenlets::hub {

/// Set once, by anybody of the thread, and then there for all. Thread: one; other threads post() a function that sets it.
template <class T>
class result {
 public:
  /// Sets it. Switches: no. Throws: error(already_set); what constructing a T throws, and then it is not set.
  template <class... A>
  void set(A&&... with) {
    check_unset();
    object_.emplace(std::forward<A>(with)...);
    there_.set();
  }
  /// get() will throw it.
  void set_exception(std::exception_ptr e) {
    check_unset();
    thrown_ = std::move(e);
    there_.set();
  }
  bool is_ready() const noexcept { return there_.is_set(); }
  /// Waits until it is set; false when the deadline came first. Switches, throws: as event::wait().
  bool wait(deadline until = {}) { return there_.wait(until); }
  /// Waits, and gives it: a reference that lives as long as the result. Throws also: what was set with set_exception().
  T& get() {
    there_.wait();
    if (thrown_) std::rethrow_exception(thrown_);
    return *object_;
  }

 private:
  friend struct detail::watching;
  void check_unset() const {
    if (is_ready()) throw error(errc::already_set, "the result has been set already", {});
  }

  event there_;
  std::optional<T> object_;
  std::exception_ptr thrown_;
};

}  // namespace greenlets::hub

#endif
