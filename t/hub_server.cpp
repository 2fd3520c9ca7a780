// SPDX-License-Identifier: MIT
// Servers: connections that come, too many of them, and their end.
#include "hub_testing.hpp"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <memory>
#include <mutex>
#include <sched.h>
#include <stdexcept>
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

namespace {

hub::listener anywhere() { return hub::listener(hub::address("127.0.0.1", 0)); }

// Says who it is, and then what it is told, until the other side ends.
void echo(hub::connection& c) {
  char buffer[256];
  while (const auto got = c.read_some(buffer, sizeof buffer))
    if (!c.write_all(buffer, got.bytes)) break;
}

hub::connection client_of(const hub::address& where) {
  hub::connection c;
  REQUIRE(hub::connect(c, where, hang_guard()));
  return c;
}

bool answers(hub::connection& c, hub::deadline until = hang_guard()) {
  char back[2];
  return c.write_all("hi", 2) && c.read_exactly(back, 2, until) && std::string(back, 2) == "hi";
}

bool has_ended(hub::connection& c) {
  char byte;
  const auto r = c.read_some(&byte, 1, hang_guard());
  return r.end() || r.reset();
}

// A server that runs in a greenlet of its own.
struct running {
  hub::server s;
  hub::address where;
  hub::task<void> run;

  explicit running(hub::server::handler f, hub::server::options how = {}) : s(std::move(f), std::move(how)) {
    hub::listener l = anywhere();
    where = l.local();
    s.listen(std::move(l));
    run = hub::spawn([this] { s.run(); });
  }
};

struct oops : std::runtime_error {
  oops() : std::runtime_error("oops") {}
};

}  // namespace

// -- Accepting -------------------------------------------------------------------------------------

TEST_CASE("a server calls its function for each connection, in greenlets of their own, from each of its listeners") {
  const hub_guard end;
  running r(echo);
  hub::listener second = anywhere();
  const hub::address there = second.local();
  r.s.listen(std::move(second));
  CHECK(r.s.listening().size() == 2);
  auto a = client_of(r.where), b = client_of(there), c = client_of(r.where);
  for (auto* each : {&b, &a, &c, &a}) CHECK(answers(*each));
  CHECK(r.s.statistics().active == 3);
  CHECK(r.s.statistics().accepted == 3);
  a.close();
  yield_until([&] { return r.s.statistics().active == 2; });
  CHECK(r.s.statistics().failed == 0);
  CHECK_FALSE(r.run.ready());
}

TEST_CASE("many connections at once, more than are accepted in a row, are all served") {
  const hub_guard end;
  running r(echo);
  std::vector<hub::connection> clients;
  for (int n = 0; n < 300; ++n) clients.push_back(client_of(r.where));
  for (auto& c : clients) CHECK(answers(c));
  CHECK(r.s.statistics().accepted == 300);
  clients.clear();
  CHECK(r.s.stop(hang_guard()));
  CHECK(r.s.statistics().active == 0);
  r.run.get();
}

TEST_CASE("at the limit nobody is accepted, on no listener; who waits is served when one has ended") {
  const hub_guard end;
  hub::server::options how;
  how.most = 2;
  int most = 0, now = 0;
  running r(
      [&](hub::connection& c) {
        most = std::max(most, ++now);
        echo(c);
        --now;
      },
      how);
  hub::listener second = anywhere();
  const hub::address there = second.local();
  r.s.listen(std::move(second));
  auto a = client_of(r.where), b = client_of(there);
  CHECK(answers(a));
  CHECK(answers(b));
  auto c = client_of(r.where), d = client_of(there);  // in the backlogs
  CHECK(c.write_all("hi", 2));
  CHECK(d.write_all("hi", 2));
  yield_until([&] { return r.s.statistics().limited >= 2; });
  for (int n = 0; n < 50; ++n) hub::yield();
  CHECK(r.s.statistics().accepted == 2);
  a.close();
  yield_until([&] { return r.s.statistics().accepted == 3; });
  b.close();
  char back[2];
  CHECK(c.read_exactly(back, 2, hang_guard()));
  CHECK(d.read_exactly(back, 2, hang_guard()));
  CHECK(most == 2);
  // One is accepted, and not two, though both who accept were told.
  auto e = client_of(r.where), f = client_of(there);
  c.close();
  yield_until([&] { return r.s.statistics().accepted == 5; });
  for (int n = 0; n < 50; ++n) hub::yield();
  CHECK(r.s.statistics().accepted == 5);
  CHECK(most == 2);
}

TEST_CASE("what a handler throws is reported, but for greenlet_exit; the connection is closed, the server goes on") {
  const hub_guard end;
  unraisables reported;
  running r([](hub::connection& c) {
    char what;
    if (!c.read_some(&what, 1)) return;
    if (what == 'e') throw greenlet_exit();
    if (what == 'o') throw oops();
    if (what == 'i') throw 5;
  });
  for (const char* what : {"o", "e", "i", "r"}) {
    auto c = client_of(r.where);
    CHECK(c.write_all(what, 1));
    CHECK(has_ended(c));
  }
  REQUIRE(reported.seen.size() == 2);
  CHECK_THROWS_AS(std::rethrow_exception(reported.seen[0].second), oops);
  CHECK_THROWS_AS(std::rethrow_exception(reported.seen[1].second), int);
  yield_until([&] { return r.s.statistics().active == 0; });
  CHECK(r.s.statistics().accepted == 4);
  CHECK(r.s.statistics().failed == 2);
  reported.seen.clear();
}

TEST_CASE("a handler may move its connection away, which then goes on") {
  const hub_guard end;
  hub::connection kept;
  running r([&](hub::connection& c) { kept = std::move(c); });
  auto c = client_of(r.where);
  yield_until([&] { return kept.is_open() && r.s.statistics().active == 0; });
  CHECK(kept.write_all("x", 1));
  char got;
  CHECK(c.read_exactly(&got, 1, hang_guard()));
}

TEST_CASE("a server serves connections that it has not accepted; after stop() it closes them, and listeners") {
  const hub_guard end;
  hub::server s(echo);
  auto [a, b] = socket_pair();
  s.serve(hub::connection(b.release()));
  char back[2];
  CHECK(a.write_all("hi", 2));
  CHECK(a.read_exactly(back, 2, hang_guard()));
  CHECK(s.statistics().accepted == 1);
  a.close();
  CHECK(s.stop(hang_guard()));
  auto [c, d] = socket_pair();
  s.serve(hub::connection(d.release()));
  CHECK(c.read_some(back, 1, hang_guard()).end());
  hub::listener l = anywhere();
  const hub::address where = l.local();
  s.listen(std::move(l));
  CHECK(s.listening().empty());
  hub::connection refused;
  CHECK(hub::connect(refused, where, hang_guard()).error == std::errc::connection_refused);
  s.run();  // is over already
}

TEST_CASE("a server without a function, or with a limit of nobody, is refused; so is running it twice") {
  const hub_guard end;
  CHECK_THROWS_AS(hub::server(nullptr), std::invalid_argument);
  hub::server::options how;
  how.most = 0;
  CHECK_THROWS_AS(hub::server(echo, how), std::invalid_argument);
  running r(echo);
  hub::yield();
  CHECK(error_of([&] { r.s.run(); }) == errc::already_waiting);
  auto c = client_of(r.where);
  CHECK(answers(c));
}

// -- The end ---------------------------------------------------------------------------------------

TEST_CASE("stop() refuses who comes from then on, and waits for those who are there") {
  const hub_guard end;
  running r(echo);
  auto c = client_of(r.where);
  CHECK(answers(c));
  auto stops = hub::spawn([&] { return r.s.stop(hang_guard()); });
  hub::yield();
  hub::connection late;
  CHECK(hub::connect(late, r.where, hang_guard()).error == std::errc::connection_refused);
  CHECK(answers(c));
  CHECK_FALSE(stops.ready());
  CHECK_FALSE(r.run.ready());
  c.close();
  CHECK(stops.get());
  r.run.get();
  CHECK(r.s.stop());  // again
}

TEST_CASE("after the grace period those that are left are cancelled, and waited for; that is told") {
  const hub_guard end;
  int refuses = 0, destroyed = 0;
  hub::event go;
  running r([&](hub::connection& c) {
    const auto gone = at_end([&] { ++destroyed; });
    try {
      echo(c);
    } catch (const greenlet_exit&) {
      ++refuses;
      go.wait();  // says good-bye
      throw;
    }
  });
  auto a = client_of(r.where), b = client_of(r.where);
  CHECK(answers(a));
  CHECK(answers(b));
  auto first = hub::spawn([&] { return r.s.stop(hang_guard()); });
  auto second = hub::spawn([&] { return r.s.stop(milliseconds(1)); });  // the shorter counts
  yield_until([&] { return refuses == 2; });
  auto third = hub::spawn([&] { return r.s.stop(milliseconds(0)); });  // does not cancel them again
  hub::sleep_for(milliseconds(2));
  CHECK(refuses == 2);
  CHECK(destroyed == 0);
  CHECK_FALSE(second.ready());
  go.set();
  CHECK_FALSE(second.get());
  CHECK_FALSE(first.get());
  CHECK_FALSE(third.get());
  CHECK(destroyed == 2);
  r.run.get();
  CHECK(r.s.statistics().failed == 0);
  CHECK(has_ended(a));
}

TEST_CASE("a connection's own greenlet may stop the server, and is not waited for by itself") {
  const hub_guard end;
  hub::server* server = nullptr;
  bool by_themselves = true, finished = false;
  running r([&](hub::connection& c) {
    char what;
    if (!c.read_some(&what, 1)) return;
    by_themselves = server->stop(milliseconds(1));
    hub::yield();
    finished = true;
  });
  server = &r.s;
  auto idle = client_of(r.where), admin = client_of(r.where);
  yield_until([&] { return r.s.statistics().active == 2; });
  CHECK(admin.write_all("!", 1));
  r.run.get();
  CHECK_FALSE(by_themselves);
  CHECK(finished);  // run() waits for it
  CHECK(has_ended(idle));
}

TEST_CASE("a signal stops a server that the main greenlet runs") {
  const hub_guard end;
  hub::listener l = anywhere();
  const hub::address where = l.local();
  hub::server s(echo);
  s.listen(std::move(l));
  bool by_themselves = false;
  hub::spawn([&, term = std::make_shared<hub::signals>(std::initializer_list<int>{SIGUSR1})] {
    CHECK(term->wait(hang_guard()) == SIGUSR1);
    by_themselves = s.stop(hang_guard());
  });
  hub::spawn([&] {
    auto c = client_of(where);
    CHECK(answers(c));
    raise(SIGUSR1);
    CHECK(answers(c));
  });
  s.run();
  yield_until([&] { return by_themselves; });
}

TEST_CASE("run() can be cancelled: connections and listeners stay, and it can be called again") {
  const hub_guard end;
  running r(echo);
  auto a = client_of(r.where);
  CHECK(answers(a));
  r.run.cancel();
  CHECK_THROWS_AS(r.run.get(), hub::cancelled);
  CHECK(answers(a));
  auto b = client_of(r.where);  // in the backlog
  CHECK(b.write_all("hi", 2));
  for (int n = 0; n < 20; ++n) hub::yield();
  CHECK(r.s.statistics().accepted == 1);
  r.run = hub::spawn([&] { r.s.run(); });
  char back[2];
  CHECK(b.read_exactly(back, 2, hang_guard()));
  CHECK(r.s.statistics().accepted == 2);
}

TEST_CASE("a cancelled stop() leaves the connections; they have been told nothing") {
  const hub_guard end;
  running r(echo);
  auto a = client_of(r.where);
  CHECK(answers(a));
  auto stops = hub::spawn([&] { return r.s.stop(); });
  yield_until([&] { return r.s.listening().empty(); });
  hub::yield();
  stops.cancel();
  CHECK_THROWS_AS(stops.get(), hub::cancelled);
  CHECK(answers(a));
  a.close();
  CHECK(r.s.stop(hang_guard()));
  r.run.get();
}

TEST_CASE("a server that goes cancels its connections, ends run(), and gives on what was thrown in meanwhile") {
  const hub_guard end;
  events log;
  hub::event go;
  auto r = std::make_unique<running>([&](hub::connection& c) {
    struct waits {
      events& log;
      hub::event& go;
      ~waits() {
        go.wait();
        log.push_back("connection ended");
      }
    } in_its_destructor{log, go};
    echo(c);
  });
  auto run = std::move(r->run);
  auto a = client_of(r->where);
  CHECK(answers(a));
  auto ends = hub::spawn([&] {
    r.reset();
    log.push_back("server gone");
    hub::sleep_for(hours(1));
    log.push_back("never");
  });
  yield_until([&] { return r == nullptr; });
  hub::yield();
  hub::yield();
  ends.cancel();
  hub::yield();
  CHECK(log.empty());
  go.set();
  CHECK_THROWS_AS(ends.get(), hub::cancelled);
  CHECK(log == events{"connection ended", "server gone"});
  run.get();
}

TEST_CASE("a server destroyed by one of its connections leaves that one") {
  const hub_guard end;
  std::unique_ptr<running> r;
  bool went_on = false;
  r = std::make_unique<running>([&](hub::connection& c) {
    char what;
    if (!c.read_some(&what, 1)) return;
    r->run = {};
    r.reset();
    went_on = static_cast<bool>(c.write_all("x", 1));
  });
  auto idle = client_of(r->where), a = client_of(r->where);
  CHECK(a.write_all("!", 1));
  char got;
  CHECK(a.read_exactly(&got, 1, hang_guard()));
  CHECK(went_on);
  CHECK(has_ended(idle));
  CHECK(has_ended(a));
}

TEST_CASE("the hub's end ends run(), stop() and the connections; what is left can go afterwards") {
  int ended = 0;
  auto r = std::make_unique<running>([&](hub::connection& c) {
    const auto gone = at_end([&] { ++ended; });
    echo(c);
  });
  auto a = client_of(r->where);
  CHECK(answers(a));
  auto stops = std::make_unique<hub::server>(echo);
  auto [b, c] = socket_pair();
  stops->serve(hub::connection(c.release()));
  auto stopping = hub::spawn([&] { stops->stop(); });
  hub::yield();
  hub::yield();
  hub::shutdown();
  CHECK(ended == 1);
  CHECK(r->run.ready());
  CHECK(stopping.ready());
  CHECK(r->s.statistics().active == 0);
  CHECK(hub::statistics().turns == 0);
  r.reset();
  stops.reset();
  hub::shutdown();
}

TEST_CASE("listeners can be taken back, open: who has come is served by the next server") {
  const hub_guard end;
  running r(echo);
  auto a = client_of(r.where);
  CHECK(answers(a));
  auto taken = r.s.take_listeners();
  REQUIRE(taken.size() == 1);
  CHECK(taken[0].local().text() == r.where.text());
  CHECK(r.s.listening().empty());
  auto b = client_of(r.where);
  CHECK(b.write_all("hi", 2));
  for (int n = 0; n < 20; ++n) hub::yield();
  CHECK(r.s.statistics().accepted == 1);
  CHECK(answers(a));
  hub::server next(echo);
  next.listen(std::move(taken[0]));
  auto runs = hub::spawn([&] { next.run(); });
  char back[2];
  CHECK(b.read_exactly(back, 2, hang_guard()));
  CHECK(next.statistics().accepted == 1);
  a.close();
  CHECK(r.s.stop(hang_guard()));
  r.run.get();
  b.close();
  CHECK(next.stop(hang_guard()));
  runs.get();
  CHECK(next.take_listeners().empty());
}

// -- Shortages -------------------------------------------------------------------------------------

namespace {

// Leaves the process so many descriptors.
void leave_descriptors(int count) {
  const int free = dup(0);
  ::close(free);
  rlimit limit;
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = static_cast<rlim_t>(free + count);
  setrlimit(RLIMIT_NOFILE, &limit);
}

// Gives them back. UBSan opens pipes to look at what it is called on, an exception for example.
void leave_all_descriptors() {
  rlimit limit;
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

// A connected socket that the hub does not know, with two bytes on their way.
int raw_client(const hub::address& where) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0 || ::connect(fd, where.data(), where.size()) != 0 || ::write(fd, "hi", 2) != 2) _exit(9);
  return fd;
}

}  // namespace

TEST_CASE("without descriptors accepting pauses, is told once, and goes on as soon as a connection has ended") {
  const child c = in_child([] {
    int told = 0;
    std::error_code why;
    hub::server::options how;
    how.on_shortage = [&](std::error_code e) {
      ++told;
      why = e;
      if (told == 2) throw oops();  // is reported, and does no harm
    };
    unraisables reported;
    running r(echo, how);
    hub::connection first = client_of(r.where);
    int waiting[2];
    yield_until([&] { return r.s.statistics().accepted == 1; });
    for (int& fd : waiting) fd = raw_client(r.where);
    leave_descriptors(0);
    if (!answers(first)) _exit(2);
    const auto turns = hub::statistics().turns;
    const auto begin = hub::clock::now();
    hub::sleep_for(milliseconds(400));  // pauses of 10, 20, 40, 80, 160 and 320 ms begin in it
    const auto paused = r.s.statistics().shortages;
    if (told != 1 || why != std::errc::too_many_files_open) _exit(3);
    if (r.s.statistics().accepted != 1) _exit(4);
    const auto elapsed = hub::clock::now() - begin;
    if (paused < 3 || (elapsed < milliseconds(600) && paused > 6)) _exit(5);
    if (elapsed < milliseconds(600) && hub::statistics().turns - turns > 40) _exit(6);  // it was not busy
    const auto asked = hub::clock::now();
    first.close();  // gives two back
    yield_until([&] { return r.s.statistics().accepted == 3; });
    char back[2];
    for (int fd : waiting) yield_until([&] { return ::recv(fd, back, 2, MSG_DONTWAIT) == 2; });
    if (hub::clock::now() - asked > milliseconds(250)) _exit(7);
    // It begins anew: told again.
    rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur += 1;
    setrlimit(RLIMIT_NOFILE, &limit);
    raw_client(r.where);
    yield_until([&] { return told == 2; });
    yield_until([&] { return reported.seen.size() == 1; });
    ::close(waiting[0]);
    yield_until([&] { return r.s.statistics().accepted == 4; });
    reported.seen.clear();
    ::close(waiting[1]);
    if (r.s.stop(milliseconds(1))) _exit(8);  // the last one stays
    r.run.get();
    hub::shutdown();
  });
  INFO(c.output);
  CHECK(c.status == 0);
}

TEST_CASE("stop() ends a pause at once") {
  const child c = in_child([] {
    running r(echo);
    hub::yield();
    raw_client(r.where);
    leave_descriptors(0);
    yield_until([&] { return r.s.statistics().shortages == 3; });
    const auto begin = hub::clock::now();
    if (!r.s.stop()) _exit(2);
    r.run.get();
    if (hub::clock::now() - begin > milliseconds(35)) _exit(3);  // the third lasts 40
    hub::shutdown();
  });
  INFO(c.output);
  CHECK(c.status == 0);
}

TEST_CASE("should the hook end the greenlet that accepts, there is another after a pause") {
  const child c = in_child([] {
    hub::server::options how;
    int told = 0;
    how.on_shortage = [&](std::error_code) {
      if (++told == 1) throw greenlet_exit();
    };
    running r(echo, how);
    hub::yield();
    const int fd = raw_client(r.where);
    leave_descriptors(0);
    yield_until([&] { return told == 3; });  // by the first, by run(), by the second
    ::close(fd);
    yield_until([&] { return r.s.statistics().accepted == 1; });
    r.s.stop();
    r.run.get();
    hub::shutdown();
  });
  INFO(c.output);
  CHECK(c.status == 0);
}

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

// UBSan opens pipes to look at an exception that is made.
TEST_CASE("without descriptors, or threads, those that were started are stopped" * doctest::skip(T_SANITIZES_OBJECTS)) {
  const child c = in_child([] {
    hub::this_hub();
    leave_descriptors(0);
    try {
      hub::threads none(1, [](hub::worker&) {});
      _exit(2);
    } catch (const std::system_error& e) {
      leave_all_descriptors();
      if (std::string(e.what()).find("eventfd") == std::string::npos) _exit(3);
    }
    leave_descriptors(30);  // a hub takes more than two
    std::atomic<int> ran{0};
    try {
      hub::threads many(40, [&](hub::worker&) {
        ++ran;
        hub::sleep_for(hours(1));
      });
      many.join();  // has no descriptor to wait on, or is told that a thread has none
      _exit(4);
    } catch (const std::system_error& e) {
      leave_all_descriptors();
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
    leave_descriptors(0);
    hub::sleep_for(milliseconds(15));
    if (s.statistics().accepted != 0) _exit(2);
    ::close(spare);
    yield_until([&] { return s.statistics().accepted == 1; });
    char back[2];
    yield_until([&] { return ::recv(fd, back, 2, MSG_DONTWAIT) == 2; });
    ::close(fd);
    yield_until([&] { return s.statistics().active == 0; });
    leave_all_descriptors();
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
