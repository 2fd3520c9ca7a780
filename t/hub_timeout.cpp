// SPDX-License-Identifier: MIT
// timeout: a bound on all that a greenlet waits for in a scope.
#include "hub_testing.hpp"

#include <memory>
#include <stdexcept>

using namespace greenlets;
using namespace testing;

TEST_CASE("a timeout ends whatever its greenlet waits for, once") {
  hub_guard guard;
  hub::timeout limit(milliseconds(1));
  hub::event never;
  bool thrown = false;
  try {
    never.wait();
  } catch (const hub::timed_out& e) {
    thrown = limit.threw(e);
  }
  CHECK(thrown);
  CHECK(limit.expired());
  CHECK_FALSE(never.wait(milliseconds(1)));
}

TEST_CASE("a timeout that goes before its time throws nothing, and leaves nothing to wait for") {
  hub_guard guard;
  {
    hub::timeout limit(hours(1));
    hub::sleep_for(milliseconds(1));
    CHECK_FALSE(limit.expired());
  }
  {
    hub::timeout limit(hours(1));
    limit.cancel();
    CHECK_FALSE(limit.expired());
    hub::event never;
    CHECK_THROWS_AS(never.wait(), hub::would_block_forever);
  }
  CHECK_FALSE(hub::timeout(hub::deadline()).expired());
}

TEST_CASE("timeouts nest, and each knows its own") {
  hub_guard guard;
  events log;
  hub::timeout outer(milliseconds(1));
  try {
    hub::timeout inner(hours(1));
    try {
      hub::event().wait();
    } catch (const hub::timed_out& e) {
      log.push_back(inner.threw(e) ? "inner" : "not inner");
      throw;
    }
  } catch (const hub::timed_out& e) {
    log.push_back(outer.threw(e) ? "outer" : "not outer");
  }
  CHECK(log == events{"not inner", "outer"});
}

TEST_CASE("one that has expired while its scope was left is taken back") {
  hub_guard guard;
  auto t = hub::spawn([] {
    auto limit = std::make_unique<hub::timeout>(milliseconds(0));
    // The hub finds it expired while this greenlet only yields: either it throws here, or never.
    try {
      hub::yield();
    } catch (const hub::timed_out& e) {
      return limit->threw(e);
    }
    limit.reset();
    hub::sleep_for(milliseconds(2));
    return true;
  });
  CHECK(t.get());
}

TEST_CASE("with_timeout gives the result, or nothing; other timeouts pass through") {
  hub_guard guard;
  CHECK(hub::with_timeout(hang_guard(), [] { return 42; }) == 42);
  CHECK(hub::with_timeout(hang_guard(), [] {}));
  CHECK_FALSE(hub::with_timeout(milliseconds(1), [] { hub::sleep_for(hours(1)); }));
  CHECK_FALSE(hub::with_timeout(milliseconds(1), []() -> int {
    hub::sleep_for(hours(1));
    return 1;
  }));
  const auto outer = hub::with_timeout(milliseconds(1), [] {
    return hub::with_timeout(hours(1), [] { hub::sleep_for(hours(1)); }) ? 1 : 2;
  });
  CHECK_FALSE(outer);
  CHECK_THROWS_AS(static_cast<void>(hub::with_timeout(hours(1), [] { throw std::runtime_error("own"); })), std::runtime_error);
}

TEST_CASE("a greenlet that waits for another under a timeout is not a wait forever") {
  hub_guard guard;
  hub::queue<int> q;
  CHECK_FALSE(hub::with_timeout(milliseconds(1), [&] { return *q.pop(); }));
}

TEST_CASE("a timeout of one greenlet does not reach another") {
  hub_guard guard;
  hub::event go;
  auto calm = hub::spawn([&] { return go.wait(hang_guard()); });
  auto hasty = hub::spawn([&] { return hub::with_timeout(milliseconds(1), [&] { go.wait(); }); });
  CHECK_FALSE(hasty.get());
  CHECK_FALSE(calm.ready());
  go.set();
  CHECK(calm.get());
}

TEST_CASE("a timeout that is armed when its hub ends is forgotten with it") {
  const auto limit = std::make_unique<hub::timeout>(hours(1));
  hub::shutdown();
}

TEST_CASE("destructors that wait are not interrupted by the timeout that brought them about") {
  hub_guard guard;
  bool waited = false;
  struct slow {
    bool& waited;
    ~slow() { waited = !hub::event().wait(milliseconds(5)); }
  };
  const auto now = std::chrono::steady_clock::now();  // the inner one comes first, however long this takes
  hub::timeout again(now + milliseconds(2));
  CHECK_FALSE(hub::with_timeout(now + milliseconds(1), [&] {
    const slow s{waited};
    hub::sleep_for(hours(1));
  }));
  CHECK(waited);
}
