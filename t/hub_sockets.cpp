// SPDX-License-Identifier: MIT
// Unix domain sockets and datagrams.
#include "hub_testing.hpp"

#include <cstring>
#include <net/if.h>
#include <stdexcept>
#include <sys/stat.h>
#include <system_error>
#include <thread>
#include <vector>

using namespace greenlets;
using namespace testing;

namespace {

bool exists(const std::string& path) {
  struct stat s;
  return lstat(path.c_str(), &s) == 0;
}

hub::owned_fd null_file() {
  hub::owned_fd fd(open("/dev/null", O_RDONLY | O_CLOEXEC));
  REQUIRE(fd.get() >= 0);
  return fd;
}

}  // namespace

// -- Addresses -----------------------------------------------------------------------------------

TEST_CASE("the address of a Unix domain socket is a path or an abstract name, of at most 107 bytes") {
  const hub::address path = hub::unix_address("/run/d.sock");
  CHECK(path.text() == "/run/d.sock");
  CHECK(path.family() == AF_UNIX);
  CHECK(path.port() == 0);
  CHECK(hub::unix_address("@name").text() == "@name");
  CHECK(hub::unix_address(std::string("@a\0b", 4)).text() == std::string("@a\0b", 4));
  CHECK(hub::unix_address(std::string(107, 'p')).text() == std::string(107, 'p'));
  CHECK(hub::address("::1", 1).family() == AF_INET6);
  CHECK(hub::address().family() == AF_UNSPEC);
  for (const std::string& bad : {std::string(), std::string(108, 'p'), std::string("a\0b", 3)})
    CHECK_THROWS_AS(hub::unix_address(bad), std::invalid_argument);
}

// -- Streams -------------------------------------------------------------------------------------

TEST_CASE("a connection by a path, and by an abstract name, is like one by TCP") {
  const hub_guard end;
  const directory dir;
  for (const std::string& name : {dir / "s", "@greenlet-test-" + std::to_string(getpid())}) {
    hub::listener l{hub::unix_address(name)};
    CHECK(l.local().text() == name);
    hub::connection client, server;
    REQUIRE(hub::connect(client, l.local(), hang_guard()));
    REQUIRE(l.accept(server, hang_guard()));
    CHECK(client.peer().text() == name);
    CHECK(server.peer().text() == "unnamed");
    REQUIRE(client.write_all("ping", 4));
    REQUIRE(client.shutdown_write());
    CHECK(read_to_end(server) == "ping");
    REQUIRE(server.write_all("pong", 4));
    server.close();
    CHECK(read_to_end(client) == "pong");
  }
  hub::connection none;
  CHECK(hub::connect(none, hub::unix_address(dir / "nobody")).error == std::errc::no_such_file_or_directory);
  CHECK(!none.is_open());
  CHECK(dir.names() == events{"s"});
}

TEST_CASE("a file on which nobody listens any more is removed when that is asked for; another never") {
  const hub_guard end;
  const directory dir;
  const hub::address where = hub::unix_address(dir / "s");
  hub::listener::options take;
  take.remove_stale = true;
  {
    hub::listener first(where, take);
    CHECK_THROWS_AS(hub::listener(where, take), std::system_error);
    hub::connection c;
    CHECK(hub::connect(c, where, hang_guard()));
  }
  CHECK(exists(where.text()));
  CHECK_THROWS_AS(hub::listener{where}, std::system_error);
  {
    hub::listener second(where, take);
    hub::connection c;
    CHECK(hub::connect(c, where, hang_guard()));
  }
  const std::string file = dir / "f";
  hub::owned_fd made(open(file.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
  CHECK_THROWS_AS(hub::listener(hub::unix_address(file), take), std::system_error);
  CHECK(exists(file));
  hub::listener abstract(hub::unix_address("@greenlet-test-stale-" + std::to_string(getpid())), take);
  hub::listener tcp(hub::address("127.0.0.1", 0), take);
  CHECK(dir.names() == events{"f", "s"});
}

TEST_CASE("where the backlog is full a connection waits for room, or for its deadline") {
  const hub_guard end;
  const directory dir;
  hub::listener::options one;
  one.backlog = 1;
  hub::listener l(hub::unix_address(dir / "s"), one);
  std::vector<hub::connection> there;
  for (;;) {
    hub::connection c;
    const hub::io_result r = hub::connect(c, l.local(), milliseconds(5));
    if (r.timed_out()) break;
    REQUIRE(r);
    there.push_back(std::move(c));
    REQUIRE(there.size() < 100);
  }
  const auto late = hub::spawn([&] {
    hub::connection c;
    CHECK(hub::connect(c, l.local(), hang_guard()));
  });
  yield_until_waiting(1);
  std::vector<hub::connection> taken(there.size() + 1);
  for (hub::connection& each : taken) REQUIRE(l.accept(each, hang_guard()));
  late.join();
  CHECK(dir.names() == events{"s"});
}

TEST_CASE("who the other side is can be asked") {
  const hub_guard end;
  auto [a, b] = hub::connection_pair();
  const hub::credentials c = hub::peer_credentials(a);
  CHECK(c.pid == getpid());
  CHECK(c.uid == geteuid());
  CHECK(c.gid == getegid());
  CHECK(b.is_open());
  a.close();
  CHECK_THROWS_AS(hub::peer_credentials(a), std::system_error);
}

TEST_CASE("without descriptors there is no pair, and nothing is left") {
  const hub_guard end;
  hub::this_hub();
  const no_descriptors scope;
  CHECK_THROWS_AS(hub::connection_pair(), std::system_error);
}

// -- Descriptors ---------------------------------------------------------------------------------

TEST_CASE("descriptors come with the bytes they were sent with, and are copies that belong to the receiver") {
  const hub_guard end;
  auto [a, b] = hub::connection_pair();
  auto [in, out] = pipe_pair();
  REQUIRE(a.write_all("before", 6));
  REQUIRE(hub::send_descriptors(a, "two", 3, {in.fd(), out.fd()}));
  REQUIRE(hub::send_descriptors(a, "none", 4, {}));
  char buffer[100];
  std::vector<hub::owned_fd> got;
  std::string text;
  while (text.size() < 13) {
    const hub::io_result r = hub::receive_descriptors(b, buffer, sizeof buffer, got, hang_guard());
    REQUIRE(r);
    text.append(buffer, r.bytes);
  }
  CHECK(text == "beforetwonone");
  REQUIRE(got.size() == 2);
  for (const hub::owned_fd& each : got) CHECK(fcntl(each.get(), F_GETFD) == FD_CLOEXEC);
  CHECK(got[0].get() != in.fd());
  in.close();
  out.close();
  hub::descriptor from(got[0].release()), to(got[1].release());
  REQUIRE(to.write_all("through", 7));
  to.close();
  CHECK(read_to_end(from) == "through");
  CHECK(hub::receive_descriptors(b, buffer, 0, got).bytes == 0);
  a.close();
  CHECK(hub::receive_descriptors(b, buffer, sizeof buffer, got).end());
  b.close();
  CHECK(hub::receive_descriptors(b, buffer, sizeof buffer, got).closed());
  CHECK(hub::send_descriptors(b, "x", 1, {0}).closed());
}

TEST_CASE("253 descriptors go with one message, and more or no data are refused") {
  const hub_guard end;
  auto [a, b] = hub::connection_pair();
  const hub::owned_fd null = null_file();
  const std::vector<int> many(254, null.get());
  CHECK_THROWS_AS(hub::send_descriptors(a, "x", 1, many.data(), 254), std::invalid_argument);
  CHECK_THROWS_AS(hub::send_descriptors(a, "x", 0, many.data(), 1), std::invalid_argument);
  CHECK(hub::send_descriptors(a, "x", 1, {-1}).error == std::errc::bad_file_descriptor);
  REQUIRE(hub::send_descriptors(a, "x", 1, many.data(), 253));
  char byte;
  std::vector<hub::owned_fd> got;
  REQUIRE(hub::receive_descriptors(b, &byte, 1, got, hang_guard()));
  CHECK(got.size() == 253);
}

TEST_CASE("with much data they come once, and both sides wait for each other") {
  const hub_guard end;
  auto [a, b] = hub::connection_pair();
  const hub::owned_fd null = null_file();
  const std::string sent = pattern(2 << 20);
  fill(a);
  const auto sends = hub::spawn([&, &to = a] {
    CHECK(hub::send_descriptors(to, "x", 1, {null.get()}, milliseconds(1)).timed_out());
    const hub::io_result r = hub::send_descriptors(to, sent.data(), sent.size(), {null.get()}, hang_guard());
    CHECK(r);
    CHECK(r.bytes == sent.size());
    to.close();
  });
  sends.join(milliseconds(20));  // begins, and finds the buffer full
  std::string all, buffer(65536, '\0');
  std::vector<hub::owned_fd> got;
  while (const hub::io_result r = hub::receive_descriptors(b, buffer.data(), buffer.size(), got, hang_guard()))
    all.append(buffer, 0, r.bytes);
  CHECK(got.size() == 1);
  REQUIRE(all.size() > sent.size());
  CHECK(all.compare(all.size() - sent.size(), sent.size(), sent) == 0);
  sends.join();
}

TEST_CASE("a process without room for descriptors is told, and has those for which there was room") {
  const hub_guard end;
  auto [a, b] = hub::connection_pair();
  const hub::owned_fd null = null_file();
  REQUIRE(hub::send_descriptors(a, "data", 4, {null.get(), null.get()}));
  char buffer[10];
  std::vector<hub::owned_fd> got;
  CHECK(hub::receive_descriptors(b, buffer, 0, got).bytes == 0);
  const no_descriptors scope;
  const hub::io_result r = hub::receive_descriptors(b, buffer, sizeof buffer, got, hang_guard());
  CHECK(r.error == std::errc::too_many_files_open);
  CHECK(r.bytes == 4);
  CHECK(got.empty());
}

TEST_CASE("who waits for descriptors is woken by a deadline, by a close, and by what is thrown in") {
  const hub_guard end;
  auto [a, b] = hub::connection_pair();
  char byte;
  std::vector<hub::owned_fd> got;
  CHECK(hub::receive_descriptors(b, &byte, 1, got, milliseconds(1)).timed_out());
  const auto waits = hub::spawn([&, &from = b] { CHECK(hub::receive_descriptors(from, &byte, 1, got).closed()); });
  auto cancelled = hub::spawn([&, &from = a] { hub::receive_descriptors(from, &byte, 1, got); });
  yield_until_waiting(2);
  cancelled.cancel();
  CHECK_THROWS_AS(cancelled.get(), hub::cancelled);
  b.close();
  waits.join();
  // A socket that is no Unix domain socket has none.
  hub::listener l(hub::address("127.0.0.1", 0));
  hub::connection c;
  REQUIRE(hub::connect(c, l.local(), hang_guard()));
  l.close();
  CHECK(hub::receive_descriptors(c, &byte, 1, got, hang_guard()).reset());
}

// -- Datagrams -----------------------------------------------------------------------------------

TEST_CASE("datagrams are received as they were sent, with where they came from; an empty one as well") {
  const hub_guard end;
  const directory dir;
  for (const bool udp : {true, false}) {
    CAPTURE(udp);
    hub::datagram_socket server(udp ? hub::address("127.0.0.1", 0) : hub::unix_address(dir / "server"));
    hub::datagram_socket client(udp ? hub::address("127.0.0.1", 0) : hub::unix_address(dir / "client"));
    const auto echo = hub::spawn([&] {
      char buffer[2000];
      hub::address from;
      while (const auto r = server.receive_from(buffer, sizeof buffer, from, hang_guard()))
        CHECK(server.send_to(buffer, r.bytes, from, hang_guard()).bytes == r.bytes);
    });
    for (const std::size_t size : {0, 1, 1472, 2000}) {
      const std::string sent = pattern(size);
      CHECK(client.send_to(sent.data(), size, server.local()).bytes == size);
      std::string got(3000, '\0');
      hub::address from;
      const hub::io_result r = client.receive_from(got.data(), got.size(), from, hang_guard());
      CHECK(r);
      CHECK(!r.end());
      CHECK(got.substr(0, r.bytes) == sent);
      CHECK(from.text() == server.local().text());
    }
    server.close();
    echo.join();
    CHECK(!server.is_open());
    CHECK(server.fd() == -1);
  }
  CHECK(dir.names() == events{"client", "server"});
}

TEST_CASE("of a datagram that is larger than the buffer the rest is lost, and that is told") {
  const hub_guard end;
  hub::datagram_socket a(hub::address("127.0.0.1", 0)), b(AF_INET);
  REQUIRE(b.send_to("0123456789", 10, a.local()));
  REQUIRE(b.send_to("next", 4, a.local()));
  char buffer[5];
  const hub::io_result r = a.receive(buffer, 4, hang_guard());
  CHECK(r.error == std::errc::message_size);
  CHECK(r.bytes == 4);
  CHECK(std::memcmp(buffer, "0123", 4) == 0);
  CHECK(a.receive(buffer, 4, hang_guard()).bytes == 4);
  const std::string large(70000, 'x');
  CHECK(b.send_to(large.data(), large.size(), a.local()).error == std::errc::message_size);
}

TEST_CASE("a connected socket sends to one place, and is told when nobody is there") {
  const hub_guard end;
  hub::datagram_socket server(hub::address("127.0.0.1", 0)), client(AF_INET), other(AF_INET);
  REQUIRE(client.connect(server.local()));
  REQUIRE(client.send("ping", 4, hang_guard()));
  char buffer[10];
  hub::address from;
  CHECK(server.receive_from(buffer, sizeof buffer, from, hang_guard()).bytes == 4);
  CHECK(from.text() == client.local().text());
  REQUIRE(other.send_to("not me", 6, client.local()));
  REQUIRE(server.send_to("pong", 4, from));
  CHECK(client.receive(buffer, sizeof buffer, hang_guard()).bytes == 4);
  server.close();
  REQUIRE(client.send("ping", 4, hang_guard()));
  CHECK(client.receive(buffer, sizeof buffer, hang_guard()).error == std::errc::connection_refused);
  CHECK(client.connect(hub::unix_address("@x")).error.value() != 0);
  client.close();
  CHECK(client.connect(from).closed());
  CHECK(client.send("x", 1).closed());
  CHECK(client.receive(buffer, 1).closed());
}

TEST_CASE("a receiver whose queue is full holds back who sends, whether that is connected or not") {
  const hub_guard end;
  const directory dir;
  hub::datagram_socket slow(hub::unix_address(dir / "slow"));
  for (const bool connected : {true, false}) {
    CAPTURE(connected);
    hub::datagram_socket client(AF_UNIX);
    if (connected) REQUIRE(client.connect(slow.local()));
    const auto send = [&](hub::deadline until) {
      return connected ? client.send("x", 1, until) : client.send_to("x", 1, slow.local(), until);
    };
    std::size_t sent = 0;
    while (send(milliseconds(3))) ++sent;
    CHECK(send(milliseconds(1)).timed_out());
    auto waits = hub::spawn([&] { return send(hang_guard()).bytes; });
    yield_until_waiting(1);
    char buffer[10];
    hub::address from;
    for (std::size_t n = 0; n < sent; ++n) REQUIRE(slow.receive_from(buffer, 10, from, hang_guard()).bytes == 1);
    CHECK(from.text() == "unnamed");
    CHECK(waits.get() == 1);
    REQUIRE(slow.receive(buffer, 10, hang_guard()));
  }
  CHECK(dir.names() == events{"slow"});
}

TEST_CASE("who waits for a datagram is woken by a deadline, by a close, and by what is thrown in") {
  const hub_guard end;
  hub::datagram_socket a(hub::address("127.0.0.1", 0)), b(AF_INET);
  char byte;
  CHECK(a.receive(&byte, 1, milliseconds(1)).timed_out());
  const auto waits = hub::spawn([&] { CHECK(a.receive(&byte, 1).closed()); });
  auto cancelled = hub::spawn([&] { b.receive(&byte, 1); });
  yield_until_waiting(2);
  cancelled.cancel();
  CHECK_THROWS_AS(cancelled.get(), hub::cancelled);
  CHECK_THROWS_AS(a.receive(&byte, 1), error);  // one waits already
  a.close();
  waits.join();
  std::thread([&] { CHECK_THROWS_AS(b.receive(&byte, 1), error); }).join();
}

TEST_CASE("what a socket is to allow is asked of the system, which may refuse") {
  const hub_guard end;
  hub::datagram_socket::options share;
  share.share_port = share.broadcast = true;
  hub::datagram_socket a(hub::address("127.0.0.1", 0), share);
  hub::datagram_socket b(a.local(), share);
  CHECK(b.local().text() == a.local().text());
  CHECK_THROWS_AS(hub::datagram_socket(a.local()), std::system_error);
  int on = 0;
  socklen_t size = sizeof on;
  CHECK(getsockopt(a.fd(), SOL_SOCKET, SO_BROADCAST, &on, &size) == 0);
  CHECK(on == 1);
  hub::datagram_socket::options only;
  only.only_v6 = true;
  CHECK_THROWS_AS(hub::datagram_socket(AF_INET, only), std::system_error);
  CHECK_THROWS_AS(hub::datagram_socket(-1), std::system_error);
  CHECK_THROWS_AS(hub::datagram_socket().local(), std::system_error);
}

TEST_CASE("what is sent to a multicast group comes to who has joined it, until he leaves") {
  const hub_guard end;
  hub::datagram_socket::options share;
  share.share_port = true;
  hub::datagram_socket a(hub::address("127.0.0.1", 0));
  CHECK_THROWS_AS(a.join(hub::address("127.0.0.1", 0), 0), std::system_error);
  CHECK_THROWS_AS(a.leave(hub::address("239.1.2.3", 0), 0), std::system_error);
  const unsigned loopback = if_nametoindex("lo");
  REQUIRE(loopback != 0);
  a.join(hub::address("239.1.2.3", 0), loopback);
  CHECK_THROWS_AS(a.join(hub::address("239.1.2.3", 0), loopback), std::system_error);
  a.leave(hub::address("239.1.2.3", 0), loopback);
}
