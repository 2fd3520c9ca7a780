// SPDX-License-Identifier: MIT
// Greenlets that are left, started and killed while exceptions are on their way: in destructors,
// copies and handlers, std::uncaught_exceptions() is the running greenlet's own.
#include "testing.hpp"

#include <exception>
#include <string>
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

// Says how many exceptions are uncaught before and after a switch out of a destructor.
struct leaving {
  std::vector<int>& seen;
  ~leaving() {
    seen.push_back(std::uncaught_exceptions());
    switch_to_parent();
    seen.push_back(std::uncaught_exceptions());
  }
};

}  // namespace

TEST_CASE("164, B37: uncaught_exceptions() is right everywhere when greenlets are left in the middle of unwinding") {
  //   main                     a                           b
  //   starts a
  //                            throws; ~leaving: 1
  //   0; throws and catches
  //   starts b
  //                                                        throws; ~leaving: 1
  //   0; throws: in its own destructor 1, goes to a
  //                            still 1; catches: 0, leaves
  //   still 1; goes to b
  //                                                        still 1; catches: 0, leaves
  //   still 1; catches: 0
  std::vector<int> in_a, in_b, in_main;
  const auto unwinding = [](std::vector<int>& seen, const char* tag) {
    return [&seen, tag] {
      try {
        leaving on_the_way{seen};
        throw tagged{tag};
      } catch (const tagged& t) {
        CHECK(t.tag == tag);
        seen.push_back(std::uncaught_exceptions());
        CHECK(handled() == tag);
        switch_to_parent();
        CHECK(handled() == tag);
      }
      seen.push_back(std::uncaught_exceptions());
    };
  };
  greenlet a(unwinding(in_a, "a")), b(unwinding(in_b, "b"));
  const auto in_the_middle = [&] {
    in_main.push_back(std::uncaught_exceptions());
    CHECK(handled() == "");
  };
  a.switch_to();
  in_the_middle();
  try {
    throw tagged{"main"};
  } catch (const tagged&) {
    in_main.push_back(std::uncaught_exceptions());
    CHECK(handled() == "main");
  }
  b.switch_to();
  in_the_middle();
  struct visiting {
    greenlet& a;
    greenlet& b;
    std::vector<int>& seen;
    ~visiting() {
      seen.push_back(std::uncaught_exceptions());
      a.switch_to();
      seen.push_back(std::uncaught_exceptions());
      b.switch_to();
      seen.push_back(std::uncaught_exceptions());
    }
  };
  try {
    visiting both{a, b, in_main};
    throw tagged{"main"};
  } catch (const tagged& t) {
    CHECK(t.tag == "main");
    in_main.push_back(std::uncaught_exceptions());
    a.switch_to();
    b.switch_to();
    CHECK(handled() == "main");
  }
  CHECK(in_main == std::vector<int>{0, 0, 0, 1, 1, 1, 0});
  CHECK(in_a == std::vector<int>{1, 1, 0, 0});
  CHECK(in_b == std::vector<int>{1, 1, 0, 0});
  CHECK(a.dead());
  CHECK(b.dead());
}

TEST_CASE("57, 164: a greenlet first started while its creator unwinds begins with nothing uncaught") {
  std::vector<int> seen;
  struct starting {
    std::vector<int>& seen;
    ~starting() {
      greenlet g([this] {
        seen.push_back(std::uncaught_exceptions());
        try {
          throw tagged{"inner"};
        } catch (const tagged&) {
          seen.push_back(std::uncaught_exceptions());
          switch_to_parent();
        }
        seen.push_back(std::uncaught_exceptions());
        // What a child throws while its parent unwinds goes to the parent's switch as ever.
        throw tagged{"from the child"};
      });
      seen.push_back(std::uncaught_exceptions());
      g.switch_to();
      seen.push_back(std::uncaught_exceptions());
      try {
        g.switch_to();
      } catch (const tagged& t) {
        CHECK(t.tag == "from the child");
        seen.push_back(std::uncaught_exceptions());
      }
    }
  };
  try {
    starting s{seen};
    throw tagged{"outer"};
  } catch (const tagged& t) {
    CHECK(t.tag == "outer");
    CHECK(std::uncaught_exceptions() == 0);
  }
  CHECK(seen == std::vector<int>{1, 0, 0, 1, 0, 1});
}

TEST_CASE("164: an exception object whose destructor switches leaves its handler behind first") {
  events log;
  struct switching {
    events* log;
    explicit switching(events* l) : log(l) {}
    switching(switching&& other) noexcept : log(std::exchange(other.log, nullptr)) {}
    switching(const switching& other) = delete;
    ~switching() {
      if (!log) return;
      log->push_back("dying, handled: " + handled());
      switch_to_parent();
      log->push_back("dead, handled: " + handled());
    }
  };
  greenlet g([&log] {
    try {
      throw tagged{"outer"};
    } catch (const tagged&) {
      try {
        throw switching(&log);
      } catch (const switching&) {
        log.push_back("caught, handled: " + handled());
      }
      log.push_back("after, handled: " + handled());
    }
  });
  g.switch_to();
  CHECK(std::current_exception() == nullptr);
  try {
    throw tagged{"main"};
  } catch (const tagged&) {
    g.switch_to();
    CHECK(handled() == "main");
  }
  CHECK(log == events{"caught, handled: ?", "dying, handled: outer", "dead, handled: outer", "after, handled: outer"});
  CHECK(g.dead());
}

TEST_CASE("164: an exception may be left while it is copied into its handler") {
  // Caught by value: the copy is made when a handler is found and before it is entered, so there
  // the exception still counts as uncaught.
  struct slow {
    std::vector<int>* seen;
    explicit slow(std::vector<int>* s) : seen(s) {}
    slow(const slow& other) : seen(other.seen) {
      seen->push_back(std::uncaught_exceptions());
      switch_to_parent();
      seen->push_back(std::uncaught_exceptions());
    }
  };
  std::vector<int> seen;
  greenlet g([&seen] {
    slow one(&seen);
    try {
      throw one;  // copied here too, before it counts
    } catch (slow copy) {
      CHECK(copy.seen == &seen);
      seen.push_back(std::uncaught_exceptions());
    }
  });
  g.switch_to();
  CHECK(std::uncaught_exceptions() == 0);
  g.switch_to();
  CHECK(std::uncaught_exceptions() == 0);
  CHECK_THROWS_AS(throw tagged{"meanwhile"}, tagged);
  g.switch_to();
  CHECK(g.dead());
  CHECK(seen == std::vector<int>{0, 0, 1, 1, 0});
}

TEST_CASE("114, 122, 164: a greenlet killed in its handler sees its own exceptions, its killer only its own") {
  std::vector<std::string> log;
  struct witness {
    std::vector<std::string>& log;
    std::string name;
    ~witness() {
      log.push_back(name + ": uncaught " + std::to_string(std::uncaught_exceptions()) + ", handled " + handled());
    }
  };
  const auto suspended_in_handler = [&log] {
    witness outside{log, "outside"};
    try {
      throw tagged{"victim"};
    } catch (const tagged&) {
      witness inside{log, "inside"};
      switch_to_parent();
    }
  };
  SUBCASE("the killer is in a handler") {
    greenlet g(suspended_in_handler);
    try {
      throw tagged{"killer"};
    } catch (const tagged&) {
      g.switch_to();
      g = greenlet();
      CHECK(handled() == "killer");
      CHECK(std::uncaught_exceptions() == 0);
    }
  }
  SUBCASE("the killer is being unwound") {
    struct checking {
      ~checking() {
        CHECK(std::uncaught_exceptions() == 1);
        CHECK(handled() == "");
      }
    };
    try {
      checking after;
      greenlet g(suspended_in_handler);
      g.switch_to();
      throw tagged{"killer"};
    } catch (const tagged& t) {
      CHECK(t.tag == "killer");
    }
  }
  CHECK(log == std::vector<std::string>{"inside: uncaught 1, handled victim", "outside: uncaught 1, handled "});
}

TEST_CASE("164: a guard that tells failure from success by uncaught_exceptions() is not misled") {
  events log;
  struct guard {
    events& log;
    std::string name;
    int before = std::uncaught_exceptions();
    ~guard() { log.push_back(name + (std::uncaught_exceptions() > before ? " failed" : " succeeded")); }
  };
  greenlet good([&] {
    guard g{log, "good"};
    switch_to_parent();
  });
  greenlet bad([&] {
    guard g{log, "bad"};
    switch_to_parent();
    throw tagged{"bad"};
  });
  good.switch_to();
  bad.switch_to();
  struct finishing {
    greenlet &good, &bad;
    ~finishing() {
      good.switch_to();
      CHECK_THROWS_AS(bad.switch_to(), tagged);
    }
  };
  {
    guard outer{log, "main"};
    try {
      guard inner{log, "block"};
      finishing f{good, bad};
      throw tagged{"main"};
    } catch (const tagged& t) {
      CHECK(t.tag == "main");
    }
  }
  CHECK(log == events{"good succeeded", "bad failed", "block failed", "main succeeded"});
}
