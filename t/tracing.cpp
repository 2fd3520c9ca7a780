// SPDX-License-Identifier: MIT
// Tracers: what they are told, when, in which greenlet; and what happens when they throw or switch.
#include "testing.hpp"

#include <atomic>
#include <exception>
#include <pthread.h>
#include <stdexcept>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

using namespace greenlets;
using testing::events;
using testing::unraisables;

namespace {

std::string name_of(const greenlet& g) { return g.is_main() ? "main" : g.name().empty() ? "?" : g.name(); }

std::string kind_of(trace_event event) {
  switch (event) {
    case trace_event::switched: return "switch";
    case trace_event::thrown: return "throw";
  }
  return "unknown";
}

// Traces this thread for a scope, and writes "switch main>a".
struct tracing {
  events log;
  tracer before;

  tracing() : before(settrace([this](trace_event event, const greenlet& origin, const greenlet& target) {
    CHECK(current() == target);
    CHECK((event.exception() != nullptr) == (event == trace_event::thrown));
    log.push_back(kind_of(event) + " " + name_of(origin) + ">" + name_of(target) + (event.starts() ? " starts" : ""));
  })) {}
  tracing(const tracing&) = delete;
  tracing& operator=(const tracing&) = delete;
  ~tracing() { settrace(before); }
};

attributes named(const char* name) { return attributes().name(name); }

struct failure : std::runtime_error {
  using std::runtime_error::runtime_error;
};

}  // namespace

static_assert(!std::is_constructible_v<tracer, int> && !std::is_constructible_v<tracer, void (*)(trace_event)>);
static_assert(!std::is_invocable_v<decltype(&settrace), int>);

TEST_CASE("152, 159: settrace gives the tracer before, gettrace the present one; an empty one ends it") {
  struct counting {
    int* calls;
    void operator()(trace_event, const greenlet&, const greenlet&) const { ++*calls; }
  };
  int first = 0, second = 0;
  CHECK(!gettrace());
  CHECK(!settrace(counting{&first}));
  REQUIRE(gettrace());
  REQUIRE(gettrace().target<counting>());  // as it was given
  CHECK(gettrace().target<counting>()->calls == &first);
  greenlet([] {}).switch_to();
  CHECK(first == 2);

  const tracer before = settrace(counting{&second});
  REQUIRE(before.target<counting>());
  CHECK(before.target<counting>()->calls == &first);
  greenlet([] {}).switch_to();
  CHECK(first == 2);
  CHECK(second == 2);

  CHECK(settrace(nullptr).target<counting>()->calls == &second);
  CHECK(!gettrace());
  CHECK(!settrace({}));
  greenlet([] {}).switch_to();
  CHECK(second == 2);
}

TEST_CASE("153: each thread has its own, and begins with none; a thread without greenlets can ask") {
  tracing mine;
  std::thread([] {
    const auto before = counts();
    CHECK(!gettrace());
    CHECK(counts().threads == before.threads);  // asking did not make it use greenlets
    tracing its;
    greenlet a(named("a"), [] {});
    a.switch_to();
    CHECK(its.log == events{"switch main>a starts", "switch a>main"});
  }).join();
  CHECK(mine.log.empty());
}

TEST_CASE("154, 155, 156, 157: switches, starts, throws and ends; told in the target") {
  tracing t;
  greenlet a(named("a"), [](int) {
    switch_to_parent(1);
    try {
      switch_to_parent(2);
    } catch (const failure&) {
    }
    return 3;
  });
  a.switch_to(0);
  a.switch_to();
  a.throw_in(failure("caught"));
  CHECK(t.log == events{"switch main>a starts", "switch a>main", "switch main>a", "switch a>main", "throw main>a", "switch a>main"});

  t.log.clear();
  greenlet b(named("b"), [] { throw failure("not caught"); });
  CHECK_THROWS_AS(b.switch_to(), failure);
  CHECK(t.log == events{"switch main>b starts", "throw b>main"});

  t.log.clear();
  greenlet c(named("c"), [] { switch_to_parent(); });
  c.switch_to();
  CHECK(c.throw_in().is<greenlet_exit>());  // it comes back as a value
  CHECK(t.log == events{"switch main>c starts", "switch c>main", "throw main>c", "switch c>main"});

  t.log.clear();
  CHECK(current().switch_to(5).get<int>() == 5);
  CHECK(t.log == events{"switch main>main"});
  t.log.clear();
  CHECK_THROWS_AS(current().throw_in(failure("to itself")), failure);
  CHECK(t.log == events{"throw main>main"});
}

TEST_CASE("157: at a start what it runs can no longer be taken away") {
  bool had = true;
  greenlet a([] {});
  settrace([&](trace_event event, const greenlet&, const greenlet& target) {
    if (!event.starts()) return;
    had = target.has_run();
    CHECK(target.state() == greenlet_state::current);
  });
  a.switch_to();
  settrace(nullptr);
  CHECK(!had);
}

TEST_CASE("156: the event says what is thrown, and what begins") {
  std::exception_ptr seen;
  const std::type_info* begun = nullptr;
  settrace([&](trace_event event, const greenlet&, const greenlet&) {
    if (event.exception()) seen = event.exception();
    if (event.starts()) begun = event.starts();
  });
  const auto run = [] { throw failure("the one"); };
  const std::exception_ptr sent = std::make_exception_ptr(7);
  greenlet a(run);
  CHECK_THROWS_WITH(a.switch_to(), "the one");
  REQUIRE(seen);
  CHECK_THROWS_WITH(std::rethrow_exception(seen), "the one");
  REQUIRE(begun);
  CHECK(*begun == typeid(run));

  CHECK_THROWS_AS(current().throw_in(sent), int);
  CHECK(seen == sent);  // the object itself
  settrace(nullptr);
}

TEST_CASE("71, 89, 156: a throw that finds nobody started is told where it arrives") {
  tracing t;
  greenlet a(named("a"), [] {});
  CHECK_THROWS_AS(a.throw_in(failure("x")), failure);
  CHECK(t.log == events{"throw main>main"});
}

TEST_CASE("120, 157: a kill: thrown into the victim, and a switch back") {
  tracing t;
  greenlet a(named("a"), [] { switch_to_parent(); });
  a.switch_to();
  t.log.clear();
  a = greenlet();
  CHECK(t.log == events{"throw main>a", "switch a>main"});

  // A victim that fails comes back with what it throws, and the dropper does not feel it.
  unraisables failed;
  a = greenlet(named("a"), [] {
    try {
      switch_to_parent();
    } catch (const greenlet_exit&) {
      throw failure("while dying");
    }
  });
  a.switch_to();
  t.log.clear();
  a = greenlet();
  CHECK(t.log == events{"throw main>a", "throw a>main"});
  CHECK(failed.seen.size() == 1);
}

TEST_CASE("120: kills within kills, and at a thread's exit") {
  events log;
  std::thread([&log] {
    settrace([&log](trace_event event, const greenlet& origin, const greenlet& target) {
      log.push_back(kind_of(event) + " " + name_of(origin) + ">" + name_of(target));
    });
    static thread_local greenlet outer;  // destroyed by the thread's exit, or before it
    greenlet inner(named("inner"), [] { switch_to_parent(); });
    inner.switch_to();
    outer = greenlet(named("outer"), [inner] { switch_to_parent(); });
    inner = greenlet();
    outer.switch_to();
    log.clear();
  }).join();
  // What outer runs holds the last handle to inner, and is destroyed on outer's stack.
  CHECK(log == events{"throw main>outer", "throw outer>inner", "switch inner>outer", "switch outer>main"});
}

TEST_CASE("158: what a tracer throws ends tracing, and is thrown in the target") {
  int calls = 0;
  const auto throwing = [&calls](trace_event, const greenlet&, const greenlet&) {
    ++calls;
    throw failure("tracer");
  };
  bool ran = false;
  greenlet a([&ran] { ran = true; });
  settrace(throwing);
  CHECK_THROWS_WITH(a.switch_to(), "tracer");  // a start: it dies without running, and its parent is told
  CHECK(!ran);
  CHECK(a.dead());
  CHECK(calls == 1);
  CHECK(!gettrace());

  greenlet b([] {
    try {
      switch_to_parent();
    } catch (const failure& e) {
      return std::string(e.what());
    }
    return std::string();
  });
  b.switch_to();
  settrace(throwing);
  CHECK(b.switch_to().get<std::string>() == "tracer");  // in place of what was sent
  CHECK(calls == 2);

  settrace(throwing);
  CHECK_THROWS_WITH(current().throw_in(failure("replaced")), "tracer");
  settrace(throwing);
  CHECK_THROWS_WITH(current().switch_to(1), "tracer");
  CHECK(calls == 4);
  CHECK(!gettrace());
}

TEST_CASE("158: a greenlet_exit from a tracer ends the greenlet as one that is thrown into it") {
  greenlet a([] { FAIL_CHECK("ran"); });
  settrace([](trace_event, const greenlet&, const greenlet&) { throw greenlet_exit(); });
  CHECK(a.switch_to().is<greenlet_exit>());
  CHECK(a.dead());
  CHECK(!gettrace());
}

TEST_CASE("158: in a kill what the tracer throws in the victim ends it, and in the dropper is unraisable") {
  unraisables failed;
  greenlet a([] { switch_to_parent(); });
  a.switch_to();
  settrace([](trace_event, const greenlet&, const greenlet& target) {
    if (!target.is_main()) throw failure("in the victim");
  });
  a = greenlet();
  REQUIRE(failed.seen.size() == 1);
  CHECK_THROWS_WITH(std::rethrow_exception(failed.seen[0].second), "in the victim");

  a = greenlet([] { switch_to_parent(); });
  a.switch_to();
  settrace([](trace_event, const greenlet&, const greenlet& target) {
    if (target.is_main()) throw failure("in the dropper");
  });
  a = greenlet();
  REQUIRE(failed.seen.size() == 2);
  CHECK_THROWS_WITH(std::rethrow_exception(failed.seen[1].second), "in the dropper");
  CHECK(!gettrace());
}

TEST_CASE("160, B43: the same tracer twice") {
  tracing t;
  const tracer same = gettrace();
  settrace(same);
  settrace(same);
  greenlet(named("a"), [] {}).switch_to();
  CHECK(t.log.size() == 2);
}

TEST_CASE("161, B2: a tracer may switch; what was sent is kept") {
  // | main            | a                     | b                              |
  // | a.switch_to(1)  | tracer switches to b: |                                |
  // |                 |                       | gets 2, gives 3 back to a      |
  // |                 | gets 1                |                                |
  greenlet a, b;
  int nested = 0;
  b = greenlet(named("b"), [&](int n) {
    for (;;) {
      CHECK(n == 2);
      n = a.switch_to(3).get<int>();
    }
  });
  a = greenlet(named("a"), [&](int n) {
    for (;;) n = switch_to_parent(10 * n).get<int>();
  });
  CHECK(a.switch_to(0).get<int>() == 0);
  bool once = true;
  settrace([&](trace_event, const greenlet&, const greenlet& target) {
    ++nested;
    if (target != a || !once) return;
    once = false;
    CHECK(b.switch_to(2).get<int>() == 3);
  });
  CHECK(a.switch_to(1).get<int>() == 10);
  CHECK(nested == 4);  // main>a, a>b, b>a, a>main: those in the tracer, too
  settrace(nullptr);
  b = greenlet();
}

TEST_CASE("161, B2: a tracer that switches to three, in turn, at every event") {
  greenlet ring[3];
  int depth = 0, calls = 0;
  for (greenlet& g : ring)
    g = greenlet([](value) {
      for (;;) switch_to_parent();
    });
  for (greenlet& g : ring) g.switch_to();
  settrace([&](trace_event, const greenlet&, const greenlet& target) {
    ++calls;
    if (!target.is_main() || depth == 3) return;
    ++depth;
    ring[static_cast<std::size_t>(depth - 1)].switch_to(depth);
    --depth;
  });
  for (greenlet& g : ring) CHECK(!g.switch_to(7).has_value());
  settrace(nullptr);
  CHECK(calls > 6);
}

TEST_CASE("162: a start that the tracer interrupts goes on at a later switch, with what was sent first") {
  greenlet a;
  int got = 0;
  a = greenlet(named("a"), [&](int n) { got = n; });
  bool once = true;
  settrace([&](trace_event, const greenlet&, const greenlet& target) {
    if (target == a && std::exchange(once, false)) switch_to_parent(std::string("not begun"));
  });
  CHECK(a.switch_to(42).get<std::string>() == "not begun");
  CHECK(a.started());
  CHECK(got == 0);
  a.switch_to(std::string("what the tracer gets"));
  settrace(nullptr);
  CHECK(got == 42);
  CHECK(a.dead());
}

TEST_CASE("162: killed in the tracer of its start, it never runs") {
  greenlet a([] { FAIL_CHECK("ran"); });
  bool once = true;
  settrace([&](trace_event, const greenlet&, const greenlet& target) {
    if (!target.is_main() && std::exchange(once, false)) switch_to_parent();
  });
  a.switch_to();
  a = greenlet();
  CHECK(!gettrace());  // the exit left the tracer as an exception of its own
}

TEST_CASE("a tracer that drops the last handle to the origin, or keeps it") {
  greenlet a, kept;
  a = greenlet([&] {
    a = greenlet();  // it runs on without a handle, and is unwound when it is left
    switch_to_parent();
    FAIL_CHECK("went on");
  });
  settrace([&](trace_event, const greenlet& origin, const greenlet& target) {
    if (target.is_main() && origin) kept = origin;
  });
  a.switch_to();
  settrace(nullptr);
  REQUIRE(!kept.empty());
  CHECK(kept.state() == greenlet_state::suspended);
  kept = greenlet();

  a = greenlet([] { switch_to_parent(); });
  settrace([&](trace_event, const greenlet& origin, const greenlet& target) {
    if (target.is_main() && origin == a) a = greenlet();
  });
  a.switch_to();
  settrace(nullptr);
  CHECK(a.empty());
}

TEST_CASE("a tracer may replace or remove itself, and be the last to hold what it holds") {
  int first = 0, second = 0;
  auto held = std::make_shared<int>(1);
  std::weak_ptr<int> watch = held;
  settrace([&first, &second, held = std::move(held)](trace_event, const greenlet&, const greenlet&) {
    ++first;
    settrace([&second](trace_event, const greenlet&, const greenlet&) {
      ++second;
      settrace(nullptr);
    });
    CHECK(*held == 1);
  });
  greenlet([] {}).switch_to();
  CHECK(first == 1);
  CHECK(second == 1);
  CHECK(watch.expired());
  CHECK(!gettrace());
}

TEST_CASE("a tracer for all threads is told of those that exist and those that come, before their own") {
  std::atomic<int> told{0};
  std::atomic<bool> set{false}, traced{false};
  std::thread existing([&] {
    greenlet a([] {
      for (;;) switch_to_parent();
    });
    a.switch_to();
    traced = true;
    while (!set) std::this_thread::yield();
    told = 0;
    a.switch_to();
    CHECK(told == 2);
    a = greenlet();
  });
  while (!traced) std::this_thread::yield();
  const auto owner = std::this_thread::get_id();
  const tracer before = settrace_all_threads([&, owner](trace_event, const greenlet&, const greenlet&) {
    if (std::this_thread::get_id() != owner) ++told;
  });
  CHECK(!before);
  CHECK(gettrace_all_threads());
  CHECK(!gettrace());  // the thread's own is another
  set = true;
  existing.join();

  std::thread([&] {
    told = 0;
    events order;
    settrace([&](trace_event, const greenlet&, const greenlet&) { order.push_back("own after " + std::to_string(told)); });
    greenlet([] {}).switch_to();
    CHECK(order == events{"own after 1", "own after 2"});
    settrace(nullptr);
    greenlet([] {}).switch_to();
    CHECK(told == 4);
  }).join();

  CHECK(settrace_all_threads(nullptr));
  CHECK(!gettrace_all_threads());
  std::thread([&] {
    told = 0;
    greenlet([] {}).switch_to();
    CHECK(told == 0);
  }).join();
}

TEST_CASE("a tracer for all threads that throws is thrown in the target, and not called there again") {
  int calls = 0;
  const auto throwing = [&calls](trace_event, const greenlet&, const greenlet&) {
    ++calls;
    throw failure("everywhere");
  };
  settrace_all_threads(throwing);
  greenlet a([] {});
  CHECK_THROWS_WITH(a.switch_to(), "everywhere");
  greenlet([] {}).switch_to();
  CHECK(calls == 1);
  std::thread([] {
    greenlet b([] {});
    CHECK_THROWS_WITH(b.switch_to(), "everywhere");
  }).join();
  CHECK(calls == 2);
  settrace_all_threads(throwing);  // set again, it is called again
  CHECK_THROWS_WITH(current().switch_to(), "everywhere");
  CHECK(calls == 3);
  settrace_all_threads(nullptr);
}

#ifndef T_TSAN  // pthread_exit on a greenlet's stack fails a check in its interceptor
TEST_CASE("167: pthread_exit in a tracer, and in a resolver, ends the thread cleanly") {
  static events log;
  log.clear();
  const auto on_thread = [](void* (*run)(void*)) {
    pthread_t thread;
    REQUIRE(pthread_create(&thread, nullptr, run, nullptr) == 0);
    void* result = nullptr;
    pthread_join(thread, &result);
    return result;
  };
  CHECK(on_thread([](void*) -> void* {
          testing::noting main{log, "main"};
          settrace([](trace_event, const greenlet&, const greenlet& target) {
            if (!target.is_main()) pthread_exit(&log);
          });
          greenlet a([] { FAIL_CHECK("ran"); });
          a.switch_to();
          return nullptr;
        }) == &log);
  CHECK(on_thread([](void*) -> void* {
          testing::noting main{log, "asker"};
          greenlet a(attributes().on_start([]() -> void (*)() { pthread_exit(&log); }));
          a.switch_to();
          return nullptr;
        }) == &log);
  CHECK(log == events{"~main", "~asker"});
}

TEST_CASE("167: a tracer that throws when a forced unwind passes to the main greenlet: it passes, and the tracer's is reported") {
  static events log;
  log.clear();
  unraisables failed;
  pthread_t thread;
  REQUIRE(pthread_create(&thread, nullptr, [](void*) -> void* {
            testing::noting main{log, "main"};
            settrace([](trace_event event, const greenlet&, const greenlet& target) {
              if (!target.is_main()) return;
              CHECK(event == trace_event::thrown);
              CHECK(!event.exception());
              throw failure("too late");
            });
            greenlet([] {
              testing::noting inner{log, "inner"};
              pthread_exit(&log);
            }).switch_to();
            return nullptr;
          }, nullptr) == 0);
  void* result = nullptr;
  pthread_join(thread, &result);
  CHECK(result == &log);
  CHECK(log == events{"~inner", "~main"});
  REQUIRE(failed.seen.size() == 1);
  CHECK_THROWS_WITH(std::rethrow_exception(failed.seen[0].second), "too late");
}
#endif

TEST_CASE("tracers for all threads come and go while many threads switch") {
  std::atomic<bool> stop{false};
  std::atomic<long> told{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i)
    threads.emplace_back([&] {
      greenlet a([](int n) {
        for (;;) n = switch_to_parent(n + 1).get<int>();
      });
      for (int n = 0; !stop; ++n) {
        if (a.switch_to(n).get<int>() != n + 1) std::abort();
        greenlet([] {}).switch_to();
      }
    });
  for (int i = 0; i < 200 || told == 0; ++i) {
    settrace_all_threads([&told](trace_event, const greenlet&, const greenlet&) { ++told; });
    std::this_thread::yield();
    settrace_all_threads(nullptr);
  }
  stop = true;
  for (std::thread& t : threads) t.join();
  CHECK(told > 0);
}

TEST_CASE("a tracer that is the thread's last user of greenlets goes with the thread") {
  auto held = std::make_shared<int>(1);
  std::weak_ptr<int> watch = held;
  std::thread([held = std::move(held)]() mutable {
    settrace([held = std::move(held)](trace_event, const greenlet&, const greenlet&) {});
  }).join();
  CHECK(watch.expired());
}

TEST_CASE("a tracer's destructor at the thread's exit may use greenlets once more") {
  events log;
  std::thread([&log] {
    settrace([end = testing::at_end([&log] {
                greenlet a([&log] {
                  testing::noting n{log, "started late"};
                  switch_to_parent();
                });
                a.switch_to();
              })](trace_event, const greenlet&, const greenlet&) {});
  }).join();
  CHECK(log == events{"~started late"});
}
