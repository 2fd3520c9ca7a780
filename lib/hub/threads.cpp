// SPDX-License-Identifier: MIT
// threads: what they and who waits for them share is under a lock; all else goes by messages to hubs.
#include <greenlet/hub/threads.hpp>

#include "system.hpp"

#include <greenlet/hub/io.hpp>
#include <greenlet/hub/run.hpp>

#include <algorithm>
#include <atomic>
#include <exception>
#include <memory>
#include <mutex>
#include <new>
#include <pthread.h>
#include <sched.h>
#include <stdexcept>
#include <sys/eventfd.h>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

namespace greenlets::hub {
namespace {

// The processors' numbers. The system's set may be larger than cpu_set_t.
std::vector<int> processors() {
  std::vector<int> all;
  for (int most = CPU_SETSIZE; most <= 1 << 20 && all.empty(); most *= 2) {
    cpu_set_t* const set = CPU_ALLOC(static_cast<std::size_t>(most));
    if (!set) throw std::bad_alloc();
    const std::unique_ptr<cpu_set_t, void (*)(cpu_set_t*)> freed(set, [](cpu_set_t* s) { CPU_FREE(s); });
    const std::size_t size = CPU_ALLOC_SIZE(static_cast<std::size_t>(most));
    if (sched_getaffinity(0, size, set) < 0) continue;
    for (int n = 0; n < most; ++n)
      if (CPU_ISSET_S(static_cast<std::size_t>(n), size, set)) all.push_back(n);
  }
  return all;
}

void pin_to(int processor) {
  const auto most = static_cast<std::size_t>(processor) + 1;
  cpu_set_t* const set = CPU_ALLOC(most);
  if (!set) throw std::bad_alloc();
  const std::unique_ptr<cpu_set_t, void (*)(cpu_set_t*)> freed(set, [](cpu_set_t* s) { CPU_FREE(s); });
  const std::size_t size = CPU_ALLOC_SIZE(most);
  CPU_ZERO_S(size, set);
  CPU_SET_S(static_cast<std::size_t>(processor), size, set);
  if (const int code = pthread_setaffinity_np(pthread_self(), size, set))
    throw std::system_error(code, std::generic_category(), "pthread_setaffinity_np");
}

}  // namespace

std::size_t usable_processors() { return std::max<std::size_t>(processors().size(), 1); }

// A thread's, for others to stop it.
struct __attribute__((visibility("hidden"))) worker::state {
  std::atomic<bool> requested{false};
  remote reach;                   // under the threads' lock; set when the thread has a hub, until its function returns
  std::function<void()> on_stop;  // the thread's own, as what follows
  bool told = false;

  // In the thread, in a greenlet of its own.
  void tell() {
    if (std::exchange(told, true)) return;
    if (on_stop)
      on_stop();
    else
      hub::cancel(main_greenlet());
  }
};

struct __attribute__((visibility("hidden"))) threads::state {
  std::mutex lock;
  std::size_t left = 0;
  std::exception_ptr first;
  bool asked = false;     // join() has told `first`
  bool stopping = false;
  std::vector<std::shared_ptr<worker::state>> workers;
  std::mutex reaping;
  std::vector<std::thread> all;
  int over;               // an eventfd, to be read when none is left: that takes no memory to tell

  state() : over(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) { detail::check(over, "eventfd"); }
  state(const state&) = delete;
  state& operator=(const state&) = delete;
  ~state() { ::close(over); }

  // Those that have no hub yet will find `stopping`.
  void stop() {
    const std::lock_guard guard(lock);
    stopping = true;
    for (const auto& each : workers) {
      each->requested = true;
      each->reach.post([each] { each->tell(); });
    }
  }

  void failed(std::exception_ptr e) noexcept {
    {
      const std::lock_guard guard(lock);
      if (first) return report_unraisable({}, std::move(e));
      first = std::move(e);
    }
    try {
      stop();
    } catch (const std::bad_alloc&) {
      // Some are not told: they go on, and join() waits for them.
    }
  }

  void begin(const std::shared_ptr<worker::state>& w) {
    remote reach = this_hub();
    const std::lock_guard guard(lock);
    w->reach = std::move(reach);
    if (!stopping) return;
    w->requested = true;
    w->reach.post([w] { w->tell(); });
  }

  // Those left; the others have nothing to do any more but to return.
  bool has_ended() {
    const std::lock_guard guard(lock);
    return left == 0;
  }
  void end(std::size_t how_many) noexcept {
    const std::lock_guard guard(lock);
    left -= how_many;
    if (left == 0) eventfd_write(over, 1);
  }
  void reap() {
    const std::lock_guard guard(reaping);
    for (std::thread& each : all)
      if (each.joinable()) each.join();
  }

  template <class F>
  void guarded(F f) {
    try {
      f();
    } catch (const greenlet_exit&) {
      // It was stopped.
    } catch (...) {
      std::exception_ptr e = std::current_exception();
      if (!e) throw;  // a forced unwind
      failed(std::move(e));
    }
  }

  // What a thread does. Whatever ends it, it counts as ended.
  void work(const std::function<void(worker&)>& f, std::size_t index, int processor) {
    struct ender {
      state& s;
      ~ender() { s.end(1); }
    } at_any_exit{*this};
    const auto w = workers[index];
    guarded([&] {
      if (processor >= 0) pin_to(processor);
      begin(w);
      worker self(w, index);
      f(self);
    });
    w->told = true;  // what on_stop refers to has gone
    w->on_stop = nullptr;
    {
      const std::lock_guard guard(lock);
      w->reach = {};
    }
    guarded([] { hub::shutdown(); });
  }
};

void worker::on_stop(std::function<void()> f) { state_->on_stop = std::move(f); }

bool worker::stop_requested() const noexcept { return state_->requested; }

threads::threads(std::size_t count, std::function<void(worker&)> f, const options& how) {
  if (!f) throw std::invalid_argument("greenlets::hub::threads: there is no function to call");
  const std::vector<int> where = count == 0 || how.pin ? processors() : std::vector<int>();
  if (count == 0) count = std::max<std::size_t>(where.size(), 1);
  state_ = std::make_shared<state>();
  state& s = *state_;
  s.all.reserve(count);
  for (std::size_t n = 0; n < count; ++n) s.workers.push_back(std::make_shared<worker::state>());
  s.left = count;
  const auto run = std::make_shared<const std::function<void(worker&)>>(std::move(f));
  try {
    for (std::size_t n = 0; n < count; ++n) {
      const int processor = how.pin && !where.empty() ? where[n % where.size()] : -1;
      s.all.emplace_back([kept = state_, run, n, processor] { kept->work(*run, n, processor); });
    }
  } catch (...) {
    s.end(count - s.all.size());
    s.stop();
    s.reap();
    throw;
  }
}

threads::~threads() {
  // Who is thrown out of the wait stays in a destructor, into which the hub throws no more, and for which its end waits.
  struct staying {
    state& s;
    bool told = false, over = false;
    void wait() {
      while (!over && !s.has_ended()) {
        try {
          if (!told) s.stop();
          told = true;
          over = hub::wait(s.over, direction::readable).closed();  // our hub has gone: then without it
        } catch (const std::bad_alloc&) {
          over = told;  // the same
        } catch (const std::system_error&) {
          over = true;  // the same: no descriptor to wait on
        }
      }
      over = true;
    }
    ~staying() {
      while (!over) {
        try {
          wait();
        } catch (...) {
          // Not the hub's: somebody throws without asking it, and we are on our way already.
        }
      }
    }
  };
  std::exception_ptr meanwhile;
  try {
    staying here{*state_};
    here.wait();
  } catch (...) {
    meanwhile = std::current_exception();
  }
  state_->reap();
  if (state_->first && !state_->asked) report_unraisable({}, state_->first);
  if (meanwhile) hub::cancel(current(), std::move(meanwhile));
}

std::size_t threads::size() const noexcept { return state_->workers.size(); }

void threads::stop() { state_->stop(); }

bool threads::join(deadline until) {
  const auto kept = state_;
  if (!kept->has_ended()) hub::wait(kept->over, direction::readable, until);
  if (!kept->has_ended()) return false;
  kept->reap();
  kept->asked = true;
  if (kept->first) std::rethrow_exception(kept->first);
  return true;
}

}  // namespace greenlets::hub
