// SPDX-License-Identifier: MIT
// group, pool, every: tasks that belong together.
//
//   {
//     hub::group both;
//     both.spawn([&] { from.copy_to(to); });
//     both.spawn([&] { to.copy_to(from); });
//     both.wait();                            // the first that fails ends the other, and is thrown here
//   }                                         // nobody of them is left
#ifndef GREENLET_HUB_GROUP_HPP
#define GREENLET_HUB_GROUP_HPP

#include <greenlet/hub/run.hpp>
#include <greenlet/hub/semaphore.hpp>

#include <cstddef>
#include <exception>
#include <list>
#include <memory>
#include <type_traits>
#include <utility>

namespace greenlets::hub {

namespace detail {

// What a group and its members share.
class GREENLET_API members {
 public:
  using seat = std::list<greenlet>::iterator;

  seat enter() { return all_.emplace(all_.end()); }
  void leave(seat at) noexcept;
  void failed(std::exception_ptr e) noexcept;
  void cancel();
  bool wait(deadline until);
  void check();
  std::size_t size() const noexcept { return all_.size(); }
  ~members();

 private:
  std::list<greenlet> all_;
  std::exception_ptr first_;
  bool asked_ = false;
  line waiting_{"group", this};
};

// Held by the function of a member's greenlet: leaves also when that is never called.
class member {
 public:
  explicit member(std::shared_ptr<members> of) : of_(std::move(of)), at_(of_->enter()) {}
  member(member&& other) noexcept : of_(std::move(other.of_)), at_(other.at_) {}
  member(const member&) = delete;
  member& operator=(const member&) = delete;
  ~member() {
    if (of_) of_->leave(at_);
  }
  members::seat at() const noexcept { return at_; }

  template <class F>
  void run(F& f) {
    try {
      f();
    } catch (const greenlet_exit&) {
      throw;
    } catch (...) {
      std::exception_ptr e = std::current_exception();
      if (!e) throw;  // a forced unwind
      of_->failed(std::move(e));
    }
  }

 private:
  std::shared_ptr<members> of_;
  members::seat at_;
};

}  // namespace detail

/// A scope for tasks: it ends when all of them have. The first that fails cancels the others; what it threw is
/// thrown by wait(). What the others throw after that goes to the unraisable handler. Thread: one.
class GREENLET_API group {
 public:
  /// Throws: std::bad_alloc.
  group() : members_(std::make_shared<detail::members>()) {}
  group(const group&) = delete;
  group& operator=(const group&) = delete;
  /// Cancels those that are left, and waits until they have ended. What is thrown into the greenlet meanwhile is
  /// thrown at its next wait. Switches: to the hub, unless all have ended.
  ~group();

  /// As hub::spawn(), but what it gives nobody asks for. A member may spawn more.
  template <class F>
  greenlet spawn(F&& f) {
    return spawn_member(std::forward<F>(f));
  }
  template <class F>
  greenlet spawn(const attributes& how, F&& f) {
    return spawn_member(std::forward<F>(f), how);
  }
  /// Waits until all have ended; throws what the first that failed threw. Switches: to the hub, unless they have.
  /// Throws also: what is thrown into the caller meanwhile; the members go on then.
  void wait() { wait_until({}); }
  /// The same, false when the deadline came first.
  bool wait_until(deadline until) {
    const auto kept = members_;
    if (!kept->wait(until)) return false;
    kept->check();
    return true;
  }
  /// Has greenlet_exit(cancelled) thrown into all of them. Switches: no. Throws: std::bad_alloc.
  void cancel() { members_->cancel(); }
  /// How many have not ended.
  std::size_t size() const noexcept { return members_->size(); }

 private:
  template <class F, class... A>
  greenlet spawn_member(F&& f, const A&... how) {
    static_assert(std::is_void_v<std::invoke_result_t<std::decay_t<F>&>>, "what a member of a group returns is lost");
    detail::member m(members_);
    const detail::members::seat at = m.at();
    greenlet g = detail::start_soon(greenlets::detail::make_closure(
        [m = std::move(m), run = std::decay_t<F>(std::forward<F>(f))]() mutable { m.run(run); }), how...);
    if (!g.dead()) *at = g;
    return g;
  }

  std::shared_ptr<detail::members> members_;
};

/// At most so many tasks at once. Thread: one. When it goes its tasks go on.
class pool {
 public:
  explicit pool(std::size_t most) : most_(most), free_(std::make_shared<semaphore>(most)) {}

  /// Waits until fewer than that run, and spawns. Switches: to the hub, while the pool is full. Throws: as
  /// hub::spawn(), and what is thrown into the caller meanwhile.
  template <class F, class R = std::invoke_result_t<std::decay_t<F>&>>
  task<std::decay_t<R>> spawn(F&& f) {
    return hub::spawn(limited<R>(std::forward<F>(f)));
  }
  template <class F, class R = std::invoke_result_t<std::decay_t<F>&>>
  task<std::decay_t<R>> spawn(const attributes& how, F&& f) {
    return hub::spawn(how, limited<R>(std::forward<F>(f)));
  }
  /// Waits until all that were spawned have ended; false when the deadline came first. Switches: to the hub.
  bool join(deadline until = {}) {
    const auto free = free_;
    if (!free->acquire(most_, until)) return false;
    free->release(most_);
    return true;
  }
  std::size_t running() const noexcept { return most_ - free_->free(); }

 private:
  // One of them, given back when it goes; the semaphore lives as long.
  class slot {
   public:
    explicit slot(std::shared_ptr<semaphore> s) noexcept : of_(std::move(s)) {}
    slot(slot&&) noexcept = default;
    slot(const slot&) = delete;
    slot& operator=(const slot&) = delete;
    ~slot() {
      if (of_) of_->release();
    }

   private:
    std::shared_ptr<semaphore> of_;
  };

  // Waits until there is a slot, and gives what keeps it while it runs.
  template <class R, class F>
  auto limited(F&& f) {
    const auto free = free_;
    free->acquire();
    return [taken = slot(free), run = std::decay_t<F>(std::forward<F>(f))]() mutable -> R { return run(); };
  }

  std::size_t most_;
  std::shared_ptr<semaphore> free_;
};

/// Spawns a task that calls `f` each `period`, from one period after now on, until it is cancelled or `f` throws. Calls
/// never overlap; times that passed while `f` ran are left out, so that what is late stays in step.
template <class Rep, class Period, class F>
task<void> every(std::chrono::duration<Rep, Period> period, F&& f) {
  const auto step = std::chrono::ceil<clock::duration>(period);
  if (step <= clock::duration::zero()) throw std::invalid_argument("hub::every: a period is more than nothing");
  return spawn([step, run = std::decay_t<F>(std::forward<F>(f))]() mutable {
    for (clock::time_point next = clock::now() + step;; next += step) {
      sleep_until(next);
      run();
      if (const auto late = clock::now() - next; late >= step) next += late / step * step;
    }
  });
}

}  // namespace greenlets::hub

#endif
