// SPDX-License-Identifier: MIT
// signals: waiting for signals as for anything else.
#ifndef GREENLET_HUB_SIGNALS_HPP
#define GREENLET_HUB_SIGNALS_HPP

#include <greenlet/detail/api.hpp>
#include <greenlet/hub/deadline.hpp>

#include <initializer_list>
#include <memory>
#include <optional>

namespace greenlets::hub {

/// Catches signals for as long as it lives, and queues them. A signal that comes while nobody waits
/// is found by the next wait(); the same one twice in a row may count once, as POSIX has it.
/// Several objects, in several threads, may catch the same signal: each is told.
///
///   hub::signals stop({SIGTERM, SIGINT});
///   int which = *stop.wait();
class GREENLET_API signals {
 public:
  /// Throws: std::system_error (a signal that cannot be caught), std::bad_alloc.
  explicit signals(std::initializer_list<int> numbers);
  signals(const signals&) = delete;
  signals& operator=(const signals&) = delete;
  ~signals();

  /// Waits for the next one; nothing when the deadline comes first, the hub ends, or this object goes.
  /// Switches: to the hub. Thread: the one that made it. Throws: std::bad_alloc; nothing is lost then.
  std::optional<int> wait(deadline until = {});

 private:
  struct state;
  std::shared_ptr<state> state_;
};

}  // namespace greenlets::hub

#endif
