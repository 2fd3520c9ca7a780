// SPDX-License-Identifier: MIT
// The interface's own traps: nothing that a user would naturally write leaves a counted handle to a
// greenlet on its own stack. Each greenlet here is left by some idiom; then its last outside handle
// goes, and it must be unwound at once.
#include "testing.hpp"

#include <memory>
#include <optional>
#include <stdexcept>

using namespace greenlets;
using testing::events;
using testing::noting;

namespace {

// Starts `leave` in a greenlet, with something on its stack; gives the only handle.
template <class F>
greenlet left_by(events& log, F leave) {
  greenlet g([&log, leave] {
    const noting n{log, "stack"};
    leave();
  });
  g.switch_to();
  REQUIRE(bool(g));
  REQUIRE(log.empty());
  return g;
}

template <class F>
void check_idiom(F leave) {
  events log;
  {
    greenlet g = left_by(log, leave);
    const weak_greenlet weak = g;
    g = greenlet();
    CHECK(log == events{"~stack"});
    CHECK(weak.expired());
  }
  // The same with the handle's end instead of an assignment, after the greenlet went round twice.
  log.clear();
  {
    greenlet g([&log, leave] {
      const noting n{log, "stack"};
      for (;;) leave();
    });
    g.switch_to();
    g.switch_to();
  }
  CHECK(log == events{"~stack"});
}

void by_value(greenlet g) { g.switch_to(); }

greenlet parent_of_current() { return current().parent(); }

greenlet itself() { return current(); }

}  // namespace

TEST_CASE("109: switching to the parent leaves no handle behind, whatever it is called by") {
  SUBCASE("switch_to_parent") { check_idiom([] { switch_to_parent(); }); }
  SUBCASE("current().parent()") { check_idiom([] { current().parent().switch_to(); }); }
  SUBCASE("with a value") { check_idiom([] { current().parent().switch_to(1, std::string("two")); }); }
  SUBCASE("main_greenlet()") { check_idiom([] { main_greenlet().switch_to(); }); }
  SUBCASE("a handle returned") { check_idiom([] { parent_of_current().switch_to(); }); }
  SUBCASE("a handle passed by value") { check_idiom([] { by_value(current().parent()); }); }
  SUBCASE("a local handle") {
    check_idiom([] {
      const greenlet parent = current().parent();
      parent.switch_to();
    });
  }
  SUBCASE("a reference to the running greenlet") {
    check_idiom([] {
      const greenlet& self = current();
      self.parent().switch_to();
    });
  }
  SUBCASE("comparisons and names on the way") {
    check_idiom([] {
      if (current() != main_greenlet() && current().name().empty() && itself() == current()) switch_to_parent();
    });
  }
  SUBCASE("a handle to itself that has gone before the switch") {
    check_idiom([] {
      { const greenlet self = current(); }
      std::optional<greenlet> again = itself();
      again.reset();
      switch_to_parent();
    });
  }
}

TEST_CASE("109: what is sent away is not kept") {
  SUBCASE("a handle to itself") {
    check_idiom([] { switch_to_parent(current()); });
  }
  SUBCASE("several of them, boxed") {
    check_idiom([] { switch_to_parent(current(), std::string(100, 'x'), itself()); });
  }
  SUBCASE("moved out of a local") {
    check_idiom([] {
      greenlet self = current();
      switch_to_parent(std::move(self));
    });
  }
  SUBCASE("thrown into the parent") {
    events log;
    struct carrier {
      greenlet who;
    };
    greenlet g([&log] {
      const noting n{log, "stack"};
      current().parent().throw_in(carrier{current()});
    });
    try {
      g.switch_to();
      FAIL("nothing was thrown");
    } catch (const carrier& c) {
      CHECK(c.who == g);
    }
    CHECK(log.empty());
    g = greenlet();
    CHECK(log == events{"~stack"});
  }
}

TEST_CASE("109: what was received is the receiver's own doing") {
  events log;
  greenlet g([&log] {
    const noting n{log, "stack"};
    value got = switch_to_parent();
    got.reset();
    switch_to_parent();
  });
  g.switch_to();
  g.switch_to(g);  // a handle to itself, which it drops
  CHECK(log.empty());
  g = greenlet();
  CHECK(log == events{"~stack"});
}

TEST_CASE("115: a handle to itself that the user did put on its stack keeps it") {
  events log;
  weak_greenlet weak;
  {
    greenlet g([&log] {
      const noting n{log, "stack"};
      greenlet self = current();
      switch_to_parent();
      self = greenlet();
      switch_to_parent();
    });
    g.switch_to();
    weak = g;
  }
  CHECK(log.empty());
  REQUIRE(!weak.expired());
  weak.lock().switch_to();  // the handle of this switch is the only one outside; it goes afterwards
  CHECK(log == events{"~stack"});
  CHECK(weak.expired());
}

TEST_CASE("109: a handle may be overwritten or moved while its own switch is pending") {
  events log;
  greenlet g;
  SUBCASE("by the greenlet it refers to") {
    g = greenlet([&] {
      const noting n{log, "stack"};
      g = greenlet();  // it runs without a handle now, until it switches away
      CHECK(log.empty());
      switch_to_parent(7);
      FAIL_CHECK("it was not told to end");
    });
    CHECK(g.switch_to().get<int>() == 7);
    CHECK(g.empty());
    CHECK(log == events{"~stack"});
  }
  SUBCASE("by another greenlet") {
    auto holder = std::make_unique<greenlet>([&] {
      const noting n{log, "stack"};
      switch_to_parent();
    });
    greenlet other([&] {
      holder->switch_to();
      return 8;
    });
    greenlet dropper([&] {
      other.switch_to();
      CHECK(bool(*holder));
      holder.reset();
      return 9;
    });
    // `other` is suspended inside holder->switch_to(), whose handle then goes.
    holder->set_parent(dropper);
    CHECK(dropper.switch_to().get<int>() == 9);
    CHECK(log == events{"~stack"});
    CHECK(other.switch_to(1).get<int>() == 8);
  }
}

TEST_CASE("a greenlet that lost its last handle while it ran keeps what it sends") {
  events log;
  for (int n : {1, 2, 3}) {
    value got = greenlet([&log, n] {
      const noting on_stack{log, "stack"};
      switch_to_parent(std::string(n * 10, 'v'));  // the temporary handle is still there
    }).switch_to();
    CHECK(got.get<std::string>() == std::string(n * 10, 'v'));
  }
  CHECK(log == events{"~stack", "~stack", "~stack"});
}

TEST_CASE("109: containers of handles unwind their greenlets as they go") {
  events log;
  std::vector<greenlet> all;
  for (int n = 0; n < 100; ++n) {
    all.push_back(greenlet([&log] {
      const noting on_stack{log, "stack"};
      switch_to_parent();
    }));
    all.back().switch_to();
  }
  all.erase(all.begin(), all.begin() + 40);
  CHECK(log.size() == 40);
  all.assign(10, greenlet());
  CHECK(log.size() == 100);
}
