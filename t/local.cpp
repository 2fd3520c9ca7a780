// SPDX-License-Identifier: MIT
// Greenlet-local variables: made where they are used, gone with their greenlet, on its stack.
#include "testing.hpp"

#include <atomic>
#include <cstdlib>
#include <functional>
#include <memory>
#include <pthread.h>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

using namespace greenlets;
using testing::at_end;
using testing::events;
using testing::noting;

namespace {

local<int> number;
local<std::vector<int>> numbers([] { return std::vector<int>{1, 2, 3}; });
local<std::shared_ptr<void>> ending;
local<std::shared_ptr<void>> second;

template <class F>
void in_thread(F&& f) {
  std::thread(std::forward<F>(f)).join();
}

// How a greenlet ends after it has called `first`.
enum class way { returns, throws, killed, last_handle, exit_thrown };
const way all_ways[] = {way::returns, way::throws, way::killed, way::last_handle, way::exit_thrown};

void live_and_die(way w, const std::function<void()>& first) {
  greenlet g([&, w] {
    first();
    if (w == way::throws) throw std::runtime_error("over");
    if (w == way::exit_thrown) throw greenlet_exit();
    if (w != way::returns) switch_to_parent();
  });
  try {
    g.switch_to();
  } catch (const std::runtime_error&) {
    CHECK(w == way::throws);
  }
  if (w == way::killed) g.throw_in();
  g = {};
}

}  // namespace

TEST_CASE("every greenlet has its own value, made by its first use there") {
  *number = 1;
  greenlet g([] {
    CHECK(number.get_if() == nullptr);
    CHECK(*number == 0);
    number = 2;
    numbers->push_back(4);
    switch_to_parent();
    CHECK(*number == 2);
    CHECK(*numbers == std::vector<int>{1, 2, 3, 4});
  });
  g.switch_to();
  CHECK(*number == 1);
  CHECK(numbers.get_if() == nullptr);
  CHECK(numbers->size() == 3);
  number.get() = 5;
  g.switch_to();
  CHECK(g.dead());
  CHECK(*number == 5);
  number.reset();
  CHECK(number.get_if() == nullptr);
  number.reset();
  numbers.reset();
}

TEST_CASE("values need neither be copied nor moved, nor have a default") {
  struct fixed {
    int n;
    explicit fixed(int i) : n(i) {}
    fixed(const fixed&) = delete;
    fixed& operator=(const fixed&) = delete;
  };
  static_assert(!std::is_default_constructible_v<local<fixed>>);
  local<fixed> made([] { return fixed(3); });
  local<std::unique_ptr<int>> assigned;
  greenlet([&] {
    CHECK(made->n == 3);
    assigned = std::make_unique<int>(4);
    CHECK(**assigned == 4);
    assigned = std::make_unique<int>(5);
    CHECK(**assigned == 5);
  }).switch_to();
}

TEST_CASE("many locals in one greenlet are all found, and go newest first") {
  struct counting {
    std::vector<int>* gone;
    int n;
    ~counting() { gone->push_back(n); }
  };
  std::vector<int> gone;
  std::vector<std::unique_ptr<local<counting>>> all;
  for (int i = 0; i < 100; ++i)
    all.push_back(std::make_unique<local<counting>>([&gone, i] { return counting{&gone, i}; }));
  std::vector<int> expected;
  for (int k = 99; k >= 0; --k) expected.push_back(k * 37 % 100);
  greenlet([&] {
    for (int k = 0; k < 100; ++k) all[static_cast<std::size_t>(k * 37 % 100)]->get();
    int right = 0;
    for (int i = 0; i < 100; ++i) right += (*all[static_cast<std::size_t>(i)])->n == i;
    CHECK(right == 100);
    CHECK(gone.empty());
  }).switch_to();
  CHECK(gone == expected);
}

TEST_CASE("values are destroyed on their greenlet's stack, after its function and its callable, before it is dead") {
  for (const way w : all_ways) {
    CAPTURE(static_cast<int>(w));
    events log;
    bool mine = false;
    const char* frame = nullptr;
    live_and_die(w, [&] {
      const char here = 0;
      frame = &here;
      ending = at_end([&, self = weak_greenlet(current())] {
        const greenlet me = self.lock();
        mine = me == current() && me.state() == greenlet_state::current;
        const char there = 0;
        mine = mine && std::abs(&there - frame) < 64 * 1024;
        log.push_back("~value");
      });
      log.push_back("function");
    });
    CHECK(log == events{"function", "~value"});
    CHECK(mine);
  }
  events log;
  greenlet g([callable = at_end([&] { log.push_back("~callable"); }), &log] {
    const noting n{log, "function"};
    ending = at_end([&log] { log.push_back("~value"); });
  });
  g.switch_to();
  CHECK(log == events{"~function", "~callable", "~value"});
}

TEST_CASE("values made in the destructor of the callable are destroyed too") {
  events log;
  greenlet g([c = at_end([&] { ending = at_end([&] { log.push_back("~value"); }); })] {});
  g.switch_to();
  CHECK(log == events{"~value"});
  CHECK(g.dead());
}

TEST_CASE("a value that throws when it is made is not there; the next use makes it") {
  int calls = 0;
  local<int> l([&] {
    if (++calls == 1) throw std::runtime_error("not yet");
    return calls;
  });
  greenlet([&] {
    CHECK_THROWS_WITH_AS(l.get(), "not yet", std::runtime_error);
    CHECK(l.get_if() == nullptr);
    CHECK(*l == 2);
    CHECK(*l == 2);
  }).switch_to();
}

TEST_CASE("making a value may switch, end with a kill, and use the variable itself") {
  events log;
  const local<int> slow([&] {
    const noting n{log, "making"};
    switch_to_parent();
    return 1;
  });
  greenlet a([&] { log.push_back("a has " + std::to_string(*slow)); });
  a.switch_to();
  {
    greenlet b([&] { log.push_back("b has " + std::to_string(*slow)); });
    b.switch_to();
  }
  CHECK(log == events{"~making"});
  a.switch_to();
  CHECK(log == events{"~making", "~making", "a has 1"});

  struct lazily {
    local<int> l;
    int depth = 0;
    lazily() : l([this] { return depth++ < 3 ? *l : 10 + depth; }) {}
  } const nested;
  greenlet([&] {
    CHECK(*nested.l == 14);
    CHECK(*nested.l == 14);
  }).switch_to();
}

TEST_CASE("a greenlet killed before its start has no values, one killed in its first use neither") {
  greenlet g([] { *number = 1; });
  g.throw_in();
  CHECK(g.dead());
  CHECK(number.get_if() == nullptr);
}

// main         g            helper
//  |           | ends
//  |           | ~value ---->|
//  |           |<------------|
//  |           | ~value goes on
//  |<----------| dead
TEST_CASE("the destructor of a value may switch") {
  int visits = 0;
  greenlet helper([&] {
    for (;; ++visits) switch_to_parent();
  });
  helper.switch_to();
  for (const way w : all_ways) {
    CAPTURE(static_cast<int>(w));
    const int before = visits;
    bool over = false;
    live_and_die(w, [&] {
      ending = at_end([&] {
        helper.set_parent(current());
        helper.switch_to();
        helper.set_parent(main_greenlet());
        over = true;
      });
    });
    CHECK(visits == before + 1);
    CHECK(over);
  }
}

TEST_CASE("a greenlet left in the destructor of a value is not dead; it ends when it is gone on with or dropped") {
  events log;
  greenlet g([&] {
    second = at_end([&] { log.push_back("~second"); });
    ending = at_end([&] {
      log.push_back("leaves");
      switch_to_parent();
      log.push_back("is back");
    });
    return 7;
  });
  g.switch_to();
  CHECK(log == events{"leaves"});
  CHECK(g.state() == greenlet_state::suspended);
  SUBCASE("switched to") { CHECK(g.switch_to().get<int>() == 7); }
  SUBCASE("dropped") { g = {}; }
  CHECK(log == events{"leaves", "is back", "~second"});
}

TEST_CASE("destructors may use other locals, those that exist and those that do not") {
  events log;
  local<std::string> older([] { return std::string("made late"); });
  live_and_die(way::returns, [&] {
    older = "as it was";
    ending = at_end([&] { log.push_back(*older); });
  });
  live_and_die(way::returns, [&] {
    ending = at_end([&] { log.push_back(*older); });
  });
  live_and_die(way::returns, [&] {
    number = 1;
    ending = at_end([&] {
      number.reset();
      log.push_back(std::to_string(*number));
      second = at_end([&] { log.push_back("second"); });
    });
  });
  CHECK(log == events{"as it was", "made late", "0", "second"});
}

TEST_CASE("destructors that make their own local anew get some rounds, then it is reported and left") {
  testing::unraisables handler;
  for (const int times : {1, 5, 1000}) {
    CAPTURE(times);
    int destroyed = 0;
    bool others = false;
    handler.seen.clear();
    // Static, for what is left is never destroyed and refers to it.
    static std::function<void()> make;
    make = [&destroyed, times] {
      if (destroyed < times) ending = at_end([&destroyed] { ++destroyed, make(); });
    };
    greenlet g([&] {
      second = at_end([&] { others = true; });
      make();
    });
    g.switch_to();
    CHECK(g.dead());
    CHECK(others);
    if (times < 16) {
      CHECK(destroyed == times);
      CHECK(handler.seen.empty());
    } else {
      CHECK(destroyed == 16);
      REQUIRE(handler.seen.size() == 1);
      CHECK(handler.seen[0].first == g);
      CHECK_THROWS_AS(std::rethrow_exception(handler.seen[0].second), std::runtime_error);
      g = {};
      handler.seen.clear();
      CHECK(destroyed == 16);
    }
  }
}

TEST_CASE("what throws inside a destructor of a value and is caught there harms nobody") {
  bool caught = false;
  for (const way w : all_ways) {
    caught = false;
    live_and_die(w, [&] {
      ending = at_end([&] {
        try {
          greenlet([] { throw std::runtime_error("inside"); }).switch_to();
        } catch (const std::runtime_error&) {
          caught = std::uncaught_exceptions() == 0;
        }
      });
    });
    CHECK(caught);
  }
}

TEST_CASE("a value that holds the last handle of its greenlet, or drops that of the running one") {
  events log;
  {
    // It holds itself, as one with a handle on its own stack does; so it is thrown at to end.
    greenlet g([&] {
      const noting n{log, "own"};
      static local<greenlet> self;
      self = current();
      switch_to_parent();
    });
    g.switch_to();
    g.throw_in();
  }
  CHECK(log == events{"~own"});
  auto g = std::make_unique<greenlet>();
  *g = greenlet([&] {
    ending = at_end([&] {
      g.reset();
      log.push_back("dropped");
    });
    second = at_end([&] { log.push_back("newer"); });
  });
  g->switch_to();
  CHECK(log == events{"~own", "newer", "dropped"});
}

TEST_CASE("reset() in the middle, and of what is just being destroyed") {
  events log;
  greenlet([&] {
    ending = at_end([&] {
      log.push_back("~value");
      CHECK(ending.get_if() == nullptr);
      ending.reset();
    });
    number = 1;
    ending.reset();
    CHECK(ending.get_if() == nullptr);
    CHECK(*number == 1);
    log.push_back("goes on");
  }).switch_to();
  CHECK(log == events{"~value", "goes on"});
}

TEST_CASE("a local that is destroyed first leaves the values to their greenlets; another never finds them") {
  events log;
  using variable = local<std::shared_ptr<void>>;
  auto gone = std::make_unique<variable>();
  greenlet g([&] {
    *gone = at_end([&] { log.push_back("~value"); });
    switch_to_parent();
    CHECK(gone->get_if() == nullptr);
    CHECK(**gone == nullptr);
    *gone = at_end([&] { log.push_back("~value of the new one"); });
  });
  g.switch_to();
  gone = nullptr;
  gone = std::make_unique<variable>();
  CHECK(log.empty());
  g.switch_to();
  CHECK(log == events{"~value of the new one", "~value"});
}

TEST_CASE("a thread's exit destroys the values of all its greenlets, each on its own stack") {
  events log;
  const std::thread::id here = std::this_thread::get_id();
  std::vector<greenlet> kept;
  in_thread([&] {
    const auto note = [&](const std::string& name) {
      return at_end([&, name, self = weak_greenlet(current())] {
        CHECK(std::this_thread::get_id() != here);
        CHECK(self.lock() == current());
        log.push_back("~" + name);
        log.push_back(std::to_string(*number));
      });
    };
    ending = note("main");
    number = 1;
    for (int i = 2; i < 4; ++i) {
      kept.emplace_back([&, i] {
        ending = note("greenlet");
        number = i;
        switch_to_parent();
      });
      kept.back().switch_to();
    }
    kept.push_back(current());
  });
  CHECK(log == events{"~greenlet", "0", "~greenlet", "0", "~main", "0"});  // newest first: number has gone before
  for (const greenlet& g : kept) CHECK(g.state() == greenlet_state::unwound);
}

TEST_CASE("at a thread's exit the values of its main greenlet may start greenlets, make others and switch") {
  events log;
  std::vector<greenlet> kept;
  in_thread([&] {
    ending = at_end([&] {
      kept.emplace_back([&] {
        const noting n{log, "stack"};
        second = at_end([&] { log.push_back("~value of the new greenlet"); });
        switch_to_parent();
      });
      kept.back().switch_to();
      log.push_back("started");
      second = at_end([&] { log.push_back("~value made late"); });
    });
  });
  CHECK(log == events{"started", "~stack", "~value of the new greenlet", "~value made late"});
  CHECK(kept[0].state() == greenlet_state::unwound);
}

TEST_CASE("main greenlets whose values go on for ever are reported once, and their thread ends") {
  testing::unraisables handler;
  static int destroyed;
  destroyed = 0;
  static std::function<void()> make;
  make = [] { ending = at_end([] { ++destroyed, make(); }); };
  in_thread([] { make(); });
  CHECK(destroyed == 16);
  CHECK(handler.seen.size() == 1);
}

TEST_CASE("a greenlet that refuses to end keeps its values with its stack for ever" *
          doctest::description("leaves the stack of that greenlet")) {
  testing::unraisables handler;
  static bool destroyed = false;
  greenlet stubborn;
  in_thread([&] {
    stubborn = greenlet([] {
      ending = at_end([] { destroyed = true; });
      for (;;) try {
          switch_to_parent();
        } catch (const greenlet_exit&) {
        }
    });
    stubborn.switch_to();
  });
  CHECK(handler.seen.size() == 1);
  handler.seen.clear();
  stubborn = {};
  CHECK_FALSE(destroyed);
}

TEST_CASE("pthread_exit in a greenlet destroys its values and its callable, which may switch") {
  // TSan's pthread_exit cannot work on a fiber: it aborts with a failed CHECK in its own code.
#ifndef T_TSAN
  static events log;
  static greenlet g;  // kept: only the thread's exit ends it
  log.clear();
  pthread_t thread;
  const auto run = [](void*) -> void* {
    g = greenlet([callable = at_end([] {
                    log.push_back("~callable");
                    switch_to_parent();
                    log.push_back("~callable goes on");
                  })] {
      const noting n{log, "stack"};
      ending = at_end([] {
        log.push_back("~value");
        switch_to_parent();
        log.push_back("~value goes on");
      });
      pthread_exit(nullptr);
    });
    g.switch_to();
    log.push_back("main");
    return nullptr;  // the exit of the thread finds it in the destructor of its callable
  };
  REQUIRE(pthread_create(&thread, nullptr, run, nullptr) == 0);
  pthread_join(thread, nullptr);
  CHECK(log == events{"~stack", "~callable", "main", "~callable goes on", "~value", "~value goes on"});
  g = {};
#endif
}

TEST_CASE("one static local, many threads and greenlets: each has its own") {
  static local<std::string> text([] { return std::string("a text that is too long to be kept in place"); });
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      std::vector<greenlet> all;
      for (int i = 0; i < 20; ++i)
        all.emplace_back([&, t, i] {
          text->push_back(static_cast<char>('a' + t));
          const std::string mine = *text;
          *number = i;
          for (int turn = 0; turn < 20; ++turn) {
            switch_to_parent();
            if (*text != mine || *number != i) ++wrong;
          }
        });
      for (int turn = 0; turn < 15; ++turn)
        for (const greenlet& g : all) g.switch_to();
    });
  for (std::thread& t : threads) t.join();
  CHECK(wrong == 0);
}
