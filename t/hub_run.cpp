// SPDX-License-Identifier: MIT
// Running greenlets under a hub: tasks, and whose turn it is.
#include "hub_testing.hpp"

#include <algorithm>
#include <functional>
#include <memory>
#include <stdexcept>
#include <sys/eventfd.h>
#include <thread>
#include <vector>

using namespace greenlets;
using namespace testing;

namespace {

struct oops : std::runtime_error {
  explicit oops(const std::string& what = "oops") : std::runtime_error(what) {}
};

void add(events& log, const std::string& what) { log.push_back(what); }

}  // namespace

// -- Tasks ---------------------------------------------------------------------------------------

TEST_CASE("a spawned greenlet starts at the hub's next turn, as a child of the hub") {
  hub_guard guard;
  greenlet parent;
  bool started = false;
  auto t = hub::spawn([&] {
    started = true;
    parent = current().parent();
  });
  CHECK_FALSE(started);
  CHECK_FALSE(t.ready());
  CHECK_FALSE(t.handle().started());
  t.get();
  CHECK(started);
  CHECK(t.ready());
  CHECK(t.handle().dead());
  CHECK(parent.name() == "hub");
  CHECK(parent.parent().is_main());
}

TEST_CASE("a task gives what its function returned, as often as it is asked") {
  hub_guard guard;
  auto number = hub::spawn([n = 41]() mutable { return ++n; });
  CHECK(number.get() == 42);
  CHECK(number.get() == 42);
  CHECK(&number.get() == &number.get());

  auto only_moves = hub::spawn([p = std::make_unique<int>(7)]() mutable { return std::move(p); });
  const std::unique_ptr<int> taken = std::move(only_moves.get());
  CHECK(*taken == 7);

  int local = 1;
  auto decayed = hub::spawn([&]() -> const int& { return local; });
  CHECK(&decayed.get() != &local);
  CHECK(hub::run([] { return std::string("run"); }) == "run");
}

TEST_CASE("several greenlets join one task, and a deadline ends a join only") {
  hub_guard guard;
  events log;
  hub::event go;
  auto t = hub::spawn([&] {
    go.wait();
    add(log, "task");
  });
  auto a = hub::spawn([&] { t.join(), add(log, "a"); });
  auto b = hub::spawn([&] { t.join(), add(log, "b"); });
  CHECK_FALSE(t.join(milliseconds(1)));
  CHECK_FALSE(t.join(hub::clock::now()));
  CHECK(log.empty());
  go.set();
  CHECK(t.join(hang_guard()));
  a.join();
  b.join();
  CHECK(log == events{"task", "a", "b"});
  CHECK(t.join(hub::clock::time_point::min()));  // it has ended: no wait
}

TEST_CASE("a task object may go while greenlets wait for its end") {
  hub_guard guard;
  events log;
  hub::event go;
  const auto spawn = [&] { return hub::spawn([&] { return go.wait(), add(log, "task"), std::string("result"); }); };
  auto t = std::make_unique<decltype(spawn())>(spawn());
  auto joins = hub::spawn([&, &task = *t] { add(log, task.join() ? "joined" : "not joined"); });
  auto times_out = hub::spawn([&, &task = *t] { add(log, task.join(milliseconds(2)) ? "joined" : "timeout"); });
  auto cancelled = hub::spawn([&, &task = *t] { task.join(); });
  auto asks = hub::spawn([&, &task = *t] { task.get(), add(log, "asked"); });
  hub::yield();
  t.reset();
  cancelled.cancel();
  cancelled.join();
  times_out.join();
  CHECK(log == events{"timeout"});
  go.set();
  joins.join();
  asks.get();
  CHECK(log == events{"timeout", "task", "joined", "asked"});

  hub::event never;
  auto waits = std::make_unique<hub::task<void>>(hub::spawn([&] { never.wait(); }));
  const greenlet who = waits->handle();
  auto both = hub::spawn([&, &task = *waits] { CHECK_THROWS_AS(task.get(), hub::cancelled); });
  hub::yield();
  waits.reset();
  hub::cancel(who);
  both.get();
}

TEST_CASE("what a task runs ends with its greenlet, also when its object is kept") {
  hub_guard guard;
  events log;
  hub::event may_go;
  struct alignas(64) function {  // more than malloc() aligns to, and not to be copied
    events& log;
    hub::event& may_go;
    std::unique_ptr<int> only_moves = std::make_unique<int>(6);
    function(events& l, hub::event& g) : log(l), may_go(g) {}
    function(function&&) = default;
    ~function() {
      if (!only_moves) return;
      add(log, "ends");
      may_go.wait(hang_guard());
      add(log, "~function");
    }
    int operator()() { return reinterpret_cast<std::uintptr_t>(this) % 64 == 0 ? *only_moves + 1 : 0; }
  };
  auto runs = hub::spawn(function(log, may_go));
  CHECK(runs.get() == 7);  // who asks need not wait for that
  CHECK(log == events{"ends"});
  CHECK_FALSE(runs.handle().dead());
  may_go.set();
  while (!runs.handle().dead()) hub::yield();
  CHECK(log == events{"ends", "~function"});
  CHECK(runs.get() == 7);
  log.clear();
  auto never_runs = hub::spawn(function(log, may_go));
  never_runs.cancel();
  CHECK_THROWS_AS(never_runs.get(), hub::cancelled);
  CHECK(log == events{"ends", "~function"});
}

TEST_CASE("what cannot be moved into a task leaves nothing behind") {
  hub_guard guard;
  const struct refuses {
    refuses() = default;
    refuses(const refuses&) { throw oops("copied"); }
    void operator()() {}
  } f;
  CHECK_THROWS_WITH_AS(hub::spawn(f), "copied", oops);
}

TEST_CASE("what a task throws is thrown in who asks, each time, and reported nowhere") {
  hub_guard guard;
  unraisables reported;
  auto t = hub::spawn([]() -> int { throw oops("asked"); });
  CHECK(t.join());
  CHECK_THROWS_WITH_AS(t.get(), "asked", oops);
  CHECK_THROWS_AS(t.get(), oops);
  auto not_standard = hub::spawn([] { throw 5; });
  CHECK_THROWS_AS(not_standard.get(), int);
  CHECK_THROWS_AS(hub::run([] { throw oops(); }), oops);
  t = {};
  CHECK(reported.seen.empty());
}

TEST_CASE("what a task throws goes to the unraisable handler, once, when nobody asked") {
  hub_guard guard;
  unraisables reported;
  auto t = hub::spawn([] { throw oops("unasked"); });
  const greenlet who = t.handle();
  CHECK(t.join());  // join() does not ask
  CHECK(reported.seen.empty());
  t = {};
  REQUIRE(reported.seen.size() == 1);
  CHECK(reported.seen[0].first == who);
  CHECK_THROWS_WITH_AS(std::rethrow_exception(reported.seen[0].second), "unasked", oops);

  hub::spawn([] { throw oops(); });  // nobody is left who could ask
  hub::yield();
  CHECK(reported.seen.size() == 2);
  reported.seen.clear();
}

TEST_CASE("dropping a task does not stop its greenlet") {
  hub_guard guard;
  hub::event go, done;
  hub::spawn([&] {
    go.wait();
    done.set();
  });
  hub::yield();
  go.set();
  CHECK(done.wait(hang_guard()));
}

TEST_CASE("a cancelled task is unwound where it waits, and get() says so") {
  hub_guard guard;
  events log;
  hub::event never;
  auto t = hub::spawn([&] {
    noting n{log, "frame"};
    try {
      never.wait();
    } catch (const std::exception&) {
      add(log, "swallowed");  // the loop of a daemon
    } catch (const greenlet_exit& e) {
      add(log, e.why == greenlet_exit::reason::cancelled ? "cancelled" : "another reason");
      throw;
    }
  });
  hub::yield();
  t.cancel();
  t.cancel();  // twice is once
  CHECK(log.empty());  // at the hub's next turn
  CHECK_FALSE(t.ready());
  CHECK(t.join());
  CHECK(log == events{"cancelled", "~frame"});
  CHECK_THROWS_AS(t.get(), hub::cancelled);
  CHECK(t.handle().dead());
  t.cancel();
  CHECK_THROWS_WITH_AS(t.get(), "the task was cancelled", hub::cancelled);
}

TEST_CASE("cancelling what has ended does nothing") {
  hub_guard guard;
  auto t = hub::spawn([] { return 1; });
  t.join();
  t.cancel();
  hub::cancel(t.handle());
  hub::yield();
  CHECK(t.get() == 1);
  CHECK(error_of([] { hub::cancel(greenlet()); }) == errc::empty_handle);
}

TEST_CASE("a greenlet of another thread is not cancelled: the caller is told, and nothing has changed") {
  // It was taken, and the error went to the unraisable handler at the hub's next turn.
  unraisables reported;
  const greenlet unstarted([] {});
  greenlet suspended([] { switch_to_parent(); });
  suspended.switch_to();
  greenlet left;  // unstarted, of a thread that has exited
  std::thread([&, main = main_greenlet()] {
    for (const greenlet& g : {unstarted, suspended, main})
      CHECK(error_of([&] { hub::cancel(g); }) == errc::different_thread);
    CHECK(hub::statistics().turns == 0);
    hub::yield();
    left = greenlet([] {});
  }).join();
  CHECK(error_of([&] { hub::cancel(left); }) == errc::thread_exited);
  CHECK(reported.seen.empty());
  CHECK_FALSE(unstarted.dead());
  suspended.switch_to();
}

TEST_CASE("a task that is cancelled before it has started never starts") {
  hub_guard guard;
  events log;
  auto t = hub::spawn([&log, n = std::make_unique<noting>(noting{log, "callable"})] { add(log, "started"); });
  log.clear();  // the temporary
  t.cancel();
  CHECK_THROWS_AS(t.get(), hub::cancelled);
  CHECK(log == events{"~callable"});
  CHECK(t.handle().dead());
}

TEST_CASE("a task may end otherwise than it was told to: it keeps what it caught, or another exception") {
  hub_guard guard;
  hub::event never;
  auto stubborn = hub::spawn([&] {
    try {
      never.wait();
    } catch (const greenlet_exit&) {
      return std::string("kept");
    }
    return std::string("not told");
  });
  auto gone = hub::spawn([&] { never.wait(); });
  auto own = hub::spawn([] { throw greenlet_exit(); });
  hub::yield();
  stubborn.cancel();
  hub::cancel(gone.handle(), std::make_exception_ptr(oops("instead")));
  CHECK(stubborn.get() == "kept");
  CHECK_THROWS_WITH_AS(gone.get(), "instead", oops);
  CHECK_THROWS_AS(own.get(), hub::cancelled);
}

// -- Turns ---------------------------------------------------------------------------------------

// main   a    b
// yield
//        1
//        yield
//             1
//             yield
// yield
//        2 ...
TEST_CASE("those who yield go round in turn") {
  hub_guard guard;
  std::string order;
  const auto body = [&order](char name) {
    return [&order, name] {
      for (int n = 1; n <= 3; ++n) {
        order += name;
        hub::yield();
      }
    };
  };
  auto a = hub::spawn(body('a')), b = hub::spawn(body('b'));
  for (int n = 1; n <= 3; ++n) {
    hub::yield();
    order += 'm';
  }
  a.join();
  b.join();
  CHECK(order == "abmabmabm");
}

TEST_CASE("greenlets that only yield starve neither descriptors nor timers nor messages nor starts") {
  hub_guard guard;
  for (const int runaways : {1, 1100}) {  // fewer and more than a turn's budget
    CAPTURE(runaways);
    bool stop = false;
    std::vector<hub::task<void>> tasks;
    for (int n = 0; n < runaways; ++n)
      tasks.push_back(hub::spawn([&] {
        while (!stop) hub::yield();
      }));
    hub::yield();
    auto [in, out] = pipe_pair();
    char byte = 0;
    bool posted = false;
    auto reads = hub::spawn([&, &in = in] { return in.read_some(&byte, 1).bytes; });
    auto sleeps = hub::spawn([] { hub::sleep_for(milliseconds(1)); });
    auto waits = hub::spawn([] { return hub::event().wait(milliseconds(1)); });
    hub::this_hub().post([&] { posted = true; });
    yield_until([&] { return posted; });
    REQUIRE(out.write_all("x", 1));
    yield_until([&] { return reads.ready() && sleeps.ready() && waits.ready(); });
    CHECK(reads.get() == 1);
    CHECK_FALSE(waits.get());
    stop = true;
    for (auto& t : tasks) t.get();
  }
}

TEST_CASE("two that hand an object to and fro, each by one switch to the other, starve nobody") {
  hub_guard guard;
  bool stop = false;
  hub::queue<int> there, back;
  auto other = hub::spawn([&] {
    while (const auto n = there.pop()) back.push(*n + 1);
  });
  auto one = hub::spawn([&] {
    int n = 0;
    for (; !stop || n <= 1024; ++n) {  // more than a turn has
      there.push(int{n});
      if (back.pop() != n + 1) return -1;
    }
    there.close();
    return n;
  });
  auto [in, out] = pipe_pair();
  auto reads = hub::spawn([&, &in = in] {
    char byte;
    return in.read_some(&byte, 1, hang_guard()).bytes;
  });
  hub::sleep_for(milliseconds(1));
  REQUIRE(out.write_all("x", 1));
  CHECK(reads.get() == 1);
  stop = true;
  CHECK(one.get() > 1024);
  other.get();
}

TEST_CASE("who waits makes the first that is ready go on, in turn, and in between what has been spawned or cancelled") {
  hub_guard guard;
  std::string order;
  const auto goes = [&](char name) {
    return [&order, name] {
      struct at_end {
        std::string& to;
        char name;
        ~at_end() { to += static_cast<char>(name - 'a' + 'A'); }
      } said{order, name};
      order += name;
      hub::yield();
      order += name;
      hub::yield();
    };
  };
  auto a = hub::spawn(goes('a')), b = hub::spawn(goes('b'));
  hub::yield();
  auto c = hub::spawn(goes('c'));
  a.cancel();
  order += '.';
  hub::yield();
  order += '.';
  for (auto* t : {&b, &c}) t->get();
  CHECK_THROWS_AS(a.get(), hub::cancelled);
  CHECK(order == "ab.abcA.BcC");
}

TEST_CASE("a task that nobody keeps and that leaves without waiting is unwound when the hub goes on") {
  hub_guard guard;
  std::string order;
  hub::spawn([&] {
    struct at_end {
      std::string& to;
      ~at_end() { to += "unwound,"; }
    } said{order};
    hub::yield();  // from here on the hub has kept it
    order += "leaves,";
    greenlets::main_greenlet().switch_to();
    order += "never,";
  });
  hub::yield();
  hub::yield();  // waits on, though the task has switched here
  order += "main,";
  hub::yield();
  CHECK(order == "leaves,unwound,main,");
  CHECK(greenlets::counts().greenlets == 2);  // this one and the hub
}

TEST_CASE("greenlets that work between their turns do not have timers and descriptors wait for a thousand turns") {
  hub_guard guard;
  bool stop = false;
  int turns = 0;
  const auto works = [&] {
    while (!stop) {
      ++turns;
      const auto until = hub::clock::now() + milliseconds(1);
      while (hub::clock::now() < until) {
      }
      hub::yield();
    }
  };
  auto a = hub::spawn(works), b = hub::spawn(works);
  auto [in, out] = pipe_pair();
  int before = -1, read_after = -1, slept_after = -1;
  auto reads = hub::spawn([&, &in = in] {
    char byte;
    in.read_some(&byte, 1);
    read_after = turns - before;
  });
  auto sleeps = hub::spawn([&] {
    hub::sleep_for(milliseconds(1));
    slept_after = turns - before;
  });
  hub::yield();
  before = turns;
  REQUIRE(out.write_all("x", 1));
  reads.get();
  sleeps.get();
  stop = true;
  a.get();
  b.get();
  CHECK(read_after < 200);  // and not 1,024
  CHECK(slept_after < 200);
}

TEST_CASE("a greenlet that always finds data does not starve the others") {
  hub_guard guard;
  auto [a, b] = socket_pair();
  bool stop = false;
  auto echo = hub::spawn([&, &a = a] {
    char c;
    while (a.read_some(&c, 1, hang_guard())) {
      if (!a.write_all(&c, 1, hang_guard())) break;
    }
  });
  auto ping = hub::spawn([&, &b = b] {
    char c = '.';
    while (!stop) {
      b.write_all(&c, 1, hang_guard());
      b.read_some(&c, 1, hang_guard());
    }
    b.close();
  });
  hub::sleep_for(milliseconds(2));
  for (int n = 0; n < 100; ++n) hub::yield();
  stop = true;
  ping.get();
  echo.get();
}

TEST_CASE("who has a turn between descriptors may close those that come next") {
  // libuv aborted: the one whose event had come was to be watched no more, and was being closed.
  hub_guard guard;
  constexpr std::size_t count = 1500;  // more than are resumed in one turn
  rlimit limit{};
  REQUIRE(getrlimit(RLIMIT_NOFILE, &limit) == 0);
  if (limit.rlim_max < count + 100) return;  // not here
  const limited enough(RLIMIT_NOFILE, std::max<rlim_t>(limit.rlim_cur, count + 100));
  std::vector<hub::descriptor> all;
  while (all.size() < count) all.emplace_back(eventfd(0, EFD_CLOEXEC));
  std::vector<hub::task<hub::io_result>> reads;
  std::size_t got = 0;
  for (hub::descriptor& d : all)
    reads.push_back(hub::spawn([&d, &got] {
      std::uint64_t n;
      const hub::io_result r = d.read_some(&n, sizeof n);
      if (r) ++got;
      return r;
    }));
  yield_until_waiting(count);
  for (hub::descriptor& d : all) eventfd_write(d.fd(), 1);
  auto closes = hub::spawn([&] {
    while (got == 0) hub::yield();
    for (std::size_t n = 0; n < count; ++n)
      if (!reads[n].ready()) all[n].close();
  });
  closes.get();
  std::size_t closed = 0;
  for (auto& each : reads) closed += each.get().closed();
  CHECK(got + closed == count);
  CHECK(closed > 0);
}

TEST_CASE("a chain of spawns, each by the one before, starves nobody") {
  hub_guard guard;
  bool stop = false;
  std::size_t generations = 0;
  std::function<void()> next = [&] {
    ++generations;
    if (!stop) hub::spawn(next);
  };
  hub::spawn(next);
  hub::sleep_for(milliseconds(1));
  stop = true;
  hub::yield();
  hub::yield();
  CHECK(generations > 0);
  CHECK(hub::statistics().waiting == 0);
}

TEST_CASE("statistics count switches and turns, and are zero without a hub") {
  CHECK(hub::statistics().turns == 0);
  {
    hub_guard guard;
    const auto before = hub::statistics();
    for (int n = 0; n < 10; ++n) hub::yield();
    // A turn counts when it is over, and the first sleeper may be woken in the middle of one.
    hub::sleep_for(milliseconds(1));
    hub::sleep_for(milliseconds(1));
    CHECK(hub::statistics().switches >= before.switches + 20);
    CHECK(hub::statistics().turns > before.turns);
    auto t = hub::spawn([] { hub::event().wait(hang_guard()); });
    hub::yield();
    CHECK(hub::statistics().waiting == 1);
  }
  CHECK(hub::statistics().switches == 0);
}

TEST_CASE("a first use that is made while the first use is under way gets the same hub") {
  // What was spawned in the inner one was in a hub of its own, to which nobody came back.
  hub::shutdown();
  bool ran = false;
  greenlet g([&] {
    const auto end = testing::at_end([&] { hub::spawn([&] { ran = true; }); });
    switch_to_parent();
  });
  g.switch_to();
  std::thread([last = std::move(g)]() mutable { last = greenlet(); }).join();
  hub::yield();  // unwinds it first
  CHECK(ran);
  hub::shutdown();
}

TEST_CASE("a task may be moved or dropped while somebody waits for it") {
  // Who waited went on in the task's state, which had gone with it. Sanitizers see it.
  hub_guard guard;
  hub::event go;
  const auto waits = [&] {
    CHECK(go.wait(hang_guard()));
    return 1;
  };
  auto tasks = std::make_unique<std::vector<hub::task<int>>>();
  tasks->push_back(hub::spawn(waits));
  int got = 0;
  auto reader = hub::spawn([&] { got = (*tasks)[0].get(); });
  auto dropped = std::make_unique<hub::task<int>>(hub::spawn(waits));
  bool joined = false;
  auto joiner = hub::spawn([&] { joined = dropped->join(hang_guard()); });
  yield_until_waiting(4);
  for (int i = 0; i < 8; ++i) tasks->push_back(hub::spawn([] { return 0; }));
  dropped.reset();
  go.set();
  reader.get();
  joiner.get();
  CHECK(got == 1);
  CHECK(joined);
}
