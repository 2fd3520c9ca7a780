// SPDX-License-Identifier: MIT
// fork(): the child goes on in the greenlet that called it; other threads' greenlets are dead there.
#include "testing.hpp"

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <random>
#include <stdexcept>
#include <string>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <utility>
#include <vector>

using namespace greenlets;
using testing::error_of;
using testing::events;
using testing::in_child;
using testing::noting;

namespace {

#define EXPECT(...)                                                    \
  do {                                                                 \
    if (!(__VA_ARGS__)) throw std::runtime_error("not so: " #__VA_ARGS__); \
  } while (false)

// ThreadSanitizer ignores the synchronisation of whoever forks a process of several threads, and takes a
// greenlet for a thread: what it reports in such a child means nothing, and must not become its status.
[[noreturn]] void end_child(int status) {
#ifdef T_TSAN
  syscall(SYS_exit_group, status);
#endif
  _exit(status);
}

// in_child(), which must end with 0; a child that does not come back is ended by its own alarm.
void works_in_child(const std::function<void()>& f) {
  const testing::child result = in_child([&] {
    alarm(60);
    try {
      f();
    } catch (const std::exception& e) {
      const std::string what = std::string(e.what()) + "\n";
      end_child(write(2, what.data(), what.size()) < 0 ? 3 : 2);
    }
    end_child(0);
  });
  INFO(result.output);
  CHECK(result.status == 0);
}

// A thread with greenlets of every kind, that lives until the end of the scope.
struct foreign {
  greenlet main, suspended, unstarted, finished;
  foreign() {
    std::unique_lock lock(mutex_);
    thread_ = std::thread([this] {
      main = main_greenlet();
      suspended = greenlet([] { switch_to_parent(); });
      suspended.switch_to();
      unstarted = greenlet([] { return 1; });
      finished = greenlet([] {});
      finished.switch_to();
      std::unique_lock inside(mutex_);
      ready_ = true;
      turn_.notify_all();
      turn_.wait(inside, [this] { return over_; });
    });
    turn_.wait(lock, [this] { return ready_; });
  }
  foreign(const foreign&) = delete;
  foreign& operator=(const foreign&) = delete;
  ~foreign() {
    {
      const std::lock_guard lock(mutex_);
      over_ = true;
    }
    turn_.notify_all();
    thread_.join();
  }

 private:
  std::mutex mutex_;
  std::condition_variable turn_;
  bool ready_ = false, over_ = false;
  std::thread thread_;
};

}  // namespace

TEST_CASE("201: fork in a greenlet: the child goes on in it, and its tree works") {
  greenlet outer, inner;
  const pid_t parent = getpid();
  outer = greenlet([&] {
    inner = greenlet([&] {
      const pid_t pid = fork();
      return switch_to_parent(pid).get<int>() + 1;
    });
    const pid_t pid = inner.switch_to().get<pid_t>();
    switch_to_parent(pid);
    return inner.switch_to(41).get<int>();
  });
  const pid_t pid = outer.switch_to().get<pid_t>();
  const bool right = outer.switch_to().get<int>() == 42 && outer.dead() && inner.dead();
  if (getpid() != parent) end_child(right ? 0 : 1);
  CHECK(right);
  int status = -1;
  REQUIRE(waitpid(pid, &status, 0) == pid);
  CHECK(status == 0);
}

TEST_CASE("201: the child finishes, kills, starts threads of its own, and names itself in errors") {
  events log;
  greenlet mine([&] {
    noting n{log, "mine"};
    switch_to_parent();
  });
  mine.switch_to();
  works_in_child([&] {
    mine = greenlet();
    EXPECT(log == events{"~mine"});
    EXPECT(greenlet([] { return 7; }).switch_to().get<int>() == 7);
    greenlet here = main_greenlet();
#ifndef T_TSAN  // starts no thread after a fork of a process with several
    std::thread([&] {
      std::string what;
      EXPECT(error_of([&] { here.switch_to(); }, &what) == errc::different_thread);
      EXPECT(what.find("thread " + std::to_string(getpid())) != std::string::npos);  // its first thread's number
      greenlet([] {}).switch_to();
    }).join();
#endif
    EXPECT(counts().threads == 1);
  });
  CHECK(log.empty());
  CHECK(mine);
}

TEST_CASE("202: other threads' greenlets are dead in the child, and alive in the parent") {
  foreign other;
  greenlet child_of_theirs([] { return 2; }, other.main);
  works_in_child([&] {
    EXPECT(other.main.dead() && other.suspended.dead() && other.finished.dead());
    EXPECT(!other.unstarted.dead());
    EXPECT(!other.main && !other.suspended);
    EXPECT(other.main.state() == greenlet_state::unwound);
    EXPECT(other.suspended.state() == greenlet_state::unwound);
    EXPECT(other.finished.state() == greenlet_state::finished);
    EXPECT(other.suspended.parent() == other.main);
    EXPECT(other.main.parent().empty());
    EXPECT(error_of([&] { other.main.switch_to(); }) == errc::collected);
    for (const greenlet& g : {other.suspended, other.finished, other.unstarted, child_of_theirs}) {
      EXPECT(error_of([&] { g.switch_to(); }) == errc::thread_exited);
      EXPECT(error_of([&] { g.throw_in(); }) == errc::thread_exited);
    }
    EXPECT(error_of([&] { other.suspended.set_parent(current()); }) == errc::parent_thread);
    greenlet started([] { switch_to_parent(); });
    started.switch_to();
    EXPECT(error_of([&] { started.set_parent(other.suspended); }) == errc::parent_thread);
    // What never ran can be taken over.
    other.unstarted.set_parent(main_greenlet());
    EXPECT(other.unstarted.switch_to().get<int>() == 1);
    // Handles can be dropped; nothing of theirs is unwound, nobody waits.
    weak_greenlet weak(other.suspended);
    other.suspended = greenlet();
    EXPECT(weak.expired());
    other.main = other.finished = other.unstarted = greenlet();
    child_of_theirs = greenlet();
  });
  CHECK(other.main);
  CHECK(other.suspended);
  CHECK(!other.suspended.dead());
}

TEST_CASE("202: in a thread that is not the first: the child has that one") {
  greenlet first = main_greenlet();
  std::thread([&] {
    greenlet g([&] {
      works_in_child([&] {
        EXPECT(first.dead());
        EXPECT(error_of([&] { first.switch_to(); }) == errc::collected);
        EXPECT(current());
        EXPECT(!current().is_main());
        EXPECT(main_greenlet());
        greenlet([] {}).switch_to();
      });
    });
    g.switch_to();
  }).join();
  CHECK(first);
}

TEST_CASE("202: a thread that uses no greenlets forks: all are dead in the child, which begins anew") {
  greenlet first = main_greenlet();
  greenlet mine([] { switch_to_parent(); });
  mine.switch_to();
  std::thread([&] {
    works_in_child([&] {
      EXPECT(first.dead() && mine.dead());
      EXPECT(counts().threads == 0);
      EXPECT(greenlet([] { return 3; }).switch_to().get<int>() == 3);
      EXPECT(counts().threads == 1);
    });
  }).join();
  mine.switch_to();
}

TEST_CASE("200: the child's exit, with what it has, is clean; and children of children") {
  foreign other;
  greenlet mine([] { switch_to_parent(); });
  mine.switch_to();
  works_in_child([&] {
    works_in_child([&] {
      EXPECT(other.suspended.dead());
      EXPECT(mine);
      mine.switch_to();
      EXPECT(mine.dead());
    });
    unwind_thread();
    EXPECT(mine.dead());
  });
}

TEST_CASE("200: tracers go along") {
  int calls = 0;
  settrace([&](trace_event, const greenlet&, const greenlet&) { ++calls; });
  settrace_all_threads([&](trace_event, const greenlet&, const greenlet&) { calls += 10; });
  works_in_child([&] {
    greenlet([] {}).switch_to();
    EXPECT(calls == 22);
    settrace(nullptr);
    settrace_all_threads(nullptr);
    greenlet([] {}).switch_to();
    EXPECT(calls == 22);
  });
  settrace_all_threads(nullptr);
  settrace(nullptr);
}

// Threads that do everything that takes a lock, without pause, while this one forks.
TEST_CASE("200, 202, B46: a thousand forks while other threads switch, make, drop, name, ask and exit") {
  std::atomic<bool> stop{false};
  std::mutex exchange;
  greenlet shared[8];
  for (greenlet& g : shared) g = greenlet([] { switch_to_parent(); });

  static context_var<int> number("number", 0);
  number.set(1);
  const context ours = current().get_context();  // one map for all threads

  const auto busy = [&](unsigned seed) {
    std::mt19937 random(seed);
    main_greenlet().set_context(ours);
    while (!stop) {
      number.set(static_cast<int>(seed));
      greenlet a([](int n) {
        for (;;) n = switch_to_parent(n + 1).get<int>();
      });
      a.switch_to(1);
      a.set_name("busy");
      settrace_all_threads(nullptr);
      const auto before = set_unraisable_handler(nullptr);
      greenlet b([] {});
      b.set_parent(a);
      {
        // Handed round: a greenlet's last handle often goes on another thread than its own.
        const std::lock_guard lock(exchange);
        greenlet& slot = shared[random() % 8];
        (void)slot.name();
        (void)slot.parent();
        std::swap(slot, a);
      }
      current();
      if (random() % 16 == 0) std::thread([] { greenlet([] {}).switch_to(); }).join();
    }
  };
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < 3; ++i) threads.emplace_back(busy, i);

#ifdef T_TSAN
  const int forks = 30;
#else
  const int forks = static_cast<int>(testing::times(1000));
#endif
  greenlet forker([&] {
    greenlet mine([] {
      for (int n = 0;;) n = switch_to_parent(n).get<int>();
    });
    mine.switch_to();
    for (int i = 0; i < forks; ++i) {
      const pid_t pid = fork();
      if (pid == 0) {
        alarm(60);
        // Not the user's mutex: another thread may hold it, and that is the user's business.
        bool right = mine.switch_to(i).get<int>() == i;
        for (greenlet& g : shared) {
          // Half exchanged, perhaps, for the user's lock was not ours.
          (void)g.dead();
        }
        greenlet a([](int n) { return n; });
        a.set_name("child");
        right = right && a.name() == "child" && a.switch_to(3).get<int>() == 3;
        a.set_parent(mine);
        main_greenlet().set_context(ours);
        number.set(-1);
        right = right && number.get() == -1 && ours == main_greenlet().get_context();
        settrace_all_threads(nullptr);
        set_unraisable_handler(nullptr);
        right = right && counts().threads == 1;
        mine = greenlet();
        end_child(right ? 0 : 1);
      }
      REQUIRE(pid > 0);
      int status = -1;
      REQUIRE(waitpid(pid, &status, 0) == pid);
      if (status != 0) {
        CHECK(status == 0);
        return;
      }
    }
  });
  forker.switch_to();
  stop = true;
  for (std::thread& t : threads) t.join();
  for (greenlet& g : shared) g = greenlet();
}
