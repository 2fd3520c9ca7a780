// SPDX-License-Identifier: MIT
// Life and death where it went wrong elsewhere: deaths that interleave, locks held over them, greenlets
// that save themselves from other threads, and memory that must not grow.
#include "testing.hpp"

#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

using namespace greenlets;
using testing::child;
using testing::events;
using testing::noting;
using testing::unraisables;

namespace {

}  // namespace

namespace {

// Two chains of greenlets, each of which holds the next. The death of a link goes over to where the
// other chain's dying has come to, before and after it drops the next.
struct crossed {
  greenlet at[2];  // where each side was left
  int crossings = 0, destroyed = 0;

  void cross(int side) {
    at[side] = current();
    if (at[1 - side]) {
      ++crossings;
      at[1 - side].switch_to();
    }
    at[side] = greenlet();
  }
  greenlet link(int side, greenlet next) {
    greenlet made([this, side, n = std::move(next)]() mutable {
      struct dying {
        crossed& c;
        int side;
        greenlet& next;
        ~dying() {
          c.cross(side);
          next = greenlet();
          c.cross(side);
          ++c.destroyed;
        }
      } const d{*this, side, n};
      switch_to_parent();
    });
    made.switch_to();
    return made;
  }
};

}  // namespace

TEST_CASE("118, B7: chains of deaths in two greenlets, left in the middle of every one for the other's") {
  // A count of the library's that belongs to the thread, where it should to a greenlet, would be wrong
  // at the first crossing.
  constexpr int depth = 150;
  const auto before = counts();
  {
    const unraisables told;
    crossed c;
    greenlet chains[2];
    for (int i = 0; i < depth; ++i)
      for (const int side : {0, 1}) chains[side] = c.link(side, std::move(chains[side]));
    greenlet left([&] {
      c.at[0] = current();
      switch_to_parent();
      chains[0] = greenlet();
    });
    greenlet right([&] { chains[1] = greenlet(); });
    left.switch_to();
    right.switch_to();
    for (greenlet& each : c.at)
      if (each) each.switch_to();
    CHECK(left.dead());
    CHECK(right.dead());
    CHECK(c.crossings >= 2 * depth);
    CHECK(c.destroyed == 2 * depth);
    CHECK(told.seen.empty());
  }
  CHECK(counts().greenlets == before.greenlets);
  trim_stacks();
  CHECK(counts().stacks == 0);
}

TEST_CASE("219, B8: guards of several mutexes, held over switches and let go in another order, by drops too") {
  events log;
  std::mutex a_lock, b_lock, c_lock;
  const auto holding = [&](std::mutex& m, const char* name) {
    return [&log, &m, name] {
      const std::lock_guard guard(m);
      log.push_back(std::string("+") + name);
      const noting n{log, name};
      switch_to_parent();
      switch_to_parent();
    };
  };
  greenlet a(holding(a_lock, "a")), b(holding(b_lock, "b")), c(holding(c_lock, "c"));
  a.switch_to();
  b.switch_to();
  c.switch_to();
  const auto held = [](std::mutex& m) {
    // Asked by another thread: ours owns them, whichever greenlet runs.
    bool taken = false;
    std::thread([&] {
      taken = !m.try_lock();
      if (!taken) m.unlock();
    }).join();
    return taken;
  };
  CHECK(held(a_lock));
  CHECK(held(b_lock));
  CHECK(held(c_lock));
  a.switch_to();
  a.switch_to();  // ends first
  CHECK_FALSE(held(a_lock));
  c = greenlet();  // is unwound
  CHECK(held(b_lock));
  CHECK_FALSE(held(c_lock));
  try {
    b.throw_in(std::runtime_error("ends it"));
  } catch (const std::runtime_error&) {
  }
  CHECK_FALSE(held(b_lock));
  CHECK(log == events{"+a", "+b", "+c", "~a", "~c", "~b"});
}

TEST_CASE("B9: no lock of the library is held while code of the user runs, wherever that is") {
  // Whoever waits for such a lock here waits for ever: so in a child, with an alarm.
  const child c = testing::in_child([] {
    alarm(60);
    static greenlet g;
    static int used = 0;
    // Takes every lock that there is: the body's, the lineage's, the handler's, the waker's.
    static const auto use_locks = [] {
      ++used;
      const greenlet b = g.empty() ? current() : g;  // it may be the handle that is being dropped
      (void)b.name();
      b.set_name("renamed");
      (void)b.parent();
      (void)b.has_run();
      set_unraisable_handler(set_unraisable_handler(nullptr));
      greenlet child([] {});
      child.set_parent(b.started() ? current() : b);
      detail::set_waker(nullptr, nullptr);
      std::thread([&b] {
        (void)b.name();
        (void)b.parent();
        (void)current();
      }).join();
    };
    const auto last = [] { return testing::at_end(use_locks); };
    int expected = 0;
    const auto reached = [&](int line) {
      if (used == expected) _exit(line % 100 + 100);
      expected = used;
    };
    // A callable that is replaced, and one that is destroyed unused, and by an exception.
    g = greenlet([l = last()] {});
    g.set_run([] {});
    reached(__LINE__);
    g = greenlet([l = last()] {});
    g = greenlet([] {});
    reached(__LINE__);
    g = greenlet([l = last()] {});
    try {
      g.throw_in(1);
    } catch (int) {
    }
    reached(__LINE__);
    // A parent that is replaced, and lost.
    g = greenlet([] {});
    g.set_parent(greenlet([l = last()] {}));
    g.set_parent(main_greenlet());
    reached(__LINE__);
    // Values: sent, refused, and returned to nobody.
    g = greenlet([](const value&) { switch_to_parent(); });
    g.switch_to(last());
    g.switch_to(last());
    reached(__LINE__);
    try {
      greenlet(attributes()).switch_to(last());
    } catch (const error&) {
    }
    reached(__LINE__);
    g = greenlet([l = last()]() mutable {
      try {
        switch_to_parent();
      } catch (const greenlet_exit&) {
      }
      return std::move(l);
    });
    g.switch_to();
    g = greenlet();
    reached(__LINE__);
    // The unraisable handler: called, replaced, and what it was told.
    g = greenlet([] {});
    set_unraisable_handler([l = last()](const greenlet&, const std::exception_ptr&) { use_locks(); });
    greenlet victim([] {
      try {
        switch_to_parent();
      } catch (const greenlet_exit&) {
        throw testing::at_end(use_locks);
      }
    });
    victim.switch_to();
    victim = greenlet();
    reached(__LINE__);
    set_unraisable_handler(nullptr);
    reached(__LINE__);
    // A thread's exit, and what was dropped for it elsewhere.
    std::promise<void> go, ready;
    static greenlet theirs, dropped;
    std::thread owner([&] {
      const auto suspend = [] {
        const auto l = testing::at_end(use_locks);
        switch_to_parent();
      };
      theirs = greenlet(suspend);
      dropped = greenlet(suspend);
      theirs.switch_to();
      dropped.switch_to();
      ready.set_value();
      go.get_future().wait();
    });
    ready.get_future().wait();
    dropped = greenlet();
    go.set_value();
    owner.join();
    reached(__LINE__);
    if (used < 12) _exit(99);
    _exit(7);
  });
  CHECK(WIFEXITED(c.status));
  CHECK(WEXITSTATUS(c.status) == 7);
}

TEST_CASE("129, 131, 132, B24: nothing is left whoever drops a thread's greenlets, when, and whatever else refers to them") {
  enum who { the_owner, others_before, others_after };
  for (const who dropper : {the_owner, others_before, others_after})
    for (const bool enters_again : {false, true})
      for (const bool named_on_stack : {false, true})
        for (const bool refers_to_main : {false, true}) {
          const auto before = counts();
          std::atomic<int> destroyed{0};
          std::atomic<bool> elsewhere{false};
          {
            const greenlet ours = refers_to_main ? current() : greenlet();
            std::vector<greenlet> kept;
            std::promise<void> ready, go;
            std::thread owner([&] {
              const auto id = std::this_thread::get_id();
              for (int i = 0; i < 5; ++i) {
                greenlet g([&, id, ours](const greenlet& self) {
                  const greenlet mine = named_on_stack ? self : greenlet();
                  const auto note = testing::at_end([&, id] {
                    ++destroyed;
                    if (std::this_thread::get_id() != id) elsewhere = true;
                  });
                  switch_to_parent();
                });
                g.switch_to(greenlet(g));
                kept.push_back(std::move(g));
              }
              if (dropper == the_owner) kept.clear();
              ready.set_value();
              go.get_future().wait();
              if (enters_again) current();
            });
            ready.get_future().wait();
            if (dropper == others_before) kept.clear();
            go.set_value();
            owner.join();
            CHECK(destroyed == 5);
            kept.clear();
          }
          CAPTURE(static_cast<int>(dropper));
          CAPTURE(enters_again);
          CAPTURE(named_on_stack);
          CHECK_FALSE(elsewhere);
          CHECK(counts().greenlets == before.greenlets);
          CHECK(counts().main_greenlets == before.main_greenlets);
          CHECK(counts().threads == before.threads);
          CHECK(counts().stacks == before.stacks);
        }
}

TEST_CASE("76, B26: a hundred thousand greenlets made, run and ended leave no memory; nor those killed, here or elsewhere") {
  constexpr int times = 100000;
  const auto flat = [](int n, const std::function<void()>& round) {
    for (int i = 0; i < n / 10; ++i) round();
    const auto before = counts();
    const long pages = testing::resident_pages();
    for (int i = 0; i < n; ++i) round();
    if (!testing::freed_memory_is_kept()) CHECK(testing::resident_pages() - pages <= 32);
    CHECK(counts().greenlets == before.greenlets);
    CHECK(counts().stacks == before.stacks);
  };
  flat(times, [] { greenlet([](int n) { return n; }).switch_to(1); });
  flat(times, [] { greenlet([] { switch_to_parent(); }).switch_to(); });
  // Each is dropped by another thread, which waits until we have unwound it.
  std::atomic<greenlet*> offered{nullptr};
  std::thread dropper([&offered] {
    for (;;) {
      greenlet* const g = offered.load(std::memory_order_acquire);
      if (!g) {
        std::this_thread::yield();
        continue;
      }
      if (g->empty()) return;
      *g = greenlet();
      offered.store(nullptr, std::memory_order_release);
    }
  });
  flat(times / 50, [&offered] {
    greenlet g([] { switch_to_parent(); });
    g.switch_to();
    offered.store(&g, std::memory_order_release);
    while (offered.load(std::memory_order_acquire)) std::this_thread::yield();
    current();
  });
  greenlet none;
  offered = &none;
  dropper.join();
}

namespace {

// A callable of a class with a base, and one without: what saves itself does not depend on it.
struct base {
  std::vector<greenlet>* saved;
  std::mutex* lock;
  std::atomic<int>* destroyed;
  virtual ~base() { ++*destroyed; }
  base(std::vector<greenlet>* s, std::mutex* l, std::atomic<int>* d) : saved(s), lock(l), destroyed(d) {}
  base(base&& o) noexcept : saved(o.saved), lock(o.lock), destroyed(o.destroyed) { --*destroyed; }
  virtual void wait() const { switch_to_parent(); }
  void operator()() const {
    for (int lives = 0; lives < 3; ++lives) {
      try {
        wait();
      } catch (const greenlet_exit&) {
        greenlet me = current();  // not under the lock: it may unwind others, who come here too
        const std::lock_guard guard(*lock);
        saved->push_back(std::move(me));  // and switches away, alive
      }
    }
  }
};

struct derived : base {
  using base::base;
  std::string more = "more than its base";
  void wait() const override { greenlet([] {}).switch_to(), switch_to_parent(); }
};

}  // namespace

TEST_CASE("121, 199, B28: greenlets that save themselves when they are dropped by other threads die once, at the end") {
  const auto before = counts();
  std::atomic<int> destroyed{0};
  std::mutex lock;
  std::vector<greenlet> saved;
  constexpr int threads_n = 8, each = 25;
  // One that is let go by another thread before its owner has looked counts as not saved, and is told of.
  const unraisable_handler ignored = set_unraisable_handler([](const greenlet&, const std::exception_ptr&) {});
  std::vector<std::thread> threads;
  for (int n = 0; n < threads_n; ++n)
    threads.emplace_back([&, n] {
      std::vector<greenlet> mine;
      for (int i = 0; i < each; ++i) {
        if ((n + i) % 2) mine.emplace_back(base(&saved, &lock, &destroyed));
        else mine.emplace_back(derived(&saved, &lock, &destroyed));
        mine.back().switch_to();
        // Somebody's, perhaps another thread's, is dropped again; its owner unwinds it when it comes by.
        std::vector<greenlet> taken;
        {
          const std::lock_guard guard(lock);
          taken.swap(saved);
        }
        taken.clear();
        current();
        if (i % 3 == 0) mine.erase(mine.begin());
      }
      const std::lock_guard guard(lock);
      for (greenlet& g : mine) saved.push_back(std::move(g));
    });
  for (std::thread& t : threads) t.join();
  set_unraisable_handler(ignored);
  CHECK(destroyed == threads_n * each);
  for (const greenlet& g : saved) CHECK(g.dead());
  saved.clear();
  CHECK(counts().greenlets == before.greenlets);
  CHECK(counts().threads == before.threads);
  CHECK(counts().stacks == before.stacks);
}

TEST_CASE("187, B31: an exception that refers to the greenlet which keeps it on its stack goes with its thread, or its handler") {
  struct about {
    greenlet whom;
    std::exception_ptr other;
  };
  const auto before = counts();
  SUBCASE("kept as a pointer, until the thread's exit") {
    std::thread([] {
      for (int i = 0; i < 10; ++i) {
        greenlet g([](const greenlet& self) {
          const std::exception_ptr e = std::make_exception_ptr(about{self, nullptr});
          switch_to_parent();
        });
        g.switch_to(greenlet(g));
      }
    }).join();
  }
  SUBCASE("in its handler, until the thread's exit") {
    std::thread([] {
      greenlet g([] {
        try {
          switch_to_parent();
        } catch (const about&) {
          switch_to_parent();
        }
      });
      g.switch_to();
      g.throw_in(about{g, nullptr});
    }).join();
  }
  SUBCASE("two that keep each other's") {
    std::thread([] {
      greenlet a, b;
      const auto keep = [](const std::exception_ptr& e) {
        const std::exception_ptr kept = e;
        switch_to_parent();
      };
      a = greenlet(keep);
      b = greenlet(keep);
      a.switch_to(std::make_exception_ptr(about{b, nullptr}));
      b.switch_to(std::make_exception_ptr(about{a, std::make_exception_ptr(about{b, nullptr})}));
    }).join();
  }
  SUBCASE("no longer than it is handled") {
    greenlet g([] {
      try {
        switch_to_parent();
      } catch (const about&) {
        switch_to_parent();
      }
      switch_to_parent();
    });
    g.switch_to();
    g.throw_in(about{g, nullptr});
    g.switch_to();
    const weak_greenlet weak(g);
    g = greenlet();
    CHECK(weak.expired());
  }
  CHECK(counts().greenlets == before.greenlets);
  CHECK(counts().threads == before.threads);
}

TEST_CASE("54, 130, B32: unwinding what others dropped does not lose what is being thrown") {
  // Their destructors throw and catch on their own, while an exception waits to go to its target.
  events log;
  std::vector<greenlet> theirs;
  for (int i = 0; i < 20; ++i) {
    theirs.emplace_back([&log] {
      struct busy {
        events& log;
        ~busy() {
          try {
            greenlet([] { throw std::logic_error("own"); }).switch_to();
          } catch (const std::logic_error&) {
            log.push_back("caught own");
          }
        }
      } const b{log};
      switch_to_parent();
    });
    theirs.back().switch_to();
  }
  greenlet target([&log] {
    for (;;) {
      try {
        switch_to_parent();
      } catch (const std::runtime_error& e) {
        log.push_back(e.what());
      }
    }
  });
  target.switch_to();
  greenlet unstarted([] {});
  const auto drop_elsewhere = [&theirs] {
    std::thread([&theirs] { theirs.pop_back(); }).join();
  };
  drop_elsewhere();
  target.throw_in(std::runtime_error("suspended"));
  drop_elsewhere();
  try {
    unstarted.throw_in(std::runtime_error("unstarted"));
  } catch (const std::runtime_error& e) {
    log.push_back(e.what());
  }
  drop_elsewhere();
  try {
    current().throw_in(std::runtime_error("current"));
  } catch (const std::runtime_error& e) {
    log.push_back(e.what());
  }
  drop_elsewhere();
  try {
    greenlet([&] {
      drop_elsewhere();
      throw std::runtime_error("result");
    }).switch_to();
  } catch (const std::runtime_error& e) {
    log.push_back(e.what());
  }
  theirs.resize(15);
  CHECK(log == events{"caught own", "suspended", "caught own", "unstarted", "caught own", "current", "caught own", "result"});
}
