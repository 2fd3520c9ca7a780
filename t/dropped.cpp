// SPDX-License-Identifier: MIT
// The last handle to a suspended greenlet goes on another thread: it is unwound by its own, at that
// thread's next entry into the library, and never anywhere else.
#include "testing.hpp"

#include <atomic>
#include <exception>
#include <mutex>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

using namespace greenlets;
using testing::events;
using testing::noting;
using testing::unraisables;

namespace {

// Drops the handle in another thread, and comes back when that has happened.
void drop_elsewhere(greenlet&& g) {
  std::thread([mine = std::move(g)]() mutable { mine = greenlet(); }).join();
}

auto waiting(events& log, const std::string& name) {
  return [&log, name] {
    noting n{log, name};
    try {
      switch_to_parent();
    } catch (const greenlet_exit& e) {
      log.push_back(name + (e.why == greenlet_exit::reason::last_handle   ? " killed"
                            : e.why == greenlet_exit::reason::thread_exit ? " thread_exit"
                                                                          : " other"));
      throw;
    }
  };
}

// A suspended greenlet that has been dropped elsewhere, and waits for this thread to come by.
void leave_one(events& log, const std::string& name) {
  greenlet g(waiting(log, name));
  g.switch_to();
  drop_elsewhere(std::move(g));
}

}  // namespace

TEST_CASE("124: nothing runs in the thread that drops it; it waits, suspended, with everything it has") {
  events log;
  greenlet g(waiting(log, "g"));
  g.switch_to();
  const weak_greenlet weak = g;
  const auto before = counts();
  std::thread([&, mine = std::move(g)]() mutable {
    mine = greenlet();
    CHECK(log.empty());
    CHECK_FALSE(weak.expired());
    CHECK(counts().greenlets == before.greenlets);
    // Nor does that thread's own use of the library come near it.
    greenlet([] {}).switch_to();
    CHECK(log.empty());
  }).join();
  CHECK(log.empty());
  current();
  CHECK(log == events{"g killed", "~g"});
  CHECK(weak.expired());
}

TEST_CASE("109, 124: it is unwound on its own thread, as a child of whoever runs there") {
  std::thread::id in_thread;
  std::string parent;
  const greenlet flusher(attributes().name("flusher"), [&] {
    const greenlet main = main_greenlet();
    greenlet g([&] {
      try {
        main.switch_to();
      } catch (const greenlet_exit&) {
        in_thread = std::this_thread::get_id();
        parent = current().parent().name();
        throw;
      }
    }, main);
    g.switch_to();
    drop_elsewhere(std::move(g));
    current();
  });
  flusher.switch_to();
  flusher.switch_to();
  CHECK(flusher.dead());
  CHECK(in_thread == std::this_thread::get_id());
  CHECK(parent == "flusher");
}

TEST_CASE("125: unstarted and dead ones are freed at once by the thread that drops them") {
  const auto before = counts();
  std::thread::id destroyed_in;
  greenlet unstarted([guard = testing::at_end([&] { destroyed_in = std::this_thread::get_id(); })] {});
  greenlet dead([] {});
  dead.switch_to();
  std::thread::id dropper;
  std::thread([&, u = std::move(unstarted), d = std::move(dead)]() mutable {
    dropper = std::this_thread::get_id();
    u = greenlet();
    d = greenlet();
    CHECK(destroyed_in == dropper);
    CHECK(counts().greenlets == before.greenlets);
  }).join();
  CHECK(destroyed_in == dropper);
}

TEST_CASE("125: an unstarted one drops its suspended parent there, which waits for its own thread") {
  events log;
  greenlet parent(waiting(log, "parent"));
  parent.switch_to();
  greenlet child([] {}, parent);
  parent = greenlet();
  drop_elsewhere(std::move(child));
  CHECK(log.empty());
  current();
  CHECK(log == events{"parent killed", "~parent"});
}

TEST_CASE("126: the owner unwinds at construction, current(), and every switch and throw; not in what only asks") {
  events log;
  const events unwound{"g killed", "~g"};
  const greenlet ready([] {
    for (;;) try {
        switch_to_parent();
      } catch (int) {
      }
  });
  ready.switch_to();
  const greenlet unstarted([] {});
  leave_one(log, "g");
  {
    const greenlet copy = ready;
    const weak_greenlet weak = ready;
    CHECK(weak.lock() == copy);
    CHECK_FALSE(ready.dead());
    CHECK(bool(ready));
    CHECK(ready.state() == greenlet_state::suspended);
    CHECK(ready.name().empty());
    CHECK(ready.id() != 0);
    CHECK(!ready.parent().empty());
    CHECK(unstarted.has_run());
    unstarted.set_run([] {});
    ready.set_name("ready");
    counts();
    trim_stacks();
    set_unraisable_handler(set_unraisable_handler({}));
  }
  CHECK(log.empty());
  SUBCASE("construction") { greenlet([] {}); }
  SUBCASE("construction with attributes") { greenlet{attributes()}; }
  SUBCASE("current()") { current(); }
  SUBCASE("main_greenlet()") { main_greenlet(); }
  SUBCASE("switch_to()") { ready.switch_to(); }
  SUBCASE("a switch to itself") { ready.parent().switch_to(); }
  SUBCASE("throw_in()") { ready.throw_in(1); }
  SUBCASE("set_parent()") { unstarted.set_parent(ready); }
  SUBCASE("a switch that is refused") {
    CHECK(testing::error_of([] { greenlet().switch_to(); }) == errc::empty_handle);
  }
  CHECK(log == unwound);
}

TEST_CASE("126: switch_to_parent() in a greenlet unwinds too, before it goes") {
  events log;
  const greenlet g([&] {
    leave_one(log, "dropped");
    switch_to_parent(1);
    log.push_back("back");
  });
  CHECK(g.switch_to().get<int>() == 1);
  CHECK(log == events{"dropped killed", "~dropped"});
  g.switch_to();
  CHECK(log.back() == "back");
}

TEST_CASE("127, B32: errors of the dropped go to the unraisable handler; the exception being handled stays") {
  unraisables handler;
  greenlet g([] {
    try {
      switch_to_parent();
    } catch (const greenlet_exit&) {
      throw std::runtime_error("from the dropped");
    }
  });
  g.switch_to();
  drop_elsewhere(std::move(g));
  try {
    throw 5;
  } catch (int n) {
    const std::exception_ptr mine = std::current_exception();
    current();
    CHECK(std::current_exception() == mine);
    CHECK(std::uncaught_exceptions() == 0);
    CHECK(n == 5);
  }
  REQUIRE(handler.seen.size() == 1);
  CHECK_THROWS_WITH(std::rethrow_exception(handler.seen[0].second), "from the dropped");
}

TEST_CASE("128: they go in the order in which they were dropped; what is dropped meanwhile waits for the next entry") {
  events log;
  greenlet late(waiting(log, "late"));
  late.switch_to();
  greenlet first([&] {
    const auto drop = testing::at_end([&] {
      drop_elsewhere(std::move(late));
      log.push_back("dropped late");
    });
    switch_to_parent();
  });
  first.switch_to();
  greenlet second(waiting(log, "second"));
  second.switch_to();
  drop_elsewhere(std::move(first));
  drop_elsewhere(std::move(second));
  current();
  CHECK(log == events{"dropped late", "second killed", "~second"});
  current();
  CHECK(log == events{"dropped late", "second killed", "~second", "late killed", "~late"});
}

TEST_CASE("128, 207: what another thread drops waits, however much it is, and all of it is unwound") {
  events log;
  std::vector<greenlet> many;
  for (int n = 0; n < 5000; ++n) {
    many.emplace_back(attributes().stack_size(16 * 1024), waiting(log, "one"));
    many.back().switch_to();
  }
  std::thread([mine = std::move(many)]() mutable { mine.clear(); }).join();
  CHECK(log.empty());
  current();
  CHECK(log.size() == 2 * 5000);
}

TEST_CASE("128: one that is being unwound enters the library itself, and unwinds those behind it") {
  events log;
  std::vector<greenlet> all;
  for (int i = 0; i < 3; ++i) {
    all.emplace_back([&log, i] {
      const auto entering = testing::at_end([&log, i] {
        log.push_back("begin " + std::to_string(i));
        current();
        log.push_back("end " + std::to_string(i));
      });
      switch_to_parent();
    });
    all.back().switch_to();
  }
  for (greenlet& g : all) drop_elsewhere(std::move(g));
  current();
  CHECK(log == events{"begin 0", "begin 1", "begin 2", "end 2", "end 1", "end 0"});
}

TEST_CASE("128: one that does not come back leaves those behind it to the next entry, and not to its return") {
  //   main               flusher          first           second
  //   first, second are dropped elsewhere
  //   starts flusher
  //                      enters
  //                                       enters
  //                                                       unwound
  //                                       to main, kept
  events log;
  greenlet kept;
  greenlet first([&] {
    try {
      switch_to_parent();
    } catch (const greenlet_exit&) {
      kept = current();
      main_greenlet().switch_to();
    }
  });
  first.switch_to();
  greenlet second(waiting(log, "second"));
  second.switch_to();
  const greenlet flusher([&] {
    drop_elsewhere(std::move(first));
    drop_elsewhere(std::move(second));
    current();
    log.push_back("flusher");
  });
  flusher.switch_to();
  CHECK(log == events{"second killed", "~second"});
  CHECK(flusher.state() == greenlet_state::suspended);
  kept.switch_to();
  CHECK(log == events{"second killed", "~second", "flusher"});
  CHECK(flusher.dead());
}

TEST_CASE("8, 25, 134, B6: the current greenlet, and the parent of a new one, are right although the dropped switch about") {
  const greenlet main = current();
  const greenlet third([] {
    for (;;) switch_to_parent();
  });
  third.switch_to();
  const greenlet asker([&] {
    const greenlet me = current();
    for (int kind = 0; kind < 2; ++kind) {
      greenlet g([&] {
        const auto about = testing::at_end([&] {
          third.set_parent(current());
          third.switch_to();
          third.set_parent(main);
          std::thread([] { greenlet([] {}).switch_to(); }).join();
        });
        main.switch_to();
      });
      const auto run_g = [&] { g.switch_to(); };
      run_g();
      drop_elsewhere(std::move(g));
      if (kind == 0)
        CHECK(current() == me);
      else
        CHECK(greenlet([] {}).parent() == me);
    }
  });
  while (!asker.dead()) asker.switch_to();
}

TEST_CASE("130, B32: what a switch sends is not touched by what the dropped do at its entry") {
  // The dropped one switches to the same target first, with another value.
  events log;
  const greenlet target([&] {
    for (;;) log.push_back(switch_to_parent().get<std::string>());
  });
  target.switch_to();
  const auto dropped = [&] {
    greenlet g([&] {
      const auto first = testing::at_end([&] {
        target.set_parent(current());
        target.switch_to(std::string("from the dropped"));
        target.set_parent(main_greenlet());
      });
      switch_to_parent();
    });
    g.switch_to();
    drop_elsewhere(std::move(g));
  };
  dropped();
  target.switch_to(std::string("sent"));
  CHECK(log == events{"from the dropped", "sent"});
}

TEST_CASE("130: the dropped may end the target of the switch, and drop its last handle") {
  events log;
  greenlet target([&] { log.push_back(switch_to_parent().get<std::string>()); });
  target.switch_to();
  const weak_greenlet weak = target;
  greenlet g([&] {
    const auto first = testing::at_end([&] {
      target.set_parent(current());
      target.switch_to(std::string("from the dropped"));
      target.set_parent(main_greenlet());
      target = greenlet();
    });
    switch_to_parent();
  });
  g.switch_to();
  drop_elsewhere(std::move(g));
  // Dead when the switch itself comes to it, it passes the value on to its parent: to us.
  CHECK(target.switch_to(std::string("sent")).get<std::string>() == "sent");
  CHECK(log == events{"from the dropped"});
  CHECK(weak.expired());
}

TEST_CASE("115, 119: locked by a weak handle before its thread comes by, it is not unwound") {
  events log;
  greenlet g(waiting(log, "g"));
  g.switch_to();
  const weak_greenlet weak = g;
  drop_elsewhere(std::move(g));
  greenlet again = weak.lock();
  CHECK_FALSE(again.empty());
  current();
  CHECK(log.empty());
  again.switch_to();
  CHECK(log == events{"~g"});
}

TEST_CASE("24, 44: the running greenlet's last handle dropped elsewhere: it goes on until it is left, and its value arrives") {
  events log;
  greenlet g([&] {
    const noting n{log, "g"};
    drop_elsewhere(std::move(g));
    current();
    log.push_back("goes on");
    switch_to_parent(7);
    log.push_back("not reached");
  });
  CHECK(g.switch_to().get<int>() == 7);
  current();
  CHECK(log == events{"goes on", "~g"});
}

TEST_CASE("109, 124: what was dropped elsewhere was not the last handle: the last is, here, at once") {
  events log;
  greenlet g(waiting(log, "g"));
  g.switch_to();
  greenlet here = g;
  drop_elsewhere(std::move(g));
  CHECK(log.empty());
  here = greenlet();
  CHECK(log == events{"g killed", "~g"});
}

TEST_CASE("109, 133: of handles copied here and dropped on many threads the last ends it, wherever that is") {
  for (int last_here = 0; last_here < 2; ++last_here) {
    events log;
    greenlet g(waiting(log, "g"));
    g.switch_to();
    std::vector<std::thread> threads;
    for (int i = 0; i < 8; ++i)
      threads.emplace_back([copies = std::vector<greenlet>(100, g)]() mutable {
        const greenlet another = copies.back();
        copies.clear();
      });
    if (last_here) {
      for (std::thread& t : threads) t.join();
      CHECK(log.empty());
      g = greenlet();
    } else {
      threads.emplace_back([mine = std::move(g)] {});
      for (std::thread& t : threads) t.join();
      CHECK(log.empty());
      current();
    }
    CHECK(log == events{"g killed", "~g"});
  }
}

TEST_CASE("121, 125: it finishes while a reference dropped elsewhere waits, and goes with its last handle") {
  greenlet g([] { switch_to_parent(); });
  g.switch_to();
  const weak_greenlet weak = g;
  greenlet here = g;
  std::thread([first = std::move(g), second = here] {}).join();
  here.switch_to();
  CHECK(here.dead());
  here = greenlet();
  CHECK(weak.expired());
}

TEST_CASE("131: when the owner exits first, what waits for it is unwound by its exit") {
  events log;
  std::thread::id owner_id, died_in;
  std::thread owner([&] {
    owner_id = std::this_thread::get_id();
    greenlet g([&] {
      const auto note = testing::at_end([&] { died_in = std::this_thread::get_id(); });
      waiting(log, "g")();
    });
    g.switch_to();
    drop_elsewhere(std::move(g));
    CHECK(log.empty());
  });
  owner.join();
  CHECK(log == events{"g killed", "~g"});
  CHECK(died_in == owner_id);
}

TEST_CASE("132: when the owner has exited, it was unwound then; the dropping thread only frees") {
  events log;
  greenlet g;
  std::thread([&] {
    g = greenlet(waiting(log, "g"));
    g.switch_to();
  }).join();
  CHECK(log == events{"g thread_exit", "~g"});
  const auto before = counts();
  drop_elsewhere(std::move(g));
  CHECK(counts().greenlets == before.greenlets - 2);  // its main greenlet, too
  CHECK(log.size() == 2);
}

TEST_CASE("117: dropped elsewhere, it refuses to end: reported once, on its own thread, and left") {
  unraisables handler;
  events log;
  greenlet g([&] {
    const noting n{log, "g"};
    try {
      switch_to_parent();
    } catch (const greenlet_exit&) {
      log.push_back("refused");
    }
    switch_to_parent();
  });
  const weak_greenlet weak = g;
  g.switch_to();
  drop_elsewhere(std::move(g));
  CHECK(handler.seen.empty());
  current();
  current();
  CHECK(handler.seen.size() == 1);
  handler.seen.clear();
  weak.lock().switch_to();
  CHECK(log == events{"refused", "~g"});
  CHECK(weak.expired());
}

// The library's own reference to the target of the outer switch was lost, and with it the target. (Of two that
// were dropped the first leaves the thread's attention raised, so the inner switch also looks for some.)
TEST_CASE("126, 130: a switch in the middle of a switch that has found greenlets dropped elsewhere") {
  events log;
  const greenlet main = current();
  greenlet first(waiting(log, "first")), second(waiting(log, "second"));
  first.switch_to();
  second.switch_to();
  greenlet target([&, last = testing::at_end([&] { log.push_back(main.switch_to("inner").get<const char*>()); })] {});
  drop_elsewhere(std::move(first));
  drop_elsewhere(std::move(second));
  CHECK(target.throw_in().is<greenlet_exit>());
  const events all{"first killed", "~first", "second killed", "~second", "inner"};
  CHECK(log == all);
  const weak_greenlet weak(target);
  target = greenlet();
  CHECK(weak.expired());
}

TEST_CASE("129, 133, B24: many threads drop each other's greenlets, while they run and while they exit") {
  constexpr int threads_n = 8, each = 150;
  const auto before = counts();
  std::atomic<int> made{0}, destroyed{0}, elsewhere{0};
  {
    std::mutex mutex;
    std::vector<greenlet> pool;  // handles on their way to whoever takes them
    const auto work = [&](unsigned seed) {
      std::minstd_rand dice(seed);
      struct object {
        std::atomic<int>&destroyed, &elsewhere;
        std::thread::id owner = std::this_thread::get_id();
        ~object() {
          ++destroyed;
          if (std::this_thread::get_id() != owner) ++elsewhere;
        }
      };
      std::vector<greenlet> mine;
      for (int n = 0; n < each; ++n) {
        greenlet g([&] {
          const object o{destroyed, elsewhere};
          for (;;) switch_to_parent();
        });
        ++made;
        g.switch_to();
        if (dice() % 3 == 0) mine.push_back(g);
        std::vector<greenlet> taken;
        {
          const std::lock_guard lock(mutex);
          pool.push_back(std::move(g));
          while (pool.size() > 20 || (!pool.empty() && dice() % 2)) {
            std::swap(pool[dice() % pool.size()], pool.back());
            taken.push_back(std::move(pool.back()));
            pool.pop_back();
          }
        }
        if (!mine.empty() && dice() % 2) mine[dice() % mine.size()].switch_to();
        if (dice() % 4 == 0) mine.clear();
      }
    };
    std::vector<std::thread> threads;
    for (int i = 0; i < threads_n; ++i) threads.emplace_back(work, static_cast<unsigned>(i + 1));
    for (std::thread& t : threads) t.join();
    // All are unwound, also those in the pool, whose threads have exited.
    CHECK(destroyed == made);
  }
  CHECK(made == threads_n * each);
  CHECK(elsewhere == 0);
  const auto after = counts();
  CHECK(after.greenlets == before.greenlets);
  CHECK(after.main_greenlets == before.main_greenlets);
  CHECK(after.stacks == before.stacks);
}

TEST_CASE("129, 132: a handle dropped at the moment when its thread exits") {
  std::atomic<int> destroyed{0};
  constexpr int rounds = 300;
  for (int i = 0; i < rounds; ++i) {
    greenlet g;
    std::atomic<bool> ready{false};
    std::thread owner([&] {
      greenlet made([&] {
        const auto note = testing::at_end([&] { ++destroyed; });
        switch_to_parent();
      });
      made.switch_to();
      g = std::move(made);
      ready = true;
    });
    while (!ready) std::this_thread::yield();
    g = greenlet();
    owner.join();
    CHECK(destroyed == i + 1);
  }
}
