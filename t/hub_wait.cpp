// SPDX-License-Identifier: MIT
// Waiting: deadlines, events, and what happens when nobody can go on or somebody disturbs.
#include "hub_testing.hpp"

#include <algorithm>
#include <csignal>
#include <limits>
#include <memory>
#include <random>
#include <stdexcept>

using namespace greenlets;
using namespace testing;

namespace {

struct oops : std::runtime_error {
  oops() : std::runtime_error("oops") {}
};

}  // namespace

// -- Deadlines -----------------------------------------------------------------------------------

TEST_CASE("deadline: never, long after now, and long before") {
  using hub::deadline;
  const auto now = hub::clock::now();
  CHECK(deadline().never());
  CHECK(deadline(hub::clock::time_point::max()).never());
  CHECK(deadline(hours::max()).never());
  CHECK(deadline(hub::clock::duration::max()).never());
  CHECK(deadline(std::chrono::duration<double>(std::numeric_limits<double>::infinity())).never());
  CHECK_FALSE(deadline(hours(24 * 365 * 100)).never());
  CHECK(deadline(std::chrono::duration<double>(0.25)).at() >= now + milliseconds(250));
  for (const deadline passed :
       {deadline(milliseconds(0)), deadline(milliseconds(-5)), deadline(hub::clock::duration::min()),
        deadline(hours::min()), deadline(std::chrono::duration<double>(-1e300))}) {
    CHECK(passed.at() <= hub::clock::now());
    CHECK_FALSE(passed.never());
  }
}

TEST_CASE("sleepers wake in the order of their times, not of their coming, and not early") {
  hub_guard guard;
  // Not in time, when the machine let us wait: they did not sleep then. Again, and later.
  bool in_time = false;
  for (milliseconds unit(3); !in_time; unit *= 2) {
    events log;
    const auto start = hub::clock::now();
    const auto sleeper = [&](const char* name, milliseconds so_long) {
      return hub::spawn([&log, start, name, so_long] {
        hub::sleep_until(start + so_long);
        log.push_back(hub::clock::now() >= start + so_long ? name : "early");
      });
    };
    auto c = sleeper("c", 3 * unit), a = sleeper("a", unit), b = sleeper("b", 2 * unit), also_b = sleeper("also b", 2 * unit);
    hub::yield();
    in_time = hub::clock::now() < start + unit;
    for (auto* t : {&c, &a, &b, &also_b}) t->get();
    if (in_time) CHECK(log == events{"a", "b", "also b", "c"});
  }
  const auto before = hub::clock::now();
  hub::sleep_for(std::chrono::microseconds(1500));
  CHECK(hub::clock::now() - before >= std::chrono::microseconds(1500));
}

TEST_CASE("hundreds of deadlines, some of which are given up, keep their order") {
  hub_guard guard;
  std::mt19937 random(1);
  bool in_time = false;
  for (milliseconds ahead(10); !in_time; ahead *= 2) {  // as above
    const auto first = hub::clock::now() + ahead;
    std::vector<hub::clock::time_point> woken;
    std::vector<hub::task<void>> tasks;
    for (int n = 0; n < 600; ++n)
      tasks.push_back(hub::spawn([&woken, when = first + std::chrono::microseconds(random() % 10000)] {
        hub::sleep_until(when);
        woken.push_back(when);
      }));
    hub::yield();
    std::size_t cancelled = 0;
    for (auto& t : tasks)
      if (random() % 3 == 0) t.cancel(), ++cancelled;
    hub::yield();
    in_time = hub::clock::now() < first;
    for (auto& t : tasks) t.join();
    if (!in_time) continue;
    CHECK(woken.size() + cancelled == tasks.size());
    CHECK(std::is_sorted(woken.begin(), woken.end()));
    CHECK(hub::statistics().waiting == 0);
  }
}

TEST_CASE("times that have passed are a yield, and a wait until then gives up") {
  hub_guard guard;
  bool ran = false;
  auto t = hub::spawn([&] { ran = true; });
  hub::sleep_for(milliseconds(-1));
  CHECK(ran);
  hub::sleep_for(hours::min());
  hub::sleep_for(hub::clock::duration::min());
  hub::sleep_until(hub::clock::time_point::min());
  hub::sleep_until(hub::clock::time_point());
  hub::sleep_for(seconds(0));
  hub::event never;
  CHECK_FALSE(never.wait(hub::clock::time_point::min()));
  CHECK_FALSE(never.wait(hub::clock::time_point()));
  CHECK_FALSE(never.wait(hours::min()));
  CHECK_FALSE(never.wait(milliseconds(-1)));
}

TEST_CASE("waits with very late deadlines end when they are woken") {
  hub_guard guard;
  hub::event e;
  std::vector<hub::task<bool>> tasks;
  for (const hub::deadline until :
       {hub::deadline(), hub::deadline(hours::max()), hub::deadline(hours(24 * 365 * 200)),
        hub::deadline(hub::clock::time_point::max() - std::chrono::nanoseconds(1))})
    tasks.push_back(hub::spawn([&e, until] { return e.wait(until); }));
  auto sleeps = hub::spawn([] { hub::sleep_for(hours(24 * 365 * 200)); });
  hub::sleep_for(milliseconds(1));  // an earlier one overtakes them
  e.set();
  for (auto& t : tasks) CHECK(t.get());
  sleeps.cancel();
  CHECK_THROWS_AS(sleeps.get(), hub::cancelled);
}

// -- Events --------------------------------------------------------------------------------------

TEST_CASE("an event wakes all that wait, in the order of their coming, and stays set") {
  hub_guard guard;
  hub::event e;
  std::string order;
  std::vector<hub::task<void>> tasks;
  for (const char name : {'a', 'b', 'c'})
    tasks.push_back(hub::spawn([&, name] {
      CHECK(e.wait());
      order += name;
    }));
  hub::yield();
  CHECK_FALSE(e.is_set());
  e.set();
  CHECK(order.empty());  // set() does not switch
  e.reset();             // who waited goes on nevertheless
  for (auto& t : tasks) t.get();
  CHECK(order == "abc");
  CHECK_FALSE(e.wait(milliseconds(1)));
  e.set();
  e.set();
  const auto switches = hub::statistics().switches;
  CHECK(e.wait());
  CHECK(e.wait(hub::clock::time_point::min()));
  CHECK(hub::statistics().switches == switches);
}

TEST_CASE("an event that goes while greenlets wait for it lets them go") {
  hub_guard guard;
  auto e = std::make_unique<hub::event>();
  auto t = hub::spawn([&e] { return e->wait(); });
  auto with_deadline = hub::spawn([&e] { return e->wait(hang_guard()); });
  hub::yield();
  e.reset();
  CHECK_FALSE(t.get());
  CHECK_FALSE(with_deadline.get());
}

// -- When nobody can go on -----------------------------------------------------------------------

TEST_CASE("when nothing could ever wake anybody, the main greenlet is told who waits") {
  hub_guard guard;
  hub::event never;
  auto t = hub::spawn([&] {
    greenlet(current()).set_name("patient");
    return never.wait();
  });
  std::string what;
  try {
    t.get();
  } catch (const hub::would_block_forever& e) {
    what = e.what();
  }
  CHECK(what.substr(0, what.find('\n')) == "this operation would block forever");
  const auto line = [](const greenlet& g, const std::string& more) {
    return "\n  greenlet " + std::to_string(g.id()) + more + " waits for another greenlet";
  };
  CHECK(what.find(line(t.handle(), " \"patient\"")) != std::string::npos);
  CHECK(what.find(line(main_greenlet(), " (main)")) != std::string::npos);

  // It is told again, and those who wait go on waiting: what has been missing can still be done.
  CHECK_THROWS_AS(never.wait(), hub::would_block_forever);
  CHECK_FALSE(t.ready());
  never.set();
  CHECK(t.get());
}

TEST_CASE("would_block_forever names twenty and counts the rest") {
  hub_guard guard;
  hub::event never;
  std::vector<hub::task<void>> tasks;
  for (int n = 0; n < 30; ++n) tasks.push_back(hub::spawn([&] { never.wait(); }));
  std::string what;
  try {
    never.wait();
  } catch (const hub::would_block_forever& e) {
    what = e.what();
  }
  CHECK(std::count(what.begin(), what.end(), '\n') == 21);
  CHECK(what.find("\n  and 11 more") != std::string::npos);
  never.set();
  for (auto& t : tasks) t.get();
}

TEST_CASE("would_block_forever finds the main greenlet also where it does not wait in the hub") {
  hub_guard guard;
  hub::event never;
  greenlet g([&] { never.wait(); });
  CHECK_THROWS_AS(g.switch_to(), hub::would_block_forever);  // control would not come back
  CHECK_FALSE(g.dead());
  g.throw_in();
  CHECK(g.dead());
  CHECK(hub::statistics().waiting == 0);
}

TEST_CASE("a greenlet that nobody waits for but that waits for time or a descriptor is no deadlock") {
  hub_guard guard;
  hub::event e;
  auto [in, out] = pipe_pair();
  auto by_time = hub::spawn([&] {
    hub::sleep_for(milliseconds(1));
    e.set();
  });
  CHECK(e.wait());
  e.reset();
  auto by_descriptor = hub::spawn([&, &in = in] {
    char c;
    in.read_some(&c, 1);
    e.set();
  });
  hub::spawn([&, &out = out] { out.write_all("x", 1); });
  CHECK(e.wait());
}

// -- Who may wait, and who disturbs them ---------------------------------------------------------

TEST_CASE("what the hub's own greenlet calls cannot wait") {
  hub_guard guard;
  errc found{};
  int caught = 0;
  auto [in, out] = socket_pair();
  auto t = hub::spawn([&, end = at_end([&, &in = in] {  // destroyed unstarted, by the hub
                             char c;
                             const std::function<void()> waits[] = {[] { hub::yield(); },
                                                                    [] { hub::sleep_for(hours(1)); },
                                                                    [] { hub::event().wait(); },
                                                                    [] { hub::event().wait(hours(1)); },
                                                                    [&] { in.read_some(&c, 1); }};
                             for (const auto& wait : waits) {
                               try {
                                 wait();
                               } catch (const error& e) {
                                 found = e.code();
                                 ++caught;
                               }
                             }
                           })] {});
  t.cancel();
  t.join();
  CHECK(found == errc::not_running);
  CHECK(caught == 5);
  CHECK(hub::statistics().waiting == 0);
  CHECK(hub::statistics().switches > 0);  // it is the same hub still
}

TEST_CASE("a greenlet that waits and is switched to waits on") {
  hub_guard guard;
  hub::event e;
  events log;
  auto waits = hub::spawn([&] {
    CHECK(e.wait());
    log.push_back("woken");
  });
  hub::yield();
  auto stray = hub::spawn([&] {
    waits.handle().switch_to("not what it waits for");
    log.push_back("not reached");
  });
  hub::yield();
  hub::yield();
  CHECK(log.empty());
  e.set();
  waits.get();
  CHECK(log == events{"woken"});
  stray.cancel();  // nobody would switch back to it
  CHECK_THROWS_AS(stray.get(), hub::cancelled);
}

TEST_CASE("whoever waits in a list that goes is told, and goes on") {
  hub_guard guard;
  auto list = std::make_unique<hub::detail::wait_list>();
  int told = 0;
  auto one = hub::spawn([&] { told += !list->wait(); });
  auto other = hub::spawn([&] { told += !list->wait(hours(1)); });
  yield_until_waiting(2);
  list.reset();
  one.get();
  other.get();
  CHECK(told == 2);
}

TEST_CASE("a greenlet that is thrown into where it waits leaves nothing behind there") {
  hub_guard guard;
  auto [quiet, other] = socket_pair();
  fill(quiet);
  hub::event e;
  hub::signals signals({SIGUSR2});
  auto sleeps = hub::spawn([] { hub::sleep_for(hours(1)); });
  hub::listener listener(hub::address("127.0.0.1", 0));
  char byte;
  hub::connection c;
  const std::pair<const char*, std::function<void()>> waits[] = {
      {"yield", [] { hub::yield(); }},
      {"sleep_for", [] { hub::sleep_for(hours(1)); }},
      {"event", [&] { e.wait(); }},
      {"event until", [&] { e.wait(hours(1)); }},
      {"join", [&] { sleeps.join(); }},
      {"join until", [&] { sleeps.join(hours(1)); }},
      {"get", [&] { sleeps.get(); }},
      {"read_some", [&, &quiet = quiet] { quiet.read_some(&byte, 1); }},
      {"read_exactly until", [&, &quiet = quiet] { quiet.read_exactly(&byte, 1, hours(1)); }},
      {"write_all", [&, &quiet = quiet] { quiet.write_all("x", 1); }},
      {"write_all until", [&, &quiet = quiet] { quiet.write_all("x", 1, hours(1)); }},
      {"wait readable", [&, &quiet = quiet] { quiet.wait(hub::direction::readable); }},
      {"hub::wait", [&, &quiet = quiet] { hub::wait(quiet.fd(), hub::direction::readable); }},
      {"accept", [&] { listener.accept(c); }},
      {"signals", [&] { signals.wait(hours(1)); }},
  };
  yield_until_waiting(1);
  for (const auto& wait : waits) {
    CAPTURE(std::string(wait.first));
    for (int round = 0; round < 2; ++round) {  // the second finds the place free
      bool caught = false;
      auto t = hub::spawn([&] {
        try {
          wait.second();
        } catch (const oops&) {
          caught = true;
        }
      });
      hub::yield();
      hub::cancel(t.handle(), std::make_exception_ptr(oops()));
      t.get();
      CHECK(caught == (wait.first != std::string("yield")));  // which was over first
      CHECK(hub::statistics().waiting == 1);

      greenlet direct([&] {
        try {
          wait.second();
        } catch (const oops&) {
          return true;
        }
        return false;
      });
      hub::spawn([&] { direct.switch_to(); });
      hub::yield();
      CHECK(hub::statistics().waiting == 2);
      CHECK(direct.throw_in(oops()).take<bool>());  // here, for we are its parent
      CHECK(hub::statistics().waiting == 1);
    }
  }
  CHECK(drain(other) > 0);
  other.write_all("!", 1);
  CHECK(quiet.read_some(&byte, 1).bytes == 1);
  CHECK(byte == '!');
  sleeps.cancel();
}
