// SPDX-License-Identifier: MIT
// Exceptions that nobody catches in the greenlet that threw them: where they go, and which end the
// process instead.
#include "testing.hpp"

#include <csignal>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <functional>
#include <stdexcept>
#include <string>
#include <unwind.h>
#include <utility>
#include <vector>

using namespace greenlets;
using testing::events;
using testing::noting;

namespace {

struct no_std_exception {
  std::string text;
};

// Throws an exception of another language, as its compiler would.
[[noreturn]] void throw_foreign() {
  static _Unwind_Exception foreign;
  std::memset(&foreign, 0, sizeof foreign);
  std::memcpy(&foreign.exception_class, "OTHRLANG", 8);
  foreign.exception_cleanup = [](_Unwind_Reason_Code, _Unwind_Exception*) {};
  _Unwind_RaiseException(&foreign);
  std::abort();  // nobody was there to catch it
}

void throws() { throw std::runtime_error("through a noexcept function"); }
void never_throws() noexcept { throws(); }

// Calls itself through switches: `depth` greenlets, each waiting for the next.
void nested(int depth, const std::function<void()>& last) {
  if (depth == 0) return last();
  greenlet next([depth, &last] { nested(depth - 1, last); });
  next.switch_to();
}

bool aborted(const testing::child& c) { return WIFSIGNALED(c.status) && WTERMSIG(c.status) == SIGABRT; }

}  // namespace

TEST_CASE("166: an uncaught exception goes to the parent, be it of a class of std or not, from a function or a lambda") {
  const auto thrown_by = [](auto&& run) -> std::string {
    greenlet g(run);
    try {
      g.switch_to();
    } catch (const no_std_exception& e) {
      CHECK(g.dead());
      return e.text;
    } catch (const std::exception& e) {
      CHECK(g.dead());
      return e.what();
    }
    return "nothing";
  };
  CHECK(thrown_by([] { throw no_std_exception{"plain"}; }) == "plain");
  CHECK(thrown_by([] { throw std::runtime_error("of std"); }) == "of std");
  CHECK(thrown_by(+[] { throw std::runtime_error("a function's"); }) == "a function's");
  CHECK(thrown_by(std::function<void()>([] { throw no_std_exception{"a std::function's"}; })) == "a std::function's");
  CHECK(thrown_by([] { nested(20, [] { throw no_std_exception{"twenty deep"}; }); }) == "twenty deep");
}

TEST_CASE("166: it never comes out of a switch of one who is no ancestor, wherever that waits") {
  events log;
  greenlet thrower;
  const auto bystander = [&log](const char* name, const greenlet& next) {
    return [&log, name, &next] {
      try {
        next.switch_to();
        log.push_back(std::string(name) + " goes on");
      } catch (const std::runtime_error&) {
        log.push_back(std::string(name) + " caught it");
      }
    };
  };
  greenlet second(bystander("second", thrower)), first(bystander("first", second));
  thrower = greenlet([] { throw std::runtime_error("for main"); });
  CHECK_THROWS_WITH_AS(first.switch_to(), "for main", std::runtime_error);
  CHECK(log.empty());
  CHECK(first.state() == greenlet_state::suspended);
  CHECK(second.state() == greenlet_state::suspended);
  second.switch_to();
  first.switch_to();
  CHECK(log == events{"second goes on", "first goes on"});
}

TEST_CASE("166: what leaves a noexcept function is std::terminate, with the greenlet's exception, as in any thread") {
  const testing::child c = testing::in_child([] {
    std::set_terminate([] {
      try {
        throw;
      } catch (const std::runtime_error& e) {
        const std::string said = std::string("terminated: ") + e.what();
        if (write(1, said.data(), said.size()) < 0) _exit(3);
      }
      std::abort();
    });
    const greenlet bystander([] {
      try {
        throw std::logic_error("handled elsewhere");
      } catch (...) {
        switch_to_parent();
      }
    });
    bystander.switch_to();
    greenlet([] { never_throws(); }).switch_to();
  });
  CHECK(aborted(c));
  CHECK(c.output.find("terminated: through a noexcept function") != std::string::npos);
}

TEST_CASE("166: an exception that leaves a thread's main greenlet uncaught is std::terminate, and no greenlet's") {
  const testing::child c = testing::in_child([] {
    std::set_terminate([] {
      if (write(1, "terminated", 10) < 0) _exit(3);
      std::abort();
    });
    pthread_t thread;
    const auto run = [](void*) -> void* {
      static const greenlet waiting([] {
        try {
          switch_to_parent();
        } catch (...) {
          if (write(1, "caught below", 12) < 0) _exit(3);
        }
      });
      waiting.switch_to();
      greenlet([] { throw std::runtime_error("past main"); }).switch_to();
      return nullptr;
    };
    if (pthread_create(&thread, nullptr, run, nullptr) != 0) _exit(4);
    pthread_join(thread, nullptr);
  });
  CHECK(aborted(c));
  CHECK(c.output.find("terminated") != std::string::npos);
  CHECK(c.output.find("caught below") == std::string::npos);
}

TEST_CASE("166: an exception of another language is the greenlet's own while it handles it, and aborts when it leaves") {
  std::vector<std::string> log;
  // Handled in the greenlet, over switches to others that throw and catch.
  const greenlet g([&] {
    const noting local{log, "local"};
    try {
      const noting inner{log, "inner"};
      throw_foreign();
    } catch (...) {
      log.push_back(std::current_exception() ? "one of ours" : "foreign");
      switch_to_parent();
      log.push_back(std::current_exception() ? "one of ours" : "foreign");
    }
    CHECK(std::uncaught_exceptions() == 0);
  });
  g.switch_to();
  CHECK_THROWS_AS(greenlet([] { throw 1; }).switch_to(), int);
  CHECK(std::current_exception() == nullptr);
  g.switch_to();
  CHECK(g.dead());
  CHECK(log == events{"~inner", "foreign", "foreign", "~local"});

  const testing::child c = testing::in_child([] { greenlet([] { throw_foreign(); }).switch_to(); });
  CHECK(aborted(c));
  CHECK(c.output.find("an exception of another language has left a greenlet") != std::string::npos);
}

TEST_CASE("168: exceptions through nested calls and greenlets leak no greenlet, stack or exception object") {
  trim_stacks();
  const auto before = counts();
  int alive = 0;
  struct counted {
    int* n;
    explicit counted(int& count) : n(&count) { ++*n; }
    counted(const counted& other) : n(other.n) { ++*n; }
    ~counted() { --*n; }
  };
  for (int round = 0; round < 100; ++round) {
    // To main, through all of them; caught half-way and thrown on; caught and replaced; kept by a
    // greenlet that is dropped in its handler.
    CHECK_THROWS_AS(nested(10, [&] { throw counted(alive); }), counted);
    try {
      nested(5, [&] {
        try {
          nested(5, [&] { throw counted(alive); });
        } catch (const counted&) {
          nested(3, [] {});
          throw;
        }
      });
    } catch (const counted&) {
    }
    try {
      nested(5, [&] {
        try {
          nested(5, [&] { throw counted(alive); });
        } catch (const counted&) {
          throw std::runtime_error("another");
        }
      });
    } catch (const std::runtime_error&) {
    }
    greenlet holds([&] {
      try {
        nested(4, [&] { throw counted(alive); });
      } catch (const counted&) {
        main_greenlet().switch_to();
      }
    });
    holds.switch_to();
    CHECK(alive == 1);
    holds = greenlet();
    CHECK(alive == 0);
    CHECK(counts().greenlets == before.greenlets);
  }
  trim_stacks();
  CHECK(counts().stacks == before.stacks);
}
