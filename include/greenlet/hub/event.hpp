// SPDX-License-Identifier: MIT
// event: something that has happened, or not yet; greenlets of one thread wait for it.
#ifndef GREENLET_HUB_EVENT_HPP
#define GREENLET_HUB_EVENT_HPP

#include <greenlet/hub/line.hpp>

namespace greenlets::hub {

/// Starts unset; stays set until it is reset. Thread: one; other threads post() a function that
/// sets it.
class event {
 public:
  bool is_set() const noexcept { return set_; }
  bool is_ready() const noexcept { return set_; }  ///< for wait_any()
  /// Sets it and makes all that wait ready. Switches: no.
  void set() noexcept {
    set_ = true;
    waiting_.give_all();
  }
  /// Unsets it. Switches: no.
  void reset() noexcept { set_ = false; }
  /// Waits until it is set; false when the deadline came first. Who was waiting when it was set goes
  /// on, even if it has been reset since. Switches: to the hub, unless it is set. Throws: std::bad_alloc, what
  /// making the hub throws (std::system_error), and what is thrown into the caller meanwhile.
  bool wait(deadline until = {}) { return set_ || detail::place(waiting_).wait(until); }  // it may be gone afterwards

 private:
  friend struct detail::watching;
  bool set_ = false;
  detail::line waiting_{"event", this};
};

}  // namespace greenlets::hub

#endif
