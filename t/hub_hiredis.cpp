// SPDX-License-Identifier: MIT
// Redis in blocking style: connecting, answers, commands, deadlines; with a real server, and with some that pretend.
#include "hub_redis.hpp"

#include <cerrno>
#include <future>
#include <optional>
#include <stdexcept>
#include <thread>

using namespace greenlets;
using namespace testing;

// --- Connecting

TEST_CASE("a connection by the name of a host, by an address, or by a path") {
  WITH_SERVER(server);
  redis::connection c;
  CHECK_FALSE(c.is_open());
  REQUIRE(connect(c, "localhost", server->port(), hang_guard()));
  CHECK(c.command({"PING"}).text() == "PONG");
  REQUIRE(connect(c, hub::address("127.0.0.1", server->port()), hang_guard()));
  CHECK(c.command({"PING"}).type() == kind::status);
  REQUIRE(connect(c, hub::unix_address(server->socket()), hang_guard()));
  CHECK(c.command({"PING"}));
  CHECK(c.is_open());
  CHECK(c.lost_because().empty());
  redis::connection other = std::move(c);
  CHECK_FALSE(c.is_open());  // NOLINT: what was moved from is closed
  CHECK(c.command({"PING"}).closed());
  CHECK(other.command({"PING"}));
  c = std::move(other);
  CHECK(c.command({"PING"}));
}

TEST_CASE("who is not there, does not answer or cannot be is a result, and the connection is what it was") {
  const hub_guard end;
  redis::connection c;
  directory d;
  CHECK(connect(c, hub::unix_address(d / "nobody"), hang_guard()).error == std::errc::no_such_file_or_directory);
  std::optional<hub::listener> once(hub::address("127.0.0.1", 0));
  const hub::address gone = once->local();
  once.reset();
  CHECK(connect(c, gone, hang_guard()).error == std::errc::connection_refused);
  CHECK(connect(c, "127.0.0.1", gone.port(), hang_guard()).error == std::errc::connection_refused);
  CHECK(connect(c, "no.such.host.invalid", 6379, hang_guard()).error.category() == hub::name_category());
  CHECK_THROWS_AS(connect(c, hub::address(), hang_guard()), std::invalid_argument);
  CHECK_THROWS_AS(connect(c, hub::unix_address("@abstract"), hang_guard()), std::invalid_argument);
  CHECK_FALSE(c.is_open());
  CHECK(c.command({"PING"}, hang_guard()).closed());
  CHECK(c.run(redis::pipeline()).empty());
}

TEST_CASE("a deadline bounds connecting, and so does what is thrown in") {
  const hub_guard end;
  hub::listener::options few;
  few.backlog = 0;
  hub::listener full(hub::address("127.0.0.1", 0), few);
  // The kernel lets those that are too many wait.
  std::vector<hub::connection> waiting(8);
  while (connect(waiting.back(), full.local(), milliseconds(20))) waiting.emplace_back();
  redis::connection c;
  CHECK(connect(c, full.local(), milliseconds(5)).timed_out());
  CHECK(connect(c, full.local(), hub::clock::time_point()).timed_out());
  CHECK(connect(c, "127.0.0.1", full.local().port(), milliseconds(5)).timed_out());
  auto waits = hub::spawn([&] { connect(c, full.local()); });
  yield_until_waiting(1);
  waits.cancel();
  CHECK_THROWS_AS(waits.get(), hub::cancelled);
  CHECK_FALSE(c.is_open());
}

TEST_CASE("without descriptors connecting is an error of the system, and the next time it is none") {
  WITH_SERVER(server);
  redis::connection c;
  {
    const no_descriptors limit;
    CHECK(connect(c, hub::unix_address(server->socket())).error == std::errc::too_many_files_open);
    CHECK(connect(c, hub::address("127.0.0.1", server->port())).error == std::errc::too_many_files_open);
  }
  CHECK(connect(c, hub::unix_address(server->socket())));
}

TEST_CASE("a program that is started does not inherit the connection") {
  WITH_SERVER(server);
  const int fd = lowest_free();
  const redis::connection c = connected(*server);
  CHECK((fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
}

// --- Answers

TEST_CASE("every kind of answer, and it lives when the connection does not") {
  WITH_SERVER(server);
  redis::reply all;
  {
    redis::connection c = connected(*server);
    all = c.command({"EVAL",
                     "return {1, 'two', false, {ok='fine'}, {err='BAD luck'}, {3, {'deep', {}}}, '', -7}", 0});
  }
  REQUIRE(all.type() == kind::array);
  REQUIRE(all.size() == 8);
  CHECK(all[0].integer() == 1);
  CHECK(all[1].text() == "two");
  CHECK(all[1].type() == kind::string);
  CHECK(all[2].is_nil());
  CHECK(all[2]);
  CHECK(all[3].type() == kind::status);
  CHECK(all[3].text() == "fine");
  CHECK(all[4].is_error());
  CHECK_FALSE(all[4]);
  CHECK(all[4].text() == "BAD luck");
  CHECK(all[5][1][0].text() == "deep");
  CHECK(all[5][1][1].type() == kind::array);
  CHECK(all[5][1][1].size() == 0);
  CHECK(all[6].text().empty());
  CHECK(all[7].integer() == -7);
  long long sum = 0;
  for (const redis::reply& each : all)
    if (each.type() == kind::integer) sum += each.integer();
  CHECK(sum == -6);
  CHECK_FALSE(all.error());
  CHECK(all.message().empty());
}

TEST_CASE("what an answer is not is misuse, and says what it is") {
  const hub_guard end;
  std::string what;
  CHECK(error_of([] { redis::reply().text(); }, &what) == errc::wrong_type);
  CHECK(what.find("it is none") != std::string::npos);
  char text[] = "WRONG way";
  redisReply r{};
  r.type = REDIS_REPLY_ERROR;
  r.str = text;
  r.len = std::strlen(text);
  const redis::reply e(r);
  CHECK(error_of([&] { e.integer(); }, &what) == errc::wrong_type);
  CHECK(what.find("an error WRONG way") != std::string::npos);
  CHECK(e.text() == text);
  CHECK(e.message() == text);
  CHECK(e.error() == std::error_code(1, redis::redis_category()));
  CHECK(e.error().message() == "Redis answered with an error");
  CHECK(std::string(e.error().category().name()) == "redis");
  CHECK_THROWS_AS(e[0], std::out_of_range);
  CHECK_FALSE(e.lost());
  CHECK(redis::reply().error() == std::errc::operation_in_progress);
}

TEST_CASE("what later protocols have is the nearest of what there is") {
  const hub_guard end;
  char text[] = "3.14";
  redisReply leaf{};
  leaf.type = 7;  // a double
  leaf.str = text;
  leaf.len = 4;
  CHECK(redis::reply(leaf).type() == kind::string);
  CHECK(redis::reply(leaf).text() == "3.14");
  redisReply truth{};
  truth.type = 8;  // a boolean
  truth.integer = 1;
  CHECK(redis::reply(truth).integer() == 1);
  redisReply* elements[] = {&leaf, &truth};
  redisReply map{};
  map.type = 9;
  map.elements = 2;
  map.element = elements;
  CHECK(redis::reply(map).type() == kind::array);
  CHECK(redis::reply(map)[1].integer() == 1);
}

TEST_CASE("what Redis calls an error is an answer, and the connection goes on") {
  WITH_SERVER(server);
  redis::connection c = connected(*server);
  c.command({"SET", "text", "x"});
  const redis::reply r = c.command({"INCR", "text"});
  CHECK_FALSE(r);
  CHECK(r.is_error());
  CHECK(r.text().rfind("ERR value is not an integer", 0) == 0);
  CHECK_FALSE(r.lost());
  CHECK_FALSE(r.timed_out());
  CHECK(c.command({"NO-SUCH-COMMAND"}).is_error());
  CHECK(c.command({"GET", "text"}).text() == "x");
}

// --- Commands

TEST_CASE("words go as they are, with any byte, and never become two") {
  WITH_SERVER(server);
  redis::connection c = connected(*server);
  std::string every;
  for (int n = 0; n < 256; ++n) every += static_cast<char>(n);
  const std::string odd[] = {every, std::string(), "\r\n$3\r\nDEL\r\n", "%s %b", pattern(300'000)};
  for (const std::string& value : odd) {
    CHECK(c.command({"SET", every, value}).text() == "OK");
    CHECK(c.command({"GET", every}).text() == value);
  }
  CHECK(c.command({"STRLEN", every}).integer() == 300'000);
  CHECK(c.command({"ECHO", std::string_view()}).text().empty());
  const std::vector<std::string> words{"ECHO", "from a list"};
  CHECK(c.command(words).text() == "from a list");
  CHECK(wire_of({"X", -5, 7u, INT64_MIN, UINT64_MAX, 'a' + 0}) ==
        "*6\r\n$1\r\nX\r\n$2\r\n-5\r\n$1\r\n7\r\n$20\r\n-9223372036854775808\r\n$20\r\n18446744073709551615\r\n"
        "$2\r\n97\r\n");
}

TEST_CASE("a pattern as hiredis has it") {
  WITH_SERVER(server);
  redis::connection c = connected(*server);
  const std::string value("a b\0c", 5);
  CHECK(c.command(redis::format("SET %s:%d %b", "key", 7, value.data(), value.size())));
  CHECK(c.command(redis::format("GET key:%d", 7), hang_guard()).text() == value);
  CHECK_THROWS_AS(redis::format(""), std::invalid_argument);
  CHECK_THROWS_AS(redis::format("GET %y"), std::invalid_argument);
  CHECK_THROWS_AS(redis::format("SUBSCRIBE %s", "x"), std::invalid_argument);
}

TEST_CASE("commands that have not one reply each are refused before anything is sent") {
  const hub_guard end;
  for (const char* name : {"SUBSCRIBE", "psubscribe", "SSubscribe", "unsubscribe", "PUNSUBSCRIBE", "sunsubscribe", "MONITOR",
                           "pmonitor"}) {
    CAPTURE(name);
    CHECK_THROWS_AS(redis::request({name, "x"}), std::invalid_argument);
    CHECK_THROWS_AS(redis::request({std::string(name) + "\r\nX", "x"}), std::invalid_argument);
  }
  CHECK_THROWS_AS(redis::request(std::vector<std::string>{}), std::invalid_argument);
  for (const char* name : {"PUBLISH", "SUBSCRIBED", "S", "P", ""}) CHECK_NOTHROW(redis::request({name}));
  const std::string_view vast("x", std::size_t{3} << 30);  // never read
  CHECK_THROWS_AS(redis::request({"SET", "x", vast}), std::invalid_argument);
}

TEST_CASE("a thousand greenlets share a connection, and each has its own answers") {
  WITH_SERVER(server);
  redis::connection c = connected(*server);
  int wrong = 0, right = 0;
  {
    hub::group all;
    for (int n = 0; n < 1000; ++n)
      all.spawn([&, n] {
        for (int round = 0; round < 3; ++round) {
          const std::string mine = std::to_string(n) + '/' + std::to_string(round);
          const redis::reply r = c.command({"ECHO", mine}, hang_guard());
          ++(r && r.text() == mine ? right : wrong);
        }
      });
    all.wait();
  }
  CHECK(right == 3000);
  CHECK(wrong == 0);
}

TEST_CASE("commands that come together while an answer is on its way go out in one write") {
  const hub_guard end;
  std::size_t reads = 0;
  hub::event first;
  pretender p([&](hub::connection& s) {
    read_what_comes(s);
    first.set();
    std::size_t commands = 0;
    while (commands < 99) {
      const std::string all = read_what_comes(s);
      ++reads;
      commands += static_cast<std::size_t>(std::count(all.begin(), all.end(), '*'));
    }
    for (int n = 0; n < 100; ++n) say(s, "+OK\r\n");
    hub::sleep_for(hours(1));
  });
  redis::connection c = p.connection();
  hub::group all;
  const auto ping = [&] { CHECK(c.command({"PING"}, hang_guard())); };
  all.spawn(ping);
  first.wait();
  for (int n = 1; n < 100; ++n) all.spawn(ping);
  all.wait();
  CHECK(reads == 1);
}

TEST_CASE("a pipeline goes out as one piece, and its answers come in its order") {
  WITH_SERVER(server);
  redis::connection c = connected(*server);
  c.command({"DEL", "n"});
  {
    hub::group all;
    for (int g = 0; g < 20; ++g)
      all.spawn([&] {
        redis::pipeline p;
        p.add({"MULTI"});
        p.add({"INCR", "n"});
        p.add({"INCR", "n"});
        p.add({"EXEC"});
        CHECK(p.size() == 4);
        const std::vector<redis::reply> r = c.run(p, hang_guard());
        REQUIRE(r.size() == 4);
        CHECK(r[1].text() == "QUEUED");
        REQUIRE(r[3].size() == 2);
        CHECK(r[3][1].integer() == r[3][0].integer() + 1);
      });
    all.wait();
  }
  CHECK(c.command({"GET", "n"}).text() == "40");
  redis::pipeline p;
  p.add({"INCR", "n"});
  p.clear();
  CHECK(c.run(p).empty());
}

TEST_CASE("what is large goes in pieces, both ways at once") {
  WITH_SERVER(server);
  redis::connection c = connected(*server);
  const std::string large = pattern(20'000'000);
  CHECK(c.command({"SET", "large", large}, hang_guard()));
  auto got = hub::spawn([&] { return c.command({"GET", "large"}, hang_guard()).text() == large; });
  CHECK(c.command({"ECHO", "behind it"}, hang_guard()).text() == "behind it");
  CHECK(got.get());
  c.command({"DEL", "large"});
}

TEST_CASE("a server that waits to be read from before it reads on is read from") {
  const hub_guard end;
  pretender echoes([](hub::connection& s) {
    // Answers each byte by a status of as many; neither side's buffers have room for it all.
    char buffer[65536];
    while (const hub::io_result r = s.read_some(buffer, sizeof buffer)) {
      std::string answer;
      const auto commands = std::count(buffer, buffer + r.bytes, '*');
      for (long n = 0; n < commands; ++n) answer += '+' + std::string(4000, 'x') + "\r\n";
      if (!s.write_all(answer.data(), answer.size())) return;
    }
  });
  redis::connection c = echoes.connection();
  redis::pipeline p;
  for (int n = 0; n < 3000; ++n) p.add({"ECHO", std::string(4000, 'y')});
  std::size_t right = 0;
  for (const redis::reply& r : c.run(p, hang_guard())) right += r && r.text().size() == 4000;
  CHECK(right == 3000);
}

// --- Deadlines, cancelling

TEST_CASE("when the deadline comes first the answer is dropped, and the connection goes on") {
  WITH_SERVER(server);
  redis::connection c = connected(*server), other = connected(*server);
  const redis::reply late = c.command({"BLPOP", "nothing here", 0}, milliseconds(2));
  CHECK(late.timed_out());
  CHECK_FALSE(late.lost());
  CHECK_FALSE(late);
  CHECK(late.error() == std::errc::timed_out);
  CHECK_FALSE(late.message().empty());
  CHECK(c.command({"ECHO", "still blocked"}, hub::clock::time_point()).timed_out());
  CHECK(other.command({"RPUSH", "nothing here", "x"}).integer() == 1);
  CHECK(c.command({"ECHO", "mine"}, hang_guard()).text() == "mine");
}

TEST_CASE("of a pipeline those answers are there that came before the deadline") {
  WITH_SERVER(server);
  redis::connection c = connected(*server), other = connected(*server);
  redis::pipeline p;
  p.add({"ECHO", "first"});
  p.add({"BLPOP", "nothing here", 0});
  p.add({"ECHO", "third"});
  std::vector<redis::reply> r;
  for (milliseconds patience(10);; patience *= 2) {  // until it is enough for the first
    r = c.run(p, patience);
    other.command({"RPUSH", "nothing here", "x"});
    if (!r[0].timed_out()) break;
    REQUIRE(patience < seconds(10));
  }
  CHECK(r[0].text() == "first");
  CHECK(r[1].timed_out());
  CHECK(r[2].timed_out());
  CHECK(c.command({"ECHO", "mine"}, hang_guard()).text() == "mine");
}

TEST_CASE("whoever is cancelled, the one that reads or one that stands behind it, the others have their answers") {
  WITH_SERVER(server);
  redis::connection c = connected(*server), other = connected(*server);
  for (const std::size_t victim : {0u, 1u, 4u}) {
    CAPTURE(victim);
    std::vector<hub::task<redis::reply>> all;
    all.push_back(hub::spawn([&] { return c.command({"BLPOP", "nothing here", 0}); }));
    for (int n = 1; n < 5; ++n) all.push_back(hub::spawn([&, n] { return c.command({"ECHO", n}); }));
    yield_until_waiting(5);
    all[victim].cancel();
    CHECK_THROWS_AS(all[victim].get(), hub::cancelled);
    other.command({"RPUSH", "nothing here", "x"});
    for (std::size_t n = 0; n < 5; ++n)
      if (n != victim) CHECK((n == 0 ? all[0].get().size() == 2 : all[n].get().text() == std::to_string(n)));
  }
}

TEST_CASE("who is to read next, and is thrown into before that, hands it on") {
  const hub_guard end;
  hub::event go;
  pretender p([&](hub::connection& s) {
    go.wait();
    say(s, "+first\r\n");
    go.reset();
    go.wait();
    say(s, "+second\r\n+third\r\n");
    hub::sleep_for(hours(1));
  });
  redis::connection c = p.connection();
  hub::task<redis::reply> second;
  auto first = hub::spawn([&] {
    const redis::reply r = c.command({"A"});
    second.cancel();  // it was told to read just now
    return r;
  });
  second = hub::spawn([&] { return c.command({"B"}); });
  auto third = hub::spawn([&] { return c.command({"C"}, seconds(20)); });
  hub::yield();
  hub::yield();
  go.set();
  CHECK(first.get().text() == "first");
  CHECK_THROWS_AS(second.get(), hub::cancelled);
  go.set();
  CHECK(third.get().text() == "third");
}

TEST_CASE("who is cancelled before its command was written has it written") {
  WITH_SERVER(server);
  redis::connection c = connected(*server), other = connected(*server);
  auto blocked = hub::spawn([&] { return c.command({"BLPOP", "nothing here", 0}); });
  yield_until_waiting(1);
  auto gathers = hub::spawn([&] { c.command({"SET", "given up", "but done"}); });
  auto joins = hub::spawn([&] { return c.command({"ECHO", "with it"}); });
  hub::spawn([&] { gathers.cancel(); });
  hub::yield();
  gathers.cancel();
  other.command({"RPUSH", "nothing here", "x"});
  CHECK(joins.get().text() == "with it");
  CHECK(blocked.get());
}

TEST_CASE("a timeout scope ends a command as it ends everything") {
  WITH_SERVER(server);
  redis::connection c = connected(*server);
  CHECK_FALSE(hub::with_timeout(milliseconds(2), [&] { return c.command({"BLPOP", "nothing here", 0}); }));
}
