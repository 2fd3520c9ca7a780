// SPDX-License-Identifier: MIT
// throw_in(): where a thrown object appears, and where it goes when nobody catches it there.
#include "testing.hpp"

#include <exception>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

using namespace greenlets;
using testing::error_from;
using testing::events;
using testing::noting;

namespace {

struct oops {
  int n;
};

struct special_exit : greenlet_exit {
  std::string why_exactly;
  explicit special_exit(std::string w) : why_exactly(std::move(w)) {}
};

// Catches what is thrown into it, any number of times, and sends back what it was.
std::string catching() {
  std::string caught = "nothing yet";
  for (;;) try {
      switch_to_parent(caught);
      caught = "nothing";
    } catch (const oops& o) {
      caught = "oops " + std::to_string(o.n);
    } catch (int n) {
      caught = "int " + std::to_string(n);
    } catch (const special_exit& e) {
      caught = "special_exit " + e.why_exactly;
    } catch (const greenlet_exit& e) {
      caught = e.why == greenlet_exit::reason::thrown ? "greenlet_exit" : "another exit";
      if (e.why != greenlet_exit::reason::thrown) throw;
    } catch (const std::string& s) {
      caught = "string " + s;
    } catch (const std::exception& e) {
      caught = std::string("exception ") + e.what();
    }
}

}  // namespace

TEST_CASE("85: throw_in() throws a greenlet_exit; with an object that object; with an exception_ptr what it refers to") {
  const greenlet g(&catching);
  g.switch_to();
  CHECK(g.throw_in().get<std::string>() == "greenlet_exit");
  CHECK(g.throw_in(oops{3}).get<std::string>() == "oops 3");
  CHECK(g.throw_in(17).get<std::string>() == "int 17");
  CHECK(g.throw_in(std::runtime_error("disk")).get<std::string>() == "exception disk");
  CHECK(g.throw_in(special_exit("for fun")).get<std::string>() == "special_exit for fun");
  const std::string object = "an lvalue is copied";
  CHECK(g.throw_in(object).get<std::string>() == "string an lvalue is copied");
  CHECK(object == "an lvalue is copied");
  std::string moved = "an rvalue is moved from";
  CHECK(g.throw_in(std::move(moved)).get<std::string>() == "string an rvalue is moved from");
  const auto pointer = std::make_exception_ptr(oops{4});
  CHECK(g.throw_in(pointer).get<std::string>() == "oops 4");
  CHECK(g.throw_in(pointer).get<std::string>() == "oops 4");
  CHECK(g.throw_in(std::make_exception_ptr(5)).get<std::string>() == "int 5");
  CHECK(g.switch_to().get<std::string>() == "nothing");
}

TEST_CASE("85: the object that a std::exception_ptr refers to is thrown itself, not a copy") {
  const auto pointer = std::make_exception_ptr(oops{1});
  const oops* thrown = nullptr;
  try {
    std::rethrow_exception(pointer);
  } catch (const oops& o) {
    thrown = &o;
  }
  const greenlet g([thrown] {
    try {
      switch_to_parent();
    } catch (const oops& o) {
      CHECK(&o == thrown);
      throw;
    }
  });
  g.switch_to();
  try {
    g.throw_in(pointer);
    FAIL("not thrown");
  } catch (const oops& o) {
    CHECK(&o == thrown);
  }
}

TEST_CASE("85: a null exception_ptr and an empty handle are refused, and nothing happens") {
  bool touched = false;
  const greenlet g([&] {
    try {
      switch_to_parent();
    } catch (const greenlet_exit&) {
      throw;
    } catch (...) {
    }
    touched = true;
  });
  g.switch_to();
  CHECK(error_from([&] { g.throw_in(std::exception_ptr()); }).code() == errc::wrong_arguments);
  const error e = error_from([] { greenlet().throw_in(1); });
  CHECK(e.code() == errc::empty_handle);
  CHECK(e.summary() == "the handle refers to no greenlet");
  CHECK_FALSE(touched);
  CHECK(g.state() == greenlet_state::suspended);
}

TEST_CASE("87: a suspended target sees it come out of its pending switch or throw, and may go on") {
  events log;
  const greenlet other([] { switch_to_parent(); });
  const greenlet g([&] {
    try {
      switch_to_parent(1);
      log.push_back("not reached");
    } catch (const oops& o) {
      log.push_back("from a switch: " + std::to_string(o.n));
    }
    try {
      main_greenlet().throw_in(oops{10});
      log.push_back("not reached");
    } catch (const oops& o) {
      log.push_back("from a throw: " + std::to_string(o.n));
    }
    return 7;
  });
  CHECK(g.switch_to().get<int>() == 1);
  try {
    g.throw_in(oops{2});
  } catch (const oops& o) {
    CHECK(o.n == 10);
  }
  CHECK(g.state() == greenlet_state::suspended);
  CHECK(g.throw_in(oops{3}).get<int>() == 7);
  CHECK(log == events{"from a switch: 2", "from a throw: 3"});
  CHECK(g.dead());
}

TEST_CASE("87: destructors run in the target, innermost first, before its handler") {
  events log;
  const greenlet g([&] {
    const auto in_g = [&](const char* what) { return [&log, what, id = current().id()] { log.push_back(current().id() == id ? what : "elsewhere"); }; };
    try {
      const auto a = testing::at_end(in_g("a"));
      const auto b = testing::at_end(in_g("b"));
      switch_to_parent();
    } catch (const oops&) {
      in_g("handler")();
    }
  });
  g.switch_to();
  g.throw_in(oops{});
  CHECK(log == events{"b", "a", "handler"});
}

TEST_CASE("88: what the target does not catch goes to its parent; the thrower stays suspended") {
  //   main            parent           target           thrower
  //   starts parent
  //                   starts target
  //                                    to main
  //   starts thrower
  //                                                     throws into target
  //                                    dies
  //                   catches; to main
  //   thrower is suspended
  events log;
  std::optional<greenlet> target;
  const greenlet parent([&] {
    target.emplace([&] {
      const noting n{log, "target"};
      main_greenlet().switch_to();
    });
    try {
      target->switch_to();
    } catch (const oops& o) {
      log.push_back("parent caught " + std::to_string(o.n));
    }
    main_greenlet().switch_to();
    log.push_back("parent ends");
  });
  parent.switch_to();
  const greenlet thrower([&] {
    log.push_back("throws");
    const value v = target->throw_in(oops{5});
    log.push_back("thrower got " + std::to_string(v.get<int>()));
  });
  thrower.switch_to();
  CHECK(log == events{"throws", "~target", "parent caught 5"});
  CHECK(target->dead());
  CHECK(parent.state() == greenlet_state::suspended);
  CHECK(thrower.state() == greenlet_state::suspended);
  thrower.switch_to(6);
  CHECK(thrower.dead());
  parent.switch_to();
  CHECK(log == events{"throws", "~target", "parent caught 5", "thrower got 6", "parent ends"});
}

TEST_CASE("89: an unstarted target dies of it without running; its parent gets the exception") {
  bool ran = false;
  events log;
  const auto before = counts().stacks;
  const greenlet g([&ran, guard = testing::at_end([&] { log.push_back("callable gone"); })] { ran = true; });
  try {
    g.throw_in(oops{9});
    FAIL("not thrown");
  } catch (const oops& o) {
    CHECK(o.n == 9);
    log.push_back("caught");
  }
  CHECK_FALSE(ran);
  CHECK(g.dead());
  CHECK(g.started());
  CHECK(g.state() == greenlet_state::finished);
  CHECK_FALSE(g.has_run());
  CHECK(counts().stacks == before);
  CHECK(log == events{"callable gone", "caught"});
}

// While what it was to run was being destroyed, it could still be started, with what was no longer there.
TEST_CASE("89: from the moment that an unstarted target dies there is nothing to run") {
  bool has_run = true;
  int code = 0;
  greenlet g;
  g = greenlet([last = testing::at_end([&] {
    has_run = g.has_run();
    try {
      g.switch_to();
    } catch (const error& e) {
      code = static_cast<int>(e.code());
    }
  })] {});
  CHECK(g.throw_in().is<greenlet_exit>());
  CHECK_FALSE(has_run);
  CHECK(code == static_cast<int>(errc::no_run));
  CHECK(g.dead());
}

// A dead greenlet kept what it had been given in its last moment, and that could keep the greenlet.
TEST_CASE("89: what an unstarted target is given to run while it dies is destroyed with it") {
  const auto counted = std::make_shared<int>();
  greenlet g;
  g = greenlet([counted, last = testing::at_end([&] { g.set_run([self = g, counted] {}); })] {});
  CHECK(g.throw_in().is<greenlet_exit>());
  CHECK(g.dead());
  CHECK(counted.use_count() == 1);
}

TEST_CASE("89: the parent that gets it need not be the thrower") {
  events log;
  const greenlet parent([&] {
    try {
      switch_to_parent();
    } catch (const oops& o) {
      log.push_back("parent " + std::to_string(o.n));
    }
    main_greenlet().switch_to();
  });
  parent.switch_to();
  const greenlet unstarted([&] { log.push_back("not reached"); }, parent);
  const greenlet thrower([&] {
    unstarted.throw_in(oops{1});
    log.push_back("thrower");
  });
  thrower.switch_to();
  CHECK(log == events{"parent 1"});
  CHECK(unstarted.dead());
  CHECK(thrower.state() == greenlet_state::suspended);
  thrower.switch_to();
  CHECK(log == events{"parent 1", "thrower"});
}

TEST_CASE("90: an unstarted target and a greenlet_exit: it dies, and the parent gets the object as a value") {
  bool ran = false;
  const greenlet g([&] { ran = true; });
  const value v = g.throw_in();
  CHECK(v.is<greenlet_exit>());
  CHECK(v.get<greenlet_exit>().why == greenlet_exit::reason::thrown);
  CHECK(g.dead());
  const greenlet h([&] { ran = true; });
  const value w = h.throw_in(special_exit("unsliced"));
  CHECK(w.is<greenlet_exit>());
  CHECK(w.is<special_exit>());
  CHECK(w.get<special_exit>().why_exactly == "unsliced");
  CHECK(w.type() == typeid(special_exit));
  CHECK(h.dead());
  CHECK_FALSE(ran);
}

TEST_CASE("90: a suspended parent gets it as what its pending switch returns") {
  std::string got;
  const greenlet parent([&] {
    const value v = switch_to_parent();
    got = v.get<special_exit>().why_exactly;
    return 4;
  });
  parent.switch_to();
  const greenlet unstarted([] {}, parent);
  CHECK(unstarted.throw_in(special_exit("through the parent")).get<int>() == 4);
  CHECK(got == "through the parent");
}

TEST_CASE("55: a target that was never given anything to run refuses; what was thrown is lost") {
  const greenlet g{attributes()};
  const error e = error_from([&] { g.throw_in(oops{1}); });
  CHECK(e.code() == errc::no_run);
  CHECK(testing::names(e, g));
  CHECK(g.state() == greenlet_state::unstarted);
  CHECK_FALSE(g.dead());
  g.set_run([] { return 8; });
  CHECK(g.switch_to().get<int>() == 8);
}

TEST_CASE("91: a dead target passes it on to the nearest ancestor that is alive, which may be the caller") {
  const greenlet g([] {});
  g.switch_to();
  CHECK_THROWS_AS(g.throw_in(oops{1}), oops);

  const greenlet dead_parent([] { return 0; });
  dead_parent.switch_to();
  const greenlet child([] {});
  child.switch_to();
  child.set_parent(dead_parent);
  CHECK_THROWS_AS(child.throw_in(oops{2}), oops);
}

TEST_CASE("91: ... or a third greenlet") {
  events log;
  const greenlet third([&] {
    for (;;) try {
        switch_to_parent();
      } catch (const oops& o) {
        log.push_back("third " + std::to_string(o.n));
      }
  });
  third.switch_to();
  const greenlet dead([] {});
  dead.switch_to();
  dead.set_parent(third);
  const greenlet caller([&] {
    dead.throw_in(oops{3});
    log.push_back("caller");
  });
  caller.switch_to();
  CHECK(log == events{"third 3"});
  caller.switch_to();
  CHECK(log == events{"third 3", "caller"});
}

TEST_CASE("92: a dead target and a greenlet_exit: the nearest living ancestor gets a value") {
  const greenlet dead([] {});
  dead.switch_to();
  SUBCASE("the caller") {
    CHECK(dead.throw_in().is<greenlet_exit>());
    CHECK(dead.throw_in(special_exit("again")).get<special_exit>().why_exactly == "again");
  }
  SUBCASE("a third, suspended greenlet") {
    std::string got;
    const greenlet third([&] {
      const value v = switch_to_parent();
      got = v.get<special_exit>().why_exactly;
    });
    third.switch_to();
    dead.set_parent(third);
    const greenlet caller([&] { dead.throw_in(special_exit("third")); });
    caller.switch_to();
    CHECK(got == "third");
    CHECK(third.dead());
    CHECK(caller.state() == greenlet_state::suspended);
  }
  SUBCASE("an unstarted ancestor is started with it") {
    std::string got;
    const greenlet unstarted([&](const value& v) {
      got = v.get<special_exit>().why_exactly;
      return 12;
    });
    dead.set_parent(unstarted);
    CHECK(dead.throw_in(special_exit("started")).get<int>() == 12);
    CHECK(got == "started");
  }
}

TEST_CASE("31, 93: thrown at the current greenlet it is raised in place, and can be caught there") {
  const auto here = [] {
    CHECK_THROWS_AS(current().throw_in(oops{1}), oops);
    CHECK_THROWS_AS(current().throw_in(), greenlet_exit);
    CHECK_THROWS_AS(current().throw_in(special_exit("")), special_exit);
    CHECK(current().state() == greenlet_state::current);
    return 1;
  };
  CHECK(here() == 1);  // in main too a greenlet_exit is thrown, and not turned into a value
  const greenlet g(here);
  CHECK(g.switch_to().get<int>() == 1);
  const greenlet ending([] { current().throw_in(special_exit("own")); });
  CHECK(ending.switch_to().get<special_exit>().why_exactly == "own");
}

TEST_CASE("32, 87: a child throws into main, which sees it come out of its switch; the child stays suspended") {
  const greenlet g([] {
    main_greenlet().throw_in(oops{1});
    return 2;
  });
  CHECK_THROWS_AS(g.switch_to(), oops);
  CHECK(g.state() == greenlet_state::suspended);
  CHECK(g.switch_to().get<int>() == 2);
}

TEST_CASE("71, 94: a chain of unstarted ancestors is consumed until one alive catches it") {
  events log;
  const auto never = [&log](const char* name) {
    return [guard = testing::at_end([&log, name] { log.push_back(std::string(name) + " gone"); })] { FAIL("it ran"); };
  };
  const greenlet alive([&] {
    try {
      switch_to_parent();
    } catch (const oops&) {
      log.push_back("alive caught");
    }
  });
  alive.switch_to();
  const greenlet c(never("c"), alive);
  const greenlet b(never("b"), c);
  const greenlet a(never("a"), b);
  a.throw_in(oops{1});
  CHECK(log == events{"a gone", "b gone", "c gone", "alive caught"});
  for (const greenlet& g : {a, b, c, alive}) CHECK(g.state() == greenlet_state::finished);
}

TEST_CASE("71, 94: a greenlet_exit stops at the first: its parent is started with the value") {
  events log;
  const greenlet grandparent([&] { log.push_back("not reached"); });
  const greenlet parent([&](const value& v) { log.push_back(v.is<greenlet_exit>() ? "parent got it" : "?"); });
  const greenlet g([&] { log.push_back("not reached"); }, parent);
  g.throw_in();
  CHECK(log == events{"parent got it"});
  CHECK(g.dead());
  CHECK(parent.dead());
  CHECK(grandparent.state() == greenlet_state::unstarted);
}

TEST_CASE("94: an ancestor with nothing to run does not stop what is under way: its error takes the exception's place") {
  const greenlet no_run{attributes()};
  const greenlet g([] {}, no_run);
  CHECK(error_from([&] { g.throw_in(oops{1}); }).code() == errc::no_run);
  CHECK(g.dead());
}

TEST_CASE("94: twenty thousand unstarted ancestors are consumed without recursion") {
  std::vector<greenlet> chain;
  chain.reserve(20'000);
  for (int i = 0; i < 20'000; ++i)
    chain.push_back(chain.empty() ? greenlet([] {}) : greenlet([] {}, chain.back()));
  CHECK_THROWS_AS(chain.back().throw_in(oops{1}), oops);
  CHECK(chain.front().dead());
  CHECK(chain.back().dead());
}

TEST_CASE("91, 94: a dead target's unstarted ancestors are consumed, too") {
  const greenlet upper([] { FAIL("it ran"); }), lower([] { FAIL("it ran"); }, upper), dead([] {});
  dead.switch_to();
  dead.set_parent(lower);
  CHECK_THROWS_AS(dead.throw_in(oops{1}), oops);
  CHECK(lower.state() == greenlet_state::finished);
  CHECK(upper.state() == greenlet_state::finished);
}

TEST_CASE("95: the thread is checked as a switch's is; an error takes the place of what was thrown") {
  std::string caught = "nothing";
  const greenlet g([&] {
    try {
      switch_to_parent();
    } catch (const oops&) {
      caught = "oops";
    }
  });
  g.switch_to();
  const greenlet unstarted([] {});
  const greenlet dead([] {});
  dead.switch_to();
  const greenlet main = current();
  std::thread([&] {
    for (const greenlet* each : {&g, &unstarted, &dead, &main}) {
      const error e = error_from([&] { each->throw_in(oops{1}); });
      CHECK(e.code() == errc::different_thread);
      CHECK(e.summary() == "cannot switch to a different thread");
      CHECK(error_from([&] { each->throw_in(); }).code() == errc::different_thread);
    }
  }).join();
  CHECK(caught == "nothing");
  CHECK(g.state() == greenlet_state::suspended);
  CHECK(unstarted.state() == greenlet_state::unstarted);
  g.throw_in(oops{2});
  CHECK(caught == "oops");
}

TEST_CASE("87, B31: an exception held by the greenlet that it was thrown into, which it refers to, is no cycle for ever") {
  // The thrown object holds a handle to the greenlet that keeps it suspended in its handler: while
  // it handles it, yes; once it has ended, no.
  struct about {
    greenlet whom;
  };
  const auto before = counts().greenlets;
  {
    greenlet g([] {
      try {
        switch_to_parent();
      } catch (const about& a) {
        CHECK(a.whom == current());
        switch_to_parent();
      }
    });
    g.switch_to();
    g.throw_in(about{g});
    g.switch_to();
    CHECK(g.dead());
  }
  CHECK(counts().greenlets == before);
}
