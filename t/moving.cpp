// SPDX-License-Identifier: MIT
// Moving an object is code of the user's. It runs before a switch decides anything, or after the switch,
// and never under a lock: whatever it does, what was sent arrives and nothing else changes. So is copying.
#include "testing.hpp"

#include <cstdlib>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

using namespace greenlets;
using testing::events;

namespace {

// Does something each time it is moved or destroyed. Small, and says that moving does not throw.
struct restless {
  static inline std::function<void()> at_move;
  static inline int moves = 0, alive = 0;
  int number;
  explicit restless(int n) : number(n) { ++alive; }
  restless(restless&& other) noexcept : number(std::exchange(other.number, -1)) {
    ++alive;
    ++moves;
    moved();
  }
  restless& operator=(restless&&) = delete;
  ~restless() {
    --alive;
    moved();
  }
  static void moved() {
    if (auto call = std::exchange(at_move, nullptr)) {
      call();
      at_move = std::move(call);
    }
  }
};

struct scoped_at_move {
  explicit scoped_at_move(std::function<void()> f) { restless::at_move = std::move(f); }
  scoped_at_move(const scoped_at_move&) = delete;
  scoped_at_move& operator=(const scoped_at_move&) = delete;
  ~scoped_at_move() { restless::at_move = nullptr; }
};

// A callable that is one.
struct restless_callable : restless {
  using restless::restless;
  int operator()() { return number; }
};

}  // namespace

TEST_CASE("192, B1: an object that switches whenever it is moved arrives, and who is current stays right") {
  restless::moves = 0;
  const greenlet main = current();
  std::vector<int> received;
  {
    const greenlet elsewhere([] {
      for (;;) switch_to_parent(std::string("from elsewhere"));
    });
    elsewhere.switch_to();
    const scoped_at_move guard([&] {
      const greenlet here = current();
      elsewhere.set_parent(here);
      if (elsewhere.switch_to().get<std::string>() != "from elsewhere" || current() != here) std::abort();
    });
    const greenlet g([&](const restless& first) {
      received.push_back(first.number);
      for (int n = 10;; ++n) {
        const value back = switch_to_parent(restless(n));
        received.push_back(back.get<restless>().number);
      }
    });
    for (int n = 0; n < 3; ++n) {
      const value back = g.switch_to(restless(n));
      CHECK(back.get<restless>().number == 10 + n);
      CHECK(g.state() == greenlet_state::suspended);
      CHECK(current() == main);
    }
    const greenlet result([] { return restless(20); });
    CHECK(result.switch_to().get<restless>().number == 20);
    CHECK(result.dead());
    const greenlet parent([&](const restless& r) { received.push_back(r.number); });
    greenlet([] { return restless(21); }, parent).switch_to();
    elsewhere.set_parent(main);
  }
  CHECK(received == std::vector<int>{0, 1, 2, 21});
  CHECK(restless::moves > 0);
  CHECK(restless::alive == 0);
}

TEST_CASE("192: an object that drops the greenlet it is sent to whenever it is moved") {
  events log;
  greenlet g;
  g = greenlet([&] {
    const testing::noting n{log, "g"};
    const value v = switch_to_parent();
    log.push_back("got " + std::to_string(v.get<restless>().number));
    switch_to_parent(1);
  });
  g.switch_to();
  {
    const scoped_at_move guard([&] { g = greenlet(); });
    const greenlet* const handle = &g;
    // The first move comes before the switch, which then finds an empty handle.
    CHECK(testing::error_of([&] { handle->switch_to(restless(5)); }) == errc::empty_handle);
  }
  CHECK(log == events{"~g"});
  CHECK(restless::alive == 0);
}

TEST_CASE("192: ... and makes another, in the same memory, which is not taken for it") {
  greenlet g, other;
  int received = 0;
  g = greenlet([] { switch_to_parent(); });
  g.switch_to();
  {
    const scoped_at_move guard([&] {
      if (other) return;
      g = greenlet();
      other = greenlet([&] {
        for (;;) received += switch_to_parent().has_value();
      });
      other.switch_to();
    });
    const greenlet* const handle = &g;
    CHECK(testing::error_of([&] { handle->switch_to(restless(5)); }) == errc::empty_handle);
  }
  CHECK(received == 0);
}

TEST_CASE("15, 192, B1, B9: a callable that uses its greenlet, and switches, at every move is not moved under a lock") {
  const testing::child c = testing::in_child([] {
    alarm(10);  // were the lock held it would wait for itself
    const greenlet g{attributes()};
    const scoped_at_move guard([&g] {
      if (g.started() || g.name() != "asked" || g.parent().empty()) std::abort();
      (void)g.has_run();
      greenlet visitor([] { switch_to_parent(); });
      visitor.switch_to();
    });
    g.set_name("asked");
    g.set_run(restless_callable(1));
    g.set_run(restless_callable(2));
    g.reset_run();
    g.set_run(restless_callable(3));
    restless::at_move = nullptr;
    if (g.switch_to().get<int>() != 3) _exit(2);
    // One that dies without having run is destroyed, and not moved about, either.
    const greenlet h(restless_callable(4));
    restless::at_move = [&h] { (void)h.has_run(); };
    if (!h.throw_in().is<greenlet_exit>()) _exit(3);
    restless::at_move = nullptr;
    if (restless::alive != 0) _exit(4);
  });
  CHECK(WIFEXITED(c.status));
  CHECK(WEXITSTATUS(c.status) == 0);
}

TEST_CASE("41, B1: what is sent may switch when it is moved or destroyed, to whom it is sent as well; nothing is lost") {
  // Greenlets that pass restless objects on, each turn to the next, and one that is visited at every move.
  events log;
  greenlet receiver([&log](restless first) {
    log.push_back("first " + std::to_string(first.number));
    for (;;) {
      value v = switch_to_parent(restless(100));
      log.push_back(v.is<restless>() ? "got " + std::to_string(v.get<restless>().number)
                                     : v.is<std::string>() ? v.get<std::string>() : std::string("nothing"));
    }
  });
  int moves = 0;
  SUBCASE("visiting a third") {
    restless::at_move = [&moves] {
      ++moves;
      greenlet([] { switch_to_parent(); }).switch_to();
    };
  }
  SUBCASE("sending to the receiver itself") {
    restless::at_move = [&moves, &receiver, &log] {
      ++moves;
      if (receiver && receiver != current() && receiver.parent() == current()) {
        log.emplace_back("interposed");
        receiver.switch_to(std::string("between"));
      }
    };
  }
  SUBCASE("unwinding others") {
    restless::at_move = [&moves] {
      ++moves;
      greenlet victim([] { switch_to_parent(); });
      victim.switch_to();
    };
  }
  receiver.switch_to(restless(1));
  for (int n = 2; n < 6; ++n) {
    const value answer = receiver.switch_to(restless(n));
    CHECK(answer.is<restless>());
    if (answer.is<restless>()) CHECK(answer.get<restless>().number == 100);
  }
  restless::at_move = nullptr;
  CHECK(moves > 0);
  events numbers;
  for (const std::string& line : log)
    if (line.rfind("first", 0) == 0 || line.rfind("got", 0) == 0) numbers.push_back(line);
  CHECK(numbers == events{"first 1", "got 2", "got 3", "got 4", "got 5"});
}

TEST_CASE("61, B1: results too: a move constructor may end the parent for which the result is") {
  int got = 0;
  const greenlet main = current();
  greenlet parent, child_of_parent;
  parent = greenlet([&] {
    got = child_of_parent.switch_to().get<restless>().number;
    return restless(got + 1);
  });
  child_of_parent = greenlet(
      [&] {
        restless::at_move = [] { greenlet([] {}).switch_to(); };
        return restless(41);
      },
      parent);
  parent.switch_to();
  restless::at_move = nullptr;
  CHECK(got == 41);
  CHECK(parent.dead());
}

TEST_CASE("where the tracer before cannot be given back, it stays") {
  // settrace_all_threads() had replaced it when it said that it could not.
  struct copied {
    int& calls;
    bool& refuses;
    copied(int& c, bool& r) : calls(c), refuses(r) {}
    copied(const copied& other) : calls(other.calls), refuses(other.refuses) {
      if (refuses) throw std::runtime_error("no copy");
    }
    void operator()(trace_event, const greenlet&, const greenlet&) const { ++calls; }
  };
  int calls = 0;
  bool refuses = false;
  const auto still_there = [&] {
    calls = 0;
    greenlet([] {}).switch_to();
    CHECK(calls == 2);
  };
  settrace(copied(calls, refuses));
  refuses = true;
  CHECK_THROWS_WITH(settrace(nullptr), "no copy");
  still_there();
  refuses = false;
  CHECK(settrace(nullptr));
  settrace_all_threads(copied(calls, refuses));
  refuses = true;
  CHECK_THROWS_WITH(settrace_all_threads(nullptr), "no copy");
  still_there();
  refuses = false;
  CHECK(settrace_all_threads(nullptr));
}
