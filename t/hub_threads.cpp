// SPDX-License-Identifier: MIT
// Threads with a hub each, and connections that are handed round to their servers.
#include "hub_serving.hpp"

#include <algorithm>
#include <atomic>
#include <future>
#include <memory>
#include <mutex>
#include <sched.h>
#include <stdexcept>
#include <string>
#include <sys/resource.h>
#include <system_error>
#include <thread>
#include <vector>

using namespace greenlets;
using namespace testing;

#ifdef T_ASAN
#define T_SANITIZES_OBJECTS true
#else
#define T_SANITIZES_OBJECTS false
#endif

// -- Threads ---------------------------------------------------------------------------------------

TEST_CASE("each thread has a hub, and its number; join() waits in the caller's hub") {
  const hub_guard end;
  std::atomic<int> sum{0};
  std::atomic<bool> go{false};
  hub::threads all(3, [&](std::size_t index) {
    while (!go) hub::sleep_for(milliseconds(1));
    sum += static_cast<int>(index) + 1;
  });
  CHECK(all.size() == 3);
  CHECK_FALSE(all.join(milliseconds(2)));
  auto joins = hub::spawn([&] { return all.join(hang_guard()); });
  auto also = hub::spawn([&] { return all.join(hang_guard()); });
  hub::yield();  // others run meanwhile
  go = true;
  CHECK(joins.get());
  CHECK(also.get());
  CHECK(sum == 6);
  CHECK(all.join());
}

TEST_CASE("as many threads as processors, each on its own") {
  const hub_guard end;
  const std::size_t count = hub::usable_processors();
  std::mutex lock;
  std::vector<int> where;
  hub::threads::options how;
  how.pin = true;
  hub::threads all(
      0,
      [&](hub::worker&) {
        cpu_set_t set;
        CHECK(sched_getaffinity(0, sizeof set, &set) == 0);
        const std::lock_guard guard(lock);
        if (CPU_COUNT(&set) == 1) where.push_back(sched_getcpu());
      },
      how);
  CHECK(all.size() == count);
  all.join();
  std::sort(where.begin(), where.end());
  CHECK(where.size() == count);
  CHECK(std::adjacent_find(where.begin(), where.end()) == where.end());
}

TEST_CASE("a stop is what each thread says, or throws greenlet_exit into its function; also when it comes first") {
  const hub_guard end;
  std::atomic<int> told{0}, exited{0}, began{0};
  hub::threads all(4, [&](hub::worker& self) {
    const auto leaves = at_end([&] { ++exited; });
    ++began;
    if (self.index() < 2) {
      hub::event over;
      self.on_stop([&] {
        ++told;
        over.set();
      });
      over.wait();
      CHECK(self.stop_requested());
    } else {
      hub::sleep_for(hours(1));
    }
  });
  yield_until([&] { return began == 4; });
  all.stop();
  all.stop();
  CHECK(all.join(hang_guard()));
  CHECK(told == 2);
  CHECK(exited == 4);
  for (int n = 0; n < 20; ++n) {
    hub::threads soon(2, [](hub::worker&) { hub::sleep_for(hours(1)); });
    soon.stop();
    CHECK(soon.join(hang_guard()));
  }
}

TEST_CASE("the first exception stops the others and is thrown by join(); what comes later is reported") {
  const hub_guard end;
  unraisables reported;
  {
    std::atomic<bool> others{false};
    hub::threads all(3, [&](hub::worker& self) {
      if (self.index() == 1) {
        while (!others) hub::yield();
        throw oops();
      }
      if (self.index() == 2) others = true;
      try {
        hub::sleep_for(hours(1));
      } catch (const greenlet_exit&) {
        if (self.index() == 0) throw std::runtime_error("later");
        throw;
      }
    });
    CHECK_THROWS_AS(all.join(hang_guard()), oops);
    CHECK_THROWS_AS(all.join(hang_guard()), oops);
  }
  REQUIRE(reported.seen.size() == 1);
  CHECK_THROWS_WITH(std::rethrow_exception(reported.seen[0].second), "later");
  reported.seen.clear();
}

TEST_CASE("threads that go are stopped first; what nobody has asked for is reported, what is thrown in is given on") {
  const hub_guard end;
  unraisables reported;
  events log;
  std::atomic<bool> stopping{false}, go{false};
  auto t = hub::spawn([&] {
    {
      hub::threads all(1, [&](hub::worker& self) {
        self.on_stop([&] { stopping = true; });
        while (!go) hub::sleep_for(milliseconds(1));
        throw oops();
      });
    }
    log.push_back("gone");
    hub::sleep_for(hours(1));
    log.push_back("never");
  });
  yield_until([&] { return stopping.load(); });
  t.cancel();
  hub::yield();
  CHECK(log.empty());
  go = true;
  CHECK_THROWS_AS(t.get(), hub::cancelled);
  CHECK(log == events{"gone"});
  REQUIRE(reported.seen.size() == 1);
  CHECK_THROWS_AS(std::rethrow_exception(reported.seen[0].second), oops);
  reported.seen.clear();
  CHECK_THROWS_AS(hub::threads(1, nullptr), std::invalid_argument);
}

TEST_CASE("the hub's end while threads are joined: those go on, and end with their object") {
  std::atomic<int> ended{0};
  auto all = std::make_unique<hub::threads>(2, [&](hub::worker&) {
    const auto leaves = at_end([&] { ++ended; });
    hub::sleep_for(hours(1));
  });
  auto joins = hub::spawn([&] { all->join(); });
  yield_until_waiting(1);
  hub::shutdown();
  CHECK(joins.ready());
  CHECK(ended == 0);
  all.reset();
  CHECK(ended == 2);
  hub::shutdown();
}

TEST_CASE("the hub's end waits for who waits for the end of its threads, whatever else is thrown in there") {
  // It was thrown into sixteen times, in vain, and then left where it was, with its threads and descriptors.
  std::promise<void> begun, ending, go;
  hub::event never;
  auto waits = hub::spawn([&] {
    hub::threads all(1, [&](hub::worker&) {
      begun.set_value();
      go.get_future().wait();
    });
  });
  hub::spawn([&] {
    const auto in_the_end = at_end([&] { ending.set_value(); });
    never.wait();
  });
  std::thread lets_go([&] {
    ending.get_future().wait();
    std::this_thread::sleep_for(milliseconds(10));  // longer than what went wrong took
    go.set_value();
  });
  yield_until_waiting(2);
  begun.get_future().wait();
  auto thrower = hub::spawn([&] {
    waits.handle().throw_in(greenlet_exit());
  });
  yield_until([&] { return thrower.handle().started(); });
  auto again = hub::spawn([&] {
    waits.handle().throw_in(greenlet_exit());  // in a destructor now
  });
  yield_until([&] { return again.handle().started(); });
  CHECK_FALSE(waits.ready());
  hub::shutdown();
  lets_go.join();
  CHECK(waits.ready());
  CHECK(waits.handle().dead());
}

// UBSan opens pipes to look at an exception that is made.
TEST_CASE("without descriptors, or threads, those that were started are stopped" * doctest::skip(T_SANITIZES_OBJECTS)) {
  const child c = in_child([] {
    hub::this_hub();
    try {
      const no_descriptors scope;
      hub::threads none(1, [](hub::worker&) {});
      _exit(2);
    } catch (const std::system_error& e) {
      if (std::string(e.what()).find("eventfd") == std::string::npos) _exit(3);
    }
    std::atomic<int> ran{0};
    try {
      const limited descriptors(RLIMIT_NOFILE, static_cast<rlim_t>(lowest_free() + 30));  // a hub takes more than two
      hub::threads many(40, [&](hub::worker&) {
        ++ran;
        hub::sleep_for(hours(1));
      });
      many.join();  // has no descriptor to wait on, or is told that a thread has none
      _exit(4);
    } catch (const std::system_error& e) {
      if (e.code() != std::errc::too_many_files_open) _exit(5);
    }
    hub::shutdown();
  });
  INFO(c.output);
  CHECK(c.status == 0);
}

TEST_CASE("without a descriptor to wait on, who lets his threads go waits without the hub") {
  const child c = in_child([] {
    hub::this_hub();
    std::atomic<bool> begun{false}, stopped{false};
    {
      hub::threads one(1, [&](hub::worker& w) {
        hub::event stop;
        w.on_stop([&] { stop.set(); });
        begun = true;
        stop.wait(hang_guard());
        stopped = true;
      });
      yield_until([&] { return begun.load(); });
      leave_descriptors(0);
    }
    if (!stopped) _exit(2);
    hub::shutdown();
  });
  INFO(c.output);
  CHECK(c.status == 0);
}

TEST_CASE("a thread that cannot be started is told, when those that were have been stopped") {
  const child c = in_child([] {
    hub::this_hub();
    // To root this limit is none.
    const bool root = geteuid() == 0;
    if (root && setresuid(54321, 54321, 0) < 0) _exit(2);
    const rlimit none{0, 0};
    setrlimit(RLIMIT_NPROC, &none);
    try {
      hub::threads all(3, [](hub::worker&) {});
      _exit(3);
    } catch (const std::system_error& e) {
      if (e.code() != std::errc::resource_unavailable_try_again) _exit(4);
    }
    if (root && setresuid(0, 0, 0) < 0) _exit(5);  // the counters of executed lines are root's
    hub::shutdown();
  });
  INFO(c.output);
  CHECK(c.status == 0);
}

// -- Connections handed round ----------------------------------------------------------------------

namespace {

// Threads with a server each, which says in which thread it is.
struct served_by_threads {
  hub::dispatcher d;
  std::atomic<std::size_t> ready{0};
  std::atomic<std::size_t> active[4] = {};  // of each server, as it was when it was last asked
  hub::remote reach[4];
  hub::server* servers[4];
  hub::threads all;

  served_by_threads(std::size_t count, hub::dispatcher::order how)
      : d(how), all(count, [this](hub::worker& self) { work(self); }) {
    yield_until([&] { return ready == count; });
  }
  void work(hub::worker& self) {
    hub::server s([&](hub::connection& c) {
      const char name = static_cast<char>('0' + self.index());
      char byte;
      while (c.read_some(&byte, 1))
        if (!c.write_all(&name, 1)) break;
    });
    reach[self.index()] = hub::this_hub();
    servers[self.index()] = &s;
    const auto member = d.add(s);
    self.on_stop([&s] { s.stop(milliseconds(0)); });
    ++ready;
    s.run();
  }
  void wait_until_idle(std::size_t index) {
    active[index] = 1;
    yield_until([&, last = hub::clock::time_point()]() mutable {
      if (hub::clock::now() - last > milliseconds(1)) {
        last = hub::clock::now();
        reach[index].post([this, index] { active[index] = servers[index]->statistics().active; });
      }
      return active[index] == 0;
    });
  }
};

char who_serves(hub::connection& c) {
  char byte = 0;
  CHECK(c.write_all("?", 1));
  CHECK(c.read_exactly(&byte, 1, hang_guard()));
  return byte;
}

}  // namespace

TEST_CASE("connections are handed round to the servers of other threads") {
  const hub_guard end;
  served_by_threads t(3, hub::dispatcher::order::round_robin);
  hub::listener l = anywhere();
  const hub::address where = l.local();
  auto accepts = hub::spawn([&] { t.d.run(l); });
  std::string who;
  std::vector<hub::connection> clients;
  for (int n = 0; n < 150; ++n) clients.push_back(client_of(where));
  for (auto& c : clients) who += who_serves(c);
  for (const char each : {'0', '1', '2'}) CHECK(std::count(who.begin(), who.end(), each) == 50);
  l.close();
  accepts.get();
  t.all.stop();
  CHECK(t.all.join(hang_guard()));
  CHECK(has_ended(clients[0]));
  auto [a, b] = socket_pair();
  CHECK_FALSE(t.d.give(b.release()));  // nobody is there
  char byte;
  CHECK(a.read_some(&byte, 1, hang_guard()).end());
}

TEST_CASE("the least loaded server is given the next connection") {
  const hub_guard end;
  served_by_threads t(2, hub::dispatcher::order::least_loaded);
  std::vector<hub::connection> clients;
  const auto another = [&] {
    auto [a, b] = socket_pair();
    CHECK(t.d.give(b.release()));
    clients.emplace_back(a.release());
    return who_serves(clients.back());
  };
  std::string who;
  for (int n = 0; n < 10; ++n) who += another();
  CHECK(std::count(who.begin(), who.end(), '0') == 5);
  // Those of one thread leave: it is given what comes.
  for (std::size_t n = clients.size(); n-- > 0;)
    if (who[n] == '0') clients.erase(clients.begin() + static_cast<std::ptrdiff_t>(n));
  t.wait_until_idle(0);
  for (int n = 0; n < 3; ++n) CHECK(another() == '0');
  t.all.stop();
  t.all.join();
}

TEST_CASE("what is given to a server at its limit waits for it; what has not begun when it goes is closed") {
  const hub_guard end;
  hub::dispatcher d;
  hub::server::options how;
  how.most = 1;
  auto s = std::make_unique<hub::server>(echo, how);
  auto member = std::make_unique<hub::dispatcher::membership>(d.add(*s));
  hub::connection client[4];
  for (auto& each : client) {
    auto [a, b] = socket_pair();
    CHECK(d.give(b.release()));
    each = hub::connection(a.release());
    CHECK(each.write_all("hi", 2));
  }
  char back[2];
  CHECK(client[0].read_exactly(back, 2, hang_guard()));
  for (int n = 0; n < 20; ++n) hub::yield();
  CHECK(s->statistics().accepted == 1);
  client[0].close();
  CHECK(client[1].read_exactly(back, 2, hang_guard()));
  member.reset();
  CHECK(has_ended(client[2]));
  CHECK(has_ended(client[3]));
  CHECK(s->statistics().active == 1);
  client[1].close();
  CHECK(s->stop(hang_guard()));
}

TEST_CASE("what is given to a hub that has ended, or ends before it begins, is closed") {
  hub::dispatcher d;
  auto s = std::make_unique<hub::server>(echo);
  const auto member = d.add(*s);
  auto [a, b] = socket_pair();
  auto [e, f] = socket_pair();
  const int first = b.release(), second = f.release(), other = a.release(), last = e.release();
  CHECK(d.give(first));
  hub::shutdown();
  CHECK_FALSE(d.give(second));
  char byte;
  CHECK(::read(other, &byte, 1) == 0);
  CHECK(::read(last, &byte, 1) == 0);
  ::close(other);
  ::close(last);
  s.reset();
  hub::shutdown();
}

// The same.
TEST_CASE("the dispatcher pauses without descriptors, and goes on; a server that cannot take one closes it" *
          doctest::skip(T_SANITIZES_OBJECTS)) {
  const child c = in_child([] {
    hub::dispatcher d;
    hub::server s(echo);
    const auto member = d.add(s);
    hub::listener l = anywhere();
    auto accepts = hub::spawn([&] { d.run(l); });
    hub::yield();
    const int fd = raw_client(l.local());
    const int spare = dup(0);
    {
      const no_descriptors scope;
      hub::sleep_for(milliseconds(15));
      if (s.statistics().accepted != 0) _exit(2);
      ::close(spare);
      yield_until([&] { return s.statistics().accepted == 1; });
      char back[2];
      yield_until([&] { return ::recv(fd, back, 2, MSG_DONTWAIT) == 2; });
      ::close(fd);
      yield_until([&] { return s.statistics().active == 0; });
    }
    const int file = open("/proc/self/exe", O_RDONLY);  // epoll refuses it
    if (!d.give(file)) _exit(3);
    yield_until([&] { return s.statistics().failed == 1; });
    if (fcntl(file, F_GETFD) >= 0) _exit(4);
    l.close();
    accepts.get();
    s.stop();
    hub::shutdown();
  });
  INFO(c.output);
  CHECK(c.status == 0);
}
