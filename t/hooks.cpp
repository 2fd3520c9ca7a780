// SPDX-License-Identifier: MIT
// What those need who bind a language to the library: hooks at a start and at switches, user data.
#include "testing.hpp"

#include <atomic>
#include <cstdio>
#include <exception>
#include <functional>
#include <future>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

using namespace greenlets;
using testing::error_of;
using testing::events;
using testing::unraisables;

namespace {

struct failure : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Writes "+name" and "-name" when its greenlet is entered and left.
struct watched {
  events& log;
  std::string name;
  static void leave(void* me) { static_cast<watched*>(me)->log.push_back("-" + static_cast<watched*>(me)->name); }
  static void enter(void* me) { static_cast<watched*>(me)->log.push_back("+" + static_cast<watched*>(me)->name); }
  attributes with() { return attributes().name(name).on_switch(&leave, &enter, this); }
};

// Calls a function at each leave, or each enter.
struct calling {
  std::function<void()> at_leave, at_enter;
  static void leave(void* me) {
    if (static_cast<calling*>(me)->at_leave) static_cast<calling*>(me)->at_leave();
  }
  static void enter(void* me) {
    if (static_cast<calling*>(me)->at_enter) static_cast<calling*>(me)->at_enter();
  }
  attributes with() { return attributes().on_switch(&leave, &enter, this); }
};

}  // namespace

TEST_CASE("on_switch: left and entered at each switch, at the start and at the end") {
  events log;
  watched a{log, "a"}, b{log, "b"};
  greenlet second(b.with(), [&] { log.push_back("b runs"); });
  greenlet first(a.with(), [&] {
    log.push_back("a runs");
    switch_to_parent();
    second.switch_to();
    log.push_back("a ends");
  });
  first.switch_to();
  CHECK(log == events{"+a", "a runs", "-a"});
  log.clear();
  first.switch_to();  // b's parent is the main greenlet
  CHECK(log == events{"+a", "-a", "+b", "b runs", "-b"});
  log.clear();
  first.switch_to();
  CHECK(log == events{"+a", "a ends", "-a"});
}

TEST_CASE("on_switch: a switch to itself leaves nobody; a death without having run neither") {
  events log;
  watched a{log, "a"};
  greenlet g(a.with(), [] { current().switch_to(); });
  g.switch_to();
  CHECK(log == events{"+a", "-a"});
  log.clear();
  greenlet never(a.with(), [] {});
  CHECK_THROWS_AS(never.throw_in(failure("x")), failure);
  CHECK(log.empty());
}

TEST_CASE("on_switch: before the tracer, and at kills and the thread's exit as well") {
  events log;
  watched a{log, "a"};
  settrace([&](trace_event, const greenlet&, const greenlet& target) { log.push_back(target.is_main() ? "traced main" : "traced a"); });
  {
    greenlet g(a.with(), [] { switch_to_parent(); });
    g.switch_to();
    CHECK(log == events{"+a", "traced a", "-a", "traced main"});
    log.clear();
  }
  CHECK(log == events{"+a", "traced a", "-a", "traced main"});
  settrace(nullptr);
  log.clear();
  greenlet kept;
  std::thread([&] {
    kept = greenlet(a.with(), [] { switch_to_parent(); });
    kept.switch_to();
    log.clear();
  }).join();
  CHECK(log == events{"+a", "-a"});
}

TEST_CASE("on_switch: the hooks of greenlets that exist can be set, also a main greenlet's") {
  std::thread([] {
    events log;
    watched m{log, "main"};
    main_greenlet().set_on_switch(&watched::leave, &watched::enter, &m);
    greenlet g([&] {
      log.push_back("runs");
      switch_to_parent();
    });
    g.switch_to();
    CHECK(log == events{"-main", "runs", "+main"});
    log.clear();
    main_greenlet().set_on_switch(nullptr, nullptr, nullptr);
    g.switch_to();
    CHECK(log.empty());

    watched u{log, "unstarted"};
    greenlet h([] {});
    h.set_on_switch(nullptr, &watched::enter, &u);  // either may be left out
    h.switch_to();
    CHECK(log == events{"+unstarted"});
    h.set_on_switch(&watched::leave, &watched::enter, &u);  // the dead are neither left nor entered
    CHECK(error_of([] { greenlet().set_on_switch(nullptr, nullptr, nullptr); }) == errc::empty_handle);
    greenlet mine([] { switch_to_parent(); });
    mine.switch_to();
    std::thread([&] {
      CHECK(error_of([&] { mine.set_on_switch(nullptr, nullptr, nullptr); }) == errc::different_thread);
    }).join();
  }).join();
}

TEST_CASE("on_switch: a hook cannot switch, in any way; it is told, and the switch under way goes on") {
  std::vector<errc> refused;
  greenlet other([] { switch_to_parent(); });
  other.switch_to();
  calling c;
  const auto tries = [&] {
    refused.push_back(error_of([&] { other.switch_to(); }));
    refused.push_back(error_of([&] { other.throw_in(); }));
    refused.push_back(error_of([&] { current().switch_to(); }));
    refused.push_back(error_of([] { switch_to_parent(); }));
    refused.push_back(error_of([] { unwind_thread(); }));
    greenlet made([] {});  // this is allowed, and so is asking
    CHECK(made.parent() == current());
  };
  c.at_leave = c.at_enter = tries;
  greenlet g(c.with(), [](int n) { return switch_to_parent(n + 1).get<int>() + 1; });
  CHECK(g.switch_to(1).get<int>() == 2);
  CHECK(g.switch_to(5).get<int>() == 6);
  CHECK(refused == std::vector<errc>(20, errc::in_hook));
  CHECK(other);
}

TEST_CASE("on_switch: what a hook throws goes to the unraisable handler") {
  unraisables failed;
  calling c;
  c.at_leave = c.at_enter = [] { throw failure("hook"); };
  greenlet g(c.with(), [](int n) { return n; });
  CHECK(g.switch_to(8).get<int>() == 8);
  REQUIRE(failed.seen.size() == 2);
  CHECK(failed.seen[0].first == g);
  CHECK_THROWS_WITH(std::rethrow_exception(failed.seen[1].second), "hook");
}

TEST_CASE("on_switch: a last handle that goes in a hook: unwound at the next entry; the running one when it is left") {
  events log;
  greenlet victim([&] {
    testing::noting n{log, "victim"};
    switch_to_parent();
  });
  victim.switch_to();
  calling c;
  c.at_leave = [&] { victim = greenlet(); };
  greenlet g(c.with(), [] { switch_to_parent(); });
  g.switch_to();
  CHECK(log.empty());  // not in the hook, nor in the switch it belongs to
  current();
  CHECK(log == events{"~victim"});

  // The greenlet's own last handle, in its own hooks.
  log.clear();
  calling own;
  greenlet self;
  own.at_leave = [&] { self = greenlet(); };
  self = greenlet(own.with(), [&] {
    testing::noting n{log, "self"};
    switch_to_parent();
  });
  self.switch_to();
  CHECK(log == events{"~self"});

  log.clear();
  own.at_leave = nullptr;
  own.at_enter = [&] { self = greenlet(); };
  self = greenlet(own.with(), [&] {
    testing::noting n{log, "self"};
    switch_to_parent();
    log.push_back("went on");
  });
  self.switch_to();
  CHECK(log == events{"~self"});
}

TEST_CASE("on_start: gives what is to run, on the starter's stack, at the first start only") {
  int asked = 0;
  greenlet seen;
  greenlet g(attributes().on_start([&](const greenlet& self) {
    ++asked;
    seen = self;
    CHECK(current().is_main());
    CHECK(self.state() == greenlet_state::unstarted);
    return [](int n) {
      n = switch_to_parent(n + 1).get<int>();
      return n + 1;
    };
  }));
  CHECK(asked == 0);
  CHECK(!g.has_run());
  CHECK(g.switch_to(1).get<int>() == 2);
  CHECK(g.switch_to(5).get<int>() == 6);
  CHECK(asked == 1);
  CHECK(seen == g);
  seen = greenlet();

  // Without a parameter; and one that gives nothing, but sets it.
  CHECK(greenlet(attributes().on_start([] { return [] { return 1; }; })).switch_to().get<int>() == 1);
  greenlet h(attributes().on_start([](const greenlet& self) { self.set_run([] { return 2; }); }));
  CHECK(h.switch_to().get<int>() == 2);
  greenlet nothing(attributes().on_start([] {}));
  CHECK(error_of([&] { nothing.switch_to(); }) == errc::no_run);
  CHECK(!nothing.started());
}

TEST_CASE("19, 21: what it gives wins; the callable that goes unused is destroyed on the new stack, and may switch") {
  // | main                     | g                                                      |
  // | g.switch_to(5)           | the unused callable is destroyed, and switches to main |
  // | gets "not begun"         |                                                        |
  // | g.switch_to("goes on")   | now it begins, with 5                                  |
  greenlet g;
  value in_destructor;
  g = greenlet(attributes().on_start([] { return [](int n) { return n * 2; }; }),
               [end = testing::at_end([&] {
                  CHECK(current() == g);
                  in_destructor = switch_to_parent(std::string("not begun"));
                })](int) { FAIL_CHECK("ran the wrong one"); });
  CHECK(g.switch_to(5).get<std::string>() == "not begun");
  CHECK(g.started());
  CHECK(g.switch_to(std::string("goes on")).get<int>() == 10);
  CHECK(in_destructor.get<std::string>() == "goes on");
  CHECK(g.dead());

  // Killed there, it never begins.
  bool over = false;
  g = greenlet(attributes().on_start([] { return [] { FAIL_CHECK("ran"); }; }),
               [end = testing::at_end([&] {
                  switch_to_parent();
                  over = true;
                })] {});
  g.switch_to();
  g = greenlet();
  CHECK(over);
}

TEST_CASE("49, 50: started by its own resolver: the inner start wins, what was sent first is an ordinary switch") {
  greenlet g;
  events log;
  g = greenlet(attributes().on_start([&, asked = 0]() mutable {
    if (asked++ == 0) log.push_back("inner start gives " + g.switch_to(1).get<std::string>());
    return [&](int n) {
      log.push_back("begins with " + std::to_string(n));
      const int next = switch_to_parent(std::string("suspended")).get<int>();
      log.push_back("goes on with " + std::to_string(next));
      return std::string("ended");
    };
  }));
  CHECK(g.switch_to(2).get<std::string>() == "ended");
  CHECK(log == events{"begins with 1", "inner start gives suspended", "goes on with 2"});
}

TEST_CASE("49, 51: started and ended by its own resolver: what was sent first goes to the parent") {
  greenlet g;
  g = greenlet(attributes().on_start([&, asked = 0]() mutable {
    if (asked++ == 0) CHECK(g.switch_to(1).get<int>() == 10);
    return [](int n) { return n * 10; };
  }));
  CHECK(g.switch_to(2).get<int>() == 2);  // we are the parent
  CHECK(g.dead());
  // The same with a throw.
  g = greenlet(attributes().on_start([&, asked = 0]() mutable {
    if (asked++ == 0) g.switch_to(1);
    return [](int n) { return n * 10; };
  }));
  CHECK_THROWS_AS(g.throw_in(failure("x")), failure);
}

TEST_CASE("49, 52: moved to another thread's tree by its own resolver: the second check refuses") {
  std::promise<greenlet> its_main;
  std::promise<void> stop;
  std::thread other([&, until = stop.get_future()]() mutable {
    its_main.set_value(main_greenlet());
    until.wait();
  });
  greenlet theirs = its_main.get_future().get();
  greenlet g;
  const auto moving = attributes().on_start([&] {
    g.set_parent(theirs);
    return [] { FAIL_CHECK("ran"); };
  });
  g = greenlet(moving);
  CHECK(error_of([&] { g.switch_to(); }) == errc::different_thread);
  CHECK(!g.started());
  stop.set_value();
  other.join();
  CHECK(error_of([&] { g.switch_to(); }) == errc::thread_exited);
  g.set_parent(main_greenlet());
  CHECK(error_of([&] { g.switch_to(); }) == errc::thread_exited);  // it is asked again
}

TEST_CASE("49, 53: a resolver that throws: the switcher gets it, the greenlet is unstarted and can be tried again") {
  int asked = 0;
  greenlet g(attributes().on_start([&] {
    if (++asked < 3) throw failure("not yet");
    return [](int n) { return n; };
  }));
  CHECK_THROWS_WITH(g.switch_to(1), "not yet");
  CHECK(!g.started());
  CHECK_THROWS_WITH(g.throw_in(std::logic_error("lost")), "not yet");
  CHECK(!g.started());
  CHECK(g.switch_to(3).get<int>() == 3);
  CHECK(asked == 3);
}

TEST_CASE("54, 55: a throw asks the resolver too, and survives what it does with exceptions") {
  int asked = 0;
  greenlet g(attributes().on_start([&] {
    ++asked;
    try {
      throw failure("its own");
    } catch (const failure&) {
    }
    return [] { FAIL_CHECK("ran"); };
  }));
  CHECK_THROWS_WITH(g.throw_in(failure("pending")), "pending");
  CHECK(asked == 1);
  CHECK(g.dead());
  greenlet nothing(attributes().on_start([&] { ++asked; }));
  CHECK(error_of([&] { nothing.throw_in(failure("lost")); }) == errc::no_run);
  CHECK(asked == 2);
}

TEST_CASE("49, 68: asked also when a child's end has picked it, on the child's stack; its errors go on up") {
  greenlet child;
  greenlet parent(attributes().on_start([&] {
    CHECK(current() == child);
    return [](int n) { return n + 1; };
  }));
  child = greenlet([] { return 1; }, parent);
  CHECK(child.switch_to().get<int>() == 2);

  greenlet failing(attributes().on_start([]() -> void (*)() { throw failure("no start"); }));
  child = greenlet([] { return 1; }, failing);
  CHECK_THROWS_WITH(child.switch_to(), "no start");
  CHECK(!failing.started());

  // It throws no std::exception, and switches away first; the child is at its end meanwhile.
  greenlet slow(attributes().on_start([&]() -> void (*)() {
    CHECK(main_greenlet().switch_to(std::string("asking")).get<int>() == 5);
    throw 6;
  }));
  child = greenlet([] { return 1; }, slow);
  CHECK(child.switch_to().get<std::string>() == "asking");
  CHECK(child);
  try {
    child.switch_to(5);
    FAIL("nothing was thrown");
  } catch (int n) {
    CHECK(n == 6);
  }
  CHECK(child.dead());
}

TEST_CASE("49: a resolver may drop every handle to its greenlet, and to the one who asks") {
  greenlet g;
  g = greenlet(attributes().on_start([&] {
    g = greenlet();
    return [](int n) { return n; };
  }));
  CHECK(g.switch_to(4).get<int>() == 4);
  CHECK(g.empty());

  greenlet asker;
  greenlet asked(attributes().on_start([&] {
    asker = greenlet();
    return [](int n) { return n; };
  }));
  asker = greenlet([&] {
    asked.switch_to(1);
    FAIL_CHECK("went on without a handle");
  });
  asker.switch_to();
}

TEST_CASE("49: of a chain of unstarted ancestors each is asked in its turn") {
  events log;
  const auto refusing = [&](const char* name) {
    return attributes().name(name).on_start([&log](const greenlet& self) { log.push_back(self.name()); });
  };
  greenlet top(refusing("top"));
  greenlet middle(refusing("middle").parent(top));
  greenlet child([] { return 1; }, middle);
  CHECK(error_of([&] { child.switch_to(); }) == errc::no_run);
  CHECK(log == events{"middle", "top"});
}

TEST_CASE("196: user data stays with the greenlet, and its deleter runs when the record goes") {
  events log;
  static events* deleted;
  deleted = &log;
  const auto deleter = [](void* p) { deleted->push_back("deleted " + *static_cast<std::string*>(p)); };
  std::string first = "first", second = "second", third = "third";
  {
    greenlet g([] {});
    CHECK(g.user_data() == nullptr);
    g.set_user_data(&first, deleter);
    CHECK(g.user_data() == &first);
    g.set_user_data(&second, deleter);
    CHECK(log == events{"deleted first"});
    const greenlet same = g;
    CHECK(same.user_data() == &second);
    g.switch_to();
    CHECK(g.user_data() == &second);  // it outlives the greenlet's own end
    CHECK(log.size() == 1);
    std::thread([&] { CHECK(same.user_data() == &second); }).join();
  }
  CHECK(log == events{"deleted first", "deleted second"});
  log.clear();
  std::thread([&] { main_greenlet().set_user_data(&third, deleter); }).join();
  CHECK(log == events{"deleted third"});
  log.clear();
  greenlet g([] {});
  g.set_user_data(&first);  // without a deleter
  g.set_user_data(nullptr);
  CHECK(greenlet().user_data() == nullptr);
  CHECK(error_of([] { greenlet().set_user_data(nullptr); }) == errc::empty_handle);
  CHECK(log.empty());
}

TEST_CASE("196: a deleter may make and drop greenlets, and drop the handle through which it was replaced") {
  static greenlet* slot;
  greenlet g([] {});
  slot = &g;
  g.set_user_data(&g, [](void*) {
    *slot = greenlet();
    greenlet([] {}).switch_to();
  });
  g.set_user_data(nullptr);
  CHECK(g.empty());
}

TEST_CASE("196: what a deleter throws is std::terminate, at a replacement as at the record's end") {
  // At a replacement it came out of set_user_data(), when everything had changed.
  const auto throws = [](void*) { throw 42; };
  const auto dies = [](const std::function<void()>& f) {
    const testing::child c = testing::in_child([&] {
      std::set_terminate([] {
        std::puts("terminated");
        std::fflush(stdout);
        _exit(42);
      });
      f();
    });
    return WIFEXITED(c.status) && WEXITSTATUS(c.status) == 42 && c.output.find("terminated") != std::string::npos;
  };
  CHECK(dies([&] {
    const greenlet g([] {});
    g.set_user_data(nullptr, throws);
    g.set_user_data(nullptr);
  }));
  CHECK(dies([&] { greenlet([] {}).set_user_data(nullptr, throws); }));
}

TEST_CASE("on_switch: hooks are given to an unstarted greenlet while another thread starts it") {
  // The start looked at them without the lock; ThreadSanitizer shows it.
  for (int n = 0; n < 200; ++n) {
    std::atomic<int> ready{0};
    const auto meet = [&] {
      ++ready;
      while (ready < 2) std::this_thread::yield();
    };
    greenlet g([] {});
    std::thread setter([&, g] {
      meet();
      try {
        g.set_on_switch(nullptr, nullptr, nullptr);
      } catch (const error& e) {
        CHECK(e.code() == errc::different_thread);
      }
    });
    meet();
    g.switch_to();
    setter.join();
  }
}

TEST_CASE("on_switch: in a hook a generator is neither read nor unwound") {
  // It was unwound in the middle of the switch, and the hooks were called again for that.
  events log;
  auto numbers = std::make_unique<generator<int>>([&](auto& give) {
    const testing::noting n{log, "function"};
    for (int i = 1;; ++i) give(i);
  });
  CHECK(numbers->next() == 1);
  std::vector<errc> refused;
  calling c;
  c.at_leave = [&] { refused.push_back(error_of([&] { numbers->next(); })); };
  greenlet a(c.with(), [] { switch_to_parent(); });
  a.switch_to();
  CHECK(refused == std::vector{errc::in_hook});
  CHECK(log.empty());
  CHECK(numbers->next() == 2);  // nothing has changed
  c.at_leave = [&] {
    log.push_back("leave");
    numbers.reset();
    log.push_back("left");
  };
  a.switch_to();
  CHECK(log == events{"leave", "left"});
  current();
  CHECK(log == events{"leave", "left", "~function"});
}

TEST_CASE("on_start: one that is told to end while what it had is destroyed is told once") {
  // In each round of its thread's exit but the first, the exit that it could not take was reported.
  unraisables failed;
  bool ended = false;
  greenlet kept;
  std::thread([&] {
    auto slow = testing::at_end([&] {
      for (int i = 0; i < 3; ++i) main_greenlet().switch_to();
      ended = true;
    });
    greenlet g(attributes().on_start([] { return [] { FAIL("it was told to end"); }; }), [end = std::move(slow)] {});
    g.switch_to();
    kept = g;
  }).join();
  CHECK(ended);
  CHECK(failed.seen.empty());
}
