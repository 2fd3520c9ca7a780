// SPDX-License-Identifier: MIT
// The running greenlet, and the main greenlet that every thread has.
#include "testing.hpp"

#include <algorithm>
#include <functional>
#include <future>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <type_traits>
#include <vector>

using greenlets::counts;
using greenlets::current;
using greenlets::errc;
using greenlets::greenlet;
using greenlets::greenlet_exit;
using greenlets::greenlet_state;
using greenlets::main_greenlet;
using greenlets::switch_to_parent;
using greenlets::value;
using greenlets::weak_greenlet;
using testing::at_end;
using testing::error_from;
using testing::error_of;
using testing::events;
using testing::names;
using testing::noting;

namespace {

void drop_on_another_thread(greenlet&& g) {
  std::thread([dropped = std::move(g)]() mutable { dropped = greenlet(); }).join();
}

}  // namespace

TEST_CASE("22: current() is the one that runs, and always the same object while it runs") {
  const greenlet main = main_greenlet();
  CHECK(current() == main);
  CHECK(&current() == &current());
  greenlet g, inner;
  g = greenlet([&] {
    const greenlet* const here = &current();
    CHECK(*here == g);
    CHECK(here->id() == g.id());
    CHECK(std::hash<greenlet>()(*here) == std::hash<greenlet>()(g));
    inner = greenlet([&] { CHECK(current() == inner); });
    inner.switch_to();
    CHECK(&current() == here);
    switch_to_parent();
    CHECK(&current() == here);
    CHECK(main_greenlet() == main);
  });
  for (int twice = 0; twice < 2; ++twice) {
    g.switch_to();
    CHECK(current() == main);
  }
  CHECK(g.dead());
}

TEST_CASE("22: current() is a reference, and only a copy of it is a handle that counts") {
  static_assert(std::is_same_v<decltype(current()), const greenlet&>);
  events log;
  greenlet g([&log] {
    const noting local{log, "local"};
    // The usual expression: its temporaries live for as long as the switch is pending.
    current().parent().switch_to();
  });
  g.switch_to();
  g = greenlet();
  CHECK(log == events{"~local"});

  g = greenlet([&log] {
    const noting local{log, "kept"};
    const greenlet me = current();
    switch_to_parent();
  });
  g.switch_to();
  weak_greenlet weak(g);
  g = greenlet();
  CHECK(log == events{"~local"});
  CHECK(weak.lock().throw_in().is<greenlet_exit>());
  CHECK(weak.expired());
  CHECK(log == events{"~local", "~kept"});
}

TEST_CASE("23: a thread has a main greenlet from its first use of the library on, and not before") {
  greenlet theirs([] { switch_to_parent(); });
  theirs.switch_to();
  std::thread([&theirs] {
    const auto before = counts();
    {
      // None of these needs to know who is current.
      const greenlet empty, copy = theirs;
      const weak_greenlet weak(copy);
      CHECK(weak.lock() == theirs);
      CHECK_FALSE(theirs.dead());
      CHECK(theirs.started());
      CHECK(static_cast<bool>(theirs));
      CHECK(theirs.state() == greenlet_state::suspended);
      CHECK(theirs.parent().is_main());
      CHECK(theirs.name().empty());
      const value v(1);
      greenlets::trim_stacks();
    }
    CHECK(counts().threads == before.threads);
    CHECK(counts().main_greenlets == before.main_greenlets);

    CHECK(current().is_main());
    CHECK(counts().threads == before.threads + 1);
    CHECK(counts().main_greenlets == before.main_greenlets + 1);
    CHECK(current() == main_greenlet());
    CHECK(counts().main_greenlets == before.main_greenlets + 1);
  }).join();
}

TEST_CASE("23: each way to use greenlets makes the main greenlet") {
  const auto with_new_thread = [](const std::function<void()>& use) {
    std::size_t before = 0, after = 0;
    std::thread([&] {
      before = counts().main_greenlets;
      use();
      after = counts().main_greenlets;
    }).join();
    CHECK(after == before + 1);
    CHECK(counts().main_greenlets == before);
  };
  const greenlet main = current();
  with_new_thread([] { greenlet([] {}); });
  with_new_thread([] { main_greenlet(); });
  with_new_thread([&] { CHECK(error_of([&] { main.switch_to(); }) == errc::different_thread); });
  with_new_thread([&] { CHECK(error_of([&] { main.throw_in(); }) == errc::different_thread); });
  with_new_thread([] { CHECK(error_of([] { switch_to_parent(); }) == errc::main_parent); });
  with_new_thread([&] { CHECK(error_of([&] { main.set_parent(main); }) == errc::main_parent); });
}

TEST_CASE("24: the running greenlet outlives its last handle until it ends") {
  events log;
  greenlet g;
  weak_greenlet weak;
  g = greenlet([&] {
    const noting local{log, "local"};
    g = greenlet();
    CHECK(current().state() == greenlet_state::current);
    CHECK(weak.lock() == current());
    CHECK_FALSE(weak.expired());
    log.push_back("goes on");
    return 7;
  });
  weak = g;
  CHECK(g.switch_to().get<int>() == 7);
  CHECK(log == events{"goes on", "~local"});
  CHECK(weak.expired());
}

TEST_CASE("24: without a handle the running greenlet is unwound when it switches away") {
  events log;
  greenlet g;
  weak_greenlet weak;
  g = greenlet([&] {
    const noting local{log, "local"};
    g = greenlet();
    log.push_back("goes on");
    try {
      switch_to_parent(std::string("parting"));
    } catch (const greenlet_exit& e) {
      CHECK(e.why == greenlet_exit::reason::last_handle);
      CHECK_FALSE(weak.expired());
      log.push_back("exit");
      throw;
    }
  });
  weak = g;
  CHECK(g.switch_to().get<std::string>() == "parting");  // what it sent is not lost
  CHECK(log == events{"goes on", "exit", "~local"});
  CHECK(weak.expired());
}

TEST_CASE("24: the thread itself keeps its main greenlet") {
  std::thread([] {
    const auto id = current().id();
    weak_greenlet weak;
    {
      greenlet handle = main_greenlet();
      weak = handle;
    }
    CHECK_FALSE(weak.expired());
    greenlet child([] { switch_to_parent(); });
    child.switch_to();
    child.switch_to();
    CHECK(current().id() == id);
    CHECK(weak.lock() == current());
  }).join();
}

// main          victim       helper
//  |----------->| waits
//  | (another thread drops victim)
//  | current()
//  |----------->| exit
//  |            |----------->| current(): helper
//  |            |<-----------|
//  |<-----------| dies
//  | current(): main
TEST_CASE("25: current() first unwinds what was dropped elsewhere, and then gives the right greenlet") {
  events log;
  const auto scene = [&log] {
    const greenlet here = current();
    greenlet victim([&log, here] {
      const auto local = at_end([&log] {
        const greenlet dying = current();
        CHECK(dying.state() == greenlet_state::current);
        greenlet helper;
        helper = greenlet([&] { log.push_back(current() == helper ? "helper" : "somebody else"); });
        std::thread([] { greenlet([] {}).switch_to(); }).join();
        helper.switch_to();
        CHECK(current() == dying);
      });
      here.switch_to();
    });
    const weak_greenlet weak(victim);
    victim.switch_to();
    drop_on_another_thread(std::move(victim));
    CHECK(log.empty());
    CHECK_FALSE(weak.expired());
    CHECK(current() == here);
    CHECK(log == events{"helper"});
    CHECK(weak.expired());
    log.clear();
  };
  scene();
  greenlet child(scene);
  child.switch_to();
  CHECK(child.dead());
}

TEST_CASE("25: reading a handle unwinds nothing") {
  events log;
  greenlet victim([&log] {
    const noting local{log, "local"};
    switch_to_parent();
  });
  victim.switch_to();
  const weak_greenlet weak(victim);
  const greenlet main = current();
  drop_on_another_thread(std::move(victim));
  {
    const greenlet seen = weak.lock();
    CHECK_FALSE(seen.dead());
    CHECK(seen.state() == greenlet_state::suspended);
    CHECK(seen.parent() == main);
    CHECK(seen.name().empty());
    CHECK(main.id() != seen.id());
    CHECK(log.empty());
  }
  current();
  CHECK(log == events{"~local"});
}

TEST_CASE("28: a main greenlet has no parent and gets none") {
  const greenlet main = current();
  greenlet child([] {});
  const auto refused = [&](const greenlet& parent) {
    const greenlets::error e = error_from([&] { main.set_parent(parent); });
    CHECK(e.code() == errc::main_parent);
    CHECK(e.summary() == "cannot set the parent of a main greenlet");
    CHECK(names(e, main));
    CHECK(main.parent().empty());
  };
  CHECK(main.parent().empty());
  refused(main);
  refused(child);
  CHECK(error_of([&] { main.set_parent(greenlet()); }) == errc::empty_handle);
  std::thread([&] { refused(current()); }).join();
  greenlet inside([&] { refused(current()); });
  inside.switch_to();
  CHECK(main.parent().empty());

  const greenlets::error e = error_from([] { switch_to_parent(1); });
  CHECK(e.code() == errc::main_parent);
  CHECK(e.summary() == "a main greenlet has no parent to switch to");
  CHECK(names(e, main));
}

TEST_CASE("29: a main greenlet is alive for as long as its thread, and losing handles never ends it") {
  greenlet main;
  events log;
  std::promise<void> seen, checked;
  std::thread thread([&] {
    main = current();
    for (int i = 0; i < 100; ++i) {
      greenlet handle = main_greenlet();
      greenlet child([handle]() mutable { handle = greenlet(); });
      handle = greenlet();
      child.switch_to();
    }
    try {
      greenlet([] { switch_to_parent(); }).switch_to();
      log.push_back("no exit");
    } catch (const greenlet_exit&) {
      log.push_back("exit");
    }
    seen.set_value();
    checked.get_future().wait();
  });
  seen.get_future().wait();
  CHECK(log == events{"no exit"});
  CHECK(static_cast<bool>(main));
  CHECK_FALSE(main.dead());
  CHECK(main.state() == greenlet_state::current);
  checked.set_value();
  thread.join();
  CHECK(main.dead());
  CHECK_FALSE(static_cast<bool>(main));
  CHECK(main.state() == greenlet_state::unwound);
  CHECK(main.parent().empty());
}

TEST_CASE("30: a main greenlet is a greenlet like any other to those who hold it") {
  const greenlet main = main_greenlet();
  CHECK(main.is_main());
  CHECK(main.started());
  CHECK(static_cast<bool>(main));
  CHECK_FALSE(main.dead());
  CHECK(main.state() == greenlet_state::current);
  CHECK(main.id() == current().id());
  CHECK(main_greenlet() == main);

  main.set_name("the first");
  CHECK(current().name() == "the first");
  main.set_name({});

  greenlet child([&] {
    CHECK_FALSE(current().is_main());
    CHECK(main.state() == greenlet_state::suspended);
    CHECK(main_greenlet() == main);
    main.switch_to(5);
  });
  CHECK(child.switch_to().get<int>() == 5);
  CHECK_FALSE(child.is_main());
  const value v(main);
  CHECK(v.get<greenlet>() == main);
}

TEST_CASE("31: a switch or throw to the main greenlet by itself comes back at once") {
  const greenlet main = current();
  CHECK(main.switch_to(5).get<int>() == 5);
  CHECK_FALSE(main.switch_to().has_value());
  CHECK(main.switch_to(1, 2).is<std::tuple<int, int>>());
  CHECK_THROWS_WITH_AS(main.throw_in(std::runtime_error("here")), "here", std::runtime_error);
  bool caught = false;
  try {
    main.throw_in();
  } catch (const greenlet_exit& e) {  // and not a value
    CHECK(e.why == greenlet_exit::reason::thrown);
    caught = true;
  }
  CHECK(caught);
  CHECK(main.state() == greenlet_state::current);
}

TEST_CASE("32: a child may throw into the main greenlet, and stays suspended") {
  const greenlet main = current();
  events log;
  greenlet child([&] {
    log.push_back("throws");
    const int back = main.throw_in(std::out_of_range("from below")).get<int>();
    log.push_back("got " + std::to_string(back));
    main.throw_in();
    log.push_back("ends");
  });
  CHECK_THROWS_WITH_AS(child.switch_to(), "from below", std::out_of_range);
  CHECK(child.state() == greenlet_state::suspended);
  CHECK(static_cast<bool>(child));
  CHECK_THROWS_AS(child.switch_to(9), greenlet_exit);
  CHECK(child.state() == greenlet_state::suspended);
  child.switch_to();
  CHECK(child.dead());
  CHECK(log == events{"throws", "got 9", "ends"});
}

TEST_CASE("33, B6, B12: threads have main greenlets and trees of their own, and run them at once") {
  constexpr int threads = 8, rounds = 500, children = 10;
  std::mutex lock;
  std::vector<greenlet> mains;
  std::vector<std::uint64_t> ids;
  std::vector<std::thread> running;
  std::promise<void> all_there;
  const std::shared_future<void> go(all_there.get_future());
  int there = 0;
  std::vector<long> sums(threads);
  for (int n = 0; n < threads; ++n)
    running.emplace_back([&, n] {
      const greenlet main = current();
      {
        const std::lock_guard guard(lock);
        mains.push_back(main);
        if (++there == threads) all_there.set_value();
      }
      go.wait();
      std::vector<greenlet> tree;
      for (int i = 0; i < children; ++i)
        tree.emplace_back([&main, n, i](int) {
          for (int k = 0;; ++k)
            if (!switch_to_parent(current().parent() == main ? n * i + k : -1).has_value()) return;
        });
      std::vector<std::uint64_t> mine;
      for (int k = 0; k < rounds; ++k)
        for (const greenlet& g : tree) sums[static_cast<std::size_t>(n)] += g.switch_to(k).get<int>();
      for (const greenlet& g : tree) {
        g.switch_to();
        if (!g.dead() || g.parent() != main || main_greenlet() != main) sums[static_cast<std::size_t>(n)] = -1;
        mine.push_back(g.id());
      }
      const std::lock_guard guard(lock);
      ids.insert(ids.end(), mine.begin(), mine.end());
    });
  for (std::thread& t : running) t.join();

  for (int n = 0; n < threads; ++n) {
    long expected = 0;
    for (int k = 0; k < rounds; ++k)
      for (int i = 0; i < children; ++i) expected += n * i + k;
    CHECK(sums[static_cast<std::size_t>(n)] == expected);
  }
  for (const greenlet& main : mains) {
    CHECK(main.dead());
    ids.push_back(main.id());
  }
  ids.push_back(current().id());
  std::sort(ids.begin(), ids.end());
  CHECK(std::adjacent_find(ids.begin(), ids.end()) == ids.end());
  CHECK(ids.size() == threads * (children + 1) + 1);
}

TEST_CASE("33: what one thread's greenlets throw or end with stays on that thread") {
  std::vector<std::string> caught(4);
  std::vector<std::thread> running;
  for (std::size_t n = 0; n < caught.size(); ++n)
    running.emplace_back([&caught, n] {
      for (int i = 0; i < 200; ++i) {
        greenlet g([n] {
          greenlet inner([n]() -> int { throw std::runtime_error(std::to_string(n)); });
          inner.switch_to();
        });
        try {
          g.switch_to();
        } catch (const std::runtime_error& e) {
          caught[n] = e.what();
        }
      }
    });
  for (std::thread& t : running) t.join();
  CHECK(caught == std::vector<std::string>{"0", "1", "2", "3"});
}
