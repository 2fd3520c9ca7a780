// SPDX-License-Identifier: MIT
// What belongs to the thread and not to the greenlet, as <greenlet/greenlet.hpp> says: variables that
// are not on a stack, locks, and the signal that is being handled.
#include "testing.hpp"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <mutex>
#include <pthread.h>
#include <string>
#include <thread>
#include <vector>

using namespace greenlets;
using testing::events;

namespace {

// Three ways to count one's own calls, of which one is re-entrant.
struct counters {
  int in_static, in_thread_local, on_stack;
};
counters three_turns() {
  static int in_static;
  static thread_local int in_thread_local;
  int on_stack = 0;
  in_static = in_thread_local = 0;
  for (int turn = 0; turn < 3; ++turn) {
    ++in_static;
    ++in_thread_local;
    ++on_stack;
    switch_to_parent();
  }
  return {in_static, in_thread_local, on_stack};
}

// One that says whose it is.
class checked_mutex {
 public:
  checked_mutex() {
    pthread_mutexattr_t kind;
    pthread_mutexattr_init(&kind);
    pthread_mutexattr_settype(&kind, PTHREAD_MUTEX_ERRORCHECK);
    pthread_mutex_init(&mutex_, &kind);
    pthread_mutexattr_destroy(&kind);
  }
  checked_mutex(const checked_mutex&) = delete;
  checked_mutex& operator=(const checked_mutex&) = delete;
  ~checked_mutex() { pthread_mutex_destroy(&mutex_); }
  int lock() { return pthread_mutex_lock(&mutex_); }
  int try_lock() { return pthread_mutex_trylock(&mutex_); }
  int unlock() { return pthread_mutex_unlock(&mutex_); }

 private:
  pthread_mutex_t mutex_;
};

[[maybe_unused]] bool blocked(int signal) {
  sigset_t now;
  pthread_sigmask(SIG_SETMASK, nullptr, &now);
  return sigismember(&now, signal) == 1;
}

}  // namespace

TEST_CASE("217: static and thread_local variables are shared by greenlets that are in one function; a stack is not") {
  const greenlet a(&three_turns), b(&three_turns);
  // b begins in the middle of a.
  a.switch_to();
  a.switch_to();
  for (int i = 0; i < 3; ++i) b.switch_to();
  a.switch_to();
  const auto of_a = a.switch_to().get<counters>(), of_b = b.switch_to().get<counters>();
  CHECK(of_a.on_stack == 3);
  CHECK(of_b.on_stack == 3);
  CHECK(of_a.in_static == 4);  // set back by b, which counted to 3, and then counted once more
  CHECK(of_a.in_thread_local == 4);
  CHECK(of_b.in_static == 4);
  // On threads of their own they share the static one alone; nobody is in the function meanwhile.
  std::thread([] {
    const greenlet c(&three_turns);
    for (int i = 0; i < 3; ++i) c.switch_to();
    CHECK(c.switch_to().get<counters>().in_thread_local == 3);
  }).join();
}

TEST_CASE("218, B42: a switch out of a signal handler leaves it pending and its signal blocked, until somebody goes back") {
  // TSan keeps its own account of handlers, by thread.
#ifndef T_TSAN
  static events log;
  log.clear();
  struct sigaction act = {}, before = {};
  act.sa_handler = [](int) {
    log.push_back("handler");
    switch_to_parent();
    log.push_back("handler goes on");
  };
  REQUIRE(sigaction(SIGUSR1, &act, &before) == 0);
  {
    // Raised by itself, where the library is not at work. What comes from outside may find it there.
    const greenlet g([] {
      raise(SIGUSR1);
      log.push_back("after");
      CHECK_FALSE(blocked(SIGUSR1));
    });
    CHECK_FALSE(blocked(SIGUSR1));
    g.switch_to();
    CHECK(log == events{"handler"});
    CHECK(g.state() == greenlet_state::suspended);
    CHECK(blocked(SIGUSR1));  // the mask is the thread's
    raise(SIGUSR1);           // pending, for as long as nobody goes back
    greenlet([] { CHECK(blocked(SIGUSR1)); }).switch_to();
    CHECK(log == events{"handler"});
    // The handler returns; the kernel delivers the second, which leaves as the first did.
    g.switch_to();
    CHECK(log == events{"handler", "handler goes on", "handler"});
    CHECK(blocked(SIGUSR1));
    g.switch_to();
    CHECK(g.dead());
    CHECK_FALSE(blocked(SIGUSR1));
  }
  CHECK(log == events{"handler", "handler goes on", "handler", "handler goes on", "after"});
  REQUIRE(sigaction(SIGUSR1, &before, nullptr) == 0);
#endif
}

TEST_CASE("219: a lock held over a switch is the thread's: others of its greenlets are taken for its owner") {
  // To TSan each greenlet is a thread of its own, which is just what it is not here.
#ifndef T_TSAN
  checked_mutex mutex;
  const greenlet holder([&] {
    CHECK(mutex.lock() == 0);
    switch_to_parent();
    CHECK(mutex.unlock() == EPERM);  // who unlocked it was taken for us
  });
  holder.switch_to();
  // A plain std::mutex would wait for ever here: for itself.
  CHECK(mutex.lock() == EDEADLK);
  greenlet([&] { CHECK(mutex.lock() == EDEADLK); }).switch_to();
  std::thread([&] {
    CHECK(mutex.try_lock() == EBUSY);
    CHECK(mutex.unlock() == EPERM);
  }).join();
  CHECK(mutex.unlock() == 0);  // although another greenlet locked it
  holder.switch_to();
  CHECK(holder.dead());
  CHECK(mutex.try_lock() == 0);
  CHECK(mutex.unlock() == 0);
#endif
}

TEST_CASE("219: a recursive lock keeps no greenlet of its thread out") {
#ifndef T_TSAN  // as above
  std::recursive_mutex mutex;
  int inside = 0, most = 0;
  const auto enter = [&] {
    const std::lock_guard lock(mutex);
    most = std::max(most, ++inside);
    switch_to_parent();
    --inside;
  };
  const greenlet a(enter), b(enter);
  a.switch_to();
  b.switch_to();
  CHECK(most == 2);  // two at once in what was to be for one
  std::thread([&] { CHECK_FALSE(mutex.try_lock()); }).join();
  a.switch_to();  // not the order in which they came: the lock only counts
  std::thread([&] { CHECK_FALSE(mutex.try_lock()); }).join();
  b.switch_to();
  std::thread([&] {
    CHECK(mutex.try_lock());
    mutex.unlock();
  }).join();
#endif
}

TEST_CASE("219, B8: guards of different locks, held over switches and released in any order, release their own") {
  constexpr std::size_t n = 20;
  std::vector<std::mutex> locks(n);
  std::vector<greenlet> all;
  for (std::size_t i = 0; i < n; ++i)
    all.emplace_back([&, i] {
      const std::unique_lock first(locks[i]);
      switch_to_parent();
      if (i % 3 == 0) throw static_cast<int>(i);
      switch_to_parent();
    });
  const auto held = [&] {
    std::size_t count = 0;
    std::thread([&] {  // from another thread, for whom they are somebody else's
      for (std::mutex& each : locks)
        if (each.try_lock())
          each.unlock();
        else
          ++count;
    }).join();
    return count;
  };
  for (const greenlet& g : all) g.switch_to();
  CHECK(held() == n);
  for (std::size_t k = 0; k < n; ++k) {
    const std::size_t i = k * 7 % n;
    if (i % 3 == 0)
      CHECK_THROWS_AS(all[i].switch_to(), int);
    else
      all[i] = greenlet();  // unwound while it holds its own
    CHECK(held() == n - 1 - k);
  }
}
