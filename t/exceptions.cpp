// SPDX-License-Identifier: MIT
// The exceptions that are being handled and thrown belong to a greenlet: `throw;`,
// std::current_exception() and std::uncaught_exceptions() never mean another's.
#include "testing.hpp"

#include <array>
#include <exception>
#include <functional>
#include <future>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

using namespace greenlets;
using testing::events;

namespace {

struct tagged {
  std::string tag;
};

// The tag of the exception being handled; "" when none is.
std::string handled() {
  const std::exception_ptr e = std::current_exception();
  if (!e) return "";
  try {
    std::rethrow_exception(e);
  } catch (const tagged& t) {
    return t.tag;
  } catch (...) {
    return "?";
  }
}

}  // namespace

TEST_CASE("164, B37: two handlers that interleave rethrow and find their own exceptions") {
  //   main             a                          b
  //   starts a
  //                    catches "a"
  //   starts b
  //                                               catches "b"
  //   to a
  //                    handles "a"; throw;
  //                    catches "a" outside
  //   to b
  //                                               handles "b"; throw;
  //                                               catches "b" outside
  //   to a
  //                    handles "a" still
  //   to b
  //                                               handles "b" still
  events log;
  const auto interleaved = [&log](const std::string& tag) {
    return [&log, tag] {
      const auto note = [&](const std::string& what) { log.push_back(tag + " " + what + " " + handled()); };
      try {
        try {
          throw tagged{tag};
        } catch (const tagged&) {
          note("caught");
          switch_to_parent();
          note("handles");
          throw;
        }
      } catch (const tagged& t) {
        note("rethrew " + t.tag);
        switch_to_parent();
        note("handles");
      }
      note("done");
    };
  };
  greenlet a(interleaved("a")), b(interleaved("b"));
  for (int turn = 0; turn < 3; ++turn)
    for (greenlet* g : {&a, &b}) {
      g->switch_to();
      CHECK(std::current_exception() == nullptr);
    }
  CHECK(log == events{"a caught a", "b caught b",                                      //
                      "a handles a", "a rethrew a a", "b handles b", "b rethrew b b",  //
                      "a handles a", "a done ", "b handles b", "b done "});
  CHECK(a.dead());
  CHECK(b.dead());
}

TEST_CASE("164: a greenlet first started in its creator's handler begins without an exception") {
  std::weak_ptr<int> payload;
  struct loaded {
    std::shared_ptr<int> load;
  };
  greenlet g;
  try {
    auto load = std::make_shared<int>(7);
    payload = load;
    throw loaded{std::move(load)};
  } catch (const loaded&) {
    const std::exception_ptr mine = std::current_exception();
    g = greenlet([] {
      CHECK(std::current_exception() == nullptr);
      CHECK(std::uncaught_exceptions() == 0);
      try {
        throw tagged{"child"};
      } catch (const tagged&) {
        switch_to_parent();
        CHECK(handled() == "child");
        throw;
      }
    });
    g.switch_to();
    CHECK(std::current_exception() == mine);
    try {
      throw;
    } catch (const loaded& again) {
      CHECK(*again.load == 7);
    }
    CHECK(std::current_exception() == mine);
  }
  // The handler has ended and its object is gone, although the greenlet that began there goes on.
  CHECK(payload.expired());
  CHECK(std::current_exception() == nullptr);
  CHECK_THROWS_AS(g.switch_to(), tagged);
  CHECK(std::current_exception() == nullptr);
}

TEST_CASE("165: exceptions thrown and caught while others are suspended in try blocks do not mix") {
  // Greenlet n is started from inside greenlet n-1's try block and handler; then the deepest
  // throws through itself, and each on the way throws another type.
  events log;
  constexpr int depth = 60;
  std::function<void(int)> nest = [&](int n) {
    testing::noting here{log, std::to_string(n)};
    try {
      try {
        throw tagged{std::to_string(n)};
      } catch (const tagged& mine) {
        if (n == depth) throw std::runtime_error("deepest");
        greenlet([&nest, n] { nest(n + 1); }).switch_to();
        CHECK(mine.tag == "not reached");
      }
    } catch (const std::runtime_error& e) {
      CHECK(n % 2 == depth % 2);
      CHECK(e.what() == std::string("deepest"));
      if (n > 0) throw n;
    } catch (int below) {
      CHECK(below == n + 1);
      throw std::runtime_error("deepest");
    }
  };
  try {
    nest(0);
  } catch (...) {
    FAIL("the outermost handles it");
  }
  events expected;
  for (int n = depth; n >= 0; --n) expected.push_back("~" + std::to_string(n));
  CHECK(log == expected);
  CHECK(std::current_exception() == nullptr);
  CHECK(std::uncaught_exceptions() == 0);
}

TEST_CASE("164, 165, B37: handlers within handlers, left and entered at random, find their exceptions at every depth") {
  constexpr int greenlets_n = 24, levels = 10;
  std::minstd_rand dice(20240229);
  std::array<greenlet, greenlets_n> ring;
  // Anybody may be next; a dead one sends us to main, which goes on with another.
  const auto wander = [&] { ring[dice() % greenlets_n].switch_to(); };
  int rethrown = 0, replaced = 0;
  std::function<void(int, int)> descend = [&](int id, int level) {
    const std::string mine = std::to_string(id) + "/" + std::to_string(level);
    const auto still_mine = [&mine] { return handled() == mine && std::uncaught_exceptions() == 0; };
    try {
      try {
        throw tagged{mine};
      } catch (const tagged& t) {
        wander();
        CHECK(still_mine());
        if (level < levels) descend(id, level + 1);
        CHECK(still_mine());
        wander();
        CHECK(still_mine());
        CHECK(t.tag == mine);
        switch (dice() % 3) {
          case 0: ++rethrown; throw;
          case 1: ++replaced; throw tagged{mine};
          default: return;
        }
      }
    } catch (const tagged& t) {
      wander();
      CHECK(t.tag == mine);
      CHECK(still_mine());
    }
  };
  for (int id = 0; id < greenlets_n; ++id) ring[static_cast<std::size_t>(id)] = greenlet([&descend, id] {
    descend(id, 0);
    CHECK(std::current_exception() == nullptr);
  });
  for (greenlet& g : ring)
    while (!g.dead()) {
      g.switch_to();
      CHECK(std::current_exception() == nullptr);
    }
  CHECK(rethrown > 0);
  CHECK(replaced > 0);
}

TEST_CASE("164: nested exceptions keep their chain over switches") {
  greenlet g([] {
    try {
      try {
        throw tagged{"cause"};
      } catch (...) {
        switch_to_parent();
        std::throw_with_nested(std::runtime_error("effect"));
      }
    } catch (...) {
      switch_to_parent();
      throw;
    }
  });
  try {
    throw tagged{"unrelated"};
  } catch (const tagged&) {
    g.switch_to();
    g.switch_to();
    try {
      g.switch_to();
      FAIL("it throws");
    } catch (const std::runtime_error& e) {
      CHECK(e.what() == std::string("effect"));
      try {
        std::rethrow_if_nested(e);
        FAIL("it has a cause");
      } catch (const tagged& cause) {
        CHECK(cause.tag == "cause");
      }
    }
    CHECK(handled() == "unrelated");
  }
}

TEST_CASE("164: several greenlets handle one exception object at once, and it dies once, last") {
  struct counted_death {
    int* deaths;
    std::shared_ptr<int> token = std::make_shared<int>();
    ~counted_death() {
      if (token.use_count() == 1) ++*deaths;
    }
    counted_death(int* d) : deaths(d) {}
    counted_death(const counted_death&) = default;
  };
  int deaths = 0;
  auto shared = std::make_exception_ptr(counted_death(&deaths));
  CHECK(deaths == 0);
  std::vector<const void*> seen;
  std::vector<greenlet> all;
  for (int i = 0; i < 3; ++i)
    all.emplace_back([&seen](const std::exception_ptr& e) {
      try {
        std::rethrow_exception(e);
      } catch (const counted_death& object) {
        seen.push_back(&object);
        switch_to_parent();
        try {
          throw;
        } catch (const counted_death& again) {
          CHECK(&again == &object);
          switch_to_parent();
        }
        CHECK(std::current_exception() != nullptr);
        switch_to_parent();
      }
      CHECK(std::current_exception() == nullptr);
    });
  for (greenlet& g : all) g.switch_to(shared);
  CHECK(seen.size() == 3);
  CHECK(seen[0] == seen[1]);
  CHECK(seen[1] == seen[2]);
  shared = nullptr;
  for (int turn = 0; turn < 2; ++turn)
    for (greenlet& g : {std::ref(all[2]), std::ref(all[0]), std::ref(all[1])}) g.switch_to();
  all[1].switch_to();
  all[0].switch_to();
  CHECK(all[0].dead());
  CHECK(deaths == 0);
  all[2] = greenlet();  // the last one is killed inside its handler
  CHECK(deaths == 1);
}

TEST_CASE("62, 164: an exception that ends a greenlet arrives in its parent's handler beside the one handled there") {
  greenlet g([] {
    try {
      throw tagged{"first"};
    } catch (const tagged&) {
      throw tagged{"second"};  // leaves a handler: the first dies on the way
    }
  });
  try {
    throw tagged{"main"};
  } catch (const tagged&) {
    try {
      g.switch_to();
    } catch (const tagged& t) {
      CHECK(t.tag == "second");
      CHECK(handled() == "second");
      CHECK(std::uncaught_exceptions() == 0);
    }
    CHECK(handled() == "main");
  }
  CHECK(std::current_exception() == nullptr);
}

TEST_CASE("164: an exception_ptr crosses threads and is thrown into a greenlet there") {
  const auto token = std::make_shared<int>(42);
  struct loaded {
    std::shared_ptr<int> load;
  };
  std::promise<std::exception_ptr> there;
  std::promise<std::exception_ptr> back;
  std::thread thread([&] {
    std::exception_ptr e = there.get_future().get();
    greenlet g([&] {
      try {
        switch_to_parent();
      } catch (const loaded& l) {
        CHECK(*l.load == 42);
        switch_to_parent();
        CHECK(*l.load == 42);
        throw;
      }
    });
    g.switch_to();
    try {
      throw tagged{"other"};
    } catch (const tagged&) {
      g.throw_in(e);
      e = nullptr;
      CHECK(handled() == "other");
      try {
        g.switch_to();
      } catch (const loaded&) {
        back.set_value(std::current_exception());
      }
      CHECK(handled() == "other");
    }
  });
  greenlet g([&] { throw loaded{token}; });
  std::exception_ptr uncaught;
  try {
    g.switch_to();
  } catch (const loaded&) {
    uncaught = std::current_exception();
  }
  CHECK(token.use_count() == 2);
  there.set_value(std::move(uncaught));
  std::exception_ptr returned = back.get_future().get();
  thread.join();
  CHECK(token.use_count() == 2);
  CHECK_THROWS_AS(std::rethrow_exception(returned), loaded);
  // The promises held it too.
  returned = nullptr;
  there = {};
  back = {};
  CHECK(token.use_count() == 1);
}

TEST_CASE("33, 165: handlers interleaved in many threads at once do not mix") {
  std::vector<std::thread> threads;
  for (int n = 0; n < 4; ++n)
    threads.emplace_back([n] {
      int wrong = 0;
      std::vector<greenlet> all;
      for (int i = 0; i < 8; ++i)
        all.emplace_back([&wrong, n, i] {
          const std::string mine = std::to_string(n) + ":" + std::to_string(i);
          for (int turn = 0; turn < 25; ++turn) try {
              switch_to_parent();
              wrong += std::current_exception() != nullptr;
              throw tagged{mine};
            } catch (const tagged& t) {
              switch_to_parent();
              wrong += t.tag != mine || handled() != mine;
            }
        });
      for (bool alive = true; alive;) {
        alive = false;
        for (greenlet& g : all)
          if (!g.dead()) {
            g.switch_to();
            alive = true;
          }
      }
      CHECK(wrong == 0);
    });
  for (std::thread& t : threads) t.join();
}
