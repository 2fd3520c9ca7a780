// SPDX-License-Identifier: MIT
// The predicates of a handle: what they say in each state, and that they change nothing.
#include "testing.hpp"

#include <functional>
#include <future>
#include <memory>
#include <thread>
#include <type_traits>
#include <unordered_set>
#include <utility>
#include <vector>

using namespace greenlets;
using testing::error_from;

namespace {

// All that a handle says of a greenlet's state.
struct said {
  bool dead, started, active, main, empty;
  greenlet_state state;
  friend bool operator==(const said& a, const said& b) {
    return a.dead == b.dead && a.started == b.started && a.active == b.active && a.main == b.main &&
           a.empty == b.empty && a.state == b.state;
  }
};
said of(const greenlet& g) { return {g.dead(), g.started(), bool(g), g.is_main(), g.empty(), g.state()}; }

constexpr said unstarted{false, false, false, false, false, greenlet_state::unstarted};
constexpr said running{false, true, true, false, false, greenlet_state::current};
constexpr said suspended{false, true, true, false, false, greenlet_state::suspended};
constexpr said finished{true, true, false, false, false, greenlet_state::finished};
constexpr said unwound{true, true, false, false, false, greenlet_state::unwound};
constexpr said running_main{false, true, true, true, false, greenlet_state::current};
constexpr said suspended_main{false, true, true, true, false, greenlet_state::suspended};
constexpr said unwound_main{true, true, false, true, false, greenlet_state::unwound};
// No greenlet: nothing is true of it; state() has no word for that and says finished.
constexpr said nothing{false, false, false, false, true, greenlet_state::finished};

// Predicates are const and cannot throw; nothing of them can be assigned.
static_assert(noexcept(std::declval<const greenlet&>().dead()));
static_assert(noexcept(std::declval<const greenlet&>().started()));
static_assert(noexcept(std::declval<const greenlet&>().is_main()));
static_assert(noexcept(bool(std::declval<const greenlet&>())));
static_assert(noexcept(std::declval<const greenlet&>().empty()));
static_assert(noexcept(std::declval<const greenlet&>().state()));
static_assert(noexcept(std::declval<const greenlet&>().id()));
static_assert(!std::is_reference_v<decltype(std::declval<greenlet&>().dead())>);
static_assert(!std::is_reference_v<decltype(std::declval<greenlet&>().state())>);
static_assert(!std::is_convertible_v<greenlet, bool>);

}  // namespace

TEST_CASE("97, 98: never started, active, finished: what is said on the way") {
  greenlet g;
  CHECK(of(g) == nothing);
  g = greenlet([&g] {
    CHECK(of(g) == running);
    CHECK(of(main_greenlet()) == suspended_main);
    switch_to_parent();
    CHECK(of(g) == running);
  });
  CHECK(of(g) == unstarted);
  CHECK(of(current()) == running_main);
  g.switch_to();
  CHECK(of(g) == suspended);
  CHECK(of(current()) == running_main);
  g.switch_to();
  CHECK(of(g) == finished);
  g.switch_to();
  CHECK(of(g) == finished);
}

TEST_CASE("97, 98: every way to die ends in the same state") {
  const auto wait = [] { switch_to_parent(); };
  greenlet returned([] {}), thrown([] { throw 1; }), exited([] { throw greenlet_exit(); }), killed(wait), formally(wait);
  returned.switch_to();
  CHECK_THROWS_AS(thrown.switch_to(), int);
  exited.switch_to();
  killed.switch_to();
  killed.throw_in();
  formally.throw_in();
  for (const greenlet* g : {&returned, &thrown, &exited, &killed, &formally}) CHECK(of(*g) == finished);
}

TEST_CASE("74, 75, 98: active until its callable is destroyed, dead before its parent goes on") {
  std::vector<said> seen;
  greenlet g([&, guard = testing::at_end([&] { seen.push_back(of(current())); })] {
    const auto local = testing::at_end([&] { seen.push_back(of(current())); });
  });
  const greenlet parent([&] {
    g.set_parent(current());
    g.switch_to();
    seen.push_back(of(g));
  });
  parent.switch_to();
  REQUIRE(seen.size() == 3);
  CHECK(seen[0] == running);
  CHECK(seen[1] == running);
  CHECK(seen[2] == finished);
}

TEST_CASE("98: what is said does not depend on the handle, the asking greenlet, or how often one asks") {
  const greenlet g([] { switch_to_parent(); });
  g.switch_to();
  const greenlet copy = g;
  const greenlet asker([&] {
    for (int i = 0; i < 3; ++i) {
      CHECK(of(g) == suspended);
      CHECK(of(copy) == suspended);
    }
  });
  asker.switch_to();
  CHECK(of(copy) == suspended);
}

TEST_CASE("98, 107: the predicates from another thread") {
  const greenlet not_started([] {}), waiting([] { switch_to_parent(); }), ended([] {}), main = current();
  waiting.switch_to();
  ended.switch_to();
  std::thread([&] {
    CHECK(of(not_started) == unstarted);
    CHECK(of(waiting) == suspended);
    CHECK(of(ended) == finished);
    CHECK(of(main) == running_main);  // current for its own thread
    CHECK(main != current());
    CHECK(waiting.parent() == main);
  }).join();
}

TEST_CASE("98, 99: a thread's exit changes all of them at once, before anybody asks; asking changes nothing") {
  greenlet waiting, ended, not_started, main;
  std::weak_ptr<int> on_its_stack;
  std::promise<void> go;
  std::promise<void> made;
  std::thread thread([&] {
    main = current();
    waiting = greenlet([&] {
      const auto object = std::make_shared<int>();
      on_its_stack = object;
      switch_to_parent();
    });
    waiting.switch_to();
    ended = greenlet([] {});
    ended.switch_to();
    not_started = greenlet([] {});
    made.set_value();
    go.get_future().wait();
  });
  made.get_future().wait();
  for (int i = 0; i < 2; ++i) {
    CHECK(of(waiting) == suspended);
    CHECK(of(main) == running_main);
  }
  const auto before = counts();
  go.set_value();
  thread.join();
  // Without a question the stack is gone: greenlet's first read of `dead` did that.
  CHECK(on_its_stack.expired());
  CHECK(counts().stacks < before.stacks);
  const auto after = counts();
  for (int i = 0; i < 3; ++i) {
    CHECK(of(waiting) == unwound);
    CHECK(of(ended) == finished);
    CHECK(of(not_started) == unstarted);
    CHECK(of(main) == unwound_main);
  }
  CHECK(counts().greenlets == after.greenlets);
  CHECK(counts().stacks == after.stacks);
}

TEST_CASE("99: the predicates flush nothing: what another thread has dropped stays until the owner enters") {
  bool unwound_now = false;
  greenlet g([&] {
    const auto note = testing::at_end([&] { unwound_now = true; });
    switch_to_parent();
  });
  const greenlet other([] {});
  g.switch_to();
  std::thread([mine = std::move(g)]() mutable { mine = greenlet(); }).join();
  CHECK(of(other) == unstarted);
  other.parent();
  other.name();
  other.id();
  other.has_run();
  counts();
  CHECK_FALSE(unwound_now);
  current();
  CHECK(unwound_now);
}

TEST_CASE("100, 101: numbers are never reused, names can be changed at any time and by anybody") {
  std::unordered_set<std::uint64_t> ids;
  for (int i = 0; i < 1000; ++i) {
    const greenlet g([] {});
    CHECK(g.id() != 0);
    ids.insert(g.id());
  }
  CHECK(ids.size() == 1000);
  CHECK(greenlet().id() == 0);
  CHECK(greenlet().name().empty());

  const greenlet g(attributes().name("first"), [] { switch_to_parent(); });
  CHECK(g.name() == "first");
  g.switch_to();
  g.set_name("second");
  CHECK(g.name() == "second");
  std::thread([&] {
    CHECK(g.name() == "second");
    g.set_name("third");
  }).join();
  CHECK(g.name() == "third");
  g.switch_to();
  CHECK(g.name() == "third");
  g.set_name("");
  CHECK(g.name().empty());
  CHECK(error_from([] { greenlet().set_name("x"); }).code() == errc::empty_handle);
  CHECK(error_from([] { greenlet().has_run(); }).code() == errc::empty_handle);
  CHECK(error_from([] { greenlet().parent(); }).code() == errc::empty_handle);
}

TEST_CASE("98: handles compare and hash by what they refer to") {
  const greenlet a([] {}), b([] {}), copy = a;
  CHECK(a == copy);
  CHECK(a != b);
  CHECK(greenlet() == greenlet());
  CHECK(a != greenlet());
  std::unordered_set<greenlet> set{a, b, copy, greenlet(), greenlet()};
  CHECK(set.size() == 3);
  CHECK(set.count(copy) == 1);
  CHECK(std::hash<greenlet>()(a) == std::hash<greenlet>()(copy));
}
