// SPDX-License-Identifier: MIT
// Symptom: a callable whose move constructor asked a greenlet's name waited for ever, for it was moved
// under that greenlet's lock; a sent object whose move constructor switched corrupted the switch that
// carried it. What the library moves on its way is now only what moves without the user's code.
#include "testing.hpp"

#include <csignal>
#include <exception>
#include <functional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

using namespace greenlets;
using testing::child;
using testing::events;

namespace {

// Small, and cannot throw when it is moved: calls a function then, and when it is destroyed.
std::function<void()> at_move;
bool moving = false;

void moved() {
  if (!at_move || moving) return;
  moving = true;
  at_move();
  moving = false;
}

struct restless {
  int number = 0;
  explicit restless(int n) : number(n) {}
  restless(restless&& other) noexcept : number(std::exchange(other.number, -1)) { moved(); }
  ~restless() { moved(); }
};

struct restless_callable {
  restless what;
  explicit restless_callable(int n) : what(n) {}
  int operator()() const { return what.number; }
};

}  // namespace

TEST_CASE("B1, B9: move constructors of callables may use the greenlet, and switch; they are not called under a lock") {
  const child c = testing::in_child([] {
    alarm(60);
    static greenlet g;
    static int used = 0;
    at_move = [] {
      ++used;
      if (!g.empty()) {
        (void)g.name();
        (void)g.has_run();
        (void)g.parent();
      }
      greenlet visitor([] { switch_to_parent(); });
      visitor.switch_to();
    };
    g = greenlet(restless_callable(1));
    g.set_run(restless_callable(2));
    g.set_run(restless_callable(3));
    if (g.switch_to().get<int>() != 3) _exit(20);
    g = greenlet(restless_callable(4));
    try {
      g.throw_in(std::runtime_error("unstarted"));
      _exit(21);
    } catch (const std::runtime_error&) {
    }
    if (used < 5) _exit(22);
    at_move = nullptr;
    _exit(7);
  });
  CHECK(WIFEXITED(c.status));
  CHECK(WEXITSTATUS(c.status) == 7);
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
    at_move = [&moves] {
      ++moves;
      greenlet([] { switch_to_parent(); }).switch_to();
    };
  }
  SUBCASE("sending to the receiver itself") {
    at_move = [&moves, &receiver, &log] {
      ++moves;
      if (receiver && receiver != current() && receiver.parent() == current()) {
        log.emplace_back("interposed");
        receiver.switch_to(std::string("between"));
      }
    };
  }
  SUBCASE("unwinding others") {
    at_move = [&moves] {
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
  at_move = nullptr;
  CHECK(moves > 0);
  events numbers;
  for (const std::string& line : log)
    if (line.rfind("first", 0) == 0 || line.rfind("got", 0) == 0) numbers.push_back(line);
  CHECK(numbers == events{"first 1", "got 2", "got 3", "got 4", "got 5"});
}

TEST_CASE("61, B1: results too: a move constructor may end the parent for which the result is") {
  at_move = nullptr;
  int got = 0;
  const greenlet main = current();
  greenlet parent, child_of_parent;
  parent = greenlet([&] {
    got = child_of_parent.switch_to().get<restless>().number;
    return restless(got + 1);
  });
  child_of_parent = greenlet(
      [&] {
        at_move = [] { greenlet([] {}).switch_to(); };
        return restless(41);
      },
      parent);
  parent.switch_to();
  at_move = nullptr;
  CHECK(got == 41);
  CHECK(parent.dead());
}
