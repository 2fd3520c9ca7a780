// SPDX-License-Identifier: MIT
// mutex, shared_mutex, condition: for what greenlets of one thread must not see half done while one of them waits.
//
//   hub::mutex m;
//   std::lock_guard lock(m);      // the standard's locks fit
//
// Between two waits nobody else of the thread runs, so most code needs none of these.
#ifndef GREENLET_HUB_MUTEX_HPP
#define GREENLET_HUB_MUTEX_HPP

#include <greenlet/hub/line.hpp>

#include <cstdint>
#include <mutex>
#include <type_traits>

namespace greenlets::hub {

/// One greenlet at a time; first come, first served: unlock() gives it to who has waited longest. Not recursive.
/// Thread: one. Whoever waits when it is destroyed goes on without it.
class GREENLET_API mutex {
 public:
  mutex() noexcept = default;
  mutex(const mutex&) = delete;
  mutex& operator=(const mutex&) = delete;

  /// Waits until it is the caller's; false when the deadline came first.
  /// Switches: to the hub, unless it is free. Throws: error(already_locked) when the caller has it; std::bad_alloc,
  /// what making the hub throws (std::system_error), and what is thrown into the caller meanwhile: then it has not got it.
  bool lock(deadline until = {});
  /// Whether it was free, and is the caller's now. Switches: no; may unwind.
  bool try_lock();
  /// Gives it to the next. Switches: no; may unwind. Throws: error(not_locked) when the caller does not have it.
  void unlock();
  bool locked() const noexcept { return owner_ != 0; }

  /// For std::unique_lock. Switches, throws: as lock().
  template <class Rep, class Period>
  bool try_lock_for(std::chrono::duration<Rep, Period> d) {
    return lock(d);
  }
  bool try_lock_until(clock::time_point t) { return lock(t); }

 private:
  void pass_on() noexcept;

  std::uint64_t owner_ = 0;  // a greenlet's id
  detail::line waiting_{"mutex", this};
};

/// Many that only look, or one that changes. First come, first served: who wants to change is not overtaken by those
/// that come after it to look. Thread, switches, throws: as mutex. Fits std::shared_lock.
class GREENLET_API shared_mutex {
 public:
  shared_mutex() noexcept = default;
  shared_mutex(const shared_mutex&) = delete;
  shared_mutex& operator=(const shared_mutex&) = delete;

  bool lock(deadline until = {});
  bool try_lock();
  void unlock();
  bool lock_shared(deadline until = {});
  bool try_lock_shared() noexcept;
  /// Throws: error(not_locked) when nobody looks.
  void unlock_shared();

 private:
  bool stand(std::uint64_t who, deadline until);
  void serve() noexcept;

  std::uint64_t owner_ = 0;
  std::size_t readers_ = 0;
  detail::line waiting_{"shared mutex", this};
};

/// Waits for a change that other greenlets tell of. Thread: one.
class GREENLET_API condition {
 public:
  condition() noexcept = default;
  condition(const condition&) = delete;
  condition& operator=(const condition&) = delete;

  /// Unlocks, waits to be told, and locks again; false when the deadline came first. Who has been told and then
  /// has something thrown into it lets the next be told instead.
  /// Switches: to the hub. Throws: as mutex::lock(); the lock is then not held, which `lock` knows.
  bool wait(std::unique_lock<mutex>& lock, deadline until = {});
  /// The same until `so()`; false when the deadline came first, and it is not so.
  template <class F, class = std::enable_if_t<std::is_invocable_r_v<bool, F&>>>
  bool wait(std::unique_lock<mutex>& lock, F so, deadline until = {}) {
    while (!so())
      if (!wait(lock, until)) return so();
    return true;
  }
  /// Without a mutex, for what changes only where nobody waits.
  bool wait(deadline until = {});

  /// Switches: no.
  void notify_one() noexcept {
    if (!waiting_.empty()) waiting_.first()->give();
  }
  void notify_all() noexcept { waiting_.give_all(); }

 private:
  detail::line waiting_{"condition", this};
};

}  // namespace greenlets::hub

#endif
