// SPDX-License-Identifier: MIT
// PostgreSQL through libpq: all the ways in which something ends early or is lost; and pools.
#include "hub_postgres.hpp"

#include <set>
#include <thread>

using namespace greenlets;
using namespace testing;
namespace libpq = hub::libpq;

// -- Deadlines and cancelling ----------------------------------------------------------------------------

TEST_CASE("a deadline ends every wait, and the connection is in order for the next") {
  POSTGRES_OR_SKIP(server);
  libpq::connection c = server.connect();
  c.execute("create temporary table t (n int)");
  CHECK_THROWS_AS(c.execute("select pg_sleep(1000)", {}, soon), libpq::timed_out);
  check_usable(c);
  CHECK_THROWS_AS(c.prepare("select 1", hub::clock::time_point()), libpq::timed_out);
  check_usable(c);
  CHECK_THROWS_AS(
      [&] {
        for (const libpq::row& r : libpq::rows(c, "select n, pg_sleep(n / 3 * 1000) from generate_series(1, 9) n", {}, soon))
          CHECK(r.get<int>(0) < 3);
      }(),
      libpq::timed_out);
  check_usable(c);
  CHECK_THROWS_AS(
      [&] {
        libpq::copy_out out(c, "copy (select n, pg_sleep(n / 3 * 1000) from generate_series(1, 9) n) to stdout", soon);
        while (out.next()) continue;
      }(),
      libpq::timed_out);
  check_usable(c);
  // Where nobody holds the connection up but another greenlet.
  auto holder = hub::spawn([&] { c.execute("select pg_sleep(0.2)"); });
  yield_until_waiting(1);
  CHECK_THROWS_AS(c.execute("select 1", {}, soon), libpq::timed_out);
  CHECK_THROWS_AS(libpq::transaction(c, soon), libpq::timed_out);
  holder.get();
  check_usable(c);
  // timeouts of a scope are none of ours.
  CHECK_FALSE(hub::with_timeout(soon, [&] { c.execute("select pg_sleep(1000)"); }));
  check_usable(c);
}

TEST_CASE("a deadline while something large is sent to a server that does not read, in a statement and in COPY") {
  POSTGRES_OR_SKIP(server);
  libpq::connection c = server.connect(), watcher = server.connect();
  c.execute("create temporary table t (n int, s text)");
  const pid_t backend = c.backend();
  const std::string large(10'000'000, 'x');
  REQUIRE(kill(backend, SIGSTOP) == 0);
  CHECK_THROWS_AS(c.execute("select length($1), pg_sleep(1000)", {large}, soon), libpq::timed_out);
  REQUIRE(kill(backend, SIGCONT) == 0);
  check_usable(c);
  {
    libpq::copy_in in(c, "copy t (s) from stdin", milliseconds(100));
    REQUIRE(kill(backend, SIGSTOP) == 0);
    CHECK_THROWS_AS(in.write(large), libpq::timed_out);
    REQUIRE(kill(backend, SIGCONT) == 0);
  }
  check_usable(c);
  CHECK(count(c, "t") == 0);
}

TEST_CASE("a greenlet is cancelled at each of its waits, and the connection is in order for the next") {
  POSTGRES_OR_SKIP(server);
  libpq::connection c = server.connect();
  c.execute("create temporary table t (s text)");
  cancelled_at_its_wait([&] { c.execute("select pg_sleep(1000)"); });
  check_usable(c);
  cancelled_at_its_wait([&] {
    libpq::rows r(c, "select n, pg_sleep(n / 2 * 1000) from generate_series(1, 9) n");
    while (r.next()) continue;
  });
  check_usable(c);
  cancelled_at_its_wait([&] {
    libpq::copy_out out(c, "copy (select n, pg_sleep(n / 2 * 1000) from generate_series(1, 9) n) to stdout");
    while (out.next()) continue;
  });
  check_usable(c);
  cancelled_at_its_wait([&] { c.wait_notification(); });
  check_usable(c);
  {
    libpq::copy_in in(c, "copy t from stdin");
    cancelled_at_its_wait([&] { c.execute("select 1"); });  // stands behind
  }
  check_usable(c);
  const pid_t backend = c.backend();
  auto writes = hub::spawn([&] {
    libpq::copy_in in(c, "copy t from stdin");
    REQUIRE(kill(backend, SIGSTOP) == 0);
    in.write(std::string(10'000'000, 'x'));
  });
  yield_until([&] { return hub::statistics().waiting == 1; });
  hub::sleep_for(soon);
  writes.cancel();
  CHECK_THROWS_AS(writes.get(), hub::cancelled);
  REQUIRE(kill(backend, SIGCONT) == 0);
  check_usable(c);
  cancelled_at_its_wait([&] {
    libpq::transaction t(c);
    c.execute("insert into t values ('lost')");
    c.execute("select pg_sleep(1000)");
  });
  CHECK(count(c, "t") == 0);
}

TEST_CASE("a server that is to leave a statement and does not: the connection is closed, and others are told") {
  POSTGRES_OR_SKIP(server);
  const int before = open_descriptors();
  // Its process does not react; then nobody takes the cancelling either.
  for (const bool all_of_it : {false, true}) {
    CAPTURE(all_of_it);
    libpq::connection c = server.connect();
    c.set_patience(soon);
    const pid_t stopped = all_of_it ? server.pid() : c.backend();
    REQUIRE(kill(stopped, SIGSTOP) == 0);
    CHECK_THROWS_AS(c.execute("select pg_sleep(1000)", {}, soon), libpq::timed_out);
    CHECK(c.is_open());
    CHECK_THROWS_AS(c.execute("select 1", {}, hang_guard()), libpq::connection_error);
    CHECK_FALSE(c.is_open());
    CHECK_THROWS_AS(c.execute("select 1"), libpq::connection_error);
    CHECK_THROWS_AS(c.native(), libpq::connection_error);
    REQUIRE(kill(stopped, SIGCONT) == 0);
  }
  server.wait_ready();
  yield_until([&] { return open_descriptors() == before; });  // the cancelling that was left behind has come through
}

TEST_CASE("the hub ends while greenlets wait for a server, and while a connection is being mended") {
  POSTGRES_OR_SKIP(server);
  const int before = open_descriptors();
  libpq::connection c = server.connect(), d = server.connect(), idle = server.connect();
  bool unwound = false;
  hub::spawn([&] {
    const auto note = at_end([&] { unwound = true; });
    libpq::transaction t(c);
    for (const libpq::row& r : libpq::rows(c, "select pg_sleep(1000)")) static_cast<void>(r);
  });
  auto mended = hub::spawn([&] { d.execute("select pg_sleep(1000)", {}, milliseconds(1)); });
  CHECK_THROWS_AS(mended.get(), libpq::timed_out);
  yield_until([&] { return hub::statistics().waiting >= 1; });
  hub::shutdown();
  CHECK(unwound);
  for (libpq::connection* each : {&c, &d, &idle}) {
    CHECK_FALSE(each->is_open());
    CHECK_THROWS_AS(each->execute("select 1"), libpq::connection_error);
  }
  yield_until([&] { return open_descriptors() == before; });  // a cancelling that was under way
}

// -- Connecting, and losing connections ------------------------------------------------------------------

TEST_CASE("connecting is refused with what libpq says, and a string that is none at once") {
  POSTGRES_OR_SKIP(server);
  server.connect().execute("create role secret login password 'right'");
  CHECK(libpq::connect(server.conninfo("user=secret password=right")).is_open());
  CHECK(libpq::connect("postgresql:///postgres?user=test&host=" + server.directory_of_socket()).is_open());
  const auto refused = [](const std::string& conninfo) -> std::string {
    try {
      libpq::connect(conninfo, hang_guard());
    } catch (const libpq::connection_error& e) {
      return e.what();
    }
    return "was not refused";
  };
  CHECK(refused(server.conninfo("user=secret password=wrong")).find("password authentication failed") != std::string::npos);
  CHECK(refused(server.conninfo("user=nobody_like_that")).find("does not exist") != std::string::npos);
  CHECK(refused("host=/nowhere user=test").find("/nowhere") != std::string::npos);
  CHECK(refused("host=no.such.name.invalid user=test").find("no.such.name.invalid") != std::string::npos);
  int port;
  {
    const silent gone;
    port = gone.listener.local().port();
  }
  CHECK(refused("host=127.0.0.1 user=x port=" + std::to_string(port)).find("refused") != std::string::npos);
  CHECK(refused("host=127.0.0.1,127.0.0.1 port=1,2,3 user=x").find("could not match 3 port numbers") != std::string::npos);
  CHECK(refused("service=none_of_that").find("none_of_that") != std::string::npos);
  CHECK_THROWS_AS(libpq::connect("nonsense"), std::invalid_argument);
  // One host after the other, by name, number and file.
  const std::string dead = std::to_string(port), rest = ",5432 user=test dbname=postgres";
  libpq::connection c = libpq::connect(
      "host=localhost,127.0.0.1," + server.directory_of_socket() + " port=" + dead + "," + dead + rest, hang_guard());
  check_usable(c);
  const std::string numbers = "hostaddr=127.0.0.1, host=localhost," + server.directory_of_socket();
  check_usable(c = libpq::connect(numbers + " port=" + dead + rest, hang_guard()));
}

TEST_CASE("a server that accepts and never answers: connecting ends by deadline, cancelling and the hub's end") {
  if (!postgres::running()) return;
  silent server;
  {
    const hub_guard end;
    CHECK_THROWS_AS(libpq::connect(server.conninfo(), soon), libpq::timed_out);
    CHECK_THROWS_AS(libpq::connect(server.conninfo(), hub::clock::time_point()), libpq::timed_out);
    cancelled_at_its_wait([&] { libpq::connect(server.conninfo()); });
    hub::spawn([&] { libpq::connect(server.conninfo()); });
    yield_until_waiting(1);
  }
  // One that hangs up in the midst.
  const hub_guard end;
  hub::listener other(hub::address("127.0.0.1", 0));
  auto hangs_up = hub::spawn([&] {
    hub::connection c;
    other.accept(c);
    char byte;
    c.read_some(&byte, 1);
  });
  const std::string to = "host=localhost gssencmode=disable user=x port=" + std::to_string(other.local().port());
  CHECK_THROWS_AS(libpq::connect(to, hang_guard()), libpq::connection_error);
  hangs_up.get();
}

TEST_CASE("a session that is terminated, at rest and in the midst of a statement, is lost") {
  POSTGRES_OR_SKIP(server);
  libpq::connection boss = server.connect(), c = server.connect(), d = server.connect(), e = server.connect();
  const auto end_of = [&](int backend) { boss.execute("select pg_terminate_backend($1, 10000)", {backend}, hang_guard()); };
  auto sleeps = hub::spawn([&] { c.execute("select pg_sleep(1000)"); });
  until_active(boss, c.backend());
  end_of(c.backend());
  try {
    sleeps.get();
    FAIL("was not lost");
  } catch (const libpq::connection_error& lost) {
    CHECK(lost.sqlstate() == "57P01");  // admin_shutdown
  }
  CHECK_FALSE(c.is_open());
  end_of(d.backend());
  CHECK(d.is_open());
  CHECK_THROWS_AS(d.execute("select 1"), libpq::connection_error);
  CHECK_FALSE(d.is_open());
  auto listens = hub::spawn([&] { e.wait_notification(); });
  hub::yield();
  end_of(e.backend());
  CHECK_THROWS_AS(listens.get(), libpq::connection_error);
  libpq::connection f = server.connect();
  f.execute("create temporary table t (s text)");
  libpq::copy_in in(f, "copy t from stdin");
  end_of(f.backend());
  CHECK_THROWS_AS(
      [&] {
        for (const std::string large(1'000'000, 'x');;) in.write(large);
      }(),
      libpq::connection_error);
}

TEST_CASE("a server that is killed in the midst of a statement") {
  POSTGRES_OR_SKIP(server);
  {
    libpq::connection c = server.connect(), d = server.connect(), e = server.connect();
    auto sleeps = hub::spawn([&] { c.execute("select pg_sleep(1000)"); });
    until_active(d, c.backend());
    REQUIRE(kill(c.backend(), SIGKILL) == 0);
    CHECK_THROWS_AS(sleeps.get(), libpq::connection_error);
    // The server ends all other sessions for it, and starts anew.
    CHECK_THROWS_AS(e.wait_notification(hang_guard()), libpq::connection_error);
  }
  server.wait_ready();
}

TEST_CASE("a connection that is closed, was never open, has moved or belongs to another thread") {
  POSTGRES_OR_SKIP(server);
  libpq::connection none;
  CHECK_FALSE(none.is_open());
  CHECK_THROWS_AS(none.execute("select 1"), libpq::connection_error);
  CHECK_THROWS_AS(none.backend(), libpq::connection_error);
  libpq::connection c = server.connect();
  auto sleeps = hub::spawn([&] { c.execute("select pg_sleep(1000)"); });
  auto stands_behind = hub::spawn([&] { c.execute("select 1"); });
  yield_until_waiting(2);
  c.close();
  CHECK_THROWS_AS(sleeps.get(), libpq::connection_error);
  CHECK_THROWS_AS(stands_behind.get(), libpq::connection_error);
  c = server.connect();
  libpq::connection moved = std::move(c);
  CHECK_FALSE(c.is_open());  // NOLINT: that is the question
  c = std::move(moved);
  check_usable(c);
  libpq::pool p(server.conninfo(), 1);
  std::thread([&] {
    CHECK(error_of([&] { c.execute("select 1"); }) == errc::different_thread);
    CHECK(error_of([&] { c.native(); }) == errc::different_thread);
    CHECK(error_of([&] { p.acquire(); }) == errc::different_thread);
    CHECK_FALSE(c.is_open());
  }).join();
  check_usable(c);
}

TEST_CASE("a child process that has a copy of a connection does not end it") {
  POSTGRES_OR_SKIP(server);
  libpq::connection c = server.connect();
  const child went = in_child([&] { c.close(); });
  CHECK(WIFEXITED(went.status));
  check_usable(c);
}

TEST_CASE("without descriptors a connection is refused as the system refuses it, and the next is had") {
  POSTGRES_OR_SKIP(server);
  libpq::connection c = server.connect();
  {
    const no_descriptors none;
    CHECK_THROWS_AS(server.connect(), std::exception);
  }
  check_usable(c);
  // The server is to be told to leave a statement: there are none for that either.
  {
    const no_descriptors none;
    CHECK_THROWS_AS(c.execute("select pg_sleep(1000)", {}, soon), libpq::timed_out);
    CHECK_THROWS_AS(c.execute("select 1", {}, hang_guard()), libpq::connection_error);
  }
  CHECK_FALSE(c.is_open());
  check_usable(c = server.connect());
}

// -- Pools -----------------------------------------------------------------------------------------------

TEST_CASE("a thousand statements of fifty greenlets, over a pool of five") {
  POSTGRES_OR_SKIP(server);
  libpq::pool p(server.conninfo(), 5);
  std::set<int> backends;
  std::size_t sum = 0, most = 0;
  {
    hub::group all;
    for (int who = 0; who < 50; ++who)
      all.spawn([&, who] {
        for (int n = 0; n < 20; ++n) {
          libpq::lease db = p.acquire(hang_guard());
          most = std::max(most, p.in_use());
          backends.insert(db->backend());
          sum += db->execute(db->prepare("select $1::int"), {who * 20 + n}, hang_guard()).get<std::size_t>(0, 0);
        }
      });
    all.wait();
  }
  CHECK(sum == 999 * 1000 / 2);
  CHECK(most == 5);
  CHECK(backends.size() == 5);
  CHECK(p.idle() == 5);
  CHECK(p.in_use() == 0);
}

TEST_CASE("a pool that is used up makes wait, to the deadline, until cancelled, or until one comes back") {
  POSTGRES_OR_SKIP(server);
  libpq::pool p(server.conninfo(), 1);
  libpq::lease only = p.acquire();
  CHECK_THROWS_AS(p.acquire(soon), libpq::timed_out);
  cancelled_at_its_wait([&] { p.acquire(); });
  auto waits = hub::spawn([&] { return p.acquire()->backend(); });
  yield_until_waiting(1);
  const int backend = only->backend();
  only = libpq::lease();
  CHECK(waits.get() == backend);
  CHECK(p.idle() == 1);
  // Cancelled while it connects: its place is free again.
  silent deaf;
  libpq::pool q(deaf.conninfo(), 1);
  for (int n = 0; n < 3; ++n) cancelled_at_its_wait([&] { q.acquire(); });
  CHECK_THROWS_AS(q.acquire(soon), libpq::timed_out);
  CHECK(q.in_use() == 0);
}

TEST_CASE("what a lease had begun is rolled back or cancelled, before the next has the connection") {
  POSTGRES_OR_SKIP(server);
  libpq::pool p(server.conninfo(), 1);
  const int backend = p.acquire()->backend();
  p.acquire()->execute("begin");
  libpq::lease db = p.acquire();
  CHECK(db->backend() == backend);
  check_usable(*db);
  CHECK_THROWS_AS(db->execute("select pg_sleep(1000)", {}, soon), libpq::timed_out);
  db = libpq::lease();
  db = p.acquire(hang_guard());
  CHECK(db->backend() == backend);
  check_usable(*db);
  db->execute("begin");
  CHECK_THROWS_AS(db->execute("select pg_sleep(1000)", {}, soon), libpq::timed_out);
  db = libpq::lease();
  db = p.acquire(hang_guard());
  CHECK(db->backend() == backend);
  check_usable(*db);
}

TEST_CASE("a connection that was lost is thrown away, in use, at rest or while it was mended") {
  POSTGRES_OR_SKIP(server);
  libpq::connection boss = server.connect();
  const int before = open_descriptors();
  libpq::pool p(server.conninfo(), 2);
  const auto end_of = [&](int backend) { boss.execute("select pg_terminate_backend($1, 10000)", {backend}, hang_guard()); };
  int first;
  {
    libpq::lease db = p.acquire();
    end_of(first = db->backend());
    CHECK_THROWS_AS(db->execute("select 1"), libpq::connection_error);
  }
  CHECK(p.idle() == 0);
  const int second = p.acquire()->backend();
  CHECK(second != first);
  CHECK(p.idle() == 1);
  end_of(second);
  {
    libpq::lease db = p.acquire();
    CHECK(db->backend() != second);
    check_usable(*db);
    db->set_patience(soon);
    first = db->backend();
    REQUIRE(kill(first, SIGSTOP) == 0);
    CHECK_THROWS_AS(db->execute("select 1", {}, soon), libpq::timed_out);
    REQUIRE(p.acquire()->execute("select 1").rows() == 1);
    CHECK(p.idle() == 1);
  }
  {
    // One is still being mended, and then lost: the other one first, then a new one.
    libpq::lease a = p.acquire(), b = p.acquire(hang_guard());
    CHECK(a->backend() != first);
    CHECK(b->backend() != first);
    check_usable(*a);
    check_usable(*b);
    REQUIRE(kill(first, SIGCONT) == 0);
    yield_until([&] { return open_descriptors() == before + 2 * 2; });  // libpq's and the hub's; no cancelling's
  }
}

TEST_CASE("leases outlive their pool, and a pool its hub") {
  POSTGRES_OR_SKIP(server);
  libpq::lease db;
  {
    libpq::pool p(server.conninfo(), 2);
    db = p.acquire();
    p.acquire();
  }
  check_usable(*db);
  libpq::pool q(server.conninfo(), 1);
  q.acquire();
  hub::shutdown();
  check_usable(*q.acquire());
  CHECK(q.idle() == 1);
}

TEST_CASE("a statement that ends by itself while it is told to: nothing of it hits the next") {
  POSTGRES_OR_SKIP(server);
  libpq::connection c = server.connect();
  for (int n = 0; n < 60; ++n) {
    try {
      c.execute("select pg_sleep(0.002)", {}, milliseconds(1 + n % 4));
    } catch (const libpq::timed_out&) {
      // Or not: both are right.
    }
    check_usable(c);
  }
}
