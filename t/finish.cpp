// SPDX-License-Identifier: MIT
// The end of a greenlet: where its result or exception goes.
#include "testing.hpp"

#include <functional>
#include <future>
#include <memory>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <tuple>
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
using testing::at_end;
using testing::error_of;
using testing::events;
using testing::names;

namespace {

struct my_exit : greenlet_exit {
  int code;
  explicit my_exit(int c) : code(c) {}
};

}  // namespace

TEST_CASE("61: what is returned is what the parent's pending switch or throw returns") {
  CHECK(greenlet([] { return 7; }).switch_to().get<int>() == 7);
  CHECK_FALSE(greenlet([] {}).switch_to().has_value());
  CHECK(greenlet([] { return std::tuple<>(); }).switch_to().is<std::tuple<>>());
  CHECK(greenlet([] { return std::tuple<int>(7); }).switch_to().get<std::tuple<int>>() == std::tuple<int>(7));

  greenlet g([] {
    try {
      switch_to_parent();
    } catch (int n) {
      return n + 1;
    }
    return 0;
  });
  g.switch_to();
  CHECK(g.throw_in(1).get<int>() == 2);
  CHECK(g.state() == greenlet_state::finished);
}

TEST_CASE("62: an uncaught exception is raised from the parent's switch") {
  const greenlet g([]() -> int { throw std::range_error("uncaught"); });
  CHECK_THROWS_WITH_AS(g.switch_to(), "uncaught", std::range_error);
  CHECK(g.dead());
  CHECK_FALSE(static_cast<bool>(g));

  // ... or throw
  const greenlet h([] {
    try {
      switch_to_parent();
    } catch (int n) {
      throw std::to_string(n);
    }
  });
  h.switch_to();
  CHECK_THROWS_AS(h.throw_in(1), std::string);
  CHECK(h.dead());
}

TEST_CASE("62: the very exception object arrives, whole") {
  struct detailed : std::runtime_error {
    std::vector<int> more{1, 2, 3};
    const void* address = this;
    detailed() : std::runtime_error("detailed") {}
  };
  const void* thrown = nullptr;
  const greenlet g([&] {
    try {
      throw detailed();
    } catch (const detailed& e) {
      thrown = &e;
      throw;
    }
  });
  const greenlet between([&] { g.switch_to(); });
  g.set_parent(between);  // and through another greenlet, too
  try {
    between.switch_to();
    FAIL("nothing was thrown");
  } catch (const std::runtime_error& e) {
    CHECK(&e == thrown);
    CHECK(dynamic_cast<const detailed&>(e).more.size() == 3);
  }
  CHECK(std::current_exception() == nullptr);
}

TEST_CASE("62: the sender is caught up with by what it throws itself when it is the parent's parent") {
  events log;
  const greenlet parent([&] {
    greenlet child([] { throw std::runtime_error("child's"); });
    try {
      child.switch_to();
    } catch (const std::runtime_error& e) {
      log.push_back(std::string("parent caught ") + e.what());
      throw std::logic_error("parent's");
    }
  });
  try {
    parent.switch_to();
  } catch (const std::logic_error& e) {
    log.push_back(std::string("main caught ") + e.what());
  }
  CHECK(log == events{"parent caught child's", "main caught parent's"});
}

TEST_CASE("64: an uncaught greenlet_exit is returned to the parent as a value") {
  const greenlet g([] { throw greenlet_exit(); });
  const value v = g.switch_to();
  CHECK(v.is<greenlet_exit>());
  CHECK(v.get<greenlet_exit>().why == greenlet_exit::reason::thrown);
  CHECK(g.dead());

  const greenlet h([] { switch_to_parent(); });
  h.switch_to();
  CHECK(h.throw_in().is<greenlet_exit>());
  CHECK(h.dead());
}

TEST_CASE("3, 64: so is an object of a derived class, itself") {
  const greenlet g([] { throw my_exit(42); });
  const value v = g.switch_to();
  CHECK(v.is<greenlet_exit>());
  CHECK(v.get<my_exit>().code == 42);
  const greenlet h([] { switch_to_parent(); });
  h.switch_to();
  CHECK(h.throw_in(my_exit(43)).get<my_exit>().code == 43);
  // An unstarted parent gets it as any value.
  int got = 0;
  const greenlet parent([&](value r) { got = r.get<my_exit>().code; });
  greenlet([] { throw my_exit(44); }, parent).switch_to();
  CHECK(got == 44);
  CHECK(parent.dead());
}

TEST_CASE("64: a greenlet_exit that is returned is an object like any other") {
  const value v = greenlet([] { return greenlet_exit(greenlet_exit::reason::cancelled); }).switch_to();
  CHECK(v.get<greenlet_exit>().why == greenlet_exit::reason::cancelled);
  CHECK(v.thrown() == nullptr);
}

TEST_CASE("65: exceptions of any type go to the parent, not only those of the library or of std") {
  CHECK_THROWS_AS(greenlet([] { throw 5; }).switch_to(), int);
  CHECK_THROWS_AS(greenlet([] { throw "literal"; }).switch_to(), const char*);
  CHECK_THROWS_AS(greenlet([] { throw std::make_shared<int>(1); }).switch_to(), std::shared_ptr<int>);
  CHECK_THROWS_AS(greenlet([] { throw std::bad_alloc(); }).switch_to(), std::bad_alloc);
  CHECK(error_of([] { greenlet([] { greenlet().switch_to(); }).switch_to(); }) == errc::empty_handle);
}

// greenlet's test_throw_goes_to_original_parent.
//
// main    g1 (parent of g2)   g2
//  |------->| waits
//  |-------------------------->|
//  |<--- "from g2" ------------|
//  |--- throw ---------------->|
//  |        |<-----------------| dies
//  |<-------| "caught"
TEST_CASE("66: the result goes to the parent, and not to who switched here last") {
  const greenlet main = current();
  const greenlet g1([&] {
    try {
      main.switch_to(std::string("ready"));
    } catch (const std::out_of_range&) {
      return std::string("caught");
    }
    return std::string("normal");
  });
  const greenlet g2([&] { main.switch_to(std::string("from g2")); }, g1);
  CHECK(g1.switch_to().get<std::string>() == "ready");
  CHECK(g2.switch_to().get<std::string>() == "from g2");
  SUBCASE("an exception") { CHECK(g2.throw_in(std::out_of_range("")).get<std::string>() == "caught"); }
  SUBCASE("a value") { CHECK(g2.switch_to().get<std::string>() == "normal"); }
  SUBCASE("an exit") { CHECK(g2.throw_in().get<std::string>() == "normal"); }
  CHECK(g1.dead());
  CHECK(g2.dead());
}

TEST_CASE("66: the parent at the time of death counts, also one given by what is destroyed at the end") {
  events log;
  const auto waiting = [&log](const char* name) {
    return [&log, name] {
      value v = switch_to_parent();
      log.push_back(std::string(name) + " got " + std::to_string(v.get<int>()));
    };
  };
  const greenlet first(waiting("first")), second(waiting("second")), third(waiting("third"));
  for (const greenlet& each : {first, second, third}) each.switch_to();
  {
    const greenlet g([&] { return 1; }, first);
    g.set_parent(second);
    g.switch_to();
  }
  CHECK(log == events{"second got 1"});
  const greenlet g([&, end = at_end([&] { current().set_parent(third); })] { return 2; }, first);
  g.switch_to();
  CHECK(log.back() == "third got 2");
  CHECK(first.state() == greenlet_state::suspended);
}

TEST_CASE("67: dead ancestors are passed over, up to the main greenlet") {
  const greenlet main = current();
  const greenlet grandparent([] {}), parent([] {}, grandparent);
  const auto child = [&](std::function<int()> end) {
    const greenlet g(
        [&main, end = std::move(end)] {
          main.switch_to();
          return end();
        },
        parent);
    g.switch_to();
    return g;
  };
  const greenlet returns = child([] { return 3; }), throws = child([]() -> int { throw std::runtime_error("up"); }),
                 exits = child([]() -> int { throw my_exit(4); });
  parent.switch_to();  // its end starts and ends its parent
  REQUIRE(parent.dead());
  REQUIRE(grandparent.dead());
  CHECK(returns.switch_to().get<int>() == 3);
  CHECK_THROWS_WITH_AS(throws.switch_to(), "up", std::runtime_error);
  CHECK(exits.switch_to().get<my_exit>().code == 4);
  for (const greenlet& g : {returns, throws, exits}) CHECK(g.dead());
}

TEST_CASE("68: an unstarted parent is started with the result as its argument") {
  CHECK(greenlet([] { return 1; }, greenlet([](int n) { return n + 1; })).switch_to().get<int>() == 2);
  CHECK(greenlet([] {}, greenlet([] { return 2; })).switch_to().get<int>() == 2);
  const greenlet adds([](int a, int b) { return a + b; });
  CHECK(greenlet([] { return std::make_tuple(1, 2); }, adds).switch_to().get<int>() == 3);
  CHECK(adds.dead());
  const greenlet takes_exit([](const my_exit& e) { return e.code; });
  CHECK(greenlet([] { throw my_exit(4); }, takes_exit).switch_to().get<int>() == 4);

  // It runs when its child is dead, whose stack it may get.
  const auto before = counts();
  greenlet child;
  const greenlet parent([&](int) { CHECK(child.state() == greenlet_state::finished); });
  child = greenlet([] { return 5; }, parent);
  child.switch_to();
  CHECK(counts().stacks <= before.stacks + 2);
}

TEST_CASE("69: when the result does not fit, the unstarted parent dies of it, and its own parent is told") {
  bool told = false;
  greenlet parent, child;
  greenlet grandparent([&] {
    parent = greenlet([](const std::string&) { FAIL("called with an int"); });
    child = greenlet([] { return 1; }, parent);
    try {
      child.switch_to();
    } catch (const greenlets::error& e) {
      told = e.code() == errc::wrong_arguments;
    }
    CHECK(parent.dead());
    CHECK(child.dead());
  });
  grandparent.switch_to();
  CHECK(told);
  // Nothing is not something, nor the other way round.
  CHECK(error_of([] { greenlet([] {}, greenlet([](int) {})).switch_to(); }) == errc::wrong_arguments);
  CHECK(error_of([] { greenlet([] { return 1; }, greenlet([] {})).switch_to(); }) == errc::wrong_arguments);
}

TEST_CASE("70: without anything to run the parent is passed over: the result is lost, its parent is told") {
  events log;
  const greenlet parent(attributes().name("idle"));
  const greenlet child([&] { return at_end([&] { log.push_back("~result"); }); }, parent);
  try {
    child.switch_to();
    FAIL("nothing was thrown");
  } catch (const greenlets::error& e) {
    log.push_back("told");
    CHECK(e.code() == errc::no_run);
    CHECK(names(e, parent));
  }
  CHECK(log == events{"~result", "told"});
  CHECK(child.dead());
  CHECK(parent.state() == greenlet_state::unstarted);
  parent.set_run([] { return 1; });
  CHECK(parent.switch_to().get<int>() == 1);
}

TEST_CASE("70: an exception that finds such a parent is lost, too") {
  const greenlet parent{attributes()};
  CHECK(error_of([&] { greenlet([] { throw std::runtime_error("lost"); }, parent).switch_to(); }) == errc::no_run);
  CHECK(parent.state() == greenlet_state::unstarted);
}

TEST_CASE("70: the result that is lost may drop the parents that it did not reach, and switch") {
  const greenlet main = current();
  const auto before = counts();
  greenlet child;
  {
    const greenlet grandparent([] { FAIL("started with an error"); });
    const greenlet parent(attributes().parent(grandparent));
    child = greenlet(
        [&main] {
          return at_end([&main] {
            current().set_parent(main);
            // Somebody else arrives while it is under way, and cleans up.
            greenlet([] { greenlet([] {}).switch_to(); }).switch_to();
          });
        },
        parent);
  }
  CHECK(error_of([&] { child.switch_to(); }) == errc::no_run);
  CHECK(child.dead());
  CHECK(counts().greenlets == before.greenlets + 1);
}

// child -> a (unstarted) -> b (unstarted) -> catcher
TEST_CASE("71: an exception makes unstarted parents dead without running them, and goes on") {
  events log;
  const auto note = [&log](const char* text) { return at_end([&log, text] { log.push_back(text); }); };
  const greenlet catcher([] {
    try {
      switch_to_parent();
    } catch (const std::runtime_error& e) {
      return std::string(e.what());
    }
    return std::string("nothing was thrown");
  });
  catcher.switch_to();
  const greenlet b([end = note("~b")] { FAIL("b runs"); }, catcher);
  const greenlet a([end = note("~a")](int) { FAIL("a runs"); }, b);
  const greenlet child([end = note("~child")] { throw std::runtime_error("from below"); }, a);
  CHECK(child.switch_to().get<std::string>() == "from below");
  CHECK(log == events{"~child", "~a", "~b"});
  for (const greenlet& each : {catcher, b, a, child}) {
    CHECK(each.state() == greenlet_state::finished);
    CHECK_FALSE(each.has_run());
  }
}

TEST_CASE("71, B4: what such a parent was to run may reparent, drop and switch when it is destroyed") {
  const greenlet main = current();
  const auto before = counts();
  events log;
  greenlet child;
  {
    const greenlet unstarted([end = at_end([&] {
                               current().set_parent(main);  // drops `unstarted`, but for us
                               greenlet([] { greenlet([] {}).switch_to(); }).switch_to();
                               log.push_back("~callable");
                             })] {});
    child = greenlet([] { throw std::runtime_error("on its way"); }, unstarted);
  }
  CHECK_THROWS_WITH_AS(child.switch_to(), "on its way", std::runtime_error);
  CHECK(log == events{"~callable"});
  CHECK(counts().greenlets == before.greenlets + 1);
}

TEST_CASE("72: when the parent cannot be started, that error takes the result's place and goes on") {
  const greenlet parent(attributes().stack_size(testing::too_large()), [](int) {});
  const auto give = [&](auto end) {
    const greenlet child(std::move(end), parent);
    try {
      child.switch_to();
      FAIL("nothing was thrown");
    } catch (const std::system_error& e) {
      CHECK(e.code() == std::errc::not_enough_memory);
    }
    CHECK(child.dead());
  };
  give([] { return 1; });
  // An exception needs no stack of the parent's: it dies without.
  const greenlet child([] { throw std::runtime_error("needs none"); }, parent);
  CHECK_THROWS_WITH_AS(child.switch_to(), "needs none", std::runtime_error);
  CHECK(parent.dead());
}

// greenlet aborts the process here ("ran out of parent greenlets").
TEST_CASE("72, 73: when the parents lead to another thread, this thread's main greenlet gets the error") {
  greenlet theirs;
  std::promise<void> known, end;
  std::thread thread([&] {
    theirs = current();
    known.set_value();
    end.get_future().wait();
  });
  known.get_future().wait();
  const auto strays = [&](auto last) {
    greenlet parent;
    const greenlet child([&parent, &theirs, last] {
      parent.set_parent(theirs);
      last();
    });
    parent = greenlet([](value) { FAIL("started on the wrong thread"); });
    child.set_parent(parent);
    greenlet outer([&] { child.switch_to(); });  // somebody between us and the child, who is not asked
    const errc code = error_of([&] { outer.switch_to(); });
    CHECK(child.dead());
    CHECK(outer.state() == greenlet_state::suspended);
    CHECK(parent.state() == greenlet_state::unstarted);
    return code;
  };
  CHECK(strays([] {}) == errc::different_thread);
  CHECK(strays([] { throw 1; }) == errc::different_thread);
  CHECK(strays([] { throw greenlet_exit(); }) == errc::different_thread);
  end.set_value();
  thread.join();
  CHECK(strays([] {}) == errc::thread_exited);
}
