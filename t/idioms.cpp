// SPDX-License-Identifier: MIT
// The interface's own traps: nothing that a user would naturally write leaves a counted handle to a
// greenlet on its own stack. Each greenlet here is left by some idiom; then its last outside handle
// goes, and it must be unwound at once.
#include "testing.hpp"

#include <cstdio>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

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

struct about {
  greenlet whom;
};

// Swallows what is thrown into it; sends and receives anything.
greenlet peer_that_answers() {
  greenlet g([](value first) {
    for (value v = std::move(first);;) try {
        v = main_greenlet().switch_to(std::move(v));
      } catch (const about&) {
      }
  });
  return g;
}

// Starts `f` in a greenlet, which is to leave it suspended; drops all that is outside, and says
// whether the greenlet was unwound at once.
bool unwound_at_once(void (*f)()) {
  bool destroyed = false;
  greenlet g([&] {
    const auto note = testing::at_end([&] { destroyed = true; });
    f();
  });
  try {
    g.switch_to();
  } catch (const about&) {
  }
  CHECK(g.state() == greenlet_state::suspended);
  CHECK_FALSE(destroyed);
  const weak_greenlet weak = g;
  g = greenlet();
  const bool result = destroyed && weak.expired();
  if (!destroyed) weak.lock().throw_in();
  return result;
}

struct idiom {
  std::string name;
  void (*run)();
};

// Some that need more than a line.
const idiom idioms[] = {
    {"a weak handle to itself",
     [] {
       const weak_greenlet me = current();
       switch_to_parent();
       CHECK_FALSE(me.expired());
     }},
    {"its own handle in a temporary of an earlier expression",
     [] {
       const std::uint64_t id = greenlet(current()).id();
       switch_to_parent(id);
     }},
    {"its own handle passed by value, and returned",
     [] {
       const auto take = [](greenlet g) { return g.id(); };
       const auto give = [] { return greenlet(current()); };
       CHECK(take(current()) == give().id());
       take(give());
       switch_to_parent();
     }},
    {"its own handle sent as a temporary", [] { switch_to_parent(greenlet(current())); }},
    {"its own handle sent among others", [] { switch_to_parent(1, current(), greenlet(current())); }},
    {"its own handle sent in what must be boxed",
     [] {
       struct big {
         greenlet whom;
         char room[200];
       };
       switch_to_parent(big{current(), {}});
     }},
    {"its own handle sent in a value", [] { switch_to_parent(value(current())); }},
    {"its own handle thrown into main by an exception_ptr",
     [] {
       // In one expression the copy that std::make_exception_ptr takes would live as long as the switch.
       std::exception_ptr e = std::make_exception_ptr(about{current()});
       main_greenlet().throw_in(std::move(e));
     }},
    {"an exception thrown and caught that held its handle",
     [] {
       try {
         throw about{current()};
       } catch (const about& a) {
         CHECK(a.whom == current());
       }
       switch_to_parent();
     }},
    {"a value received and dropped",
     [] {
       const greenlet peer = peer_that_answers();
       peer.set_parent(main_greenlet());  // else a child of ours on our own stack: see below
       peer.switch_to(current());
     }},
    {"set_parent to what it has already",
     [] {
       current().set_parent(current().parent());
       switch_to_parent();
     }},
    {"state, name and hash of itself",
     [] {
       current().set_name(std::string("hash ") + std::to_string(std::hash<greenlet>()(current())));
       std::map<std::string, bool> asked{{current().name(), current().dead()}};
       switch_to_parent();
     }},
    {"a child that has finished, its handle gone",
     [] {
       greenlet([] {}).switch_to();
       greenlet([] { throw greenlet_exit(); }).switch_to();
       switch_to_parent();
     }},
    {"a child that was killed",
     [] {
       greenlet child([] { switch_to_parent(); });
       child.switch_to();
       child = greenlet();
       switch_to_parent();
     }},
    {"a child that has thrown",
     [] {
       try {
         greenlet([] { throw about{current()}; }).switch_to();
       } catch (const about& a) {
         CHECK(a.whom.dead());
       }
       switch_to_parent();
     }},
    {"a refused switch",
     [] {
       CHECK(testing::error_of([] { greenlet(attributes()).switch_to(current()); }) == errc::no_run);
       CHECK(testing::error_of([] { greenlet().throw_in(about{current()}); }) == errc::empty_handle);
       switch_to_parent();
     }},
    {"a switch to itself with its own handle",
     [] {
       current().switch_to(current());
       switch_to_parent();
     }},
    {"a throw at itself with its own handle",
     [] {
       try {
         current().throw_in(about{current()});
       } catch (const about&) {
       }
       switch_to_parent();
     }},
    {"the first switch after another thread has dropped something",
     [] {
       greenlet other([] { main_greenlet().switch_to(); }, main_greenlet());
       other.switch_to();
       std::thread([mine = std::move(other)]() mutable { mine = greenlet(); }).join();
       current().parent().switch_to(current());
     }},
    {"a greenlet-to-greenlet switch on that path",
     [] {
       const greenlet peer = peer_that_answers();
       peer.set_parent(main_greenlet());
       greenlet other([] { main_greenlet().switch_to(); }, main_greenlet());
       other.switch_to();
       std::thread([mine = std::move(other)]() mutable { mine = greenlet(); }).join();
       peer.switch_to(current());
     }},
    {"a throw at an unstarted one, whose exception goes on to main",
     [] {
       const greenlet unstarted([] {}, main_greenlet());
       unstarted.throw_in(about{current()});
     }},
    {"suspended in a handler", [] {
       try {
         throw 1;
       } catch (int) {
         current().parent().switch_to();
       }
     }},
};

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

TEST_CASE("109: after none of these idioms is a greenlet kept by its own stack") {
  for (const idiom& i : idioms) {
    CAPTURE(i.name);
    CHECK(unwound_at_once(i.run));
  }
}

TEST_CASE("109: its own handle as what it is started with, taken by value and given away") {
  bool destroyed = false;
  greenlet g([&](greenlet me, int) {
    const auto note = testing::at_end([&] { destroyed = true; });
    CHECK(me == current());
    me = greenlet();
    switch_to_parent();
  });
  g.switch_to(g, 1);
  g = greenlet();
  CHECK(destroyed);
}

TEST_CASE("109: its own handle thrown into it, and the handler left") {
  bool destroyed = false;
  greenlet g([&] {
    const auto note = testing::at_end([&] { destroyed = true; });
    for (;;) try {
        switch_to_parent();
      } catch (const about&) {
      }
  });
  g.switch_to();
  g.throw_in(about{g});
  g.throw_in(std::make_exception_ptr(about{g}));
  g = greenlet();
  CHECK(destroyed);
}

TEST_CASE("109: a greenlet's only handle is reset by the greenlet that it switched to") {
  bool destroyed = false;
  greenlet first;
  greenlet second([&] {
    first = greenlet();  // suspended in the switch that came here
    CHECK(destroyed);
    main_greenlet().switch_to(1);
  });
  first = greenlet([&] {
    const auto note = testing::at_end([&] { destroyed = true; });
    second.switch_to();
  });
  CHECK(first.switch_to().get<int>() == 1);
  CHECK(destroyed);
}

TEST_CASE("24, 109: the handle through which a switch is pending may be overwritten by its target") {
  events log;
  greenlet target;
  greenlet switcher([&] {
    testing::noting n{log, "switcher"};
    target.switch_to();
    log.push_back("not reached");
  });
  target = greenlet([&] {
    testing::noting n{log, "target"};
    target = std::move(switcher);  // the running one's last handle goes, and the switcher's has moved
    log.push_back("overwritten");
    main_greenlet().switch_to();
    log.push_back("not reached");
  });
  switcher.switch_to();
  // The target was left, and so unwound; its end came to where it was left for: main.
  CHECK(log == events{"overwritten", "~target"});
  CHECK(target.state() == greenlet_state::suspended);
  target = greenlet();
  CHECK(log == events{"overwritten", "~target", "~switcher"});
}

TEST_CASE("24: a temporary handle's greenlet runs to its end although the temporary was all there was") {
  events log;
  CHECK(greenlet([&] {
          const testing::noting n{log, "g"};
          return 5;
        }).switch_to().get<int>() == 5);
  CHECK(log == events{"~g"});
  // And suspended it goes with the temporary, at the end of the expression.
  greenlet([&] {
    const testing::noting n{log, "h"};
    switch_to_parent();
  }).switch_to();
  CHECK(log == events{"~g", "~h"});
}

TEST_CASE("111: a greenlet that waits for its victim's end has the victim for its only keeper, and goes on") {
  //   main            killer           victim
  //   starts killer
  //                   drops victim
  //                                    to main
  //   drops killer: the victim's parent link holds it
  //   to victim
  //                                    ends
  //                   goes on, to main
  //   drops victim, whose parent link was the last
  //                   unwound
  events log;
  greenlet victim_kept;
  greenlet killer([&] {
    testing::noting n{log, "killer"};
    greenlet victim([&] {
      testing::noting v{log, "victim"};
      try {
        switch_to_parent();
      } catch (const greenlet_exit&) {
        victim_kept = current();
        main_greenlet().switch_to();
      }
    });
    victim.switch_to();
    victim = greenlet();
    log.push_back("killer goes on");
    switch_to_parent();
    log.push_back("not reached");
  });
  killer.switch_to();
  killer = greenlet();
  CHECK(log.empty());
  victim_kept.switch_to();
  CHECK(log == events{"~victim", "killer goes on"});
  victim_kept = greenlet();
  CHECK(log == events{"~victim", "killer goes on", "~killer"});
}

// What the user puts on a greenlet's own stack counts. These are cycles, as a std::shared_ptr to
// oneself is one: only the thread's exit (or a garbage collector) ends them.
TEST_CASE("187: a counted handle to itself, or to a child, in a suspended greenlet's frame keeps it until the thread's exit") {
  events log;
  const auto kept_by = [&](const std::string& name, std::function<void()> run) {
    std::thread([&] {
      greenlet g([&] {
        testing::noting n{log, name};
        run();
      });
      g.switch_to();
      const weak_greenlet weak = g;
      g = greenlet();
      CHECK(log.empty());
      CHECK_FALSE(weak.expired());
      CHECK(weak.lock().state() == greenlet_state::suspended);
    }).join();
    CHECK(log == events{"~" + name});
    log.clear();
  };
  kept_by("a copy of current()", [] {
    const greenlet me = current();
    switch_to_parent();
  });
  kept_by("auto", [] {
    auto me = current();
    switch_to_parent();
  });
  kept_by("a child, whose parent it is", [] {
    const greenlet child([] {});
    switch_to_parent();
  });
  kept_by("a child for which it waits", [] {
    greenlet([] { main_greenlet().switch_to(); }).switch_to();
  });
}

TEST_CASE("83: a child on the stack is no cycle once it has another parent") {
  bool destroyed = false;
  greenlet g([&] {
    const auto note = testing::at_end([&] { destroyed = true; });
    const greenlet child([] { switch_to_parent(); }, main_greenlet());
    child.set_parent(main_greenlet());
    switch_to_parent();
  });
  g.switch_to();
  g = greenlet();
  CHECK(destroyed);
}
