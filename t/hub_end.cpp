// SPDX-License-Identifier: MIT
// A hub's end, by shutdown() or by its thread's: everybody's destructors run, and may wait.
#include "hub_testing.hpp"

#include <algorithm>
#include <atomic>
#include <csignal>
#include <memory>
#include <stdexcept>
#include <thread>
#include <tuple>

using namespace greenlets;
using namespace testing;

namespace {

// Waits in its destructor, and notes how that ended.
struct waits_at_end {
  events& log;
  std::string name;
  std::function<void()> wait;
  ~waits_at_end() {
    try {
      wait();
      log.push_back(name + " done");
    } catch (const greenlet_exit&) {
      log.push_back(name + " interrupted");
    }
  }
};

// Runs `f` in a thread that then ends, as its hub does.
template <class F>
void in_thread(F&& f) {
  std::thread(std::forward<F>(f)).join();
}

}  // namespace

// -- shutdown() ----------------------------------------------------------------------------------

TEST_CASE("shutdown throws greenlet_exit into everybody who waits, wherever that is") {
  events log;
  auto [quiet, other] = socket_pair();
  hub::event never;
  hub::listener listener(hub::address("127.0.0.1", 0));
  const auto wait_as = [&](const char* name, std::function<void()> wait) {
    return hub::spawn([&log, name, wait = std::move(wait)] {
      noting n{log, name};
      try {
        wait();
      } catch (const greenlet_exit& e) {
        if (e.why == greenlet_exit::reason::cancelled) log.push_back(name);
        throw;
      }
    });
  };
  char c;
  hub::connection to;
  auto sleeps = wait_as("sleep", [] { hub::sleep_for(hours(1)); });
  auto waits = wait_as("event", [&] { never.wait(); });
  auto joins = wait_as("join", [&] { waits.join(); });
  auto reads = wait_as("read", [&, &quiet = quiet] { quiet.read_some(&c, 1); });
  auto accepts = wait_as("accept", [&] { listener.accept(to); });
  hub::yield();
  hub::shutdown();
  std::sort(log.begin(), log.end());
  CHECK(log == events{"accept", "event", "join", "read", "sleep", "~accept", "~event", "~join", "~read", "~sleep"});
  for (auto* t : {&sleeps, &waits, &joins, &reads, &accepts}) {
    CHECK(t->ready());
    CHECK(t->handle().dead());
    CHECK_THROWS_AS(t->get(), hub::cancelled);
  }
  CHECK(hub::statistics().turns == 0);  // the hub has gone
}

TEST_CASE("shutdown without a hub, and a second one, do nothing") {
  hub::shutdown();
  hub::yield();
  hub::shutdown();
  hub::shutdown();
  CHECK(hub::statistics().turns == 0);
}

TEST_CASE("only the main greenlet shuts a hub down") {
  hub_guard guard;
  errc found{};
  hub::run([&] { found = error_of([] { hub::shutdown(); }); });
  CHECK(found == errc::not_running);
}

TEST_CASE("what was spawned and has not started is destroyed at shutdown, and its task knows") {
  events log;
  auto t = hub::spawn([n = std::make_unique<noting>(noting{log, "callable"}), &log] { log.push_back("called"); });
  log.clear();  // the temporary
  hub::shutdown();
  CHECK(log == events{"~callable"});
  REQUIRE(t.ready());
  CHECK_THROWS_AS(t.get(), hub::cancelled);
}

TEST_CASE("destructors that shutdown runs may wait: for time, for each other, for a descriptor") {
  events log;
  hub::event never, last_words;
  auto [in, out] = socket_pair();
  char c = 0;
  hub::spawn([&] {
    waits_at_end w{log, "sleep", [] {
                     for (int n = 0; n < 30; ++n) hub::sleep_for(milliseconds(1));
                   }};
    never.wait();
  });
  hub::spawn([&] {
    waits_at_end w{log, "event", [&] { last_words.wait(); }};
    never.wait();
  });
  hub::spawn([&, &out = out] {
    waits_at_end w{log, "yields, sets and writes", [&] {
                     for (int n = 0; n < 100; ++n) hub::yield();
                     last_words.set();
                     out.write_all("!", 1);
                   }};
    never.wait();
  });
  hub::spawn([&, &in = in] {
    waits_at_end w{log, "read", [&] { in.read_some(&c, 1); }};
    never.wait();
  });
  hub::spawn([&] {
    waits_at_end w{log, "spawn", [&] { hub::spawn([] { hub::sleep_for(milliseconds(1)); }).join(); }};
    never.wait();
  });
  yield_until_waiting(5);
  hub::shutdown();
  std::sort(log.begin(), log.end());
  CHECK(log == events{"event done", "read done", "sleep done", "spawn done", "yields, sets and writes done"});
  CHECK(c == '!');
}

TEST_CASE("what is spawned while shutdown unwinds the others does not start any more") {
  hub::event never;
  int generations = 0, destroyed = 0;
  std::function<void()> body = [&] {
    const auto again = at_end([&] {
      ++generations;
      hub::spawn([&, end = at_end([&] { ++destroyed; })] { body(); });
    });
    never.wait();
  };
  hub::spawn(body);
  hub::yield();
  hub::shutdown();
  CHECK(generations == 1);
  CHECK(destroyed == 1);
}

TEST_CASE("destructors that wait for each other for ever do not keep shutdown from ending") {
  hub::event never;
  events log;
  auto t = hub::spawn([&] {
    waits_at_end w{log, "destructor", [&] { never.wait(); }};
    never.wait();
  });
  hub::yield();
  hub::shutdown();
  CHECK_FALSE(t.ready());
  t.handle().switch_to();  // as one that refuses
  CHECK(t.ready());
  CHECK(log == events{"destructor done"});
}

TEST_CASE("cancelling a greenlet again while a destructor of it waits does not disturb that") {
  hub_guard guard;
  hub::event never, go;
  events log;
  auto t = hub::spawn([&] {
    waits_at_end w{log, "destructor", [&] { go.wait(); }};
    never.wait();
  });
  hub::yield();
  t.cancel();
  t.cancel();
  hub::yield();
  t.cancel();
  hub::cancel(t.handle(), std::make_exception_ptr(std::runtime_error("not now")));
  hub::yield();
  CHECK(log.empty());
  go.set();
  CHECK_THROWS_AS(t.get(), hub::cancelled);
  CHECK(log == events{"destructor done"});
}

TEST_CASE("a greenlet that refuses to end is left, and finds its hub closed") {
  auto gate = std::make_unique<hub::event>();
  unsigned refused = 0;
  bool let_go = false;
  {
    auto t = hub::spawn([&] {
      while (!let_go) {
        try {
          gate->wait();
        } catch (const greenlet_exit&) {
          ++refused;
        }
      }
    });
    hub::yield();
    hub::shutdown();
    CHECK(refused > 0);
    CHECK(hub::statistics().turns == 0);
    CHECK_FALSE(t.ready());
    // Another hub does not know it.
    hub::sleep_for(milliseconds(1));
    CHECK(hub::statistics().waiting == 0);
    hub::shutdown();
    let_go = true;
    t.handle().switch_to();
    CHECK(t.ready());
    CHECK(t.handle().dead());
  }
}

TEST_CASE("after shutdown a second hub works, and what belonged to the first says that it is closed") {
  auto [in, out] = socket_pair();
  hub::signals signals({SIGUSR2});
  hub::listener listener(hub::address("127.0.0.1", 0));
  hub::event e;
  const hub::remote first = hub::this_hub();
  hub::shutdown();

  char c;
  hub::connection to;
  CHECK(in.is_open());
  CHECK(in.read_some(&c, 1).closed());
  CHECK(out.write_all("x", 1).closed());
  CHECK(out.try_write("x", 1).closed());
  CHECK(out.wait(hub::direction::writable).closed());
  CHECK(listener.accept(to).closed());
  CHECK_FALSE(signals.wait(hang_guard()).has_value());
  CHECK_FALSE(signals.wait().has_value());
  CHECK_FALSE(first.post([] {}));
  CHECK(hub::statistics().turns == 0);  // none of these has made a hub

  auto sets = hub::spawn([&] { e.set(); });
  CHECK(e.wait());
  auto [a, b] = socket_pair();
  CHECK(a.write_all("y", 1));
  CHECK(b.read_some(&c, 1));
  CHECK_FALSE(first.post([] {}));
  CHECK(in.read_some(&c, 1).closed());
  sets.get();
  a.close();
  b.close();
  hub::shutdown();
}

TEST_CASE("shutdown from a main greenlet that a descriptor has woken, with others ready") {
  auto [in, out] = socket_pair();
  hub::event never;
  int ended = 0;
  for (int n = 0; n < 3; ++n)
    hub::spawn([&] {
      const auto end = at_end([&] { ++ended; });
      never.wait();
    });
  auto writes = hub::spawn([&out = out] { out.write_all("x", 1); });
  char c;
  CHECK(in.read_some(&c, 1));  // resumed from within libuv's poll
  hub::spawn([] {});
  hub::shutdown();
  CHECK(ended == 3);
  CHECK(hub::statistics().turns == 0);
}

// Of many descriptors that are ready, libuv has not told of all when the first are resumed, and the main greenlet with them.
TEST_CASE("shutdown from a main greenlet whose turn comes between two descriptors") {
  constexpr int all = 100, at_once = 32;
  bool slow = false;
  SUBCASE("others have been resumed") {}
  SUBCASE("others have been resumed, and when the turn's time is over others are ready") { slow = true; }
  std::vector<decltype(socket_pair())> pairs;
  hub::event turn;
  int read = 0, closed = 0;
  for (int i = 0; i < all; ++i) {
    pairs.push_back(socket_pair());
    hub::spawn([&, i] {
      char c;
      const auto got = pairs[static_cast<std::size_t>(i)].first.read_some(&c, 1);
      ++(got ? read : closed);
      for (const auto until = hub::clock::now() + milliseconds(5); slow && read == 1 && hub::clock::now() < until;) continue;
      turn.set();
    });
  }
  hub::yield();
  for (auto& p : pairs) REQUIRE(p.second.write_all("x", 1));
  turn.wait();
  const int had_read = read;
  CHECK((had_read > 0 && had_read < all));
  hub::shutdown();
  CHECK(read <= had_read + at_once);  // who was ready has its turn; a slow machine makes the first case the second
  CHECK((closed == 0 && hub::statistics().turns == 0));
}

// The first takes so long that the turn's time is over, and the rest have theirs between two descriptors.
TEST_CASE("the hub survives what is thrown into its own greenlet while others have their turn between two descriptors") {
  hub_guard guard;
  unraisables reported;
  greenlet the_hub;
  hub::run([&] { the_hub = current().parent(); });
  constexpr int all = 100;
  std::vector<decltype(socket_pair())> pairs;
  std::vector<hub::task<void>> tasks;
  hub::event rest;
  int resumed = 0, done = 0, thrower = -1;
  for (int i = 0; i < all; ++i) pairs.push_back(socket_pair());
  for (int i = 0; i < all; ++i)
    tasks.push_back(hub::spawn([&, i] {
      char c;
      pairs[static_cast<std::size_t>(i)].first.read_some(&c, 1);
      const int place = ++resumed;
      const auto until = hub::clock::now() + milliseconds(5);
      while (place == 1 && hub::clock::now() < until) continue;
      if (place == 40) {
        thrower = i;
        the_hub.throw_in(std::runtime_error("stray"));
      }
      if (++done == all - 1) rest.set();
    }));
  hub::yield();
  for (auto& p : pairs) REQUIRE(p.second.write_all("x", 1));
  REQUIRE(rest.wait(hang_guard()));
  CHECK(reported.seen.size() == 1);
  REQUIRE(thrower >= 0);
  CHECK_FALSE(tasks[static_cast<std::size_t>(thrower)].ready());
  tasks[static_cast<std::size_t>(thrower)].cancel();
  CHECK_THROWS_AS(tasks[static_cast<std::size_t>(thrower)].get(), hub::cancelled);
  the_hub = {};
  reported.seen.clear();
}

TEST_CASE("the hub survives what is thrown into its own greenlet") {
  hub_guard guard;
  unraisables reported;
  greenlet the_hub;
  hub::run([&] { the_hub = current().parent(); });
  auto sleeps = hub::spawn([] { hub::sleep_for(milliseconds(1)); });
  bool waits = false;
  SUBCASE("where it starts somebody") {}
  SUBCASE("where it resumes somebody, below libuv") { waits = true; }
  auto throws = hub::spawn([&] {
    if (waits) hub::sleep_for(milliseconds(1));
    the_hub.throw_in(std::runtime_error("stray"));
  });
  sleeps.get();
  hub::sleep_for(milliseconds(2));  // it was stray by now, and the hub still works
  CHECK(reported.seen.size() == 1);
  CHECK_FALSE(throws.ready());
  throws.cancel();
  CHECK_THROWS_AS(throws.get(), hub::cancelled);
  the_hub = {};
  reported.seen.clear();
}

// -- The thread's end ----------------------------------------------------------------------------

TEST_CASE("a thread's exit ends its hub and unwinds who waits there") {
  events log;
  hub::task<void> handed_out;
  greenlet g;
  in_thread([&] {
    auto [in, out] = socket_pair();
    hub::event never;
    const auto wait_as = [&](const char* name, std::function<void()> wait) {
      return hub::spawn([&log, name, wait = std::move(wait)] {
        noting n{log, name};
        try {
          wait();
        } catch (const greenlet_exit& e) {
          if (e.why == greenlet_exit::reason::thread_exit) log.push_back(name);
          throw;
        }
      });
    };
    // What they wait for goes before they do: they are unwound from where they then are.
    auto shared = std::make_shared<ends>(std::move(in), std::move(out));
    auto event = std::make_shared<hub::event>();
    wait_as("sleep", [] { hub::sleep_for(hours(1)); });
    g = wait_as("event", [event] { event->wait(); }).handle();
    wait_as("read", [shared] {
      char c;
      shared->first.read_some(&c, 1);
    });
    wait_as("signals", [] { hub::signals({SIGUSR2}).wait(); });
    hub::yield();
    wait_as("not started", [] {});
  });
  std::sort(log.begin(), log.end());
  CHECK(log == events{"event", "read", "signals", "sleep", "~event", "~read", "~signals", "~sleep"});
  CHECK(g.state() == greenlet_state::unwound);
}

TEST_CASE("destructors that a thread's exit runs may wait, whether their greenlets are older than the hub or not") {
  for (const bool older : {false, true}) {
    CAPTURE(older);
    events log;
    in_thread([&] {
      auto event = std::make_shared<hub::event>();
      const auto body = [&log, event](const char* name, std::function<void()> wait) {
        return [&log, event, name, wait = std::move(wait)] {
          waits_at_end w{log, name, wait};
          event->wait();
        };
      };
      const auto sleep = [] {
        for (int n = 0; n < 20; ++n) hub::sleep_for(std::chrono::microseconds(100));
      };
      if (older) {
        // Started before there is a hub.
        greenlet a([inner = body("a", sleep)] {
          switch_to_parent();
          inner();
        });
        a.switch_to();
        hub::spawn([a] { a.switch_to(); });
      } else {
        hub::spawn(body("a", sleep));
      }
      hub::spawn(body("b", [] { hub::yield(); }));
      auto last = std::make_shared<hub::event>();
      hub::spawn(body("c", [last] { last->wait(); }));
      hub::spawn(body("d", [last] {
        hub::sleep_for(milliseconds(1));
        last->set();
      }));
      hub::spawn(body("e", [] { hub::spawn([] { hub::yield(); }).join(); }));
      hub::yield();
      hub::yield();
    });
    std::sort(log.begin(), log.end());
    CHECK(log == events{"a done", "b done", "c done", "d done", "e done"});
  }
}

TEST_CASE("a thread may exit right after its hub was made, or after its shutdown, or with messages left") {
  in_thread([] { hub::this_hub(); });
  in_thread([] {
    hub::spawn([] { hub::sleep_for(hours(1)); });
    hub::yield();
    hub::shutdown();
  });
  in_thread([] {
    hub::shutdown();
    hub::yield();
    hub::shutdown();
    hub::spawn([] {});
  });
  int called = 0;
  std::thread::id destroyed_by, owner;
  hub::remote outlives;
  in_thread([&] {
    owner = std::this_thread::get_id();
    outlives = hub::this_hub();
    outlives.post([&, end = at_end([&] { destroyed_by = std::this_thread::get_id(); })] { ++called; });
  });
  CHECK(called == 0);
  CHECK(destroyed_by == owner);
  CHECK_FALSE(outlives.post([&] { ++called; }));
  CHECK(called == 0);
}

TEST_CASE("a program without standard streams may have a hub, and fork") {
  // libuv aborted in the forked process: what it had there were 0, 1 and 2.
  const child c = in_child([] {
    for (int fd : {0, 1, 2}) close(fd);
    hub::this_hub();
    const pid_t pid = fork();
    if (pid == 0) _exit(0);
    int status = -1;
    waitpid(pid, &status, 0);
    hub::shutdown();
    _exit(status == 0 ? 0 : 2);
  });
  CHECK(c.status == 0);
}

// In a child process: what such a greenlet has stays for ever.
TEST_CASE("a greenlet that refuses to end does not keep its thread, and is reported") {
  const child c = in_child([] {
    unsigned refused = 0;
    greenlet g;
    in_thread([&] {
      auto event = std::make_shared<hub::event>();
      g = hub::spawn([&refused, event] {
            for (;;) {
              try {
                event->wait();
              } catch (const greenlet_exit&) {
                ++refused;
              }
            }
          }).handle();
      hub::yield();
    });
    if (refused == 0) _exit(2);
    if (!g.dead()) _exit(3);
  });
  INFO(c.output);
  CHECK(c.status == 0);
  CHECK(c.output.find("greenlet_exit did not kill") != std::string::npos);
}

TEST_CASE("descriptors of a thread that has exited say that they are closed, and close") {
  hub::descriptor in, out;
  in_thread([&] { std::tie(in, out) = socket_pair(); });
  char c;
  CHECK(in.is_open());
  CHECK(in.read_some(&c, 1).closed());
  in.close();
  CHECK_FALSE(in.is_open());
}

TEST_CASE("hundreds of threads, each with greenlets that wait in a hub, end and leave nothing") {
  std::atomic<int> ended{0};
  for (int round = 0; round < 10; ++round) {
    std::vector<std::thread> threads;
    for (int n = 0; n < 20; ++n)
      threads.emplace_back([&ended, n] {
        auto event = std::make_shared<hub::event>();
        auto pair = std::make_shared<ends>(socket_pair());
        for (int g = 0; g < 5; ++g)
          hub::spawn([&ended, event, pair, g] {
            const auto end = at_end([&ended] {
              hub::yield();
              ++ended;
            });
            char c;
            if (g == 0)
              pair->first.read_some(&c, 1);
            else if (g % 2)
              event->wait();
            else
              hub::sleep_for(hours(1));
          });
        hub::yield();
        if (n % 2) hub::shutdown();
      });
    for (auto& t : threads) t.join();
  }
  CHECK(ended == 1000);
}

TEST_CASE("what a greenlet waits for that its hub has left behind may still happen, and may go") {
  // Setting the event, and its end, went round for ever: the waiter was in its list, but counted as ready.
  auto gate = std::make_unique<hub::event>();
  bool let_go = false;
  auto t = hub::spawn([&] {
    while (!let_go) {
      try {
        gate->wait();
      } catch (const greenlet_exit&) {
      }
    }
  });
  hub::yield();
  hub::shutdown();
  gate->set();
  gate.reset();
  CHECK_FALSE(t.ready());
  let_go = true;
  t.handle().switch_to();
  CHECK(t.ready());
}

TEST_CASE("a wait, and a spawn, on whose way user code ends the thread's hub") {
  // The wait went on in a hub that had ended; the spawn in its memory.
  const auto ends_the_thread = [] {
    greenlet g([] {
      const auto end = at_end([] { unwind_thread(); });
      switch_to_parent();
    });
    g.switch_to();
    std::thread([last = std::move(g)]() mutable { last = greenlet(); }).join();
  };
  std::thread([&] {
    hub::event never;
    hub::this_hub();
    ends_the_thread();
    CHECK_FALSE(never.wait(hang_guard()));
    bool ran = false;
    hub::this_hub();
    ends_the_thread();
    auto t = hub::spawn([&] { ran = true; });
    CHECK(t.handle().parent().name() == "hub");
    CHECK_FALSE(t.handle().parent().dead());
    t.get();
    CHECK(ran);
  }).join();
}
