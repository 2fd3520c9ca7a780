// SPDX-License-Identifier: MIT
// What travels with a switch: none, one or many objects, to whom, and that none is lost.
#include "testing.hpp"

#include <atomic>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

using greenlets::attributes;
using greenlets::current;
using greenlets::errc;
using greenlets::greenlet;
using greenlets::greenlet_exit;
using greenlets::greenlet_state;
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

// How many of them there are, and how many have ever been.
struct counted {
  static inline int alive = 0, copies = 0;
  int number = 0;
  explicit counted(int n) : number(n) { ++alive; }
  counted(const counted& other) : number(other.number) { ++alive, ++copies; }
  counted(counted&& other) noexcept : number(other.number) { ++alive; }
  counted& operator=(const counted&) = default;
  ~counted() { --alive; }
};

// Sends back whatever it is sent.
value echo(value v) {
  for (;;) v = switch_to_parent(std::move(v));
}

}  // namespace

TEST_CASE("34: what the first switch sends becomes the callable's arguments") {
  CHECK(greenlet([](int a, const std::string& b, double c) { return b + std::to_string(a + int(c)); })
            .switch_to(1, std::string("n"), 2.0)
            .get<std::string>() == "n3");
  CHECK(greenlet([](int a) { return 2 * a; }).switch_to(21).get<int>() == 42);
  CHECK(greenlet([] { return 1; }).switch_to().get<int>() == 1);
}

TEST_CASE("35: into a suspended greenlet nothing, one object and several are three things") {
  events log;
  greenlet g([&log] {
    value v = switch_to_parent();
    log.push_back(v.has_value() ? "something" : "nothing");
    v = switch_to_parent();
    log.push_back(v.get<std::string>());
    v = switch_to_parent();
    const auto& [i, s] = v.get<std::tuple<int, std::string>>();
    log.push_back(std::to_string(i) + s);
  });
  g.switch_to();
  g.switch_to();
  g.switch_to(std::string("one"));
  g.switch_to(2, std::string("many"));
  CHECK(g.dead());
  CHECK(log == events{"nothing", "one", "2many"});
}

TEST_CASE("35: what is sent keeps its decayed type, and nothing is converted") {
  greenlet g(echo);
  CHECK(g.switch_to("text").is<const char*>());
  const int constant = 3;
  CHECK(g.switch_to(constant).is<int>());
  int array[2] = {1, 2};
  CHECK(g.switch_to(array).get<int*>() == array);
  CHECK(g.switch_to(nullptr).is<std::nullptr_t>());
  CHECK(g.switch_to(true, 'c').is<std::tuple<bool, char>>());
  CHECK_FALSE(g.switch_to(1L).is<int>());
}

TEST_CASE("36: a tuple that is sent is one object; an empty one is not nothing") {
  greenlet g(echo);
  CHECK(g.switch_to(std::make_tuple(1)).get<std::tuple<int>>() == std::tuple<int>(1));
  CHECK(g.switch_to(std::tuple<>()).is<std::tuple<>>());
  CHECK(g.switch_to(std::tuple<>()).has_value());
  CHECK_FALSE(g.switch_to().has_value());
  // Several objects are their tuple, as in Python.
  CHECK(g.switch_to(std::make_tuple(1, 2)).is<std::tuple<int, int>>());
  CHECK(g.switch_to(1, 2).is<std::tuple<int, int>>());
  // A value is what it holds, and not a value in a value.
  CHECK(g.switch_to(value(7)).get<int>() == 7);
  CHECK_FALSE(g.switch_to(value()).has_value());
}

// main     a        b        c
//  |------>|
//  |       |-- 1 -->|
//  |       |        |-- 2 -->|
//  |       |<------ 3 -------|
//  |<- 4 --|
TEST_CASE("37: a switch returns what somebody sends back, whoever it is") {
  events log;
  greenlet a, b, c;
  a = greenlet([&] {
    log.push_back("a got " + std::to_string(b.switch_to(1).get<int>()));
    switch_to_parent(4);
  });
  b = greenlet([&](int n) {
    log.push_back("b got " + std::to_string(n));
    log.push_back("b got " + std::to_string(c.switch_to(2).get<int>()));
  });
  c = greenlet([&](int n) {
    log.push_back("c got " + std::to_string(n));
    log.push_back("c got " + std::to_string(a.switch_to(3).get<int>()));
  });
  CHECK(a.switch_to().get<int>() == 4);
  CHECK(log == events{"b got 1", "c got 2", "a got 3"});
  b.switch_to(5);
  c.switch_to(6);
  CHECK(log.back() == "c got 6");
}

TEST_CASE("38: a switch to the current greenlet returns what was sent") {
  const greenlet main = current();
  CHECK_FALSE(main.switch_to().has_value());
  CHECK(main.switch_to(1).get<int>() == 1);
  CHECK(main.switch_to(1, 2).get<std::tuple<int, int>>() == std::make_tuple(1, 2));
  greenlet g([] {
    auto sent = std::make_unique<int>(3);
    const int* const object = sent.get();
    const value back = current().switch_to(std::move(sent));
    CHECK(back.get<std::unique_ptr<int>>().get() == object);
    CHECK(current().state() == greenlet_state::current);
    return 9;
  });
  CHECK(g.switch_to().get<int>() == 9);
}

TEST_CASE("39: a switch to a dead greenlet goes to its nearest ancestor that is not dead") {
  greenlet dead([] {});
  dead.switch_to();
  CHECK(dead.dead());
  // The ancestor is the current greenlet: it gets its own words back.
  CHECK_FALSE(dead.switch_to().has_value());
  CHECK(dead.switch_to(1).get<int>() == 1);
  CHECK(dead.switch_to(1, 2).get<std::tuple<int, int>>() == std::make_tuple(1, 2));
  CHECK(dead.dead());

  // ... and a suspended one, two dead ones above.
  greenlet live(echo);
  live.switch_to();
  greenlet upper([] {}, live), lower([] {}, upper);
  CHECK(lower.switch_to().has_value() == false);  // ends: to upper, which starts and ends: to live: back here
  CHECK(lower.dead());
  CHECK(upper.dead());
  CHECK(lower.switch_to(std::string("for live")).get<std::string>() == "for live");
  CHECK(live.state() == greenlet_state::suspended);
  greenlet other([&] { return lower.switch_to(4).get<int>(); });
  CHECK(other.switch_to().get<int>() == 4);  // echo's parent is main
  CHECK(other.state() == greenlet_state::suspended);
  other.switch_to(0);
}

TEST_CASE("40: an unstarted ancestor of a dead greenlet is started with what was sent") {
  greenlet dead([] { return 1; });
  CHECK(dead.switch_to().get<int>() == 1);

  events log;
  greenlet parent([&](int a, int b) {
    log.push_back(std::to_string(a) + std::to_string(b));
    return a + b;
  });
  dead.set_parent(parent);
  CHECK_FALSE(parent.started());
  CHECK(dead.switch_to(1, 2).get<int>() == 3);
  CHECK(log == events{"12"});
  CHECK(parent.dead());
  CHECK(dead.switch_to(1, 2).is<std::tuple<int, int>>());  // both dead now
}

TEST_CASE("40: when that ancestor has nothing to run, the caller is told and it can be tried again") {
  greenlet dead([] {});
  dead.switch_to();
  const greenlet parent(attributes().name("perverse"));
  dead.set_parent(parent);
  for (int twice = 0; twice < 2; ++twice) {
    const greenlets::error e = error_from([&] { dead.switch_to(1); });
    CHECK(e.code() == errc::no_run);
    CHECK(names(e, parent));
    CHECK(parent.state() == greenlet_state::unstarted);
  }
  parent.set_run([](int n) { return n + 1; });
  CHECK(dead.switch_to(1).get<int>() == 2);
  CHECK(parent.dead());
}

TEST_CASE("40: when what was sent does not fit, the ancestor dies of it") {
  greenlet dead([] {});
  dead.switch_to();
  const greenlet parent([](const std::string&) {});
  dead.set_parent(parent);
  CHECK(error_of([&] { dead.switch_to(1); }) == errc::wrong_arguments);
  CHECK(parent.dead());
}

// main                   g (no handle left)
//  |-------------------->|
//  |<--- 1 --------------|
//  | its exit is thrown: |
//  |-------------------->| ~local
//  |<--- 2 --------------|
//  | has got 1
TEST_CASE("41, B1: what was sent is out of the slot before the sender, unwound, can send again") {
  const greenlet main = current();
  events log;
  greenlet g, kept;
  g = greenlet([&] {
    const auto local = at_end([&] {
      kept = current();
      log.push_back("~local");
      main.switch_to(2);  // main is unwinding us: it takes this for the end of that
      log.push_back("goes on");
    });
    g = greenlet();
    switch_to_parent(1);
  });
  CHECK(g.switch_to().get<int>() == 1);
  CHECK(log == events{"~local"});
  CHECK(kept.state() == greenlet_state::suspended);
  CHECK(kept.switch_to().is<greenlet_exit>());
  CHECK(log == events{"~local", "goes on"});
  CHECK(kept.dead());
}

TEST_CASE("41: so are the arguments of a first switch") {
  events log;
  greenlet starter, kept;
  const greenlet started([&](int n) { log.push_back("runs with " + std::to_string(n)); });
  starter = greenlet([&] {
    const auto local = at_end([&] {
      kept = current();
      CHECK(started.state() == greenlet_state::suspended);  // and its function has not begun
      log.push_back("sends 6");
      started.switch_to(6);
      log.push_back("goes on");
    });
    starter = greenlet();
    started.switch_to(5);
  });
  starter.switch_to();
  CHECK(log == events{"sends 6", "runs with 5"});
  CHECK(started.dead());
  CHECK(kept.switch_to().is<greenlet_exit>());
  CHECK(log.back() == "goes on");
}

// There is no greenlet that wakes with nothing pending, as greenlet's errors for that case have it:
// nothing is a value like any other, and another thread's attempt never reaches the slot.
TEST_CASE("42, 43, B14: other threads that try to send something neither take nor change what is pending") {
  constexpr int rounds = 3000;
  greenlet g(echo);
  g.switch_to();
  std::atomic<bool> done{false};
  std::atomic<int> refused{0}, accepted{0};
  std::vector<std::thread> others;
  for (int n = 0; n < 2; ++n)
    others.emplace_back([&] {
      do {
        try {
          g.switch_to(-1);
          ++accepted;
        } catch (const greenlets::error& e) {
          if (e.code() == errc::different_thread) ++refused;
        }
        try {
          g.throw_in(std::runtime_error("from another thread"));
          ++accepted;
        } catch (const greenlets::error& e) {
          if (e.code() == errc::different_thread) ++refused;
        }
      } while (!done);
    });
  int right = 0;
  for (int i = 0; i < rounds; ++i) {
    if (g.switch_to(i).get<int>() == i) ++right;
    if (!g.switch_to().has_value()) ++right;
  }
  done = true;
  for (std::thread& t : others) t.join();
  CHECK(right == 2 * rounds);
  CHECK(accepted == 0);
  CHECK(refused >= 4);
}

TEST_CASE("44, B5: what a greenlet passes on is not lost when its last handle goes with the switch") {
  std::vector<greenlet> seen;
  greenlet worker, initiator;
  weak_greenlet weak;
  worker = greenlet([&] {
    value v = switch_to_parent();
    // Nothing refers to us any more but that we run.
    worker = greenlet();
    initiator.set_parent(current().parent());
    const auto resurrect = at_end([&] { seen.push_back(current()); });
    switch_to_parent(std::move(v));
  });
  weak = worker;
  worker.switch_to();
  initiator = greenlet([] { return 42; }, worker);
  CHECK(initiator.switch_to().get<int>() == 42);
  REQUIRE(seen.size() == 1);
  CHECK(seen[0] == weak.lock());
  CHECK(seen[0].dead());
  CHECK(initiator.dead());
  seen.clear();
  CHECK(weak.expired());
}

TEST_CASE("44: the same when the value is what it was made of, or goes to another than the parent") {
  greenlet g, sibling([](std::unique_ptr<counted> c) { return c->number; });
  g = greenlet([&] {
    auto c = std::make_unique<counted>(7);
    g = greenlet();
    sibling.switch_to(std::move(c));
  });
  CHECK(g.switch_to().get<int>() == 7);
  CHECK(counted::alive == 0);
}

TEST_CASE("44: an exception in flight is not lost either") {
  greenlet g;
  g = greenlet([&] {
    const greenlet parent = current().parent();
    g = greenlet();
    parent.throw_in(std::out_of_range("in flight"));
  });
  CHECK_THROWS_WITH_AS(g.switch_to(), "in flight", std::out_of_range);
}

TEST_CASE("45: over any number of switches what is sent is neither copied nor kept") {
  counted::copies = 0;
  {
    greenlet g(echo);
    value v(counted(1));
    for (int i = 0; i < 1000; ++i) {
      v = g.switch_to(std::move(v));
      CHECK(counted::alive == 1);
    }
    CHECK(v.get<counted>().number == 1);
    for (int i = 0; i < 1000; ++i) g.switch_to(counted(i), counted(-i));
    CHECK(counted::alive == 1);
  }
  CHECK(counted::alive == 0);
  CHECK(counted::copies == 0);
}

TEST_CASE("45: the arguments of a first switch, and results, are not kept") {
  counted::copies = 0;
  const counted outside(5);
  for (int i = 0; i < 100; ++i) {
    greenlet g([](counted a, const counted& b, counted&& c) { return counted(a.number + b.number + c.number); });
    CHECK(g.switch_to(counted(1), counted(2), outside).get<counted>().number == 8);
    CHECK(counted::alive == 1);
  }
  CHECK(counted::copies == 100);  // what was sent from `outside`
}

TEST_CASE("45: what a refused or failed switch was to send is destroyed") {
  const greenlet idle{attributes()};
  CHECK(error_of([&] { idle.switch_to(counted(1)); }) == errc::no_run);
  CHECK(counted::alive == 0);
  CHECK(error_of([&] { greenlet().switch_to(counted(1)); }) == errc::empty_handle);
  CHECK(counted::alive == 0);
  CHECK(error_of([&] { greenlet([](int) {}).switch_to(counted(1)); }) == errc::wrong_arguments);
  CHECK(counted::alive == 0);
  const greenlet main = current();
  std::thread([&] { CHECK(error_of([&] { main.switch_to(counted(1)); }) == errc::different_thread); }).join();
  CHECK(counted::alive == 0);
}

TEST_CASE("a handle can be sent, and a greenlet can be kept by what it returns") {
  weak_greenlet weak;
  {
    value v;
    {
      const greenlet g([] { return current(); });
      weak = g;
      v = g.switch_to();
    }
    REQUIRE(v.is<greenlet>());
    CHECK(weak.lock() == v.get<greenlet>());
    CHECK(v.get<greenlet>().dead());
  }
  CHECK(weak.expired());

  // The handle that a suspended greenlet sent of itself keeps it, and dropping that unwinds it.
  events log;
  value v;
  {
    const greenlet g([&log] {
      const noting local{log, "local"};
      switch_to_parent(current());
    });
    v = g.switch_to();
  }
  CHECK(log.empty());
  v.reset();
  CHECK(log == events{"~local"});
}

TEST_CASE("what is sent may hold the last handle to the one who gets it") {
  events log;
  const greenlet* self = nullptr;  // does not count
  greenlet g([&] {
    const noting local{log, "local"};
    self = &current();
    value v = switch_to_parent();
    v.reset();
    log.push_back("has dropped itself");
    switch_to_parent(5);
  });
  g.switch_to();
  const weak_greenlet weak(g);
  CHECK(self->switch_to(std::move(g)).get<int>() == 5);
  CHECK(log == events{"has dropped itself", "~local"});
  CHECK(weak.expired());
}

TEST_CASE("a switch or throw with an empty handle is refused") {
  const greenlet none;
  const greenlets::error e = error_from([&] { none.switch_to(1); });
  CHECK(e.code() == errc::empty_handle);
  CHECK(e.summary() == "the handle refers to no greenlet");
  CHECK(error_of([&] { none.throw_in(1); }) == errc::empty_handle);
  CHECK(error_of([&] { current().throw_in(std::exception_ptr()); }) == errc::wrong_arguments);
}
