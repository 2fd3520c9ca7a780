// SPDX-License-Identifier: MIT
// Running greenlets under a hub: spawn, yield, sleep; tasks; and reaching a hub from other threads.
//
//   #include <greenlet/hub.hpp>
//   namespace hub = greenlets::hub;
//
//   int main() {
//     auto answer = hub::spawn([] { hub::sleep_for(std::chrono::milliseconds(10)); return 42; });
//     return answer.get() == 42 ? 0 : 1;
//   }
//
// A thread's hub is made at its first use and is a greenlet itself, a child of the thread's main
// greenlet: it runs a libuv loop, and the others switch to it when they wait. A greenlet that waits
// for something that can still happen is kept by the hub, whether or not a handle to it is left.
#ifndef GREENLET_HUB_RUN_HPP
#define GREENLET_HUB_RUN_HPP

#include <greenlet/greenlet.hpp>
#include <greenlet/hub/deadline.hpp>
#include <greenlet/hub/line.hpp>

#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <type_traits>
#include <utility>

namespace greenlets::hub {

/// Nothing could ever wake anybody in this hub: every greenlet waits for another one. Thrown into
/// the thread's main greenlet. The second line of what() and those after it say who waits; and where, with frames as
/// of write_frames(), when the program is linked with libgreenlet-backtrace. When there is no memory to say it,
/// std::bad_alloc is thrown there instead.
class GREENLET_API would_block_forever : public std::runtime_error {
 public:
  explicit would_block_forever(const std::string& who_waits);
  ~would_block_forever() override;
  would_block_forever(const would_block_forever&) = default;
  would_block_forever& operator=(const would_block_forever&) = default;
};

/// What task::get() throws when the task was cancelled.
class GREENLET_API cancelled : public std::runtime_error {
 public:
  cancelled();
  ~cancelled() override;
  cancelled(const cancelled&) = default;
  cancelled& operator=(const cancelled&) = default;
};

namespace detail {

/// How a task has ended, and who waits for that.
class GREENLET_API completion {
 public:
  completion() noexcept = default;
  completion(const completion&) = delete;
  completion& operator=(const completion&) = delete;
  ~completion();  // an exception that nobody asked for goes to the unraisable handler

  bool done() const noexcept { return done_; }
  // The task object may go meanwhile: until it is done the greenlet's function keeps this, and who is woken then does
  // not look here.
  bool wait(deadline until);
  void check();  // throws what the task threw, or cancelled
  void finish(std::exception_ptr thrown) noexcept;
  void finish_cancelled() noexcept;

 private:
  friend struct watching;
  line joiners_{"task", this};
  std::exception_ptr thrown_;
  greenlet who_;
  bool done_ = false, cancelled_ = false, asked_ = false;
};

template <class T>
struct task_state : completion {
  std::optional<T> result;

  T& outcome() {
    check();
    return *result;
  }
};
template <>
struct task_state<void> : completion {
  void outcome() { check(); }
};

template <class T, class F>
void complete(task_state<T>& state, F& f) {
  try {
    if constexpr (std::is_void_v<T>)
      f();
    else
      state.result.emplace(f());
    state.finish(nullptr);
  } catch (const greenlet_exit&) {
    state.finish_cancelled();
    throw;
  } catch (const std::exception&) {
    state.finish(std::current_exception());
  } catch (...) {
    // A forced unwind (pthread_exit, pthread_cancel) is no C++ exception, has no exception_ptr, and
    // must go on; anything else is the task's result.
    if (std::exception_ptr thrown = std::current_exception()) {
      state.finish(std::move(thrown));
    } else {
      state.finish_cancelled();
      throw;
    }
  }
}

// Held by the function of a task's greenlet: tells who waits also when that is never called.
template <class T>
struct promise {
  std::shared_ptr<task_state<T>> state;

  explicit promise(std::shared_ptr<task_state<T>> s) noexcept : state(std::move(s)) {}
  promise(promise&&) noexcept = default;
  promise(const promise&) = delete;
  promise& operator=(const promise&) = delete;
  ~promise() {
    if (state && !state->done()) state->finish_cancelled();
  }
};

// A task's state, and its function in the same piece of memory, which ends with the greenlet.
template <class T, class F>
struct job : task_state<T> {
  union {
    F f;
  };

  template <class G>
  explicit job(G&& g) : f(std::forward<G>(g)) {}
  ~job() {}  // after its runner
};

template <class T, class F>
class runner {
 public:
  explicit runner(std::shared_ptr<job<T, F>> j) noexcept : job_(std::move(j)) {}
  runner(runner&&) noexcept = default;
  runner(const runner&) = delete;
  runner& operator=(const runner&) = delete;
  ~runner() {
    if (!job_) return;
    job_->f.~F();
    if (!job_->done()) job_->finish_cancelled();
  }
  void operator()() { complete<T>(*job_, job_->f); }

 private:
  std::shared_ptr<job<T, F>> job_;
};

GREENLET_API greenlet start_soon(greenlets::detail::closure&& run);
GREENLET_API greenlet start_soon(greenlets::detail::closure&& run, const attributes& how);
// Throws std::invalid_argument, which names `who`, when the hub cannot run greenlets like that.
GREENLET_API void check(const attributes& how, const char* who);

}  // namespace detail
}  // namespace greenlets::hub

namespace greenlets::detail {
template <class T, class F>
inline constexpr bool moves_silently<hub::detail::runner<T, F>> = true;
}

namespace greenlets::hub {

/// A greenlet that was spawned, and what becomes of it. Move-only. Dropping it does not stop the
/// greenlet. One that was default-constructed or moved from has no greenlet: only its handle(), which
/// is empty, may be asked. Thread: the one that spawned it.
template <class T>
class task {
 public:
  task() noexcept = default;
  task(greenlet g, std::shared_ptr<detail::task_state<T>> state) noexcept
      : greenlet_(std::move(g)), state_(std::move(state)) {}

  /// Whether it has ended, in whatever way. Switches: no.
  bool ready() const noexcept { return state_->done(); }
  /// Waits until it has ended; false when the deadline came first. Switches: to the hub.
  /// Throws: what is thrown into the caller meanwhile; nothing of the task's.
  bool join(deadline until = {}) const { return state_->wait(until); }
  /// Waits, and gives its result: a reference that lives as long as the task object.
  /// Switches: to the hub. Throws: what the task threw; cancelled; what is thrown into the caller meanwhile;
  /// error(not_running), when the hub ends before the task.
  std::add_lvalue_reference_t<T> get() const {
    if (!state_->done()) {
      const auto kept = state_;  // this object may be moved while we wait
      kept->wait({});
      return kept->outcome();
    }
    return state_->outcome();
  }
  /// Has greenlet_exit(cancelled) thrown into it, wherever it waits, at the hub's next turn. What
  /// has not started never will; what has ended is not touched. Switches: no. Throws: std::bad_alloc.
  void cancel() const;
  const greenlet& handle() const noexcept { return greenlet_; }
  /// For wait_any().
  bool is_ready() const noexcept { return ready(); }

 private:
  friend struct detail::watching;
  greenlet greenlet_;
  std::shared_ptr<detail::task_state<T>> state_;
};

namespace detail {

// `how`: its attributes, or none.
template <class T, class F, class... A>
task<T> spawn_task(F&& f, const A&... how) {
  using D = std::decay_t<F>;
  if (__builtin_expect(greenlets::detail::collects, 0)) {
    // A collector looks for greenlets in what others run, and not in what is shared.
    auto state = std::make_shared<task_state<T>>();
    greenlet g = start_soon(greenlets::detail::make_closure(
        [promise = promise<T>(state), run = D(std::forward<F>(f))]() mutable { complete<T>(*promise.state, run); }), how...);
    return {std::move(g), std::move(state)};
  }
  auto state = std::make_shared<job<T, D>>(std::forward<F>(f));
  greenlet g = start_soon(greenlets::detail::make_closure(runner<T, D>(state)), how...);
  return {std::move(g), std::move(state)};
}

}  // namespace detail

/// Makes a greenlet that the hub will start at its next turn, with `f()`. Its parent is the hub.
/// Switches: may unwind. Thread: any; it runs on this one. Throws: std::bad_alloc, and what making
/// the hub throws (std::system_error).
template <class F, class R = std::invoke_result_t<std::decay_t<F>&>>
task<std::decay_t<R>> spawn(F&& f) {
  return detail::spawn_task<std::decay_t<R>>(std::forward<F>(f));
}
/// The same with a name, a size of its stack, and what else attributes say. Throws also: std::invalid_argument, when they
/// name a parent, or with on_start() who is to give something else to run.
template <class F, class R = std::invoke_result_t<std::decay_t<F>&>>
task<std::decay_t<R>> spawn(const attributes& how, F&& f) {
  return detail::spawn_task<std::decay_t<R>>(std::forward<F>(f), how);
}

/// Lets the others run that are ready, and then goes on. Switches: to the hub. Thread: any, in its own hub.
/// Throws: std::bad_alloc, what making the hub throws (std::system_error), and what is thrown into the caller
/// meanwhile.
GREENLET_API void yield();

/// Waits so long, or until then. Not at all, or a time past: as yield(). Switches, thread, throws: as yield().
GREENLET_API void sleep_until(clock::time_point when);
template <class Rep, class Period>
void sleep_for(std::chrono::duration<Rep, Period> so_long) {
  sleep_until(deadline(so_long).at());
}

/// Has `e` (by default greenlet_exit(cancelled)) thrown into a greenlet of this thread at the hub's
/// next turn. A dead one is not touched, and one that is being unwound and waits in a destructor
/// neither. Switches: no. Throws: error (empty_handle, different_thread, thread_exited, collected),
/// std::bad_alloc.
GREENLET_API void cancel(const greenlet& g, std::exception_ptr e = nullptr);

template <class T>
void task<T>::cancel() const {
  if (!ready()) hub::cancel(greenlet_);
}

/// Spawns `f`, waits for it and gives its result. Switches: to the hub. Throws: as spawn() and task::get().
template <class F>
auto run(F&& f) {
  auto t = spawn(std::forward<F>(f));
  if constexpr (std::is_void_v<decltype(t.get())>)
    t.get();
  else
    return std::move(t.get());
}

/// Ends the calling thread's hub, if it has one: throws greenlet_exit(cancelled) into everybody who
/// waits in it, until nobody does, and closes the loop. Destructors may wait meanwhile. What was
/// spawned and has not started never will. Descriptors stay open until their owners go, and say that
/// they are closed(). The next use makes a new hub. A thread's exit does it by itself; main() calls it
/// when it wants its greenlets' destructors to run before exit().
/// Switches: yes. Thread: any, in its main greenlet. Throws: error(not_running) in another greenlet;
/// std::bad_alloc; what is thrown into the caller meanwhile.
GREENLET_API void shutdown();

/// Where other threads reach a hub. Copyable; any thread may use it, also when the hub has gone. As
/// long as one exists, its hub cannot tell that nobody will wake it: there is no
/// would_block_forever.
class GREENLET_API remote {
 public:
  remote() noexcept = default;
  /// Has `f` called in a new greenlet of that hub. Returns false, and does nothing, when the hub has
  /// gone. What is still queued when a hub goes is destroyed uncalled, on the hub's thread.
  /// Switches: no. Thread: any. Throws: std::bad_alloc.
  bool post(std::function<void()> f) const;

 private:
  friend GREENLET_API remote this_hub();
  std::shared_ptr<struct mailbox> box_;
};

/// This thread's hub, made at need. Switches: may unwind, when it is made. Throws: std::bad_alloc,
/// std::system_error.
GREENLET_API remote this_hub();

/// What a hub has done so far.
struct hub_statistics {
  std::uint64_t switches;  ///< into greenlets and back
  std::uint64_t turns;     ///< of the loop
  std::size_t waiting;     ///< greenlets that wait now
};
/// Of this thread's hub; zeros when it has none. Switches: no.
GREENLET_API hub_statistics statistics() noexcept;

}  // namespace greenlets::hub

#endif
