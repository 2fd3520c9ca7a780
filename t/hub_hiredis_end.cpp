// SPDX-License-Identifier: MIT
// Redis in blocking style: connections that end, in every way; and subscribers.
#include "hub_redis.hpp"

#include <cerrno>
#include <future>
#include <optional>
#include <stdexcept>
#include <thread>

using namespace greenlets;
using namespace testing;

// --- Ends

TEST_CASE("when Redis ends the connection all that wait are told, and those that come later") {
  WITH_SERVER(server);
  redis::connection c = connected(*server), other = connected(*server);
  const long long id = c.command({"CLIENT", "ID"}).integer();
  std::vector<hub::task<redis::reply>> all;
  for (int n = 0; n < 5; ++n) all.push_back(hub::spawn([&] { return c.command({"BLPOP", "nothing here", 0}); }));
  yield_until_waiting(5);
  hub::yield();  // what they ask has been written
  CHECK(other.command({"CLIENT", "KILL", "ID", id}).integer() == 1);
  for (auto& each : all) {
    CHECK(each.get().lost());
    CHECK(each.get().error() == std::errc::connection_reset);
    CHECK_FALSE(each.get().closed());
  }
  CHECK_FALSE(c.is_open());
  CHECK(c.lost_because() == "Server closed the connection");
  CHECK(c.command({"PING"}).lost());
  CHECK(c.command({"PING"}).message() == "Server closed the connection");
  REQUIRE(connect(c, hub::unix_address(server->socket())));
  CHECK(c.command({"PING"}));
}

TEST_CASE("a connection that ends in the middle of an answer, or by a reset, is lost") {
  const hub_guard end;
  {
    pretender p([](hub::connection& s) {
      read_what_comes(s);
      say(s, "*2\r\n$3\r\nabc\r\n$100\r\nhalf");
    });
    redis::connection c = p.connection();
    CHECK(c.command({"PING"}, hang_guard()).error() == std::errc::connection_reset);
  }
  pretender p([](hub::connection& s) {
    read_what_comes(s);
    const linger hard{1, 0};
    setsockopt(s.fd(), SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
  });
  redis::connection c = p.connection();
  const redis::reply r = c.command({"PING"}, hang_guard());
  CHECK(r.lost());
  CHECK(r.error() == std::errc::connection_reset);
}

TEST_CASE("writing where nobody reads is a result, and no SIGPIPE") {
  const hub_guard end;
  for (const bool blocked : {false, true}) {
    CAPTURE(blocked);
    pretender p([](hub::connection& s) { s.close(); });
    redis::connection c = p.connection();
    sigset_t pipe, before;
    sigemptyset(&pipe);
    sigaddset(&pipe, SIGPIPE);
    REQUIRE(pthread_sigmask(blocked ? SIG_BLOCK : SIG_UNBLOCK, &pipe, &before) == 0);
    hub::sleep_for(milliseconds(2));
    for (int n = 0; n < 3; ++n) {
      const redis::reply r = c.command({"SET", "x", std::string(1'000'000, 'x')}, hang_guard());
      CHECK(r.lost());
    }
    sigset_t pending;
    REQUIRE(sigpending(&pending) == 0);
    CHECK_FALSE(sigismember(&pending, SIGPIPE));
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
  }
}

TEST_CASE("nothing that a server sends ends the process") {
  const hub_guard end;
  struct {
    const char* bytes;
    std::errc error;
  } const bad[] = {
      {"+OK\r\n+nobody asked\r\n", std::errc::protocol_error},
      {"+OK\r\n:1\r\n", std::errc::protocol_error},
      {"+OK\r\n$-1\r\n", std::errc::protocol_error},
      {"+OK\r\n*-1\r\n", std::errc::protocol_error},
      {"+OK\r\n*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nb\r\n", std::errc::protocol_error},
      {"+OK\r\n?\r\n", std::errc::protocol_error},
      {"+OK\r\n$99999999999999999999\r\n", std::errc::protocol_error},
  };
  for (const auto& each : bad) {
    CAPTURE(each.bytes);
    pretender p([&](hub::connection& s) {
      read_what_comes(s);
      say(s, each.bytes);
      hub::sleep_for(hours(1));
    });
    redis::connection c = p.connection();
    CHECK(c.command({"PING"}, hang_guard()).text() == "OK");
    CHECK(c.command({"PING"}, hang_guard()).error() == each.error);
    CHECK_FALSE(c.lost_because().empty());
  }
  pretender deep([](hub::connection& s) {
    read_what_comes(s);
    std::string nested;
    for (int n = 0; n < 100; ++n) nested += "*1\r\n";
    say(s, nested);
    hub::sleep_for(hours(1));
  });
  redis::connection c = deep.connection();
  CHECK(c.command({"PING"}, hang_guard()).error() == std::errc::protocol_error);
}

TEST_CASE("an error by which Redis closes the connection is told") {
  const hub_guard end;
  pretender p([](hub::connection& s) {
    say(s, "-ERR max number of clients reached\r\n");
    s.shutdown_write();
    hub::sleep_for(hours(1));
  });
  redis::subscriber s(p.connection());
  const hub::io_result r = s.subscribe({"x"}, hang_guard());
  CHECK(r.error.category() == redis::redis_category());
  CHECK(s.lost_because() == "ERR max number of clients reached");
}

TEST_CASE("who waits when the connection is closed, or goes, is told so") {
  WITH_SERVER(server);
  auto c = std::make_unique<redis::connection>(connected(*server));
  std::vector<hub::task<redis::reply>> all;
  const auto wait = [&] {
    for (int n = 0; n < 3; ++n) all.push_back(hub::spawn([&] { return c->command({"BLPOP", "nothing here", 0}); }));
    yield_until_waiting(3);
  };
  wait();
  c->close();
  for (auto& each : all) CHECK(each.get().closed());
  all.clear();
  *c = connected(*server);
  wait();
  *c = connected(*server);  // what it was goes
  for (auto& each : all) CHECK(each.get().closed());
  CHECK(c->command({"PING"}));
  all.clear();
  wait();
  c.reset();
  for (auto& each : all) CHECK(each.get().closed());
}

TEST_CASE("closing while a large command is being written harms nobody") {
  const hub_guard end;
  pretender p([](hub::connection&) { hub::sleep_for(hours(1)); });
  auto c = std::make_unique<redis::connection>(p.connection());
  auto writes = hub::spawn([&] { return c->command({"SET", "x", pattern(30'000'000)}); });
  auto waits = hub::spawn([&] { return c->command({"PING"}, milliseconds(20)); });
  CHECK(waits.get().timed_out());
  c.reset();
  CHECK(writes.get().closed());
}

TEST_CASE("the hub's end cancels who waits, whose destructors still reach Redis; afterwards it is closed") {
  WITH_SERVER(server);
  redis::connection c = connected(*server), other = connected(*server);
  struct unlocks {
    redis::connection& c;
    bool& done;
    ~unlocks() { done = c.command({"DEL", "lock"}, hang_guard()).integer() == 1; }
  };
  bool done = false;
  auto holds = hub::spawn([&] {
    const unlocks at_exit{other, done};
    other.command({"SET", "lock", "held"});
    c.command({"BLPOP", "nothing here", 0});
  });
  std::vector<hub::task<redis::reply>> all;
  for (int n = 0; n < 3; ++n) all.push_back(hub::spawn([&] { return c.command({"BLPOP", "nothing here", 0}); }));
  yield_until_waiting(4);
  hub::shutdown();
  CHECK(done);
  for (auto& each : all) CHECK_THROWS_AS(each.get(), hub::cancelled);
  CHECK(c.command({"PING"}).closed());
  CHECK_FALSE(c.is_open());
  REQUIRE(connect(c, hub::unix_address(server->socket())));
  CHECK(c.command({"PING"}));
}

TEST_CASE("who waits with a hub that has ended, because it refuses to go, is told that it is closed") {
  WITH_SERVER(server);
  for (const bool reader_first : {true, false}) {
    redis::connection c = connected(*server);
    int refused = 0;
    const auto refuses = [&] {
      for (;;) try {
          return c.command({"BLPOP", "nothing here", 0}).closed();
        } catch (const greenlet_exit&) {
          ++refused;
        }
    };
    hub::task<bool> all[] = {hub::spawn(refuses), hub::spawn(refuses)};
    yield_until_waiting(2);
    hub::shutdown();
    CHECK(refused > 0);
    for (const int n : {0, 1}) {
      const auto& each = all[reader_first ? n : 1 - n];
      each.handle().switch_to();
      REQUIRE(each.ready());
      CHECK(each.get());
    }
    CHECK(c.command({"PING"}).closed());
  }
}

TEST_CASE("an idle connection neither keeps a thread from ending nor hides that nobody will wake anybody") {
  WITH_SERVER(server);
  redis::connection c = connected(*server);
  redis::subscriber s(connected(*server));
  REQUIRE(c.command({"PING"}));
  REQUIRE(s.subscribe({"x"}));
  hub::event never;
  CHECK_THROWS_AS(never.wait(), hub::would_block_forever);
  CHECK(hub::statistics().waiting == 0);
  std::thread([&] {
    redis::connection there = connected(*server);
    there.command({"PING"});
  }).join();
}

TEST_CASE("a connection is for one thread") {
  WITH_SERVER(server);
  redis::connection c = connected(*server);
  redis::subscriber s(connected(*server));
  std::thread([&] {
    CHECK(error_of([&] { c.command({"PING"}); }) == errc::different_thread);
    CHECK(error_of([&] { s.subscribe({"x"}); }) == errc::different_thread);
    CHECK(error_of([&] { s.pop(); }) == errc::different_thread);
    hub::shutdown();
  }).join();
  CHECK(c.command({"PING"}));
}

// --- What is published

TEST_CASE("what is published comes in its order, by channel and by pattern") {
  WITH_SERVER(server);
  redis::connection c = connected(*server);
  redis::subscriber s(connected(*server));
  REQUIRE(s.subscribe({"a", "b", "a"}, hang_guard()));
  REQUIRE(s.psubscribe({"news.*"}, hang_guard()));
  const std::string binary("\0\r\n$1\r\n", 8);
  CHECK(c.command({"PUBLISH", "a", "one"}).integer() == 1);
  CHECK(c.command({"PUBLISH", "b", binary}).integer() == 1);
  CHECK(c.command({"PUBLISH", "news.today", ""}).integer() == 1);
  CHECK(c.command({"PUBLISH", "elsewhere", "x"}).integer() == 0);
  redis::message m = s.pop(hang_guard());
  REQUIRE(m);
  CHECK(m.channel == "a");
  CHECK(m.text == "one");
  CHECK(m.pattern.empty());
  m = s.pop(hang_guard());
  CHECK(m.channel == "b");
  CHECK(m.text == binary);
  m = s.pop(hang_guard());
  CHECK(m.channel == "news.today");
  CHECK(m.pattern == "news.*");
  CHECK(m.text.empty());
  CHECK(s.pop(milliseconds(1)).timed_out());
  CHECK(s.is_open());
}

TEST_CASE("who has unsubscribed is told nothing more, as often as he does, and may subscribe again") {
  WITH_SERVER(server);
  redis::connection c = connected(*server);
  redis::subscriber s(connected(*server));
  REQUIRE(s.unsubscribe({"a"}, hang_guard()));
  for (int round = 0; round < 3; ++round) {
    REQUIRE(s.subscribe({"a"}, hang_guard()));
    REQUIRE(s.psubscribe({"*"}, hang_guard()));
    CHECK(c.command({"PUBLISH", "a", "x"}).integer() == 2);
    CHECK(s.pop(hang_guard()));
    CHECK(s.pop(hang_guard()));
    auto both = hub::spawn([&] { return s.unsubscribe({"a", "a"}, hang_guard()); });
    auto also = hub::spawn([&] { return s.unsubscribe({"a"}, hang_guard()); });
    CHECK(s.punsubscribe({"*", "other"}, hang_guard()));
    CHECK(both.get());
    CHECK(also.get());
    CHECK(c.command({"PUBLISH", "a", "x"}).integer() == 0);
  }
  CHECK(s.pop(milliseconds(1)).timed_out());
  CHECK_THROWS_AS(s.subscribe({}), std::invalid_argument);
}

TEST_CASE("several greenlets take from one subscriber, each message goes to one, and none is lost with who is cancelled") {
  WITH_SERVER(server);
  redis::connection c = connected(*server);
  redis::subscriber s(connected(*server));
  REQUIRE(s.subscribe({"a"}, hang_guard()));
  std::vector<std::string> got;
  std::vector<hub::task<void>> all;
  for (int n = 0; n < 4; ++n)
    all.push_back(hub::spawn([&] {
      while (const redis::message m = s.pop()) got.push_back(m.text);
    }));
  yield_until_waiting(4);
  for (int n = 0; n < 50; ++n) {
    c.command({"PUBLISH", "a", n});
    if (n % 10 == 5) all[static_cast<std::size_t>(n / 10 % 3)].cancel();
  }
  yield_until([&] {
    hub::sleep_for(milliseconds(1));
    return got.size() == 50;
  });
  std::sort(got.begin(), got.end());
  CHECK(std::unique(got.begin(), got.end()) == got.end());
  s.close();
  all[3].get();
}

TEST_CASE("a subscriber that is lost has what came before, and then says so; one that is closed as well") {
  WITH_SERVER(server);
  redis::connection c = connected(*server), from = connected(*server);
  const long long id = from.command({"CLIENT", "ID"}).integer();
  redis::subscriber s(std::move(from));
  CHECK_FALSE(from.is_open());  // NOLINT
  REQUIRE(s.subscribe({"a"}, hang_guard()));
  c.command({"PUBLISH", "a", "last"});
  c.command({"CLIENT", "KILL", "ID", id});
  CHECK(s.pop(hang_guard()).text == "last");
  CHECK(s.pop(hang_guard()).error == std::errc::connection_reset);
  CHECK(s.subscribe({"a"}, hang_guard()).error == std::errc::connection_reset);
  CHECK(s.lost_because() == "Server closed the connection");

  redis::subscriber other(connected(*server));
  s = std::move(other);
  REQUIRE(s.subscribe({"a"}, hang_guard()));
  auto waits = hub::spawn([&] { return s.pop(); });
  auto stands = hub::spawn([&] { return s.pop(); });
  yield_until_waiting(2);
  s.close();
  CHECK(waits.get().closed());
  CHECK(stands.get().closed());
  CHECK(s.pop().closed());
  CHECK(s.subscribe({"a"}).closed());
  CHECK(s.lost_because().empty());
  CHECK_FALSE(redis::subscriber(redis::connection()).is_open());
  CHECK_FALSE(redis::subscriber().is_open());
}

TEST_CASE("what Redis refuses to a subscriber ends the connection, with its words") {
  WITH_SERVER(server);
  redis::connection c = connected(*server);
  REQUIRE(c.command({"ACL", "SETUSER", "narrow", "on", "nopass", "+@all", "resetchannels", "&allowed"}));
  REQUIRE(c.command({"AUTH", "narrow", "x"}));
  redis::subscriber s(std::move(c));
  CHECK(s.subscribe({"allowed"}, hang_guard()));
  const hub::io_result r = s.subscribe({"forbidden"}, hang_guard());
  CHECK(r.error.category() == redis::redis_category());
  CHECK(s.lost_because().rfind("NOPERM", 0) == 0);
}

TEST_CASE("a deadline before the confirmation, and a confirmation that comes later") {
  const hub_guard end;
  hub::event go;
  pretender p([&](hub::connection& s) {
    go.wait();
    say(s, "*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$2\r\nhi\r\n");
    hub::sleep_for(hours(1));
  });
  redis::subscriber s(p.connection());
  CHECK(s.subscribe({"a"}, milliseconds(2)).timed_out());
  go.set();
  CHECK(s.pop(hang_guard()).text == "hi");
}

TEST_CASE("nothing that a server publishes ends the process") {
  const hub_guard end;
  for (const char* const bytes :
       {"+OK\r\n", ":1\r\n", "$-1\r\n", "*1\r\n$1\r\na\r\n", "*2\r\n$4\r\npong\r\n$0\r\n\r\n", "*3\r\n:1\r\n",
        "*3\r\n$-1\r\n", "*3\r\n*0\r\n", "*3\r\n$7\r\nmessage\r\n:1\r\n", "*3\r\n$7\r\nmessage\r\n$-1\r\n",
        "*3\r\n$11\r\nunsubscribe\r\n$1\r\na\r\n$1\r\n0\r\n", "*3\r\n$12\r\npunsubscribe\r\n$1\r\na\r\n*0\r\n"}) {
    CAPTURE(bytes);
    pretender p([&](hub::connection& s) {
      say(s, "*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n");
      read_what_comes(s);
      say(s, bytes);
      hub::sleep_for(hours(1));
    });
    redis::subscriber s(p.connection());
    // What comes before it was asked for is refused as well, so that it has to be asked for first.
    const hub::io_result r = s.subscribe({"a"}, hang_guard());
    if (r) CHECK(s.pop(hang_guard()).error == std::errc::protocol_error);
    else CHECK(r.error == std::errc::protocol_error);
  }
  // Odd, and harmless.
  pretender p([&](hub::connection& s) {
    read_what_comes(s);
    say(s, "*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n*3\r\n$8\r\npmessage\r\n$1\r\na\r\n$1\r\na\r\n"
           "*3\r\n$7\r\nmessage\r\n$1\r\na\r\n:5\r\n*3\r\n$7\r\nmessage\r\n$1\r\nz\r\n$1\r\nx\r\n"
           "*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nb\r\n");
    hub::sleep_for(hours(1));
  });
  redis::subscriber s(p.connection());
  REQUIRE(s.subscribe({"a"}, hang_guard()));
  redis::message m;
  while ((m = s.pop(hang_guard())) && m.text != "b") {
  }
  CHECK(m.text == "b");
}
