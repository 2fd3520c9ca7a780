// SPDX-License-Identifier: MIT
// PostgreSQL through libpq: statements and values, streams, COPY, notifications, transactions.
#include "hub_postgres.hpp"

#include <limits>
#include <stdexcept>

using namespace greenlets;
using namespace testing;
namespace libpq = hub::libpq;

// -- Statements and values -------------------------------------------------------------------------------

TEST_CASE("a statement gives rows and columns, while other greenlets go on") {
  POSTGRES_OR_SKIP(server);
  libpq::connection c = server.connect();
  int others = 0;
  auto other = hub::spawn([&] {
    for (;; hub::yield()) ++others;
  });
  const libpq::result r = c.execute("select n, n::text || '!' as t, null as z from generate_series(1, 3) n, pg_sleep(0.02)");
  CHECK(others > 1);
  other.cancel();
  REQUIRE(r.rows() == 3);
  REQUIRE(r.columns() == 3);
  CHECK(r.name(1) == "t");
  CHECK(r.column("z") == 2);
  CHECK(r.type(0) == 23);  // int4
  CHECK(r.value(2, 1) == "3!");
  CHECK(r.get<int>(1, 0) == 2);
  CHECK_FALSE(r.is_null(0, 0));
  CHECK(r.is_null(0, 2));
  CHECK(r.value(0, 2).empty());
  CHECK_FALSE(r.get<std::optional<int>>(0, 2).has_value());
  CHECK(r.get<std::optional<int>>(0, 0) == 1);
  CHECK(r.affected() == 3);
  CHECK(r.command() == "SELECT 3");
  CHECK(PQntuples(r.native()) == 3);
}

TEST_CASE("what a result has not is refused, and so is a value that is not what it is asked for as") {
  POSTGRES_OR_SKIP(server);
  libpq::connection c = server.connect();
  const libpq::result r = c.execute("select 70000, 'abc', null, '', true");
  CHECK_THROWS_AS(r.value(1, 0), std::out_of_range);
  CHECK_THROWS_AS(r.value(0, 5), std::out_of_range);
  CHECK_THROWS_AS(r.name(5), std::out_of_range);
  CHECK_THROWS_AS(r.column("nobody"), std::out_of_range);
  CHECK_THROWS_AS(r.get<short>(0, 0), std::out_of_range);
  CHECK_THROWS_AS(r.get<int>(0, 1), std::invalid_argument);
  CHECK_THROWS_AS(r.get<int>(0, 2), std::invalid_argument);
  CHECK_THROWS_AS(r.get<int>(0, 3), std::invalid_argument);
  CHECK_THROWS_AS(r.get<bool>(0, 1), std::invalid_argument);
  CHECK(r.get<bool>(0, 4));
  CHECK(r.get<std::string_view>(0, 1) == "abc");
  const libpq::result nothing;
  CHECK(nothing.rows() == 0);
  CHECK(nothing.columns() == 0);
  CHECK(nothing.affected() == 0);
  CHECK(nothing.command().empty());
}

TEST_CASE("parameters of every kind arrive as they are, and nothing in them is SQL") {
  POSTGRES_OR_SKIP(server);
  libpq::connection c = server.connect();
  const std::string quoted = "it's \"quoted\"; drop table x; \\ \xc3\xa4";
  const std::optional<std::string> some = "some", none;
  const libpq::result r = c.execute(
      "select $1::text, $2::bigint, $3::float8, $4::bool, $5::text, $6::text, $7::text, $8::text, $9::text, $10::numeric",
      {quoted, std::numeric_limits<std::int64_t>::min(), 0.1, true, nullptr, std::string_view("a view of it").substr(2, 4),
       some, none, std::nullopt, std::numeric_limits<std::uint64_t>::max()},
      hang_guard());
  CHECK(r.value(0, 0) == quoted);
  CHECK(r.get<std::int64_t>(0, 1) == std::numeric_limits<std::int64_t>::min());
  CHECK(r.get<double>(0, 2) == 0.1);
  CHECK(r.get<bool>(0, 3));
  CHECK(r.is_null(0, 4));
  CHECK(r.get<std::string>(0, 5) == "view");
  CHECK(r.value(0, 6) == "some");
  CHECK(r.is_null(0, 7));
  CHECK(r.is_null(0, 8));
  CHECK(r.get<std::uint64_t>(0, 9) == std::numeric_limits<std::uint64_t>::max());
  for (const double d : {1e300, -std::numeric_limits<double>::infinity(), std::numeric_limits<double>::denorm_min()})
    CHECK(c.execute("select $1::float8", {d}).get<double>(0, 0) == d);
  CHECK(c.execute("select $1::float8 = 'NaN'", {std::numeric_limits<double>::quiet_NaN()}).get<bool>(0, 0));
}

TEST_CASE("bytes go both ways as they are, ten million of them too") {
  POSTGRES_OR_SKIP(server);
  libpq::connection c = server.connect();
  for (const std::size_t size : {0u, 1000u, 10'000'000u}) {
    const std::string sent = pattern(size);
    const libpq::result r =
        c.execute("select $1::bytea, length($1)", {libpq::parameter::binary(sent)}, hang_guard(), libpq::format::binary);
    CHECK(r.value(0, 0).size() == sent.size());
    CHECK((r.value(0, 0) == sent));
  }
  CHECK(libpq::parameter::binary({}).data() != nullptr);
  CHECK_THROWS_AS(libpq::parameter::binary({"", std::size_t{INT_MAX} + 1}), std::length_error);
}

TEST_CASE("a zero byte in a text is refused: behind it all would be lost") {
  POSTGRES_OR_SKIP(server);
  libpq::connection c = server.connect();
  const std::string with_zero("a\0b", 3);
  CHECK_THROWS_AS(c.execute(with_zero), std::invalid_argument);
  CHECK_THROWS_AS(c.execute("select $1", {with_zero}), std::invalid_argument);
  CHECK_THROWS_AS(c.execute("select $1", {std::string_view(with_zero)}), std::invalid_argument);
  CHECK_THROWS_AS(c.prepare(with_zero), std::invalid_argument);
  CHECK_THROWS_AS(c.listen(with_zero), std::invalid_argument);
  CHECK_THROWS_AS(libpq::copy_in(c, with_zero), std::invalid_argument);
  CHECK_THROWS_AS(libpq::connect(with_zero), std::invalid_argument);
  check_usable(c);
}

TEST_CASE("what the server refuses says why, and the connection goes on") {
  POSTGRES_OR_SKIP(server);
  libpq::connection c = server.connect();
  CHECK(sqlstate_of([&] { c.execute("selec 1"); }) == "42601");
  CHECK(sqlstate_of([&] { c.execute("select $1::int", {"x"}); }) == "22P02");
  CHECK(sqlstate_of([&] { c.execute("select 1; select 2"); }) == "42601");
  c.execute("create temporary table t (id int constraint above check (id > 0))");
  try {
    c.execute("insert into t values (-1)");
    FAIL("was not refused");
  } catch (const libpq::server_error& e) {
    CHECK(e.sqlstate() == "23514");
    CHECK(e.constraint() == "above");
    CHECK(e.message().find("violates check constraint") != std::string_view::npos);
    CHECK(e.detail().find("(-1)") != std::string_view::npos);
    CHECK(e.field(PG_DIAG_TABLE_NAME) == "t");
    CHECK(e.field(PG_DIAG_MESSAGE_HINT).empty());
    CHECK(std::string(e.what()).find("ERROR:") == 0);
  }
  CHECK(c.execute("insert into t values (1), (2)").affected() == 2);
  CHECK_THROWS_AS(c.execute("select 1", std::vector<libpq::parameter>(70000, nullptr)), std::invalid_argument);
  check_usable(c);
}

TEST_CASE("a prepared statement is prepared once, and belongs to its connection") {
  POSTGRES_OR_SKIP(server);
  libpq::connection c = server.connect(), d = server.connect();
  const std::string sql = "select $1::int + $2::int";
  for (int n = 0; n < 10; ++n) CHECK(c.execute(c.prepare(sql), {n, 1}).get<int>(0, 0) == n + 1);
  CHECK(count(c, "pg_prepared_statements") == 1);
  CHECK_THROWS_AS(d.execute(c.prepare(sql), {1, 2}), std::invalid_argument);
  CHECK(sqlstate_of([&] { c.prepare("selec"); }) == "42601");
  CHECK(c.execute(c.prepare("select 7")).get<int>(0, 0) == 7);
  check_usable(c);
  check_usable(d);
}

TEST_CASE("notices are kept for who asks, the last of them") {
  POSTGRES_OR_SKIP(server);
  libpq::connection c = server.connect();
  c.execute("do $$ begin for n in 1..100 loop raise notice 'number %', n; end loop; end $$");
  const auto all = c.take_notices();
  REQUIRE(all.size() == 64);
  CHECK(all.back().find("number 100") != std::string::npos);
  CHECK(c.take_notices().empty());
}

// -- Streams ---------------------------------------------------------------------------------------------

TEST_CASE("rows come one after the other, and are never all in memory") {
  POSTGRES_OR_SKIP(server);
  libpq::connection c = server.connect();
  int n = 0;
  for (const libpq::row& r : libpq::rows(c, "select n, null from generate_series(1, $1::int) n", {1000})) {
    ++n;
    if (r.get<int>(0) != n || !r.is_null(1) || r.columns() != 2 || r.name(0) != "n" || r.column("n") != 0) FAIL("row " << n);
  }
  CHECK(n == 1000);
  libpq::rows none(c, "select 1 where false");
  CHECK(none.next() == nullptr);
  CHECK(none.next() == nullptr);
  libpq::rows command(c, "create temporary table r (n int)");
  CHECK(command.next() == nullptr);
  libpq::rows prepared(c, c.prepare("select 5"));
  CHECK(prepared.next()->value(0) == "5");
  CHECK(prepared.next() == nullptr);

  // 400 MB of them, of which this process never has many.
  std::size_t bytes = 0;
  const long before = resident_pages();
  long most = 0;
  for (const libpq::row& r : libpq::rows(c, "select repeat('x', 100000) from generate_series(1, 400)")) {
    bytes += r.value(0).size();
    most = std::max(most, resident_pages() - before);
  }
  CHECK(bytes == 40'000'000);
  if (!freed_memory_is_kept()) CHECK(most * 4096 < 10'000'000);
  check_usable(c);
}

TEST_CASE("an error in the midst of rows is thrown where they end") {
  POSTGRES_OR_SKIP(server);
  libpq::connection c = server.connect();
  libpq::rows r(c, "select 10 / (3 - n) from generate_series(1, 5) n");
  CHECK(r.next()->get<int>(0) == 5);
  CHECK(r.next()->get<int>(0) == 10);
  CHECK(sqlstate_of([&] { r.next(); }) == "22012");
  CHECK(r.next() == nullptr);
  CHECK(sqlstate_of([&] { libpq::rows(c, "selec").next(); }) == "42601");
  CHECK_THROWS_AS(libpq::rows(c, "copy (select 1) to stdout").next(), std::invalid_argument);
  check_usable(c);
}

TEST_CASE("rows that are left in the midst are cancelled, whoever comes next") {
  POSTGRES_OR_SKIP(server);
  libpq::connection c = server.connect();
  for (int n = 0; n < 3; ++n) {
    for (const libpq::row& r : libpq::rows(c, "select generate_series(1, 1000000000) as n"))
      if (r.get<int>(0) == 10) break;
    check_usable(c);
  }
  libpq::connection lost = server.connect();
  libpq::rows r(lost, "select generate_series(1, 1000000000) as n");
  CHECK(r.next() != nullptr);
  lost.close();
  CHECK_THROWS_AS(
      [&] {
        while (r.next()) continue;
      }(),
      libpq::connection_error);
}

TEST_CASE("in the midst of its own rows a greenlet cannot execute, and others wait") {
  POSTGRES_OR_SKIP(server);
  libpq::connection c = server.connect();
  hub::task<int> other;
  {
    libpq::rows r(c, "select n from generate_series(1, 3) n");
    r.next();
    CHECK(error_of([&] { c.execute("select 1"); }) == errc::already_locked);
    CHECK(error_of([&] { libpq::transaction t(c); }) == errc::already_locked);
    other = hub::spawn([&] { return c.execute("select 9").get<int>(0, 0); });
    yield_until_waiting(1);
    CHECK(r.next()->value(0) == "2");
    CHECK_FALSE(other.ready());
    CHECK(r.next() != nullptr);
    CHECK(r.next() == nullptr);
  }
  CHECK(other.get() == 9);
}

// -- COPY ------------------------------------------------------------------------------------------------

TEST_CASE("COPY carries rows in and out, in pieces of any size, more than the socket takes at once") {
  POSTGRES_OR_SKIP(server);
  libpq::connection c = server.connect();
  c.execute("create temporary table t (n int, s text)");
  const std::string text(200, 's');
  {
    libpq::copy_in in(c, "copy t from stdin", hang_guard());
    std::string all;
    for (int n = 0; n < 20000; ++n) all += std::to_string(n) + "\t" + text + "\n";
    in.write(all.substr(0, 1));
    in.write("");
    in.write(std::string_view(all).substr(1, 4));
    in.write(std::string_view(all).substr(5));
    CHECK(in.finish() == 20000);
    CHECK_THROWS_AS(in.finish(), std::invalid_argument);
    CHECK_THROWS_AS(in.write("x"), std::invalid_argument);
  }
  CHECK(count(c, "t where length(s) = 200") == 20000);
  libpq::copy_out out(c, "copy (select n, s from t order by n) to stdout", hang_guard());
  for (int n = 0; n < 20000; ++n)
    if (const auto line = out.next(); !line || *line != std::to_string(n) + "\t" + text + "\n") FAIL("row " << n);
  CHECK_FALSE(out.next().has_value());
  CHECK_FALSE(out.next().has_value());
  check_usable(c);
}

TEST_CASE("COPY that is refused, at once or at a row, says why; what is no COPY is refused here") {
  POSTGRES_OR_SKIP(server);
  libpq::connection c = server.connect();
  c.execute("create temporary table t (n int)");
  CHECK(sqlstate_of([&] { libpq::copy_in(c, "copy nothing from stdin"); }) == "42P01");
  CHECK(sqlstate_of([&] {
    libpq::copy_in in(c, "copy t from stdin");
    in.write("1\nx\n");
    in.finish();
  }) == "22P02");
  CHECK(sqlstate_of([&] {
    libpq::copy_in in(c, "copy t from stdin");
    in.write("x\n");
    for (int n = 0; n < 20; ++n) in.write(std::string(100'000, '\n'));  // the server reads it and does not look
    in.finish();
  }) == "22P02");
  CHECK(sqlstate_of([&] {
    libpq::copy_out out(c, "copy (select 1 / (2 - n) from generate_series(1, 3) n) to stdout");
    while (out.next()) continue;
  }) == "22012");
  CHECK_THROWS_AS(libpq::copy_in(c, "select 1"), std::invalid_argument);
  CHECK_THROWS_AS(libpq::copy_in(c, "copy t to stdout"), std::invalid_argument);
  CHECK_THROWS_AS(libpq::copy_out(c, "copy t from stdin"), std::invalid_argument);
  CHECK_THROWS_AS(c.execute("copy t from stdin"), std::invalid_argument);
  CHECK_THROWS_AS(c.execute("copy t to stdout"), std::invalid_argument);
  check_usable(c);
  CHECK(count(c, "t") == 0);
}

TEST_CASE("COPY that is dropped before its end copies nothing, and the connection goes on") {
  POSTGRES_OR_SKIP(server);
  libpq::connection c = server.connect();
  c.execute("create temporary table t (n int)");
  {
    libpq::copy_in in(c, "copy t from stdin");
    in.write("1\n2\n");
  }
  check_usable(c);
  CHECK(count(c, "t") == 0);
  libpq::copy_out(c, "copy (select generate_series(1, 1000000000) as n) to stdout").next();
  check_usable(c);
}

TEST_CASE("a server that says much while it is sent much is read meanwhile") {
  // A trigger's notices fill its side of the socket; it would read nothing any more, and nobody would go on.
  POSTGRES_OR_SKIP(server);
  libpq::connection c = server.connect();
  c.execute("create temporary table t (n int)");
  c.execute("create function pg_temp.say() returns trigger language plpgsql as $$ begin raise notice '%', "
            "repeat('n', 2000); return new; end $$");
  c.execute("create trigger say before insert on t for each row execute function pg_temp.say()");
  libpq::copy_in in(c, "copy t from stdin", hang_guard());
  const std::string line(1000, ' ');
  for (int n = 0; n < 3000; ++n) in.write(line + "1\n");
  CHECK(in.finish() == 3000);
  CHECK(c.take_notices().size() == 64);
}

// -- Notifications ---------------------------------------------------------------------------------------

TEST_CASE("a notification wakes who waits for it; those that came before are found") {
  POSTGRES_OR_SKIP(server);
  libpq::connection hears = server.connect(), says = server.connect();
  const std::string odd = "an odd \"channel\"";
  hears.listen(odd);
  CHECK_FALSE(hears.wait_notification(hub::clock::time_point()).has_value());
  CHECK_FALSE(hears.wait_notification(milliseconds(1)).has_value());
  auto waits = hub::spawn([&] { return hears.wait_notification(hang_guard()); });
  yield_until_waiting(1);
  says.execute("select pg_notify($1, 'first')", {odd});
  REQUIRE(waits.get().has_value());
  CHECK(waits.get()->channel == odd);
  CHECK(waits.get()->payload == "first");
  CHECK(waits.get()->sender == says.backend());
  says.execute("select pg_notify($1, 'second'), pg_notify($1, 'third')", {odd});
  check_usable(hears);
  CHECK(hears.wait_notification(hub::clock::time_point())->payload == "second");
  CHECK(hears.wait_notification(hub::clock::time_point())->payload == "third");
  hears.unlisten(odd);
  says.execute("select pg_notify($1, 'unheard')", {odd});
  check_usable(hears);
  CHECK_FALSE(hears.wait_notification(hub::clock::time_point()).has_value());
  // Another greenlet's statement waits until the wait is over, and so does a wait behind a statement.
  auto sleeps = hub::spawn([&] { hears.execute("select pg_sleep(0.1)"); });
  yield_until_waiting(1);
  CHECK_FALSE(hears.wait_notification(milliseconds(1)).has_value());
  sleeps.get();
}

// -- Transactions ----------------------------------------------------------------------------------------

TEST_CASE("a transaction is rolled back unless committed, also when something is thrown through it") {
  POSTGRES_OR_SKIP(server);
  libpq::connection c = server.connect();
  c.execute("create temporary table t (n int)");
  {
    libpq::transaction t(c);
    c.execute("insert into t values (1)");
  }
  CHECK(count(c, "t") == 0);
  CHECK_THROWS_AS(
      [&] {
        libpq::transaction t(c);
        c.execute("insert into t values (1)");
        throw std::range_error("through it");
      }(),
      std::range_error);
  CHECK(count(c, "t") == 0);
  {
    libpq::transaction t(c, hang_guard(), "begin isolation level serializable");
    CHECK(c.execute("show transaction_isolation").value(0, 0) == "serializable");
    c.execute("insert into t values (1)");
    t.commit(hang_guard());
    CHECK_THROWS_AS(t.commit(), std::invalid_argument);
  }
  CHECK(count(c, "t") == 1);
  libpq::transaction t(c);
  c.execute("delete from t");
  t.rollback();
  CHECK(count(c, "t") == 1);
  check_usable(c);
}

TEST_CASE("a transaction whose statement failed cannot be committed, which is no success in silence") {
  POSTGRES_OR_SKIP(server);
  libpq::connection c = server.connect();
  {
    libpq::transaction t(c);
    CHECK_THROWS_AS(c.execute("selec"), libpq::server_error);
    CHECK(sqlstate_of([&] { c.execute("select 1"); }) == "25P02");
    CHECK(sqlstate_of([&] { t.commit(); }) == "25P02");
  }
  c.execute("create temporary table t (n int unique deferrable initially deferred)");
  libpq::transaction t(c);
  CHECK(error_of([&] { libpq::transaction inner(c); }) == errc::already_locked);
  c.execute("insert into t values (1), (1)");
  CHECK(sqlstate_of([&] { t.commit(); }) == "23505");
  t.rollback();
  check_usable(c);
  CHECK(sqlstate_of([&] { libpq::transaction wrong(c, {}, "begin nonsense"); }) == "42601");
  check_usable(c);
}

TEST_CASE("greenlets share a connection in the order in which they came, and a transaction is not divided") {
  POSTGRES_OR_SKIP(server);
  libpq::connection c = server.connect();
  c.execute("create temporary table t (n serial, who int)");
  hub::group all;
  for (int who = 0; who < 5; ++who)
    all.spawn([&, who] {
      libpq::transaction t(c);
      for (int n = 0; n < 4; ++n) c.execute("insert into t (who) values ($1)", {who});
      t.commit();
    });
  all.spawn([&] { c.execute("insert into t (who) values (5)"); });
  all.wait();
  const libpq::result r = c.execute("select who from t order by n");
  REQUIRE(r.rows() == 21);
  for (std::size_t n = 0; n < 21; ++n) CHECK(r.get<std::size_t>(n, 0) == n / 4);
}

TEST_CASE("a deadline in a transaction fails the transaction, and its end leaves the connection in order") {
  POSTGRES_OR_SKIP(server);
  libpq::connection c = server.connect();
  c.execute("create temporary table t (n int)");
  {
    libpq::transaction t(c);
    c.execute("insert into t values (1)");
    CHECK_THROWS_AS(c.execute("select pg_sleep(1000)", {}, soon), libpq::timed_out);
    CHECK(sqlstate_of([&] { c.execute("select 1", {}, hang_guard()); }) == "25P02");
  }
  CHECK(count(c, "t") == 0);
  CHECK_THROWS_AS(
      [&] {
        libpq::transaction t(c);
        c.execute("insert into t values (1)");
        c.execute("select pg_sleep(1000)", {}, soon);
      }(),
      libpq::timed_out);
  CHECK(count(c, "t") == 0);
  // A transaction that ends in the midst of its rows.
  auto t = std::make_unique<libpq::transaction>(c);
  c.execute("insert into t values (1)");
  {
    libpq::rows r(c, "select n from generate_series(1, 3) n");
    r.next();
    t.reset();
    CHECK(r.next() != nullptr);
    CHECK(r.next() != nullptr);
    CHECK(r.next() == nullptr);
  }
  CHECK(count(c, "t") == 0);
  check_usable(c);
}
