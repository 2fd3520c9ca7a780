// SPDX-License-Identifier: MIT
// Making a greenlet, and what it is to run: nothing happens before the first switch.
#include "testing.hpp"

#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <type_traits>

using greenlets::attributes;
using greenlets::counts;
using greenlets::current;
using greenlets::errc;
using greenlets::greenlet;
using greenlets::greenlet_state;
using greenlets::switch_to_parent;
using testing::at_end;
using testing::error_from;
using testing::error_of;
using testing::events;
using testing::names;
using testing::noting;

namespace {

// Counts what is made of it.
struct counted {
  struct tally {
    int copies = 0, moves = 0, calls = 0;
  };
  tally* made;
  explicit counted(tally& t) : made(&t) {}
  counted(const counted& other) : made(other.made) { ++made->copies; }
  counted(counted&& other) noexcept : made(other.made) { ++made->moves; }
  counted& operator=(const counted&) = delete;
  void operator()() { ++made->calls; }
};

struct uncopyable_today {
  uncopyable_today() = default;
  uncopyable_today(const uncopyable_today&) { throw std::runtime_error("not today"); }
  void operator()() {}
};

struct abstract {
  virtual ~abstract() = default;
  virtual int operator()(int) = 0;
};
struct concrete : abstract {
  int operator()(int n) override { return n + 1; }
};
struct neither_copied_nor_moved {
  neither_copied_nor_moved() = default;
  neither_copied_nor_moved(const neither_copied_nor_moved&) = delete;
  void operator()() {}
};

void plain() {}

}  // namespace

TEST_CASE("6: making a greenlet runs nothing and takes no stack") {
  events log;
  const auto before = counts();
  {
    const greenlet g([&log] { log.push_back("ran"); });
    const greenlet with(attributes().stack_size(1 << 20).name("never"), [&log] { log.push_back("ran"); });
    const greenlet without{attributes()};
    CHECK(counts().greenlets == before.greenlets + 3);
    CHECK(counts().stacks == before.stacks);
    for (const greenlet& each : {g, with, without}) {
      CHECK(each.state() == greenlet_state::unstarted);
      CHECK_FALSE(each.started());
      CHECK_FALSE(each.dead());
      CHECK_FALSE(static_cast<bool>(each));
      CHECK_FALSE(each.is_main());
      CHECK_FALSE(each.empty());
      CHECK(each.id() != 0);
    }
    CHECK(g != with);
    CHECK(g.id() != with.id());
    CHECK(with.name() == "never");
  }
  CHECK(log.empty());
  CHECK(counts().greenlets == before.greenlets);
}

TEST_CASE("6: the stack comes with the first switch and goes back to the pool at the end") {
  const auto before = counts();
  greenlet g([] { switch_to_parent(); });
  CHECK(counts().stacks == before.stacks);
  g.switch_to();
  CHECK(counts().stacks == before.stacks + 1);
  CHECK(counts().pooled_stacks == before.pooled_stacks);
  g.switch_to();
  CHECK(g.dead());
  CHECK(counts().pooled_stacks == before.pooled_stacks + 1);
}

TEST_CASE("6: the callable is copied once or not at all, and kept in one place") {
  counted::tally copied, moved;
  {
    const counted callable(copied);
    greenlet g(callable);
    CHECK(copied.copies == 1);
    g.switch_to();
    CHECK(copied.copies == 1);
    CHECK(copied.calls == 1);
  }
  greenlet g{counted(moved)};
  CHECK(moved.copies == 0);
  g.switch_to();
  CHECK(moved.copies == 0);
  CHECK(moved.calls == 1);
}

TEST_CASE("6: what copying the callable throws leaves nothing behind") {
  const auto before = counts();
  const uncopyable_today callable;
  CHECK_THROWS_WITH_AS(greenlet{callable}, "not today", std::runtime_error);
  CHECK(counts().greenlets == before.greenlets);
  greenlet g(plain);
  CHECK_THROWS_AS(g.set_run(callable), std::runtime_error);
  CHECK(g.has_run());
}

TEST_CASE("6: a stack size that cannot be is refused before anything is made") {
  const auto before = counts();
  CHECK_THROWS_AS(greenlet(attributes().stack_size(1), plain), std::invalid_argument);
  CHECK_THROWS_AS(greenlet(attributes().stack_size(static_cast<std::size_t>(-1)), plain), std::invalid_argument);
  CHECK(counts().greenlets == before.greenlets);
}

TEST_CASE("7: the parent is the greenlet that makes it, unless another is given") {
  const greenlet main = current();
  greenlet a, b, c, d;
  a = greenlet([&] {
    b = greenlet(plain);
    c = greenlet(plain, b);
    d = greenlet(attributes().parent(main), plain);
  });
  CHECK(a.parent() == main);
  a.switch_to();
  CHECK(b.parent() == a);
  CHECK(c.parent() == b);
  CHECK(d.parent() == main);
}

TEST_CASE("7: an empty handle as the parent means the greenlet that makes it") {
  greenlet child([] {
    const greenlet here = current();
    CHECK(greenlet(plain, greenlet()).parent() == here);
    CHECK(greenlet(attributes().parent(greenlet()), plain).parent() == here);
    CHECK(greenlet(attributes()).parent() == here);
  });
  child.switch_to();
}

// main       victim              inner     the thread
//  |-------->| waits
//  |                                        drops victim
//  | greenlet(...)
//  |-------->| greenlet_exit
//  |         |------------------>|
//  |<--------| dies <-----------
//  | its parent is main
TEST_CASE("8: construction unwinds first what other threads have dropped, and then asks who is current") {
  events log;
  const auto scene = [&log] {
    const greenlet here = current();
    greenlet victim([&log, here] {
      const auto local = at_end([&log] {
        const greenlet dying = current();
        greenlet inner([&log] { log.push_back("inner"); });
        CHECK(inner.parent() == dying);
        std::thread([] { current(); }).join();  // others run meanwhile
        inner.switch_to();
        log.push_back("~local");
      });
      here.switch_to();
    });
    victim.switch_to();
    std::thread([dropped = std::move(victim)]() mutable { dropped = greenlet(); }).join();
    CHECK(log.empty());

    const greenlet made(plain);
    CHECK(log == events{"inner", "~local"});
    CHECK(made.parent() == here);
    CHECK(current() == here);
    log.clear();
  };
  scene();
  greenlet child(scene);
  child.switch_to();
  CHECK(child.dead());
}

TEST_CASE("11: with nothing to run, a switch is an error of the caller and changes nothing") {
  const greenlet idle(attributes().name("idle"));
  bool caught = false;
  greenlet caller([&] {
    const greenlets::error e = error_from([&] { idle.switch_to(1); });
    CHECK(e.code() == errc::no_run);
    CHECK(e.summary() == "the greenlet has nothing to run");
    CHECK(names(e, idle));
    caught = true;
  });
  for (int twice = 0; twice < 2; ++twice) {
    CHECK(error_of([&] { idle.switch_to(1); }) == errc::no_run);
    CHECK(idle.state() == greenlet_state::unstarted);
    CHECK_FALSE(idle.has_run());
    CHECK_FALSE(idle.dead());
    CHECK_FALSE(static_cast<bool>(idle));
  }
  caller.switch_to();
  CHECK(caught);

  idle.set_run([](int n) { return n + 1; });
  CHECK(idle.switch_to(41).get<int>() == 42);
  CHECK(idle.dead());
}

TEST_CASE("11: with nothing to run, a throw is the same error, which takes the exception's place") {
  const auto before = counts();
  const greenlet idle{attributes()};
  CHECK(error_of([&] { idle.throw_in(std::runtime_error("lost")); }) == errc::no_run);
  CHECK(error_of([&] { idle.throw_in(); }) == errc::no_run);
  CHECK(idle.state() == greenlet_state::unstarted);
  CHECK(counts().stacks == before.stacks);
  idle.set_run(plain);
  CHECK_THROWS_WITH_AS(idle.throw_in(std::runtime_error("kept")), "kept", std::runtime_error);
  CHECK(idle.dead());
}

TEST_CASE("12: nothing but a greenlet can be given as a parent, and the empty handle is told from one") {
  static_assert(!std::is_constructible_v<greenlet, void (&)(), int>);
  static_assert(!std::is_constructible_v<greenlet, void (&)(), std::nullptr_t>);
  static_assert(!std::is_constructible_v<greenlet, void (&)(), const char*>);
  static_assert(!std::is_constructible_v<greenlet, void (&)(), const greenlet*>);
  static_assert(!std::is_constructible_v<greenlet, void (&)(), void (&)()>);
  static_assert(!std::is_convertible_v<int, greenlet>);
  static_assert(!std::is_convertible_v<std::nullptr_t, greenlet>);
  static_assert(!std::is_convertible_v<greenlets::weak_greenlet, greenlet>);
  const greenlet g(plain), suspended([] { switch_to_parent(); });
  suspended.switch_to();
  for (const greenlet& each : {g, suspended}) {
    const greenlets::error e = error_from([&] { each.set_parent(greenlet()); });
    CHECK(e.code() == errc::empty_handle);
    CHECK(e.summary() == "the handle refers to no greenlet");
    CHECK(each.parent() == current());
  }
}

TEST_CASE("14: an abstract callable is rejected by the compiler; what overrides it can be run") {
  static_assert(!std::is_constructible_v<greenlet, abstract&>);
  static_assert(!std::is_constructible_v<greenlet, abstract&, const greenlet&>);
  static_assert(!std::is_constructible_v<greenlet, const attributes&, abstract&>);
  static_assert(std::is_constructible_v<greenlet, concrete>);
  CHECK(greenlet(concrete()).switch_to(1).get<int>() == 2);

  concrete here;  // by reference it is run where it is
  abstract& base = here;
  CHECK(greenlet(std::ref(base)).switch_to(2).get<int>() == 3);
}

TEST_CASE("14: only what can be called and kept makes a greenlet") {
  static_assert(!std::is_constructible_v<greenlet, int>);
  static_assert(!std::is_constructible_v<greenlet, std::nullptr_t>);
  static_assert(!std::is_constructible_v<greenlet, const char*>);
  static_assert(!std::is_constructible_v<greenlet, neither_copied_nor_moved&>);
  static_assert(!std::is_constructible_v<greenlet, std::unique_ptr<concrete>>);
  static_assert(std::is_constructible_v<greenlet, void (&)()>);
  static_assert(std::is_constructible_v<greenlet, std::function<void()>>);
  // Copies of a handle are handles, whatever the handle's constness.
  static_assert(std::is_nothrow_constructible_v<greenlet, greenlet&>);
  static_assert(std::is_nothrow_constructible_v<greenlet, const greenlet&>);
  static_assert(std::is_nothrow_move_constructible_v<greenlet>);
  static_assert(std::is_nothrow_move_assignable_v<greenlet>);
  static_assert(std::is_constructible_v<greenlet, attributes&>);
  // Nothing becomes a greenlet, and no handle a bool, by itself.
  static_assert(!std::is_convertible_v<void (*)(), greenlet>);
  static_assert(!std::is_convertible_v<greenlet, bool>);
  static_assert(sizeof(greenlet) == sizeof(void*));
}

TEST_CASE("15: while unstarted, what it runs can be given, replaced and taken away") {
  const greenlet g{attributes()};
  CHECK_FALSE(g.has_run());
  g.set_run([] { return 1; });
  CHECK(g.has_run());
  g.reset_run();
  CHECK_FALSE(g.has_run());
  CHECK(error_of([&] { g.switch_to(); }) == errc::no_run);
  g.reset_run();  // again: there is nothing to take away
  g.set_run([] { return 2; });
  CHECK(g.switch_to().get<int>() == 2);
}

TEST_CASE("15: what is taken away is destroyed at once") {
  events log;
  const greenlet g([end = at_end([&] { log.push_back("~first"); })] {});
  log.push_back("made");
  g.set_run([end = at_end([&] { log.push_back("~second"); })] {});
  log.push_back("replaced");
  g.reset_run();
  log.push_back("reset");
  CHECK(log == events{"made", "~first", "replaced", "~second", "reset"});
}

TEST_CASE("15, 16, 17: an empty handle has no run to ask for or to set") {
  const greenlet none;
  CHECK(error_of([&] { none.has_run(); }) == errc::empty_handle);
  CHECK(error_of([&] { none.set_run(plain); }) == errc::empty_handle);
  CHECK(error_of([&] { none.reset_run(); }) == errc::empty_handle);
}

TEST_CASE("16: from the start on, also in its own eyes and when it is dead, it has no run") {
  greenlet g;
  bool inside = true;
  g = greenlet([&] {
    inside = g.has_run();
    switch_to_parent();
  });
  CHECK(g.has_run());
  g.switch_to();
  CHECK_FALSE(inside);
  CHECK_FALSE(g.has_run());
  g.switch_to();
  CHECK(g.dead());
  CHECK_FALSE(g.has_run());

  greenlet thrown_at(plain);
  CHECK_THROWS_AS(thrown_at.throw_in(1), int);
  CHECK_FALSE(thrown_at.has_run());
}

TEST_CASE("17: after the start what it runs can be neither set nor taken away") {
  events log;
  greenlet g;
  const auto refused = [&](const char* when) {
    const greenlets::error e =
        error_from([&] { g.set_run([end = at_end([&] { log.push_back(std::string("~new ") + when); })] {}); });
    CHECK(e.code() == errc::already_started);
    CHECK(e.summary() == "run cannot be set after the start of the greenlet");
    CHECK(names(e, g));
    CHECK(error_of([&] { g.reset_run(); }) == errc::already_started);
  };
  g = greenlet(attributes().name("busy"), [&, end = at_end([&] { log.push_back("~run"); })] {
    refused("running");
    log.push_back("switches");
    switch_to_parent();
    log.push_back("finishes");
  });
  g.switch_to();
  refused("suspended");
  g.switch_to();
  refused("dead");
  CHECK(log == events{"~new running", "switches", "~new suspended", "finishes", "~run", "~new dead"});
}

TEST_CASE("18: main greenlets have no run") {
  const greenlet main = current();
  CHECK_FALSE(main.has_run());
  const greenlets::error e = error_from([&] { main.set_run(plain); });
  CHECK(e.code() == errc::already_started);
  CHECK(e.summary() == "main greenlets do not have a run");
  CHECK(names(e, main));
  CHECK(error_of([&] { main.reset_run(); }) == errc::already_started);
  greenlet child([&] { CHECK(error_of([&] { main.set_run(plain); }) == errc::already_started); });
  child.switch_to();
}

TEST_CASE("19: the last callable given before the start is the one that runs") {
  events log;
  const greenlet g([&] { log.push_back("from the constructor"); });
  g.set_run([&] { log.push_back("set"); });
  g.set_run([&] { log.push_back("set last"); });
  g.switch_to();
  CHECK(log == events{"set last"});
}

TEST_CASE("20: the callable lives as long as it runs, and goes before the parent goes on") {
  events log;
  greenlet g;
  const auto end = [&] {
    CHECK(current() == g);
    CHECK(g.state() == greenlet_state::current);
    CHECK(g.parent() != current());
    log.push_back("~callable");
  };
  SUBCASE("it returns") {
    g = greenlet([&, local = at_end(end)] {
      switch_to_parent();
      log.push_back("returns");
    });
    g.switch_to();
    log.push_back("suspended");
    g.switch_to();
    log.push_back("parent");
    CHECK(log == events{"suspended", "returns", "~callable", "parent"});
  }
  SUBCASE("it throws") {
    g = greenlet([&, local = at_end(end)]() -> int { throw std::runtime_error("it"); });
    try {
      g.switch_to();
    } catch (const std::runtime_error&) {
      log.push_back("parent");
    }
    CHECK(log == events{"~callable", "parent"});
  }
  SUBCASE("it is killed") {
    g = greenlet([&, local = at_end(end)] {
      const noting on_stack{log, "stack"};
      switch_to_parent();
    });
    g.switch_to();
    CHECK(g.throw_in().is<greenlets::greenlet_exit>());
    log.push_back("parent");
    CHECK(log == events{"~stack", "~callable", "parent"});
  }
  CHECK(g.state() == greenlet_state::finished);
}

TEST_CASE("20: the callable of a greenlet that never starts goes with its last handle") {
  events log;
  greenlet g([end = at_end([&] { log.push_back("~callable"); })] {});
  greenlet copy = g;
  g = greenlet();
  CHECK(log.empty());
  copy = greenlet();
  CHECK(log == events{"~callable"});
}

// main                g
//  | set_run(new)
//  | ~old ------------->| new: gets 7
//  |<-------------------| waits
//  | set_run returns
//  |------------------->| goes on, ends
TEST_CASE("21, B3, B4: the destructor of a replaced callable may start the greenlet, with the new one") {
  events log;
  greenlet g;
  g = greenlet([&, end = at_end([&] {
                  log.push_back("~old");
                  log.push_back("got " + g.switch_to(7).get<std::string>());
                })](int) { log.push_back("old ran"); });
  g.set_run([&](int n) {
    log.push_back("new ran " + std::to_string(n));
    switch_to_parent(std::string("reply"));
    log.push_back("new goes on");
  });
  CHECK(log == events{"~old", "new ran 7", "got reply"});
  CHECK(g.state() == greenlet_state::suspended);
  g.switch_to();
  CHECK(log.back() == "new goes on");
  CHECK(g.dead());
}

TEST_CASE("21, B3: the destructor of a replaced callable may switch away, and the greenlet start meanwhile") {
  events log;
  greenlet g([end = at_end([&] {
               log.push_back("~old");
               switch_to_parent();
               log.push_back("~old goes on");
             })] {});
  greenlet setter([&] {
    g.set_run([&] { log.push_back("new ran"); });
    log.push_back("set_run returned");
  });
  setter.switch_to();
  log.push_back("main");
  CHECK(setter.state() == greenlet_state::suspended);
  g.switch_to();
  CHECK(g.dead());
  setter.switch_to();
  CHECK(setter.dead());
  CHECK(log == events{"~old", "main", "new ran", "~old goes on", "set_run returned"});
}

TEST_CASE("21: the destructor of a replaced callable may set yet another, and that one runs") {
  events log;
  greenlet g;
  g = greenlet([&, end = at_end([&] { g.set_run([&] { log.push_back("third"); }); })] { log.push_back("first"); });
  g.set_run([&] { log.push_back("second"); });
  g.switch_to();
  CHECK(log == events{"third"});
}

TEST_CASE("21: the destructor of a replaced callable may drop the greenlet itself") {
  events log;
  auto g = std::make_unique<greenlet>(attributes());
  const greenlets::weak_greenlet weak(*g);
  g->set_run([end = at_end([&] {
               log.push_back("~old");
               g.reset();
             })] {});
  greenlet& handle = *g;
  handle.set_run([end = at_end([&] { log.push_back("~new"); })] {});
  CHECK(log == events{"~old", "~new"});
  CHECK(weak.expired());
}

TEST_CASE("copying a resolver may end the thread's greenlets: the parent is who runs then") {
  // The parent was taken from the thread's record, which had gone.
  struct ending {
    bool& armed;
    explicit ending(bool& a) : armed(a) {}
    ending(const ending& other) : armed(other.armed) {
      if (armed) greenlets::unwind_thread();
    }
    void operator()() const {}
  };
  std::thread([] {
    bool armed = false;
    attributes with;
    with.on_start(ending(armed));
    current();
    armed = true;
    greenlet g(with, [] {});
    armed = false;
    CHECK(g.parent() == current());
    g.switch_to();
  }).join();
}
