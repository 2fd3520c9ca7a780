// SPDX-License-Identifier: MIT
// What contexts hold: how long it is kept, where it is destroyed, what its destructors may do; and
// threads that share a context.
#include "testing.hpp"

#include <atomic>
#include <future>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

using namespace greenlets;
using testing::at_end;
using testing::events;

namespace {

context_var<int> number("number", 0);
context_var<std::string> text("text");
context_var<std::shared_ptr<void>> ending("ending");

// Forgets what a test has set in the main greenlet.
struct clean {
  ~clean() { current().set_context({}); }
};

}  // namespace

TEST_CASE("177: switching and dying leaks no context, and what is in one goes with its last owner") {
  const clean afterwards;
  std::weak_ptr<void> held;
  {
    auto object = std::make_shared<int>();
    held = object;
    greenlet g([&] {
      ending.set(std::move(object));
      for (int i = 0; i < 10; ++i) switch_to_parent();
    });
    for (int i = 0; i < 5; ++i) g.switch_to();
    CHECK_FALSE(held.expired());
    g.throw_in();
    CHECK_FALSE(held.expired());  // 173
  }
  CHECK(held.expired());
  auto object = std::make_shared<int>();
  held = object;
  ending.set(std::move(object));
  context copy = context::copy_current();
  CHECK(held.use_count() == 1);
  current().set_context({});
  CHECK_FALSE(held.expired());
  copy = {};
  CHECK(held.expired());
}

TEST_CASE("a context with many variables finds each") {
  std::vector<std::unique_ptr<context_var<int>>> vars;
  for (int i = 0; i < 100; ++i) vars.push_back(std::make_unique<context_var<int>>(std::to_string(i), -1));
  greenlet g([&] {
    for (int k = 0; k < 100; ++k) vars[static_cast<std::size_t>(k * 37 % 100)]->set(k * 37 % 100);
    int right = 0;
    for (int i = 0; i < 100; ++i) right += vars[static_cast<std::size_t>(i)]->get() == i;
    CHECK(right == 100);
    CHECK(current().get_context().size() == 100);
    const context copy = context::copy_current();
    for (int i = 0; i < 100; ++i) right -= *copy.get_if(*vars[static_cast<std::size_t>(i)]) == i;
    CHECK(right == 0);
  });
  g.switch_to();
}

TEST_CASE("a variable may go before its values; another in its place has none of them") {
  const clean afterwards;
  std::weak_ptr<int> held;
  using variable = context_var<std::shared_ptr<int>>;
  auto v = std::make_unique<variable>("v");
  auto object = std::make_shared<int>(1);
  held = object;
  v->set(std::move(object));
  for (int i = 0; i < 3; ++i) {
    v = nullptr;
    v = std::make_unique<variable>("v");
    CHECK(v->get_if() == nullptr);
  }
  CHECK_FALSE(held.expired());
  CHECK(current().get_context().size() == 1);
  current().set_context({});
  CHECK(held.expired());
}

TEST_CASE("the destructor of a value may switch, wherever its value goes") {
  const clean afterwards;
  int seen = 0;
  greenlet helper([&] {
    for (;; ++seen) switch_to_parent();
  });
  helper.switch_to();
  // In the greenlet where it goes; so helper must come back there.
  const auto switching = [&] {
    return at_end([&] {
      helper.set_parent(current());
      helper.switch_to();
      helper.set_parent(main_greenlet());
      number.set(42);  // and use contexts
      CHECK(number.get() == 42);
    });
  };
  const auto none = std::shared_ptr<void>();
  SUBCASE("set") {
    ending.set(switching());
    ending.set(none);
    CHECK(ending.get() == nullptr);
  }
  SUBCASE("reset") {
    auto t = ending.set(none);
    ending.set(switching());
    ending.reset(t);
    CHECK(ending.get_if() == nullptr);
  }
  SUBCASE("set_context on the running one") {
    ending.set(switching());
    current().set_context({});
    CHECK(number.get() == 42);
  }
  SUBCASE("set_context on a suspended one, whose last handle goes meanwhile") {
    auto g = std::make_unique<greenlet>([] { switch_to_parent(); });
    g->switch_to();
    const context c = context::make();
    c.run([&] {
      ending.set(at_end([&, inner = switching()]() mutable {
        inner.reset();
        g.reset();
      }));
    });
    g->set_context(c);
    const_cast<context&>(c) = {};
    g->set_context({});
    CHECK(g == nullptr);
  }
  SUBCASE("the end of run") {
    context::make().run([&] { ending.set(switching()); });
    CHECK(number.get() == 42);
  }
  SUBCASE("the end of a greenlet's last handle") {
    greenlet([&] { ending.set(switching()); }).switch_to();
  }
  SUBCASE("a drop of the last handle in the middle") {
    greenlet g([&] {
      ending.set(switching());
      switch_to_parent();
    });
    g.switch_to();
    g = {};
  }
  CHECK(seen == 1);
}

TEST_CASE("a value whose destructor drops the last handle of the running greenlet") {
  events log;
  auto g = std::make_unique<greenlet>();
  *g = greenlet([&] {
    const testing::noting n{log, "stack"};
    ending.set(at_end([&] {
      g.reset();
      log.push_back("dropped");
    }));
    ending.set(nullptr);
    log.push_back("goes on");
    switch_to_parent();
    log.push_back("never");
  });
  g->switch_to();
  CHECK(log == events{"dropped", "goes on", "~stack"});
}

TEST_CASE("a greenlet killed while making a value, or in the copy that get() returns, sets nothing") {
  struct slow {
    bool* stop;
    explicit slow(bool* s) : stop(s) {}
    slow(const slow& other) : stop(other.stop) {
      if (*stop) switch_to_parent();
    }
  };
  static context_var<slow> v("v");
  bool setting = false, stop = false, went_on = false;
  SUBCASE("set") { setting = true; }
  SUBCASE("get") {}
  greenlet g([&] {
    v.set(slow(&stop));
    stop = true;
    if (setting)
      v.set(slow(&stop));
    else
      v.get();
    went_on = true;
  });
  g.switch_to();
  const context c = g.get_context();
  const auto before = c.get_if(v);
  REQUIRE(before);
  g.throw_in();
  CHECK(g.dead());
  CHECK_FALSE(went_on);
  CHECK(c.get_if(v) == before);
  CHECK(before.use_count() == 2);  // in the context, and ours: nothing is left behind
}

TEST_CASE("threads that share a context, and set those of each other's greenlets, do not corrupt them") {
  const context shared = context::make();
  std::atomic<bool> stop{false};
  std::promise<greenlet> made;
  std::promise<void> shares;
  // One switches to a greenlet and away all the time, another gives it contexts and takes them.
  std::thread owner([&] {
    greenlet g([&] {
      for (;;) {
        number.set(number.get() + 1);
        text.set("a text that is too long to be kept in place");
        switch_to_parent();
      }
    });
    g.switch_to();
    made.set_value(g);
    while (!stop) {
      g.switch_to();
      const context mine = context::copy_current();
    }
  });
  std::thread sharer([&] {
    current().set_context(shared);
    text.set("the sharer's first");
    shares.set_value();
    std::vector<std::unique_ptr<context_var<std::string>>> vars;
    while (!stop) {
      vars.push_back(std::make_unique<context_var<std::string>>("v"));
      if (vars.size() > 50) vars.clear();
      else vars.back()->set("another text that is too long for it");
      if (shared.size() > 500) current().set_context(context::make());
      text.set(std::to_string(number.get()));
    }
  });
  const greenlet g = made.get_future().get();
  shares.get_future().wait();
  int got = 0, refused = 0;
  while (got < 2000 || refused < 1) {
    try {
      const context c = g.get_context();
      g.set_context(got % 3 == 0 ? context() : got % 3 == 1 ? shared : c.copy());
      CHECK(shared.copy().size() <= 1000);
      ++got;
    } catch (const error& e) {
      if (e.code() == errc::empty_handle) continue;  // it had none to be copied
      REQUIRE(e.code() == errc::different_thread);
      ++refused;
    }
  }
  stop = true;
  owner.join();
  sharer.join();
  CHECK(g.dead());
  CHECK(shared.get_if(text) != nullptr);
}
