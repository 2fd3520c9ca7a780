// SPDX-License-Identifier: MIT
// TCP over loopback: addresses, listening, connecting, and every way in which a connection ends.
#include "hub_testing.hpp"

#include <cerrno>
#include <cstring>
#include <netinet/in.h>
#include <stdexcept>
#include <sys/resource.h>
#include <system_error>
#include <thread>

using namespace greenlets;
using namespace testing;

namespace {

hub::address any_port() { return hub::address("127.0.0.1", 0); }

struct tcp {
  hub::connection client, server;
};

tcp connected(hub::listener& l) {
  tcp both;
  auto t = hub::spawn([&] { return hub::connect(both.client, l.local(), hang_guard()); });
  REQUIRE(l.accept(both.server, hang_guard()));
  REQUIRE(t.get());
  return both;
}

// Goes without good-bye: the other side is reset.
void vanish(hub::connection& c) {
  const linger now{1, 0};
  REQUIRE(setsockopt(c.fd(), SOL_SOCKET, SO_LINGER, &now, sizeof now) == 0);
  c.close();
}

// Smaller than they grow by themselves, yet larger than loopback's segments.
void small_buffers(hub::connection& c) {
  const int size = 128 * 1024;
  setsockopt(c.fd(), SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
  setsockopt(c.fd(), SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
}

// A connected socket that the hub does not know.
int raw_client(const hub::address& where) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  REQUIRE(fd >= 0);
  REQUIRE(::connect(fd, where.data(), where.size()) == 0);
  return fd;
}

}  // namespace

// -- Addresses -----------------------------------------------------------------------------------

TEST_CASE("addresses are read and printed; what is no number is refused") {
  CHECK(hub::address("127.0.0.1", 80).text() == "127.0.0.1:80");
  CHECK(hub::address("0.0.0.0", 0).text() == "0.0.0.0:0");
  CHECK(hub::address("::1", 65535).text() == "[::1]:65535");
  CHECK(hub::address("2001:db8:0:0::7", 1).text() == "[2001:db8::7]:1");
  CHECK(hub::address("::ffff:10.0.0.1", 9).port() == 9);
  CHECK(hub::address().text() == "no address");
  CHECK(hub::address().port() == 0);
  for (const char* bad : {"", "localhost", "127.0.0.1 ", "127.1", "256.0.0.1", "::g", "[::1]", "127.0.0.1:80", "1.2.3.4.5"}) {
    CAPTURE(std::string(bad));
    CHECK_THROWS_AS(hub::address(bad, 1), std::invalid_argument);
  }
  try {
    hub::address("example.org", 1);
  } catch (const std::invalid_argument& e) {
    CHECK(std::strstr(e.what(), "\"example.org\"") != nullptr);
  }
  sockaddr_in in{};
  in.sin_family = AF_INET;
  in.sin_port = htons(123);
  in.sin_addr.s_addr = htonl(0x0a000001);
  CHECK(hub::address(reinterpret_cast<sockaddr*>(&in), sizeof in).text() == "10.0.0.1:123");
}

// -- Listening and connecting --------------------------------------------------------------------

TEST_CASE("a connection is accepted, knows both its ends, and carries bytes both ways") {
  hub_guard guard;
  for (const char* ip : {"127.0.0.1", "::1"}) {
    CAPTURE(std::string(ip));
    hub::listener l;
    try {
      l = hub::listener(hub::address(ip, 0));
    } catch (const std::system_error& e) {
      MESSAGE("not here: " << e.what());  // no IPv6
      continue;
    }
    CHECK(l.is_open());
    CHECK(l.local().port() != 0);
    auto [client, server] = connected(l);
    CHECK(client.peer().text() == l.local().text());
    CHECK(server.local().text() == l.local().text());
    CHECK(server.peer().text() == client.local().text());
    char buffer[4];
    CHECK(client.write_all("ping", 4));
    CHECK(server.read_exactly(buffer, 4));
    CHECK(server.write_all(buffer, 4));
    CHECK(client.read_exactly(buffer, 4));
    CHECK(std::string(buffer, 4) == "ping");
  }
}

TEST_CASE("connecting to where nobody listens is refused, as a result; the connection is left alone") {
  hub_guard guard;
  hub::address nobody = [] { return hub::listener(any_port()).local(); }();
  hub::connection c;
  const hub::io_result r = hub::connect(c, nobody, hang_guard());
  CHECK(r.error == std::errc::connection_refused);
  CHECK_FALSE(c.is_open());
  hub::listener l(any_port());
  auto [client, server] = connected(l);
  const int before = client.fd();
  CHECK_FALSE(hub::connect(client, nobody, hang_guard()));
  CHECK(client.fd() == before);
  CHECK_THROWS_AS(hub::connect(c, hub::address()), std::system_error);
}

TEST_CASE("connecting gives up at its deadline") {
  hub_guard guard;
  // Linux drops what comes for a full queue, and the other side tries again for minutes.
  hub::listener::options how;
  how.backlog = 0;
  hub::listener l(any_port(), how);
  std::vector<hub::connection> queued;
  hub::io_result r;
  do {
    queued.emplace_back();
    r = hub::connect(queued.back(), l.local(), milliseconds(30));
  } while (r && queued.size() < 10);
  CHECK(r.timed_out());
  CHECK_FALSE(queued.back().is_open());
}

TEST_CASE("a port that is in use, and one that is not ours, are a system_error that names bind") {
  hub_guard guard;
  hub::listener l(any_port());
  try {
    hub::listener second(l.local());
    FAIL("bound twice");
  } catch (const std::system_error& e) {
    CHECK(e.code() == std::errc::address_in_use);
    CHECK(std::string(e.what()).find("bind") != std::string::npos);
  }
  try {
    hub::listener elsewhere(hub::address("192.0.2.1", 0));  // TEST-NET-1
    FAIL("bound to an address that is not ours");
  } catch (const std::system_error& e) {
    CHECK(e.code() == std::errc::address_not_available);
  }
  hub::listener::options how;
  how.share_port = true;
  hub::listener a(any_port(), how), b(a.local(), how);
  CHECK(a.local().port() == b.local().port());
}

TEST_CASE("accept: a deadline, a close by another greenlet, also one that destroys the listener") {
  hub_guard guard;
  auto l = std::make_unique<hub::listener>(any_port());
  hub::connection c;
  CHECK(l->accept(c, milliseconds(1)).timed_out());
  CHECK(l->accept(c, hub::clock::time_point()).timed_out());
  CHECK_FALSE(c.is_open());

  auto closed = hub::spawn([&] { return l->accept(c); });
  hub::yield();
  l->close();
  CHECK(closed.get().closed());
  CHECK_FALSE(l->is_open());
  CHECK(l->accept(c).closed());

  l = std::make_unique<hub::listener>(any_port());
  auto destroyed = hub::spawn([&] { return l->accept(c); });
  hub::yield();
  l.reset();
  CHECK(destroyed.get().closed());

  // The same when somebody has come, but the one who accepts has not gone on yet.
  l = std::make_unique<hub::listener>(any_port());
  auto accepts = hub::spawn([&] { return l->accept(c); });
  auto ready = hub::spawn([&] {
    const int fd = raw_client(l->local());
    hub::spawn([&] { l.reset(); });
    hub::yield();
    ::close(fd);
  });
  const hub::io_result r = accepts.get();
  CHECK((r || r.closed()));
  ready.get();
  hub::yield();
  CHECK(l == nullptr);
}

TEST_CASE("accept is refused on another thread, and after the hub's end; whoever has come is left") {
  // It accepted; on the other thread, and in a second hub, which it made.
  auto l = std::make_unique<hub::listener>(any_port());
  const int client = raw_client(l->local());
  hub::connection c;
  std::thread([&] {
    CHECK(error_of([&] { l->accept(c); }) == errc::different_thread);
    CHECK(hub::statistics().turns == 0);
    hub::run([&] { CHECK(error_of([&] { l->accept(c); }) == errc::different_thread); });
  }).join();
  CHECK_FALSE(c.is_open());
  CHECK(l->accept(c));
  c.close();
  const int later = raw_client(l->local());
  hub::shutdown();
  CHECK(l->accept(c).closed());
  CHECK_FALSE(c.is_open());
  l.reset();
  ::close(client);
  ::close(later);
}

// -- Ends ----------------------------------------------------------------------------------------

TEST_CASE("half close: the other side reads the end, and can still answer") {
  hub_guard guard;
  hub::listener l(any_port());
  auto [client, server] = connected(l);
  auto answers = hub::spawn([&, &server = server] {
    const std::string asked = read_to_end(server);
    server.write_all(asked.data(), asked.size());
    return server.shutdown_write();
  });
  client.write_all("question", 8);
  CHECK(client.shutdown_write());
  CHECK(client.write_all("x", 1).reset());  // EPIPE, without a signal
  CHECK(read_to_end(client) == "question");
  CHECK(answers.get());
  client.close();
  CHECK(client.shutdown_write().closed());
}

TEST_CASE("a reset is a result: to who reads, to who will read, and to who writes") {
  hub_guard guard;
  hub::listener l(any_port());
  char c;
  {
    auto [client, server] = connected(l);
    auto reads = hub::spawn([&, &server = server] { return server.read_some(&c, 1, hang_guard()); });
    hub::yield();
    vanish(client);
    CHECK(reads.get().reset());
  }
  {
    auto [client, server] = connected(l);
    client.write_all("sent before", 11);
    vanish(client);
    hub::io_result r;
    while ((r = server.read_some(&c, 1))) {
    }
    CHECK(r.reset());
    CHECK(server.write_all("x", 1).reset());
  }
  {
    auto [client, server] = connected(l);
    small_buffers(server);
    const std::string much = pattern(8'000'000);
    auto writes = hub::spawn([&, &server = server] { return server.write_all(much.data(), much.size(), hang_guard()); });
    hub::yield();
    CHECK_FALSE(writes.ready());
    vanish(client);
    CHECK(writes.get().reset());
    CHECK(writes.get().bytes > 0);
    CHECK(writes.get().bytes < much.size());
  }
  {
    auto [client, server] = connected(l);  // both at once
    small_buffers(server);
    fill(server);
    auto reads = hub::spawn([&, &server = server] { return server.read_some(&c, 1, hang_guard()); });
    auto writes = hub::spawn([&server = server] { return server.write_all("x", 1, hang_guard()); });
    hub::yield();
    vanish(client);
    // The error is told once, to the first; to the other the connection has ended.
    CHECK_FALSE(reads.get());
    CHECK_FALSE(writes.get());
    CHECK((reads.get().reset() || writes.get().reset()));
  }
}

TEST_CASE("one who came and went before being accepted harms nobody") {
  hub_guard guard;
  hub::listener l(any_port());
  for (int n = 0; n < 3; ++n) {
    const int fd = raw_client(l.local());
    const linger now{1, 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    ::close(fd);
  }
  const int good = raw_client(l.local());
  CHECK(::write(good, "here", 4) == 4);
  std::string got;
  for (int n = 0; n < 4 && got.empty(); ++n) {
    hub::connection c;
    REQUIRE(l.accept(c, hang_guard()));
    char buffer[8];
    const auto r = c.read_some(buffer, sizeof buffer, hang_guard());
    CHECK((r || r.reset() || r.end()));
    if (r) got.assign(buffer, r.bytes);
  }
  CHECK(got == "here");
  ::close(good);
}

// -- Many, and much ------------------------------------------------------------------------------

TEST_CASE("a thousand connections at once, on two threads, each with its own bytes") {
  hub_guard guard;
  rlimit limit;
  REQUIRE(getrlimit(RLIMIT_NOFILE, &limit) == 0);
  const rlimit before = limit;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  const std::size_t connections = limit.rlim_cur >= 2200 ? 1000 : (limit.rlim_cur - 100) / 2;

  hub::listener l(any_port());
  std::size_t right = 0, at_once = 0;
  std::thread clients([&, where = l.local()] {
    hub::event all, none;
    std::vector<hub::task<void>> tasks;
    for (std::size_t n = 0; n < connections; ++n)
      tasks.push_back(hub::spawn([&, n] {
        hub::connection c;
        if (!hub::connect(c, where, hang_guard())) return;
        if (++at_once == connections) all.set();
        all.wait(hang_guard());
        const std::string sent = "connection " + std::to_string(n);
        char back[32];
        if (c.write_all(sent.data(), sent.size()) && c.read_exactly(back, sent.size(), hang_guard()) &&
            std::string(back, sent.size()) == sent)
          ++right;
      }));
    for (auto& t : tasks) t.get();
  });
  std::vector<hub::task<void>> served;
  for (std::size_t n = 0; n < connections; ++n) {
    hub::connection c;
    REQUIRE(l.accept(c, hang_guard()));
    served.push_back(hub::spawn([c = std::move(c)]() mutable {
      char buffer[32];
      while (const auto r = c.read_some(buffer, sizeof buffer))
        if (!c.write_all(buffer, r.bytes)) break;
    }));
  }
  for (auto& t : served) t.get();
  clients.join();
  CHECK(at_once == connections);
  CHECK(right == connections);
  setrlimit(RLIMIT_NOFILE, &before);
}

TEST_CASE("much both ways at once: a slow reader holds the writer back, and every byte is right") {
  hub_guard guard;
  hub::listener l(any_port());
  auto [client, server] = connected(l);
  small_buffers(client);
  small_buffers(server);
  const std::string up = pattern(2'000'000), down(up.rbegin(), up.rend());
  std::size_t sent = 0;
  auto writes_up = hub::spawn([&, &client = client] {
    for (std::size_t at = 0; at < up.size(); at += 10'000) {
      if (!client.write_all(up.data() + at, 10'000)) return false;
      sent += 10'000;
    }
    return static_cast<bool>(client.shutdown_write());
  });
  // Nobody reads: the writer gets no further than the system's buffers.
  for (std::size_t last = sent + 1; last != sent;) {
    last = sent;
    hub::sleep_for(milliseconds(2));
  }
  CHECK(sent < up.size() / 2);
  auto writes_down = hub::spawn([&, &server = server] {
    return server.write_all(down.data(), down.size()) && server.shutdown_write();
  });
  auto reads_up = hub::spawn([&, &server = server] { return read_to_end(server, 4096) == up; });
  CHECK(read_to_end(client, 5000) == down);
  CHECK(reads_up.get());
  CHECK(writes_up.get());
  CHECK(writes_down.get());
}

TEST_CASE("a socket that listens already is taken; one that does not is refused, and stays the caller's") {
  const hub_guard end;
  hub::listener first(any_port());
  const hub::address where = first.local();
  const int fd = dup(first.fd());
  first.close();
  CHECK(first.fd() == -1);
  hub::listener second(fd);
  CHECK(second.fd() == fd);
  CHECK(second.local().text() == where.text());
  connected(second);

  const int silent = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  CHECK_THROWS_WITH_AS(hub::listener{silent}, doctest::Contains(("descriptor " + std::to_string(silent)).c_str()), std::invalid_argument);
  CHECK(close(silent) == 0);
  CHECK_THROWS_AS(hub::listener{silent}, std::system_error);
}

TEST_CASE("a descriptor that is released stays open: in another thread's hub, in this one's again, after the hub's end") {
  hub::listener l(any_port());
  auto [client, server] = connected(l);
  char byte;
  auto waits = hub::spawn([&, &server = server] { return server.read_some(&byte, 1); });
  hub::yield();
  const int fd = server.release();
  CHECK(fd >= 0);
  CHECK_FALSE(server.is_open());
  CHECK(server.release() == -1);
  CHECK(waits.get().closed());
  std::thread([&, &client = client] {
    hub::connection there(fd);
    char text[2];
    auto reads = hub::spawn([&] { return there.read_exactly(text, 2, hang_guard()); });
    hub::yield();
    CHECK(::write(client.fd(), "hi", 2) == 2);
    CHECK(reads.get());
    CHECK(there.release() == fd);
  }).join();
  server = hub::connection(fd);
  client.write_all("x", 1);
  CHECK(server.read_some(&byte, 1, hang_guard()));
  hub::shutdown();
  CHECK(server.release() == fd);
  CHECK(::write(fd, "y", 1) == 1);
  CHECK(::close(fd) == 0);
}

TEST_CASE("try_accept gives a descriptor that no hub has, or says that nobody is there; a released listener listens on") {
  const hub_guard end;
  hub::listener l(any_port());
  int fd = -1;
  CHECK(l.try_accept(fd).error == std::errc::operation_would_block);
  CHECK(l.wait(milliseconds(1)).timed_out());
  const int client = raw_client(l.local());
  CHECK(l.wait(hang_guard()));
  CHECK(l.try_accept(fd));
  CHECK(::write(client, "x", 1) == 1);
  char byte;
  CHECK(::recv(fd, &byte, 1, 0) == 1);
  ::close(client);
  ::close(fd);
  auto waits = hub::spawn([&] { return l.wait(); });
  hub::yield();
  const hub::address where = l.local();
  l = hub::listener(l.release());
  CHECK(waits.get().closed());
  CHECK(l.local().text() == where.text());
  connected(l);
  l.close();
  CHECK(l.release() == -1);
  CHECK(l.try_accept(fd).closed());
}

TEST_CASE("accept without descriptors left is an error, and goes on when there are some") {
  const child c = in_child([] {
    hub::listener l(any_port());
    int clients[3];
    for (int& fd : clients) fd = raw_client(l.local());
    hub::connection first, second, third;
    // Spawned before, for UBSan needs descriptors when it sees a type for the first time.
    hub::event leave;
    auto leaves = hub::spawn([&] { leave.wait(), first.close(); });
    hub::yield();
    const int free = dup(0);
    ::close(free);
    rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = static_cast<rlim_t>(free) + 1;  // one more
    setrlimit(RLIMIT_NOFILE, &limit);
    if (!l.accept(first)) _exit(2);
    for (int n = 0; n < 3; ++n)
      if (l.accept(second).error != std::errc::too_many_files_open) _exit(3);
    if (!l.is_open() || second.is_open()) _exit(4);
    char buffer[2];
    if (::write(clients[0], "ok", 2) != 2 || !first.read_exactly(buffer, 2)) _exit(5);  // those we have go on
    // One leaves while another waits for a place.
    leave.set();
    while (!l.accept(second)) hub::yield();
    if (::write(clients[1], "ok", 2) != 2 || !second.read_exactly(buffer, 2)) _exit(6);
    second.close();
    if (!l.accept(third, seconds(30))) _exit(7);
    if (::write(clients[2], "ok", 2) != 2 || !third.read_exactly(buffer, 2)) _exit(8);
    hub::connection none;
    bool thrown = false;
    try {
      hub::connect(none, l.local());
    } catch (const std::system_error& e) {
      thrown = e.code() == std::errc::too_many_files_open && std::string(e.what()).find("socket") != std::string::npos;
    }
    if (!thrown) _exit(9);
    third.close();
    hub::shutdown();
  });
  INFO(c.output);
  CHECK(c.status == 0);
}
