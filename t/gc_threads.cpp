// SPDX-License-Identifier: MIT
// Whose thread unwinds what is found, and threads that come and go while there is a collection.
#include "gc_testing.hpp"

#include <dlfcn.h>
#include <mutex>
#include <pthread.h>
#include <thread>

using namespace gc_testing;
using namespace gc_testing::on_a_stack;

namespace {

const enabling on;

// What to do when the thread has made its record, and does not have it yet; and when it has it no more.
thread_local void (*between)() = nullptr;

std::atomic<int> by_collector{0};

__attribute__((noinline)) void leave_cycles(int n) {
  for (int i = 0; i < n; ++i) {
    greenlet g([] {
      const greenlet self = current();
      const looks here;
      try {
        switch_to_parent();
      } catch (const greenlet_exit& e) {
        if (e.why == greenlet_exit::reason::collected) ++by_collector;
        throw;
      }
    });
    g.switch_to();
  }
}

void start() {
  collect_twice();
  destroyed = damaged = elsewhere = by_collector = 0;
}

}  // namespace

#ifndef T_TSAN  // whose runtime calls it before it is ready for ours
// The library calls it at both moments.
extern "C" int pthread_setspecific(pthread_key_t key, const void* data) noexcept {
  static const auto real = reinterpret_cast<int (*)(pthread_key_t, const void*)>(dlsym(RTLD_NEXT, "pthread_setspecific"));
  if (const auto f = std::exchange(between, nullptr)) {
    f();
    between = f;
  }
  return real(key, data);
}
#endif

TEST_CASE("123: what is found is unwound by its own thread, at its next entry, and not in the collector") {
  start();
  std::atomic<int> step{0};
  std::thread owner([&] {
    leave_cycles(20);
    wipe_stack();
    step = 1;
    while (step < 2) let_others_run();
    current();
    step = 3;
    while (step < 4) let_others_run();
  });
  while (step < 1) let_others_run();
  const gc::collection c = collect_twice();
  CHECK(c.found >= 19);
  CHECK(c.unwound == 0);
  CHECK(destroyed == 0);
  for (int i = 0; i < 10; ++i) gc::collect();  // once found, they wait
  CHECK(destroyed == 0);
  step = 2;
  while (step < 3) let_others_run();
  CHECK(destroyed >= 19);
  CHECK(by_collector >= 19);
  step = 4;
  owner.join();
  CHECK(destroyed == 20);
  CHECK(elsewhere == 0);
  CHECK(damaged == 0);
}

TEST_CASE("a thread that ends unwinds what was found of it first, as collected, and the rest after that") {
  start();
  std::atomic<int> step{0};
  std::thread owner([&] {
    leave_cycles(20);
    wipe_stack();
    step = 1;
    while (step < 2) let_others_run();
    leave_cycles(5);
  });
  while (step < 1) let_others_run();
  const std::size_t found = collect_twice().found;
  step = 2;
  owner.join();
  CHECK(destroyed == 25);
  CHECK(static_cast<std::size_t>(by_collector) >= found);
  CHECK(elsewhere == 0);
  CHECK(damaged == 0);
}

TEST_CASE("threads are registered at their first use however they are made, with every signal blocked too") {
  start();
  const auto use = [](void*) -> void* {
    leave_cycles(3);
    wipe_stack();
    gc::collect();
    return GC_thread_is_registered() ? nullptr : reinterpret_cast<void*>(1);
  };
  pthread_t id;
  REQUIRE(pthread_create(&id, nullptr, use, nullptr) == 0);
  void* result;
  pthread_join(id, &result);
  CHECK(result == nullptr);
  REQUIRE(GC_pthread_create(&id, nullptr, use, nullptr) == 0);
  GC_pthread_join(id, &result);
  CHECK(result == nullptr);
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  REQUIRE(pthread_create(&id, nullptr, use, nullptr) == 0);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  pthread_join(id, &result);
  CHECK(result == nullptr);
  CHECK(destroyed == 9);
  CHECK(elsewhere == 0);
  CHECK(damaged == 0);
  collect_twice();
}

TEST_CASE("pthread_exit in a greenlet, and a thread that has unwound itself before, end as without a collector" *
          doctest::skip(under_tsan)) {
  start();
  std::thread([] {
    leave_cycles(2);
    greenlet g([] {
      const looks here;
      gc::collect();
      pthread_exit(nullptr);
    });
    g.switch_to();
  }).join();
  CHECK(destroyed == 3);
  std::thread([] {
    leave_cycles(2);
    unwind_thread();
    gc::collect();
    leave_cycles(2);
    greenlet g([] {
      leave_cycles(1);
      const looks here;
      unwind_thread();
      witness* volatile kept = make_witness();
      leave_cycles(1);
      greenlet other([] {
        gc::collect();
        use_free_memory();
        switch_to_parent();
      });
      other.switch_to();
      gc::collect();
      CHECK(kept->intact());
    });
    g.switch_to();
    gc::collect();
  }).join();
  CHECK(destroyed == 3 + 2 + 2 + 3);
  CHECK(elsewhere == 0);
  CHECK(damaged == 0);
}

// A thread's first greenlet was its own parent, and its first switch looked for the end of that for ever: its main
// greenlet had been freed, and the memory used again.
TEST_CASE("a collection while a thread comes to have its main greenlet, or loses it, does not take that" *
          doctest::skip(under_tsan)) {
  start();
  static std::atomic<int> times;
  times = 0;
  std::thread([] {
    between = [] {
      ++times;
      wipe_stack();
      GC_gcollect();
      use_free_memory();
    };
    const greenlet first([] { switch_to_parent(); });
    CHECK(first.parent() == main_greenlet());
    CHECK(first.parent() != first);
    first.switch_to();
    first.switch_to();
    CHECK(first.dead());
    unwind_thread();
    between = nullptr;
  }).join();
  CHECK(times >= 3);
  collect_twice();
}

// The main greenlet's record and what lay on the thread's own stack were freed.
TEST_CASE("a greenlet that has unwound its thread, and uses the library no more, goes back to a thread that is intact") {
  start();
  std::thread([] {
    witness* volatile here = make_witness();
    greenlet g([] {
      witness* volatile kept = make_witness();
      unwind_thread();
      wipe_stack();
      for (int i = 0; i < 3; ++i) {
        GC_gcollect();
        gc_testing::use_free_memory();
      }
      if (!kept->intact()) ++damaged;
    });
    g.switch_to();
    if (!here->intact()) ++damaged;
  }).join();
  CHECK(damaged == 0);
  collect_twice();
}

TEST_CASE("a weak handle that another thread locks at any moment, collections included, gives a whole greenlet or none" *
          doctest::skip(under_tsan)) {
  start();
  const int n = std::getenv("GREENLET_TEST_GC_SECONDS") ? 100000 : 200;
  std::mutex lock;
  weak_greenlet latest;
  std::atomic<bool> over{false};
  std::atomic<int> locked{0};
  std::thread collecting([&] {
    current();
    while (!over) {
      gc::collect();
      use_free_memory();
    }
  });
  std::thread locking([&] {
    current();
    while (!over) {
      weak_greenlet weak;
      {
        const std::lock_guard guard(lock);
        weak = latest;
      }
      const greenlet strong = weak.lock();
      if (strong.empty()) continue;
      ++locked;
      if (strong.name() != "in a cycle") ++damaged;
    }
  });
  std::thread owner([&] {
    for (int i = 0; i < n; ++i) {
      far_below([&] {
        greenlet g(attributes().name("in a cycle"), [] {
          const greenlet self = current();
          const looks here;
          switch_to_parent();
        });
        g.switch_to();
        const std::lock_guard guard(lock);
        latest = g;
      });
      for (const int seen = locked; seen == locked && i < 10;) let_others_run();
      current();
    }
  });
  owner.join();
  over = true;
  locking.join();
  collecting.join();
  CHECK(locked >= 10);
  CHECK(destroyed == n);
  CHECK(elsewhere == 0);
  CHECK(damaged == 0);
}

namespace {

// In a thread's last moments: after the library has gone from it, and again in each round of the keys.
void use_at_the_end(int cycles) {
  leave_cycles(cycles);
  witness* volatile here = make_witness();
  greenlet g([] { switch_to_parent(make_witness()); });
  witness* const there = g.switch_to().get<witness*>();
  gc::collect();
  use_free_memory();
  if (!here->intact() || !there->intact()) ++damaged;
}

struct uses_at_the_end {
  ~uses_at_the_end() { use_at_the_end(2); }
};

}  // namespace

TEST_CASE("destructors of thread-local objects and of keys may use greenlets and collect, in any order") {
  start();
  static pthread_key_t early, late;
  const auto again = [](void* rounds) {
    use_at_the_end(1);
    const auto left = reinterpret_cast<std::intptr_t>(rounds) - 1;
    if (left > 0) pthread_setspecific(late, reinterpret_cast<void*>(left));
  };
  REQUIRE(pthread_key_create(&early, [](void*) { use_at_the_end(1); }) == 0);
  REQUIRE(pthread_key_create(&late, again) == 0);
  for (const bool library_first : {true, false}) {
    std::thread([library_first] {
      if (library_first) current();
      thread_local uses_at_the_end object;
      static_cast<void>(&object);
      pthread_setspecific(early, &early);
      pthread_setspecific(late, reinterpret_cast<void*>(2));
      leave_cycles(1);
    }).join();
  }
  pthread_key_delete(early);
  pthread_key_delete(late);
  CHECK(destroyed == 2 * (1 + 2 + 1 + 2));
  CHECK(elsewhere == 0);
  CHECK(damaged == 0);
}
