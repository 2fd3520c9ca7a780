// SPDX-License-Identifier: MIT
// A thread ends: its suspended greenlets are unwound on it, before it can be joined, and what is
// left of them answers everybody truthfully for ever.
#include "testing.hpp"

#include <algorithm>
#include <array>
#include <exception>
#include <functional>
#include <memory>
#include <pthread.h>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

using namespace greenlets;
using testing::error_from;
using testing::events;
using testing::noting;
using testing::unraisables;

namespace {

// Runs `f` in a thread and returns when that can be joined.
template <class F>
void in_thread(F&& f) {
  std::thread(std::forward<F>(f)).join();
}

// Suspended in a frame that notes why it was unwound.
auto waiting(events& log, const std::string& name) {
  return [&log, name] {
    noting n{log, name};
    try {
      switch_to_parent();
    } catch (const greenlet_exit& e) {
      log.push_back(name + (e.why == greenlet_exit::reason::thread_exit   ? " thread_exit"
                            : e.why == greenlet_exit::reason::last_handle ? " last_handle"
                                                                          : " other"));
      throw;
    }
  };
}

// pthread keys made before the library makes its own, and so destroyed before it in each round.
// What runs at the end of the thread that put it there; again in the next round if it returns true.
using at_exit = std::function<bool()>;
void run_at_exit(pthread_key_t key, void* f) {
  if ((*static_cast<at_exit*>(f))()) pthread_setspecific(key, f);
}
pthread_key_t earlier_key, later_key;
const bool earlier_made = pthread_key_create(&earlier_key, [](void* f) { run_at_exit(earlier_key, f); }) == 0;
void make_later_key() {
  static const int made = (current(), pthread_key_create(&later_key, [](void* f) { run_at_exit(later_key, f); }));
  REQUIRE(made == 0);
}

// A user's thread_local, destroyed before any key.
thread_local std::shared_ptr<void> thread_locals[2];

}  // namespace

TEST_CASE("135, 216: greenlets known only to the thread's own variables die with them, before the thread's exit") {
  events log;
  in_thread([&] {
    thread_locals[0] = std::make_shared<greenlet>(waiting(log, "in a thread_local"));
    static_cast<greenlet*>(thread_locals[0].get())->switch_to();
    const greenlet local(waiting(log, "local"));
    local.switch_to();
    const noting n{log, "last statement"};
  });
  CHECK(log == events{"~last statement", "local last_handle", "~local",  //
                      "in a thread_local last_handle", "~in a thread_local"});
}

TEST_CASE("136, 137, 138: greenlets known elsewhere are unwound on the dying thread, before it can be joined") {
  events log;
  struct place {
    std::thread::id thread;
    std::uint64_t greenlet = 0, main = 0, parent = 0;
    bool main_alive = false, itself_current = false;
  } where;
  greenlet kept;
  std::thread::id its_thread;
  in_thread([&] {
    its_thread = std::this_thread::get_id();
    kept = greenlet([&] {
      const auto look = testing::at_end([&] {
        where.thread = std::this_thread::get_id();
        where.greenlet = current().id();
        where.main = main_greenlet().id();
        where.main_alive = bool(main_greenlet());
        where.parent = current().parent().id();
        where.itself_current = kept.state() == greenlet_state::current;
      });
      waiting(log, "kept")();
    });
    kept.switch_to();
    CHECK(kept.parent() == main_greenlet());
    log.push_back("the thread's function returns");
  });
  log.push_back("joined");
  CHECK(log == events{"the thread's function returns", "kept thread_exit", "~kept", "joined"});
  CHECK(where.thread == its_thread);
  CHECK(where.greenlet == kept.id());
  CHECK(where.parent == where.main);
  CHECK(where.main_alive);
  CHECK(where.itself_current);
  CHECK(kept.state() == greenlet_state::unwound);
}

TEST_CASE("137: many suspended greenlets, nested in each other and in handlers, are all unwound, each once") {
  constexpr int chains = 10, deep = 10;
  std::array<int, chains * deep> destroyed{};
  std::vector<greenlet> kept;
  std::function<void(int, int)> nest = [&](int chain, int level) {
    const auto note = testing::at_end([&, n = chain * deep + level] { ++destroyed[static_cast<std::size_t>(n)]; });
    try {
      throw level;
    } catch (int) {
      if (level + 1 < deep) {
        kept.emplace_back([&nest, chain, level] { nest(chain, level + 1); });
        const greenlet inner = kept.back();
        inner.switch_to();
      }
      main_greenlet().switch_to();
    }
  };
  in_thread([&] {
    for (int chain = 0; chain < chains; ++chain) {
      kept.emplace_back([&nest, chain] { nest(chain, 0); });
      const greenlet first = kept.back();
      first.switch_to();
    }
    CHECK(std::count(destroyed.begin(), destroyed.end(), 0) == chains * deep);
  });
  CHECK(std::count(destroyed.begin(), destroyed.end(), 1) == chains * deep);
  CHECK(std::all_of(kept.begin(), kept.end(), [](const greenlet& g) { return g.state() == greenlet_state::unwound; }));
}

TEST_CASE("113, 137: what escapes a greenlet that is being unwound is reported, on its thread; the others go on") {
  unraisables handler;
  events log;
  std::vector<greenlet> kept(3);
  in_thread([&] {
    kept[0] = greenlet(waiting(log, "first"));
    kept[1] = greenlet([] {
      try {
        switch_to_parent();
      } catch (const greenlet_exit&) {
        throw std::runtime_error("no");
      }
    });
    kept[2] = greenlet(waiting(log, "last"));
    for (const greenlet& g : kept) g.switch_to();
  });
  REQUIRE(handler.seen.size() == 1);
  CHECK(handler.seen[0].first == kept[1]);
  CHECK_THROWS_WITH(std::rethrow_exception(handler.seen[0].second), "no");
  CHECK(log == events{"last thread_exit", "~last", "first thread_exit", "~first"});
}

TEST_CASE("137: a greenlet may swallow the exit some times, and is told again") {
  unraisables handler;
  int told = 0;
  greenlet kept;
  in_thread([&] {
    kept = greenlet([&] {
      for (;;) try {
          switch_to_parent();
        } catch (const greenlet_exit&) {
          if (++told == 5) throw;
        }
    });
    kept.switch_to();
  });
  CHECK(told == 5);
  CHECK(kept.dead());
  CHECK(handler.seen.empty());
}

TEST_CASE("117, 137: one that never ends is reported once and left; its objects stay" *
          doctest::description("leaves the stack of that greenlet")) {
  unraisables handler;
  events log;
  int told = 0;
  static bool destroyed = false;
  greenlet stubborn, meek;
  std::thread::id reported_on, its_thread;
  const unraisable_handler seen = set_unraisable_handler({});
  set_unraisable_handler([&](const greenlet& g, const std::exception_ptr& e) {
    reported_on = std::this_thread::get_id();
    seen(g, e);
  });
  in_thread([&] {
    its_thread = std::this_thread::get_id();
    meek = greenlet(waiting(log, "meek"));
    stubborn = greenlet(attributes().name("stubborn"), [&told] {
      struct never {
        ~never() { destroyed = true; }
      } const n;
      for (;;) try {
          switch_to_parent();
        } catch (const greenlet_exit&) {
          ++told;
        }
    });
    stubborn.switch_to();
    meek.switch_to();
  });
  CHECK(told > 1);
  CHECK_FALSE(destroyed);
  CHECK(log == events{"meek thread_exit", "~meek"});
  CHECK(reported_on == its_thread);
  REQUIRE(handler.seen.size() == 1);
  CHECK(handler.seen[0].first == stubborn);
  try {
    std::rethrow_exception(handler.seen[0].second);
  } catch (const std::exception& e) {
    CHECK(std::string(e.what()).rfind("greenlet_exit did not kill greenlet ", 0) == 0);
    CHECK(std::string(e.what()).find("\"stubborn\"") != std::string::npos);
  }
  CHECK(stubborn.state() == greenlet_state::unwound);
  CHECK(error_from([&] { stubborn.switch_to(); }).code() == errc::thread_exited);
}

TEST_CASE("118, 137: greenlets may start others while they die; those are unwound as well") {
  events log;
  std::vector<greenlet> kept;
  kept.reserve(100);
  std::function<void(int)> generation = [&](int n) {
    const auto next = testing::at_end([&, n] {
      log.push_back(std::to_string(n));
      if (n == 8) return;
      kept.emplace_back([&generation, n] { generation(n + 1); });
      kept.back().switch_to();
    });
    switch_to_parent();
  };
  in_thread([&] {
    kept.emplace_back([&generation] { generation(0); });
    kept.back().switch_to();
  });
  CHECK(log == events{"0", "1", "2", "3", "4", "5", "6", "7", "8"});
  CHECK(kept.size() == 9);
  for (const greenlet& g : kept) CHECK(g.state() == greenlet_state::unwound);
}

TEST_CASE("118, 137: a family that goes on for ever is ended; nobody hangs" *
          doctest::description("leaves the stack of its last member")) {
  unraisables handler;
  static int generations = 0;
  std::vector<greenlet> kept;
  kept.reserve(10000);
  in_thread([&] {
    static std::function<void()> generation;
    generation = [&] {
      struct starting {
        std::vector<greenlet>& kept;
        ~starting() {
          ++generations;
          kept.emplace_back([] { generation(); });
          kept.back().switch_to();
        }
      } const s{kept};
      switch_to_parent();
    };
    kept.emplace_back([] { generation(); });
    kept.back().switch_to();
  });
  CHECK(generations > 1);
  CHECK(kept.size() == static_cast<std::size_t>(generations) + 1);
  CHECK(handler.seen.size() == 1);
  for (const greenlet& g : kept) CHECK(g.state() == greenlet_state::unwound);
}

TEST_CASE("137: a greenlet that is being unwound may still switch to its siblings") {
  events log;
  std::vector<greenlet> kept(2);
  in_thread([&] {
    // Older, so unwound later: then it is still suspended when the younger one dies.
    kept[0] = greenlet([&] {
      noting n{log, "echo"};
      for (int times = 0;; ++times) {
        log.push_back("echo " + std::to_string(times));
        switch_to_parent();
      }
    });
    kept[1] = greenlet([&] {
      struct asking {
        const greenlet& whom;
        ~asking() {
          whom.set_parent(current());
          whom.switch_to();
          whom.set_parent(main_greenlet());
        }
      } const a{kept[0]};
      waiting(log, "asking")();
    });
    for (const greenlet& g : kept) g.switch_to();
  });
  CHECK(log == events{"echo 0", "asking thread_exit", "~asking", "echo 1", "~echo"});
}

TEST_CASE("27, 135, B17, B21: thread_local and key destructors, before and after the library's own, may use it") {
  // The order of glibc: thread_locals; then the keys in the order they were made, ours between
  // these two; then, if any of them is set again, another round, four at most.
  REQUIRE(earlier_made);
  make_later_key();
  const auto before = counts();
  events log;
  std::vector<greenlet> kept;
  std::vector<std::uint64_t> mains;
  const auto work = [&](const std::string& name) {
    log.push_back(name);
    mains.push_back(main_greenlet().id());
    kept.emplace_back(waiting(log, name));
    kept.back().switch_to();
    CHECK(kept.back().parent() == current());
    CHECK(greenlet([] { return 6; }).switch_to().get<int>() == 6);
  };
  int rounds = 0;
  at_exit earlier = [&] {
    work("earlier" + std::to_string(++rounds));
    return rounds < 3;
  };
  at_exit later = [&] {
    work("later" + std::to_string(rounds));
    return rounds < 2;
  };
  in_thread([&] {
    work("thread");
    pthread_setspecific(earlier_key, &earlier);
    pthread_setspecific(later_key, &later);
    thread_locals[0] = testing::at_end([&] { work("local"); });
  });
  CHECK(log == events{"thread", "local", "earlier1",                                     // one main greenlet
                      "earlier1 thread_exit", "~earlier1", "local thread_exit", "~local", "thread thread_exit", "~thread",
                      "later1", "earlier2",                                              // the next
                      "earlier2 thread_exit", "~earlier2", "later1 thread_exit", "~later1",
                      "later2", "earlier3",                                              // and another
                      "earlier3 thread_exit", "~earlier3", "later2 thread_exit", "~later2"});
  REQUIRE(mains.size() == 7);
  CHECK(mains == std::vector<std::uint64_t>{mains[0], mains[0], mains[0], mains[3], mains[3], mains[5], mains[5]});
  CHECK(mains[0] != mains[3]);
  CHECK(mains[3] != mains[5]);
  for (const greenlet& g : kept) CHECK(g.state() == greenlet_state::unwound);
  kept.clear();
  CHECK(counts().greenlets == before.greenlets);
  CHECK(counts().threads == before.threads);
}

TEST_CASE("27, B17: a destructor after the library's own finds the thread's old greenlets dead and refused") {
  make_later_key();
  events log;
  greenlet old_main, old;
  at_exit later = [&] {
    CHECK(old_main.dead());
    CHECK(old.dead());
    CHECK(current() != old_main);
    CHECK(error_from([&] { old_main.switch_to(); }).code() == errc::collected);
    CHECK(error_from([&] { old.switch_to(); }).code() == errc::thread_exited);
    log.push_back("later");
    return false;
  };
  in_thread([&] {
    pthread_setspecific(later_key, &later);
    old_main = current();
    old = greenlet(waiting(log, "old"));
    old.switch_to();
  });
  CHECK(log == events{"old thread_exit", "~old", "later"});
}

TEST_CASE("26, B17: a thread whose first use of the library is in a destructor of its end") {
  REQUIRE(earlier_made);
  make_later_key();
  for (pthread_key_t* key : {&earlier_key, &later_key}) {
    events log;
    greenlet kept;
    at_exit first_use = [&] {
      kept = greenlet(waiting(log, "kept"));
      kept.switch_to();
      return false;
    };
    in_thread([&] { pthread_setspecific(*key, &first_use); });
    CHECK(log == events{"kept thread_exit", "~kept"});
    CHECK(kept.dead());
  }
}
