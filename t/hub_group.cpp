// SPDX-License-Identifier: MIT
// group, pool, every: tasks that belong together.
#include "hub_testing.hpp"

#include <algorithm>
#include <memory>
#include <stdexcept>
#include <vector>

using namespace greenlets;
using namespace testing;

namespace {

struct oops : std::runtime_error {
  explicit oops(const std::string& what = "oops") : std::runtime_error(what) {}
};

struct counted {
  int& n;
  explicit counted(int& alive) : n(alive) { ++n; }
  counted(const counted& other) : n(other.n) { ++n; }
  counted& operator=(const counted&) = delete;
  ~counted() { --n; }
};

}  // namespace

// -- group ---------------------------------------------------------------------------------------

TEST_CASE("a group waits until all of its members have ended, those too that members have spawned") {
  hub_guard guard;
  hub::group g;
  int ended = 0;
  for (int i = 0; i < 3; ++i)
    g.spawn([&] {
      hub::yield();
      g.spawn([&] {
        hub::yield();
        ++ended;
      });
      ++ended;
    });
  CHECK(g.size() == 3);
  g.wait();
  CHECK(ended == 6);
  CHECK(g.size() == 0);
  g.wait();
}

TEST_CASE("the first member that fails cancels the others, and is thrown; what they throw then is reported") {
  hub_guard guard;
  unraisables reported;
  int alive = 0;
  {
    hub::group g;
    for (int i = 0; i < 3; ++i)
      g.spawn([&] {
        const counted c(alive);
        hub::sleep_for(hours(1));
      });
    g.spawn([&] {
      try {
        hub::sleep_for(hours(1));
      } catch (const greenlet_exit&) {
        throw oops("second");
      }
    });
    g.spawn([&]() -> void { throw oops("first"); });
    CHECK_THROWS_WITH_AS(g.wait(), "first", oops);
    CHECK(alive == 0);
    CHECK(g.size() == 0);
    CHECK_THROWS_WITH_AS(g.wait(), "first", oops);
  }
  REQUIRE(reported.seen.size() == 1);
  CHECK_THROWS_WITH_AS(std::rethrow_exception(reported.seen[0].second), "second", oops);
  reported.seen.clear();
}

TEST_CASE("a group that goes ends its members first, whatever they hold") {
  hub_guard guard;
  int alive = 0;
  {
    hub::group g;
    for (int i = 0; i < 3; ++i)
      g.spawn([&, c = counted(alive)] {
        const counted mine(alive);
        struct waits {
          ~waits() { hub::yield(); }
        } in_its_destructor;
        hub::sleep_for(hours(1));
      });
    yield_until_waiting(3);
    CHECK(alive == 6);
    g.spawn([c = counted(alive)] {});  // never starts
  }
  CHECK(alive == 0);
}

TEST_CASE("a failure that nobody waits for is reported when the group goes") {
  hub_guard guard;
  unraisables reported;
  {
    hub::group g;
    g.spawn([]() -> void { throw oops(); });
    hub::yield();
    CHECK(reported.seen.empty());
  }
  CHECK(reported.seen.size() == 1);
  reported.seen.clear();
}

TEST_CASE("a group's wait can end by a deadline, and be cancelled; its members go on") {
  hub_guard guard;
  hub::group g;
  hub::event go;
  g.spawn([&] { go.wait(); });
  CHECK_FALSE(g.wait_until(milliseconds(1)));
  auto waits = hub::spawn([&] { g.wait(); });
  yield_until_waiting(2);
  waits.cancel();
  CHECK_THROWS_AS(waits.get(), hub::cancelled);
  CHECK(g.size() == 1);
  go.set();
  g.wait();
}

TEST_CASE("what is thrown into a greenlet while its group goes is thrown at its next wait") {
  hub_guard guard;
  events log;
  hub::event go;
  auto t = hub::spawn([&] {
    {
      hub::group g;
      g.spawn([&] {
        try {
          hub::sleep_for(hours(1));
        } catch (const greenlet_exit&) {
          log.push_back("member told");
          go.wait();
          log.push_back("member ends");
        }
      });
      hub::yield();
    }
    log.push_back("group has gone");
    hub::sleep_for(hours(1));
    log.push_back("never");
  });
  yield_until([&] { return log == events{"member told"}; });
  t.cancel();
  hub::yield();
  go.set();
  t.join();
  CHECK_THROWS_AS(t.get(), hub::cancelled);
  CHECK(log.back() == "group has gone");
}

TEST_CASE("cancelling a group cancels its members only") {
  hub_guard guard;
  hub::group g;
  int alive = 0;
  g.spawn([&] {
    const counted c(alive);
    hub::sleep_for(hours(1));
  });
  yield_until_waiting(1);
  g.cancel();
  g.wait();  // a cancelled member is no failure
  CHECK(alive == 0);
}

// -- pool ----------------------------------------------------------------------------------------

TEST_CASE("a pool runs at most so many at once, and spawn() waits for one to end") {
  hub_guard guard;
  hub::pool p(3);
  int running = 0, most = 0;
  std::vector<hub::task<int>> all;
  for (int i = 0; i < 10; ++i)
    all.push_back(p.spawn([&, i] {
      most = std::max(most, ++running);
      hub::yield();
      --running;
      return i;
    }));
  CHECK(p.join());
  CHECK(most == 3);
  CHECK(p.running() == 0);
  for (int i = 0; i < 10; ++i) CHECK(all[static_cast<std::size_t>(i)].get() == i);
}

TEST_CASE("a task of a pool that fails, or is cancelled before it starts, makes room") {
  hub_guard guard;
  hub::pool p(1);
  auto fails = p.spawn([]() -> int { throw oops(); });
  auto never = p.spawn([] { return 1; });
  never.cancel();
  auto last = p.spawn([] { return 2; });
  CHECK(last.get() == 2);
  CHECK_THROWS_AS(fails.get(), oops);
  CHECK_THROWS_AS(never.get(), hub::cancelled);
  auto blocks = p.spawn([] { hub::sleep_for(hours(1)); });
  CHECK_FALSE(p.join(milliseconds(1)));
  CHECK(p.running() == 1);
  blocks.cancel();
  CHECK(p.join(hang_guard()));
}

// -- every ---------------------------------------------------------------------------------------

TEST_CASE("every period a function is called, until it is cancelled or throws") {
  hub_guard guard;
  int calls = 0;
  hub::event enough;
  auto t = hub::every(milliseconds(1), [&] {
    if (++calls == 3) enough.set();
  });
  CHECK(enough.wait(hang_guard()));
  t.cancel();
  CHECK_THROWS_AS(t.get(), hub::cancelled);
  auto fails = hub::every(milliseconds(1), [] { throw oops(); });
  CHECK_THROWS_AS(fails.get(), oops);
  CHECK_THROWS_AS(hub::every(seconds(0), [] {}), std::invalid_argument);
}

TEST_CASE("calls do not overlap, and times that passed meanwhile are left out") {
  hub_guard guard;
  std::vector<hub::clock::time_point> at;
  hub::event enough;
  const auto begin = hub::clock::now();
  auto t = hub::every(milliseconds(2), [&] {
    at.push_back(hub::clock::now());
    if (at.size() == 3) return enough.set();
    hub::sleep_for(milliseconds(5));
  });
  CHECK(enough.wait(hang_guard()));
  t.cancel();
  t.join();
  for (std::size_t i = 1; i < at.size(); ++i) CHECK(at[i] - at[i - 1] >= milliseconds(5));
  CHECK(at[0] - begin >= milliseconds(2));
}

// -- Attributes ----------------------------------------------------------------------------------

TEST_CASE("tasks, members of a group and of a pool are made as attributes say") {
  hub_guard guard;
  constexpr std::size_t much = 1024 * 1024;
  const auto how = attributes().name("deep").stack_size(2 * much);
  int deep = 0;
  // More than the default stack: it would be an overflow.
  const auto dive = [&] {
    volatile char bytes[much];
    for (std::size_t i = 0; i < much; i += 512) bytes[i] = 1;
    deep += bytes[much / 2] + (current().name() == "deep") + (current().parent().name() == "hub");
    return deep;
  };
  CHECK(hub::spawn(how, dive).get() == 3);
  hub::group g;
  const greenlet member = g.spawn(how, [&] { dive(); });
  CHECK(member.name() == "deep");
  g.wait();
  hub::pool p(1);
  CHECK(p.spawn(how, dive).get() == 9);
  CHECK(hub::spawn(how, [] { return std::make_unique<int>(4); }).get() != nullptr);
}

TEST_CASE("attributes of a task may have hooks; a parent, or another function, is refused") {
  hub_guard guard;
  int entered = 0;
  const auto count = [](void* n) noexcept { ++*static_cast<int*>(n); };
  CHECK(hub::spawn(attributes().on_switch(nullptr, count, &entered), [] { return hub::yield(), 1; }).get() == 1);
  CHECK(entered == 2);

  bool ran = false;
  for (const auto& how : {attributes().parent(current()), attributes().on_start([] {})}) {
    CHECK_THROWS_AS(hub::spawn(how, [&] { ran = true; }), std::invalid_argument);
    hub::group g;
    CHECK_THROWS_AS(g.spawn(how, [&] { ran = true; }), std::invalid_argument);
    CHECK(g.size() == 0);
    hub::pool p(1);
    CHECK_THROWS_AS(p.spawn(how, [&] { ran = true; }), std::invalid_argument);
    CHECK(p.running() == 0);
  }
  hub::yield();
  CHECK_FALSE(ran);
}

// -- Tasks that go other ways ----------------------------------------------------------------------

TEST_CASE("what comes out of a task that was given something else to run is reported for it, and its turn's others go on") {
  hub_guard guard;
  unraisables reported;
  int others = 0;
  const auto before = hub::spawn([&] { ++others; });
  const auto t = hub::spawn([] {});
  t.handle().set_run([] { throw oops("instead"); });
  const auto after = hub::spawn([&] { ++others; });
  CHECK_THROWS_AS(t.get(), hub::cancelled);
  after.get();
  CHECK(others == 2);
  REQUIRE(reported.seen.size() == 1);
  CHECK_THROWS_WITH_AS(std::rethrow_exception(reported.seen[0].second), "instead", oops);
  // Who joined has started it; when the hub does, it knows whom.
  const greenlet who = hub::run([&] {
    const auto u = hub::spawn([] {});
    u.handle().set_run([] { throw oops("instead"); });
    return u.handle();
  });
  REQUIRE(reported.seen.size() == 2);
  CHECK(reported.seen[1].first == who);
}

TEST_CASE("who asks for the result of a task, and the hub ends before that, is told") {
  hub_guard guard;
  hub::event never;
  const auto ask = [&](const auto& task) {
    hub::spawn([hub = task.handle().parent()] { hub.throw_in(greenlet_exit(greenlet_exit::reason::cancelled)); });
    CHECK(error_of([&] { task.get(); }) == errc::not_running);
    CHECK_FALSE(task.ready());
    task.handle().switch_to();  // its wait is over
    CHECK(task.ready());
  };
  ask(hub::spawn([&] { return never.wait(), std::string("result"); }));
  ask(hub::spawn([&] { never.wait(); }));
}
