// SPDX-License-Identifier: MIT
// Servers: connections that come, too many of them, and their end.
#include "hub_serving.hpp"

#include <algorithm>
#include <csignal>
#include <memory>
#include <stdexcept>
#include <string>
#include <sys/resource.h>
#include <system_error>
#include <vector>

using namespace greenlets;
using namespace testing;

namespace {

bool answers(hub::connection& c, hub::deadline until = hang_guard()) {
  char back[2];
  return c.write_all("hi", 2) && c.read_exactly(back, 2, until) && std::string(back, 2) == "hi";
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

TEST_CASE("the greenlets of a server's connections have the attributes that it was given") {
  const hub_guard end;
  std::string name;
  hub::server::options how;
  how.each = attributes().name("client").stack_size(1024 * 1024);
  running r([&](hub::connection& c) { name = current().name(), echo(c); }, how);
  auto c = client_of(r.where);
  CHECK(answers(c));
  CHECK(name == "client");
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

TEST_CASE("a client that sends a byte now and then, and those that send nothing, hold nobody up") {
  const hub_guard end;
  running r(echo);
  std::vector<hub::connection> silent;
  for (int n = 0; n < 50; ++n) silent.push_back(client_of(r.where));
  auto slow = client_of(r.where), quick = client_of(r.where);
  auto drips = hub::spawn([&] {
    std::string back;
    for (char each = 'a'; each <= 'z'; ++each) {
      if (!slow.write_all(&each, 1)) break;
      hub::sleep_for(milliseconds(4));
      if (!slow.read_exactly(&each, 1, hang_guard())) break;
      back += each;
    }
    return back;
  });
  unsigned answered = 0;
  while (!drips.ready() && answers(quick)) ++answered;
  CHECK(drips.get() == "abcdefghijklmnopqrstuvwxyz");
  CHECK(answered > 26);
  CHECK(r.s.statistics().active == 52);
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

TEST_CASE("a server without a function, with a limit of nobody or with a parent, is refused; so is running it twice") {
  const hub_guard end;
  CHECK_THROWS_AS(hub::server(nullptr), std::invalid_argument);
  hub::server::options how;
  how.most = 0;
  CHECK_THROWS_AS(hub::server(echo, how), std::invalid_argument);
  how = {};
  how.each = attributes().parent(current());
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
