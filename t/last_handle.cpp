// SPDX-License-Identifier: MIT
// The last handle to a suspended greenlet goes, on its own thread: greenlet_exit is thrown into it
// at once, inside the code that dropped the handle. And weak handles, which see it happen.
#include "testing.hpp"

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

using namespace greenlets;
using testing::events;
using testing::noting;

namespace {

// Suspended in a frame that notes; for a greenlet to be killed in.
auto waiting(events& log, const std::string& name) {
  return [&log, name] {
    noting n{log, name};
    try {
      switch_to_parent();
      log.push_back(name + " goes on");
    } catch (const greenlet_exit& e) {
      log.push_back(name + (e.why == greenlet_exit::reason::last_handle ? " killed" : " told to exit"));
      throw;
    }
  };
}

greenlet started(greenlet g) {
  g.switch_to();
  return g;
}

}  // namespace

TEST_CASE("109: the last handle unwinds a suspended greenlet at once, however it goes") {
  events log;
  const events unwound{"before", "g killed", "~g", "after"};
  SUBCASE("at the end of its scope") {
    {
      const greenlet g = started(greenlet(waiting(log, "g")));
      log.push_back("before");
    }
    log.push_back("after");
    CHECK(log == unwound);
  }
  SUBCASE("overwritten by an empty one") {
    greenlet g = started(greenlet(waiting(log, "g")));
    log.push_back("before");
    g = greenlet();
    log.push_back("after");
    CHECK(log == unwound);
  }
  SUBCASE("overwritten by another, to which it refers already when the old one goes") {
    greenlet g;
    const greenlet other([] {});
    g = greenlet([&] {
      const testing::noting n{log, "g"};
      try {
        switch_to_parent();
      } catch (const greenlet_exit&) {
        log.push_back(g == other ? "g killed" : "too early");
        throw;
      }
    });
    g.switch_to();
    log.push_back("before");
    g = other;
    log.push_back("after");
    CHECK(log == unwound);
  }
  SUBCASE("after its copies, whatever became of them") {
    greenlet g = started(greenlet(waiting(log, "g")));
    greenlet copy = g, moved = std::move(copy);
    std::vector<greenlet> many(10, moved);
    value sent(moved);
    g = greenlet();
    moved = greenlet();
    many.clear();
    log.push_back("before");
    sent.reset();
    log.push_back("after");
    CHECK(log == unwound);
  }
  SUBCASE("captured by what another greenlet never ran") {
    greenlet g = started(greenlet(waiting(log, "g")));
    std::optional<greenlet> unstarted(std::in_place, [g] { g.switch_to(); });
    g = greenlet();
    log.push_back("before");
    unstarted.reset();
    log.push_back("after");
    CHECK(log == unwound);
  }
  SUBCASE("in the middle of an exception's way") {
    try {
      const greenlet g = started(greenlet(waiting(log, "g")));
      log.push_back("before");
      throw 1;
    } catch (int) {
      log.push_back("after");
    }
    CHECK(log == unwound);
  }
}

TEST_CASE("109: self-assignment and swapping drop nothing") {
  events log;
  greenlet g = started(greenlet(waiting(log, "g")));
  const greenlet& same = g;
  g = same;
  greenlet h;
  g.swap(h);
  CHECK(g.empty());
  CHECK(log.empty());
  h.switch_to();
  CHECK(log == events{"g goes on", "~g"});
}

TEST_CASE("109, 122: the victim's locals are destroyed while it is current and active") {
  std::vector<std::string> log;
  struct witness {
    std::vector<std::string>& log;
    const weak_greenlet& whose;
    std::uint64_t id;
    ~witness() {
      const greenlet& now = current();
      log.push_back(now.id() == id ? "current" : "another");
      log.push_back(now.state() == greenlet_state::current ? "running" : "not running");
      log.push_back(now && !now.dead() ? "active" : "not active");
      log.push_back(whose.lock() == now ? "weakly known" : "lost");
    }
  };
  weak_greenlet weak;
  greenlet g([&] {
    const witness w{log, weak, current().id()};
    switch_to_parent();
  });
  weak = g;
  g.switch_to();
  g = greenlet();
  CHECK(log == std::vector<std::string>{"current", "running", "active", "weakly known"});
  CHECK(weak.expired());
}

TEST_CASE("110: an unstarted greenlet is just freed; what it was to run is destroyed where the handle went") {
  bool called = false;
  std::uint64_t destroyed_in = 0;
  const auto before = counts();
  {
    const greenlet g([&called, guard = testing::at_end([&] { destroyed_in = current().id(); })] { called = true; });
    CHECK(counts().greenlets == before.greenlets + 1);
    CHECK(counts().stacks == before.stacks);
  }
  CHECK_FALSE(called);
  CHECK(destroyed_in == current().id());
  CHECK(counts().greenlets == before.greenlets);
}

TEST_CASE("110: a dead greenlet is just freed") {
  int calls = 0;
  const auto before = counts();
  {
    const greenlet g([&calls] { ++calls; });
    g.switch_to();
    CHECK(g.dead());
    CHECK(counts().greenlets == before.greenlets + 1);
  }
  CHECK(calls == 1);
  CHECK(counts().greenlets == before.greenlets);
}

TEST_CASE("110: a chain of a hundred thousand unstarted greenlets is freed without recursion") {
  const auto before = counts();
  {
    greenlet last([] {});
    for (int i = 0; i < 100'000; ++i) last = greenlet([] {}, last);
    CHECK(counts().greenlets == before.greenlets + 100'001);
  }
  CHECK(counts().greenlets == before.greenlets);
}

TEST_CASE("111: while it dies its parent is the one who dropped it, to whom control comes back") {
  //   main              victim             dropper
  //   starts victim
  //                     parent: main
  //   starts dropper
  //                                        drops victim
  //                     parent: dropper
  //                                        goes on
  events log;
  const greenlet main = current();
  greenlet victim([&] {
    CHECK(current().parent() == main);
    try {
      switch_to_parent();
    } catch (const greenlet_exit&) {
      log.push_back(current().parent().name());
      throw;
    }
  });
  victim.switch_to();
  const greenlet dropper(attributes().name("dropper"), [&] {
    victim = greenlet();
    log.push_back("the dropper goes on");
    return 5;
  });
  CHECK(dropper.switch_to().get<int>() == 5);
  CHECK(log == events{"dropper", "the dropper goes on"});
}

TEST_CASE("111: a victim that chooses another parent while it dies keeps it") {
  events log;
  greenlet saved;
  const greenlet other([&] {
    for (;;) {
      log.push_back("other");
      switch_to_parent();
    }
  });
  greenlet g([&] {
    try {
      switch_to_parent();
    } catch (const greenlet_exit&) {
      saved = current();
      current().set_parent(other);
      main_greenlet().switch_to();
      log.push_back("back");
    }
  });
  g.switch_to();
  g = greenlet();
  CHECK(saved.parent() == other);
  saved.switch_to();
  CHECK(saved.dead());
  CHECK(log == events{"back", "other"});
}

// The old parent came back although it had been made the child's descendant: the tree had a cycle, and a
// switch that looked for somebody alive never ended.
TEST_CASE("111: an old parent that descends from the victim by then does not come back") {
  const greenlet main = current();
  const greenlet parent([] { return 1; });
  const greenlet between([] {});
  greenlet victim([&] {
    const auto last = testing::at_end([&] {
      between.set_parent(current());
      parent.set_parent(between);
    });
    main.switch_to();
  }, parent);
  victim.switch_to();
  const weak_greenlet weak(victim);
  victim = greenlet();
  victim = weak.lock();
  REQUIRE(victim.dead());
  CHECK(parent.parent() == between);
  CHECK(between.parent() == victim);
  REQUIRE(victim.parent() == main);
  CHECK(testing::error_of([&] { victim.set_parent(parent); }) == errc::cyclic_parent);
  CHECK(victim.switch_to(7).get<int>() == 7);
}

TEST_CASE("44, 114: a value on its way is not lost when a kill happens before it is received") {
  // The running greenlet loses its last handle; it is unwound when it is left, and the value that
  // it sent arrives after that.
  events log;
  greenlet g([&] {
    const noting n{log, "g"};
    g = greenlet();
    log.push_back("still running");
    switch_to_parent(std::make_unique<int>(42));
    log.push_back("not reached");
  });
  const value v = g.switch_to();
  log.push_back("arrived");
  CHECK(*v.get<std::unique_ptr<int>>() == 42);
  CHECK(log == events{"still running", "~g", "arrived"});
}

TEST_CASE("24, 44: the running greenlet's last handle: the exception it throws elsewhere arrives too") {
  events log;
  const greenlet receiver([&] {
    try {
      switch_to_parent();
    } catch (int n) {
      log.push_back("received " + std::to_string(n));
    }
  });
  receiver.switch_to();
  greenlet g([&] {
    const noting n{log, "g"};
    g = greenlet();
    receiver.throw_in(7);
  });
  g.switch_to();
  CHECK(log == events{"~g", "received 7"});
}

TEST_CASE("24: a greenlet that has lost its last handle while it runs, and finishes, is not told to exit") {
  events log;
  greenlet g([&] {
    const noting n{log, "g"};
    g = greenlet();
    return 3;
  });
  CHECK(g.switch_to().get<int>() == 3);
  CHECK(log == events{"~g"});
}

TEST_CASE("118: while it dies it may switch to third greenlets, start new ones and drop others") {
  events log;
  const greenlet third([&] {
    for (greenlet back;;) {
      log.push_back("third");
      switch_to_parent();
    }
  });
  third.switch_to();
  struct busy {
    events& log;
    const greenlet& third;
    ~busy() {
      greenlet fresh([this] {
        log.push_back("fresh");
        switch_to_parent();
      });
      fresh.switch_to();
      third.set_parent(current());
      third.switch_to();
      third.set_parent(main_greenlet());
      greenlet dropped = started(greenlet(waiting(log, "dropped")));
      dropped = greenlet();
      log.push_back("busy");
    }
  };
  greenlet g([&] {
    const busy b{log, third};
    switch_to_parent();
  });
  g.switch_to();
  g = greenlet();
  CHECK(log == events{"third", "fresh", "third", "dropped killed", "~dropped", "busy"});
}

TEST_CASE("118, B7: kills within kills, a thousand greenlets deep, each on its own stack") {
  int destroyed = 0;
  struct counting {
    int& n;
    ~counting() { ++n; }
  };
  greenlet outermost;
  for (int i = 0; i < 1000; ++i) {
    greenlet next([&destroyed](greenlet inner) {
      const counting c{destroyed};
      const greenlet held = std::move(inner);  // the last handle to the one inside
      switch_to_parent();
    });
    next.switch_to(std::move(outermost));
    outermost = std::move(next);
  }
  CHECK(destroyed == 0);
  outermost = greenlet();
  CHECK(destroyed == 1000);
}

TEST_CASE("118: two suspended greenlets that hold each other's only handles by way of a third are freed with it") {
  events log;
  {
    auto shared = std::make_shared<std::vector<greenlet>>();
    for (const char* name : {"a", "b"}) {
      shared->emplace_back(waiting(log, name));
      shared->back().switch_to();
    }
    greenlet c([shared, &log] {
      const noting n{log, "c"};
      switch_to_parent();
    });
    shared.reset();
    c.switch_to();
    c = greenlet();
    // c's callable, with all that it captured, goes on c's own stack before c is dead.
    CHECK(log == events{"~c", "a killed", "~a", "b killed", "~b"});
  }
}

TEST_CASE("29, B27: main greenlets are not unwound, however many handles to them go") {
  for (int i = 0; i < 3; ++i) {
    greenlet m = main_greenlet();
    const weak_greenlet w = m;
    m = greenlet();
    CHECK_FALSE(w.expired());
    CHECK(current() == main_greenlet());
  }
  // Nor from below, while main is suspended.
  const greenlet g([] {
    greenlet m = main_greenlet();
    m = greenlet();
    return main_greenlet().state() == greenlet_state::suspended;
  });
  CHECK(g.switch_to().get<bool>());
}

TEST_CASE("83, 195: dropping an unstarted child kills its suspended parent, which finds the child's weak handle expired") {
  events log;
  weak_greenlet weak_child;
  greenlet parent([&] {
    try {
      switch_to_parent();
    } catch (const greenlet_exit&) {
      log.push_back(weak_child.expired() && weak_child.lock().empty() ? "child gone" : "child there");
      throw;
    }
  });
  parent.switch_to();
  greenlet child([] {}, parent);
  weak_child = child;
  parent = greenlet();
  CHECK(log.empty());
  child = greenlet();
  CHECK(log == events{"child gone"});
}

TEST_CASE("83: reparenting kills an old parent to which nothing else is left") {
  events log;
  greenlet parent(waiting(log, "parent"));
  parent.switch_to();
  const greenlet child([] {}, parent);
  parent = greenlet();
  log.push_back("before");
  child.set_parent(current());
  log.push_back("after");
  CHECK(log == events{"before", "parent killed", "~parent", "after"});
  CHECK(child.parent() == current());
}

TEST_CASE("119, 194: a weak handle resolves until its greenlet is really gone") {
  weak_greenlet none;
  CHECK(none.expired());
  CHECK(none.lock().empty());

  events log;
  weak_greenlet weak;
  greenlet saved;
  greenlet g([&] {
    try {
      switch_to_parent();
    } catch (const greenlet_exit&) {
      log.push_back(weak.expired() ? "expired" : "resolves");
      const greenlet locked = weak.lock();
      log.push_back(locked == current() ? "to it" : "to another");
      throw;
    }
  });
  weak = g;
  CHECK(weak.lock() == g);
  const weak_greenlet copy = weak;
  weak_greenlet moved = std::move(weak);
  weak = moved;
  g.switch_to();
  CHECK_FALSE(weak.expired());
  g = greenlet();
  CHECK(log == events{"resolves", "to it"});
  CHECK(weak.expired());
  CHECK(copy.expired());
  CHECK(moved.lock().empty());

  SUBCASE("unstarted") {
    greenlet u([] {});
    const weak_greenlet w = u;
    CHECK(w.lock() == u);
    u = greenlet();
    CHECK(w.expired());
  }
  SUBCASE("dead") {
    greenlet d([] {});
    d.switch_to();
    const weak_greenlet w = d;
    CHECK(w.lock() == d);
    d = greenlet();
    CHECK(w.expired());
  }
}
