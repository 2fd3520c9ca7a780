// SPDX-License-Identifier: MIT
// The end of a greenlet: what is destroyed and in which order, that nothing is kept, and that there is
// no way back.
#include "testing.hpp"

#include <cstdio>
#include <exception>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

using greenlets::attributes;
using greenlets::counts;
using greenlets::current;
using greenlets::errc;
using greenlets::greenlet;
using greenlets::greenlet_exit;
using greenlets::greenlet_state;
using greenlets::switch_to_parent;
using greenlets::value;
using greenlets::weak_greenlet;
using testing::at_end;
using testing::error_of;
using testing::events;
using testing::noting;

namespace {

// Once they have all been done once, more rounds need no more memory.
void check_flat(const std::function<void()>& round) {
  for (int i = 0; i < 2000; ++i) round();
  const auto before = counts();
  const long pages = testing::resident_pages();
  for (int i = 0; i < 20000; ++i) round();
  if (!testing::freed_memory_is_kept()) CHECK(testing::resident_pages() - pages <= 16);
  CHECK(counts().greenlets == before.greenlets);
  CHECK(counts().stacks == before.stacks);
}

}  // namespace

TEST_CASE("74: the end, in order: the stack, the arguments, the callable, dead, the parent") {
  events log;
  greenlet g;
  const auto note = [&](const char* text) {
    return at_end([&, text] {
      log.push_back(text);
      CHECK(current() == g);
      CHECK(g.state() == greenlet_state::current);
      CHECK_FALSE(g.dead());
      CHECK(static_cast<bool>(g));
    });
  };
  using end = std::shared_ptr<void>;
  g = greenlet([&, callable = note("~callable")](const end&) {
    const end local = note("~local");
    return 5;
  });
  CHECK(g.switch_to(note("~argument")).get<int>() == 5);
  log.push_back("parent");
  CHECK(log == events{"~local", "~argument", "~callable", "parent"});
  CHECK(g.dead());
}

TEST_CASE("74, B3: the last destructors may switch away and back, and the result is kept") {
  events log;
  using end = std::shared_ptr<void>;
  const auto switching = [&](const char* text) {
    return at_end([&log, text] {
      log.push_back(text);
      switch_to_parent();
      log.push_back(std::string(text) + " goes on");
    });
  };
  const events expected{"~argument", "main", "~argument goes on", "~callable", "main", "~callable goes on"};
  SUBCASE("it returns") {
    const greenlet g([callable = switching("~callable")](const end&) { return std::make_unique<int>(7); });
    CHECK_FALSE(g.switch_to(switching("~argument")).has_value());
    log.push_back("main");
    CHECK_FALSE(g.switch_to().has_value());
    log.push_back("main");
    CHECK(*g.switch_to().get<std::unique_ptr<int>>() == 7);
    CHECK(g.dead());
  }
  SUBCASE("it throws") {
    const greenlet g([callable = switching("~callable")](const end&) { throw std::runtime_error("kept"); });
    CHECK_FALSE(g.switch_to(switching("~argument")).has_value());
    log.push_back("main");
    CHECK(std::uncaught_exceptions() == 0);
    CHECK_FALSE(g.switch_to().has_value());
    log.push_back("main");
    CHECK_THROWS_WITH_AS(g.switch_to(), "kept", std::runtime_error);
    CHECK(g.dead());
  }
  CHECK(log == expected);
}

TEST_CASE("74: the callable's destructor may drop the last handle") {
  weak_greenlet weak;
  auto g = std::make_unique<greenlet>();
  *g = greenlet([end = at_end([&] {
                   g.reset();
                   CHECK_FALSE(weak.expired());
                 })] { return 8; });
  weak = *g;
  const greenlet* const handle = g.get();
  CHECK(handle->switch_to().get<int>() == 8);
  CHECK(weak.expired());
}

TEST_CASE("74: a greenlet whose callable holds it is free once it has finished") {
  weak_greenlet weak;
  {
    const greenlet g{attributes()};
    g.set_run([g] { return g.dead(); });
    weak = g;
    CHECK_FALSE(g.switch_to().get<bool>());
    CHECK_FALSE(weak.expired());
  }
  CHECK(weak.expired());
}

TEST_CASE("74: the last destructor may end the parent, and the result goes past it") {
  events log;
  greenlet child;
  const greenlet parent([&] {
    const noting local{log, "local"};
    switch_to_parent();
  });
  parent.switch_to();
  child = greenlet([&, end = at_end([&] {
                         // Its exit goes to main; who will come back to us.
                         parent.throw_in();
                       })] { return 2; },
                   parent);
  CHECK(child.switch_to().is<greenlet_exit>());
  CHECK(log == events{"~local"});
  CHECK(parent.dead());
  CHECK(child.state() == greenlet_state::suspended);
  CHECK(child.switch_to().get<int>() == 2);
  CHECK(child.dead());
}

TEST_CASE("75: when the parent goes on, the greenlet is dead already") {
  greenlet g;
  g = greenlet([&] { CHECK_FALSE(g.dead()); });
  g.switch_to();
  CHECK(g.dead());
  CHECK_FALSE(static_cast<bool>(g));
  CHECK(g.started());
  CHECK(g.state() == greenlet_state::finished);

  g = greenlet([] { throw 1; });
  try {
    g.switch_to();
  } catch (int) {
    CHECK(g.dead());
  }
  // Before the code of an unstarted parent, too, and before what is destroyed in the parent.
  const greenlet parent([&](int) { CHECK(g.dead()); });
  g = greenlet([] { return 1; }, parent);
  g.switch_to();
}

TEST_CASE("a destructor that switches while an exception passes it does not disturb the exception") {
  events log;
  int uncaught = -1;
  const greenlet g([&] {
    const auto local = at_end([&] {
      CHECK(std::uncaught_exceptions() == 1);
      switch_to_parent(std::string("on the way"));
      uncaught = std::uncaught_exceptions();
    });
    throw std::runtime_error("in flight");
  });
  CHECK(g.switch_to().get<std::string>() == "on the way");
  CHECK(std::uncaught_exceptions() == 0);
  CHECK_THROWS_AS(greenlet([] { throw 1; }).switch_to(), int);
  CHECK_THROWS_WITH_AS(g.switch_to(), "in flight", std::runtime_error);
  CHECK(uncaught == 1);
}

TEST_CASE("many that are unwinding at once, each switched away in a destructor, come to their ends in any order") {
  std::vector<greenlet> all;
  for (int i = 0; i < 50; ++i) {
    all.emplace_back([i] {
      const auto local = at_end([] { switch_to_parent(); });
      throw i;
    });
    all.back().switch_to();
  }
  for (int k = 0; k < 50; ++k) {
    const int i = k * 7 % 50;
    try {
      all[static_cast<std::size_t>(i)].switch_to();
      FAIL("nothing was thrown");
    } catch (int n) {
      CHECK(n == i);
    }
    CHECK(std::uncaught_exceptions() == 0);
  }
}

TEST_CASE("76, B26: no memory is kept of greenlets that have finished") {
  SUBCASE("returned") {
    check_flat([] { greenlet([](int n) { return n; }).switch_to(1); });
  }
  SUBCASE("thrown") {
    check_flat([] {
      try {
        greenlet([] { throw 1; }).switch_to();
      } catch (int) {
      }
    });
  }
  SUBCASE("ended by an exit") {
    check_flat([] {
      const attributes named = attributes().name("a name too long to be kept in the string itself");
      const greenlet g(named, [] { switch_to_parent(); });
      g.switch_to();
      g.throw_in();
    });
  }
  SUBCASE("dropped") {
    check_flat([] { greenlet([] { switch_to_parent(std::string(100, 'x')); }).switch_to(); });
  }
  SUBCASE("never started") {
    check_flat([] { greenlet([room = std::vector<int>(100)] { return room.size(); }); });
  }
  SUBCASE("with an unstarted parent") {
    check_flat([] { greenlet([] { return 1; }, greenlet([](int) {})).switch_to(); });
  }
}

TEST_CASE("76, B26: ... also when more were alive at once than the pool keeps stacks of") {
  const auto round = [] {
    std::vector<greenlet> all;
    for (int i = 0; i < 400; ++i) {
      all.emplace_back([] { switch_to_parent(); });
      all.back().switch_to();
    }
    for (const greenlet& g : all) g.switch_to();
  };
  round();
  const auto before = counts();
  for (int i = 0; i < 10; ++i) round();
  CHECK(counts().greenlets == before.greenlets);
  CHECK(counts().stacks == before.stacks);
  CHECK(counts().pooled_stacks == before.pooled_stacks);
  greenlets::trim_stacks();
  CHECK(counts().stacks == 0);
}

TEST_CASE("77: a dead greenlet stays dead, whatever is done with it") {
  int runs = 0;
  const greenlet other([](value v) {
    for (;;) v = switch_to_parent(std::move(v));
  });
  other.switch_to();
  const greenlet returned([&] { ++runs; });
  returned.switch_to();
  const greenlet threw([&] {
    ++runs;
    throw 1;
  });
  CHECK_THROWS_AS(threw.switch_to(), int);
  const greenlet never([&] { ++runs; });
  CHECK(never.throw_in().is<greenlet_exit>());
  for (const greenlet& g : {returned, threw, never}) {
    const int before = runs;
    CHECK(g.switch_to(1).get<int>() == 1);
    CHECK(error_of([&] { g.set_run([&] { ++runs; }); }) == errc::already_started);
    CHECK(error_of([&] { g.reset_run(); }) == errc::already_started);
    g.set_parent(other);
    CHECK(g.switch_to(2).get<int>() == 2);  // `other` answers
    CHECK(g.throw_in().is<greenlet_exit>());
    CHECK(runs == before);
    CHECK(g.state() == greenlet_state::finished);
  }
  CHECK(runs == 2);
}

TEST_CASE("77: one that its thread's exit unwound can be given no live parent, and never runs again") {
  greenlet g, unstarted;
  bool again = false;
  std::thread([&] {
    g = greenlet([&] {
      switch_to_parent();
      again = true;
    });
    g.switch_to();
    unstarted = greenlet([] { return 6; });
  }).join();
  CHECK(g.state() == greenlet_state::unwound);
  CHECK(error_of([&] { g.set_parent(current()); }) == errc::parent_thread);
  CHECK(error_of([&] { g.set_run([] {}); }) == errc::already_started);
  CHECK(error_of([&] { g.switch_to(); }) == errc::thread_exited);
  CHECK(error_of([&] { g.throw_in(1); }) == errc::thread_exited);
  CHECK_FALSE(again);
  // What has never started is of no thread, and not dead.
  CHECK(error_of([&] { unstarted.switch_to(); }) == errc::thread_exited);
  unstarted.set_parent(current());
  CHECK(unstarted.switch_to().get<int>() == 6);
}

TEST_CASE("74, 109: a callable's destructor that has switched away goes on when the last handle goes; nothing is thrown there") {
  events log;
  struct leaver {
    events* log;
    explicit leaver(events& l) : log(&l) {}
    leaver(leaver&& other) noexcept : log(std::exchange(other.log, nullptr)) {}
    ~leaver() {
      if (!log) return;
      log->push_back("leaves");
      switch_to_parent();
      log->push_back("goes on");
    }
  };
  greenlet g([l = leaver(log)] { return 1; });
  CHECK(!g.switch_to().has_value());
  CHECK(bool(g));
  g = greenlet();
  CHECK(log == events{"leaves", "goes on"});
}
