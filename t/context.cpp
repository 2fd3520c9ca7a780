// SPDX-License-Identifier: MIT
// Context variables: each greenlet's own, inherited and shared only by who asks for it.
#include "testing.hpp"

#include <future>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

using namespace greenlets;
using testing::at_end;
using testing::error_from;
using testing::error_of;
using testing::events;
using testing::names;

namespace {

context_var<int> number("number", 0);
context_var<std::string> text("text");
context_var<std::shared_ptr<void>> ending("ending");

// Forgets what a test has set in the main greenlet.
struct clean {
  ~clean() { current().set_context({}); }
};

template <class F>
void in_thread(F&& f) {
  std::thread(std::forward<F>(f)).join();
}

// A thread that does what it is told, one thing after the other.
class other_thread {
 public:
  other_thread() : thread_([this] {
    for (;;) {
      std::packaged_task<void()> next = next_.get_future().get();
      next_ = {};
      if (!next.valid()) return;
      next();
    }
  }) {}
  ~other_thread() {
    next_.set_value({});
    thread_.join();
  }
  template <class F>
  std::future<void> begin(F&& f) {
    std::packaged_task<void()> t(std::forward<F>(f));
    std::future<void> result = t.get_future();
    next_.set_value(std::move(t));
    return result;
  }
  template <class F>
  void operator()(F&& f) {
    begin(std::forward<F>(f)).get();
  }

 private:
  std::promise<std::packaged_task<void()>> next_;
  std::thread thread_;
};

}  // namespace

TEST_CASE("a variable has its default, then what was set, then what a token takes it back to") {
  const clean afterwards;
  CHECK(number.name() == "number");
  CHECK(number.get() == 0);
  CHECK(number.get_or(7) == 7);
  auto first = number.set(1);
  CHECK(first.old_value() == nullptr);
  auto second = number.set(2);
  CHECK(*second.old_value() == 1);
  CHECK(number.get() == 2);
  CHECK(number.get_or(7) == 2);
  number.reset(second);
  CHECK(number.get() == 1);
  number.reset(std::move(first));
  CHECK(number.get_or(7) == 7);
  CHECK(number.get() == 0);
  CHECK(current().get_context().size() == 0);
}

TEST_CASE("without a value and a default, get() is an error that names the variable") {
  CHECK(text.get_if() == nullptr);
  CHECK(text.get_or("otherwise") == "otherwise");
  const error e = error_from([] { text.get(); });
  CHECK(e.code() == errc::no_value);
  CHECK(std::string(e.what()).find("text") != std::string::npos);
  const clean afterwards;
  text.set("set");
  CHECK(text.get() == "set");
  const auto seen = text.get_if();
  text.set("anew");
  CHECK(*seen == "set");
}

TEST_CASE("a thread that never used greenlets finds the default") {
  const auto before = counts().threads;
  in_thread([&] {
    CHECK(number.get() == 0);
    CHECK(counts().threads == before);
    CHECK(context::copy_current().size() == 0);
  });
}

TEST_CASE("a token is used once, for its variable, in its context; otherwise nothing changes") {
  const clean afterwards;
  context_var<int> twin("number", 0);
  auto t = number.set(1);
  twin.set(5);
  CHECK(error_of([&] { twin.reset(t); }) == errc::wrong_token);
  greenlet([&] { CHECK(error_of([&] { number.reset(t); }) == errc::wrong_token); }).switch_to();
  greenlet([&] {
    number.set(3);
    CHECK(error_of([&] { number.reset(t); }) == errc::wrong_token);
    CHECK(number.get() == 3);
  }).switch_to();
  const context here = current().get_context();
  current().set_context(here.copy());
  CHECK(error_of([&] { number.reset(t); }) == errc::wrong_token);
  CHECK(number.get() == 1);
  current().set_context(here);
  auto moved = std::move(t);
  CHECK(error_of([&] { number.reset(t); }) == errc::wrong_token);
  number.reset(moved);
  CHECK(number.get() == 0);
  CHECK(error_of([&] { number.reset(moved); }) == errc::wrong_token);
  CHECK(twin.get() == 5);
}

TEST_CASE("57, 169: a new greenlet's context is empty, whatever its creator and its starter have set") {
  const clean afterwards;
  number.set(1);
  greenlet made_in_main([] {
    CHECK(current().get_context().empty());
    CHECK(number.get() == 0);
    number.set(2);
    switch_to_parent();
    CHECK(number.get() == 2);
  });
  greenlet starter([&] {
    number.set(3);
    made_in_main.switch_to();
  });
  CHECK(made_in_main.get_context().empty());
  starter.switch_to();
  CHECK(number.get() == 1);
  made_in_main.switch_to();
  CHECK(made_in_main.dead());
  CHECK(number.get() == 1);
}

TEST_CASE("169: many greenlets that take turns keep their values apart") {
  std::vector<greenlet> all;
  int right = 0;
  for (int i = 0; i < 50; ++i)
    all.emplace_back([&right, i] {
      for (int turn = 0; turn < 10; ++turn) {
        right += number.get() == (turn == 0 ? 0 : i * 100 + turn);
        number.set(i * 100 + turn + 1);
        switch_to_parent();
      }
    });
  for (int turn = 0; turn < 10; ++turn)
    for (const greenlet& g : all) g.switch_to();
  CHECK(right == 500);
}

TEST_CASE("170, B45: given a copy of its creator's context before its start, a greenlet inherits") {
  const clean afterwards;
  number.set(1);
  text.set("inherited");
  greenlet g([] {
    CHECK(number.get() == 1);
    CHECK(text.get() == "inherited");
    number.set(2);
  });
  g.set_context(context::copy_current());
  number.set(3);
  g.switch_to();
  CHECK(number.get() == 3);
  CHECK(*g.get_context().get_if(number) == 2);
}

TEST_CASE("170, B45: greenlets that were given one context share it") {
  const clean afterwards;
  number.set(1);
  const auto share = [](int expected) {
    return [expected] {
      for (int n = expected;; n += 2) {
        CHECK(number.get() == n);
        number.set(n + 1);
        switch_to_parent();
      }
    };
  };
  greenlet a(share(1)), b(share(2));
  a.set_context(current().get_context());
  b.set_context(current().get_context());
  CHECK(a.get_context() == current().get_context());
  for (int i = 0; i < 5; ++i) {
    a.switch_to();
    CHECK(number.get() == 2 * i + 2);
    b.switch_to();
    CHECK(number.get() == 2 * i + 3);
  }
}

TEST_CASE("171: on the running greenlet the context is live, and an assignment takes effect at once") {
  const auto check = [] {
    current().set_context({});
    CHECK(current().get_context().empty());
    number.set(1);
    const context live = current().get_context();
    CHECK(live.size() == 1);
    number.set(2);
    CHECK(*live.get_if(number) == 2);
    const context other = context::make();
    current().set_context(other);
    CHECK(current().get_context() == other);
    CHECK(number.get() == 0);
    number.set(3);
    CHECK(*other.get_if(number) == 3);
    CHECK(*live.get_if(number) == 2);
    current().set_context({});
    CHECK(number.get() == 0);
    number.set(4);
    const context fresh = current().get_context();
    CHECK_FALSE(fresh.empty());
    CHECK(fresh != live);
    CHECK(fresh != other);
    CHECK(fresh.size() == 1);
    current().set_context({});
  };
  check();
  greenlet(check).switch_to();
}

TEST_CASE("172: on a suspended greenlet the context is what it goes on with, and so is what is assigned") {
  int seen = -1;
  greenlet g([&] {
    number.set(1);
    switch_to_parent();
    seen = number.get();
    switch_to_parent();
    seen = number.get();
    number.set(5);
    switch_to_parent();
  });
  g.switch_to();
  const context its = g.get_context();
  CHECK(*its.get_if(number) == 1);
  const context other = context::make();
  greenlet in_other([] { number.set(2); });
  in_other.set_context(other);
  in_other.switch_to();
  g.set_context(other);
  g.switch_to();
  CHECK(seen == 2);
  g.set_context({});
  g.switch_to();
  CHECK(seen == 0);
  CHECK(*g.get_context().get_if(number) == 5);
  CHECK(*its.get_if(number) == 1);
}

TEST_CASE("173: a dead greenlet's last context stays readable and writable") {
  greenlet returned([] { number.set(1); });
  returned.switch_to();
  greenlet threw([] {
    number.set(2);
    throw std::runtime_error("over");
  });
  CHECK_THROWS_AS(threw.switch_to(), std::runtime_error);
  greenlet killed([] {
    number.set(3);
    switch_to_parent();
  });
  killed.switch_to();
  killed.throw_in();
  const greenlet never_ran([] {});
  never_ran.set_context(returned.get_context());
  never_ran.throw_in();
  int expected = 1;
  for (const greenlet* g : {&returned, &threw, &killed}) {
    REQUIRE(g->dead());
    CHECK(*g->get_context().get_if(number) == expected++);
    const context other = context::make();
    g->set_context(other);
    CHECK(g->get_context() == other);
    g->set_context({});
    CHECK(g->get_context().empty());
  }
  REQUIRE(never_ran.dead());
  CHECK(*never_ran.get_context().get_if(number) == 1);
}

TEST_CASE("173: one that dies in context::run() is left with the context from before, here none") {
  const context c = context::make();
  greenlet g([&] {
    c.run([] {
      number.set(1);
      switch_to_parent();
    });
  });
  g.switch_to();
  CHECK(g.get_context() == c);
  SUBCASE("returning") { g.switch_to(); }
  SUBCASE("killed") { g.throw_in(); }
  SUBCASE("by an exception") { CHECK_THROWS(g.throw_in(std::runtime_error(""))); }
  REQUIRE(g.dead());
  CHECK(g.get_context().empty());
  CHECK(*c.get_if(number) == 1);
  c.run([] { CHECK(number.get() == 1); });
}

TEST_CASE("174: what runs in another thread has no context to be got or set") {
  greenlet theirs, their_main;
  {
    other_thread other;
    std::promise<void> running, checked;
    other([&] {
      their_main = main_greenlet();
      theirs = greenlet(attributes().name("theirs"), [&] {
        number.set(1);
        switch_to_parent();
        running.set_value();
        checked.get_future().get();
        number.set(2);
        switch_to_parent();
      });
      theirs.switch_to();
    });
    // Suspended in another thread: allowed.
    CHECK(*theirs.get_context().get_if(number) == 1);
    const context c = context::make();
    theirs.set_context(c);
    CHECK(theirs.get_context() == c);
    auto turn = other.begin([&] { theirs.switch_to(); });
    running.get_future().get();
    const error get = error_from([&] { theirs.get_context(); });
    CHECK(get.code() == errc::different_thread);
    CHECK(get.summary() == "cannot get context of a greenlet that is running in a different thread");
    CHECK(names(get, theirs));
    const error set = error_from([&] { theirs.set_context({}); });
    CHECK(set.code() == errc::different_thread);
    CHECK(set.summary() == "cannot set context of a greenlet that is running in a different thread");
    CHECK(names(set, theirs));
    // Their main greenlet is suspended meanwhile.
    CHECK(their_main.get_context().empty());
    checked.set_value();
    turn.get();
    CHECK(*c.get_if(number) == 2);
    CHECK(error_of([&] { their_main.get_context(); }) == errc::different_thread);
    other([&] { theirs.switch_to(); });
    CHECK(theirs.dead());
    CHECK(theirs.get_context() == c);
    theirs.set_context({});
  }
  CHECK(theirs.get_context().empty());
}

TEST_CASE("144: after a thread's exit the contexts of all its greenlets may be read and set") {
  greenlet main, suspended, finished, unstarted;
  in_thread([&] {
    number.set(1);
    main = current();
    suspended = greenlet([] {
      number.set(2);
      switch_to_parent();
    });
    suspended.switch_to();
    finished = greenlet([] { number.set(3); });
    finished.switch_to();
    unstarted = greenlet([] {});
    unstarted.set_context(context::copy_current());
  });
  // 142: what the exit has ended has let go of its context; 143: the others are as they were.
  CHECK(main.get_context().empty());
  CHECK(suspended.get_context().empty());
  CHECK(*finished.get_context().get_if(number) == 3);
  CHECK(*unstarted.get_context().get_if(number) == 1);
  for (const greenlet* g : {&main, &suspended, &finished, &unstarted}) {
    const context c = context::make();
    g->set_context(c);
    CHECK(g->get_context() == c);
  }
}

TEST_CASE("142: a thread's exit ends the cycles that contexts make, on that thread") {
  static context_var<greenlet> self("self");
  std::weak_ptr<void> held;
  std::thread::id where, its;
  weak_greenlet main, suspended;
  in_thread([&] {
    its = std::this_thread::get_id();
    main = current();
    self.set(current());
    greenlet g([&] {
      auto e = at_end([&] {
        where = std::this_thread::get_id();
        CHECK(current() == suspended.lock());
      });
      held = e;
      self.set(current());
      ending.set(std::move(e));
      switch_to_parent();
    });
    suspended = g;
    g.switch_to();
  });
  CHECK(held.expired());
  CHECK(where == its);
  CHECK(main.expired());
  CHECK(suspended.expired());
}

TEST_CASE("175: an empty handle has no context; a context_var takes nothing but its type") {
  CHECK(error_of([] { greenlet().get_context(); }) == errc::empty_handle);
  CHECK(error_of([] { greenlet().set_context(context::make()); }) == errc::empty_handle);
  static_assert(!std::is_constructible_v<context, int>);
  static_assert(!std::is_invocable_v<decltype(&greenlet::set_context), const greenlet&, int>);
}

TEST_CASE("a copy shares values and nothing else") {
  const clean afterwards;
  number.set(1);
  const context copy = context::copy_current(), second = copy.copy();
  number.set(2);
  text.set("here");
  CHECK(*copy.get_if(number) == 1);
  CHECK(copy.get_if(text) == nullptr);
  CHECK(copy.size() == 1);
  copy.run([] { number.set(3); });
  CHECK(number.get() == 2);
  CHECK(*second.get_if(number) == 1);
  CHECK(error_of([] { context().copy(); }) == errc::empty_handle);
  greenlet([] { CHECK(context::copy_current().size() == 0); }).switch_to();
}

TEST_CASE("run() calls in the context, returns the result, and puts the previous one back") {
  const clean afterwards;
  number.set(1);
  const context before = current().get_context();
  const context c = context::make();
  CHECK(c.run([&] {
    CHECK(current().get_context() == c);
    CHECK(number.get() == 0);
    number.set(2);
    const context inner = context::make();
    inner.run([] { number.set(3); });
    CHECK(number.get() == 2);
    return std::make_unique<int>(4);
  }) != nullptr);
  CHECK(current().get_context() == before);
  CHECK(number.get() == 1);
  CHECK(*c.get_if(number) == 2);
  CHECK_THROWS_AS(c.run([] { throw std::runtime_error(""); }), std::runtime_error);
  CHECK(current().get_context() == before);
  // Whatever it was given meanwhile.
  c.run([] { current().set_context(context::make()); });
  CHECK(current().get_context() == before);
  int n = 0;
  int& same = c.run([&]() -> int& { return n; });
  CHECK(&same == &n);
  CHECK(error_of([] { context().run([] {}); }) == errc::empty_handle);
}

TEST_CASE("a context cannot be entered twice at once, in whatever greenlet; afterwards it can") {
  const context c = context::make();
  const auto refused = [&] {
    bool called = false;
    const error e = error_from([&] { c.run([&] { called = true; }); });
    CHECK(e.code() == errc::already_entered);
    CHECK(e.summary() == "cannot enter context: already entered");
    CHECK_FALSE(called);
    return current().get_context();
  };
  c.run([&] { CHECK(refused() == c); });
  greenlet inside([&] { c.run([] { switch_to_parent(); }); });
  inside.switch_to();
  CHECK(refused().empty());
  greenlet([&] { CHECK(refused().empty()); }).switch_to();
  in_thread([&] { refused(); });
  // Sharing it is another thing.
  greenlet shares([&] { number.set(9); });
  shares.set_context(c);
  shares.switch_to();
  inside.switch_to();
  c.run([] { CHECK(number.get() == 9); });
  in_thread([&] { c.run([] { CHECK(number.get() == 9); }); });
}

// main        a                b
//  |--------->| enters c
//  |<---------|
//  |-------------------------->| enters d
//  |          |<---------------|
//  |          | leaves c
//  |<---------| ends
//  |-------------------------->| leaves d
TEST_CASE("run() in several greenlets that end in another order than they began") {
  const context c = context::make(), d = context::make();
  greenlet a, b;
  events log;
  a = greenlet([&] {
    number.set(10);
    c.run([&] {
      number.set(1);
      switch_to_parent();
      log.push_back("a in c " + std::to_string(number.get()));
    });
    log.push_back("a " + std::to_string(number.get()));
  });
  b = greenlet([&] {
    number.set(20);
    d.run([&] {
      number.set(2);
      a.switch_to();
      log.push_back("b in d " + std::to_string(number.get()));
    });
    log.push_back("b " + std::to_string(number.get()));
  });
  a.switch_to();
  b.switch_to();
  CHECK(number.get() == 0);
  b.switch_to();
  CHECK(log == events{"a in c 1", "a 10", "b in d 2", "b 20"});
}

TEST_CASE("run() while the last handle to the context goes") {
  context c = context::make();
  std::weak_ptr<void> held;
  c.run([&] {
    c = {};
    auto object = std::make_shared<int>();
    held = object;
    ending.set(std::move(object));
    number.set(1);
    CHECK(number.get() == 1);
  });
  CHECK(held.expired());
  CHECK(number.get() == 0);
}

TEST_CASE("122: what a kill destroys sees the context of the greenlet that dies") {
  const clean afterwards;
  number.set(1);
  int seen = 0;
  {
    greenlet g([&] {
      const auto e = at_end([&] { seen = number.get(); });
      number.set(2);
      switch_to_parent();
    });
    g.switch_to();
  }
  CHECK(seen == 2);
}
