// SPDX-License-Identifier: MIT
// Names, which are looked up on the pool.
#include "hub_pool.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <netdb.h>
#include <netinet/in.h>
#include <string>
#include <sys/socket.h>
#include <system_error>
#include <vector>

using namespace greenlets;
using namespace testing;

extern "C" {
// Names that every network has: in the tests only.
EXPORTED int getaddrinfo(const char* host, const char* service, const addrinfo* hints, addrinfo** list) {
  static auto* const real =
      original(static_cast<int (*)(const char*, const char*, const addrinfo*, addrinfo**)>(nullptr), "getaddrinfo");
  const std::string name = host ? host : "";
  if (name == "no-descriptor.test") {
    errno = EMFILE;
    return hints->ai_flags & AI_NUMERICHOST ? EAI_NONAME : EAI_SYSTEM;
  }
  if (name == "later.test") return hints->ai_flags & AI_NUMERICHOST ? EAI_NONAME : EAI_AGAIN;
  if (name != "many.test" || hints->ai_flags & AI_NUMERICHOST) return real(host, service, hints, list);
  addrinfo numeric = *hints;
  numeric.ai_flags |= AI_NUMERICHOST;
  *list = nullptr;
  for (const char* each : {"127.0.0.1", "127.0.0.2", "::1", "127.0.0.1", "127.0.0.2", "::1"}) {
    if (const int code = real(each, service, &numeric, list)) return code;
    list = &(*list)->ai_next;
  }
  return 0;
}
EXPORTED int socket(int domain, int type, int protocol) noexcept {
  if (domain != AF_UNIX && fails_now(call::socket)) return -1;
  static auto* const real = original(static_cast<int (*)(int, int, int)>(nullptr), "socket");
  return real(domain, type, protocol);
}
}

namespace {

// A port of 127.0.0.1 that is taken, and where nobody listens: else a connection might be one with itself.
struct refusing {
  int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  std::uint16_t port = 0;

  refusing() {
    const hub::address any("127.0.0.1", 0);
    sockaddr_in at{};
    socklen_t size = sizeof at;
    REQUIRE(bind(fd, any.data(), any.size()) == 0);
    REQUIRE(getsockname(fd, reinterpret_cast<sockaddr*>(&at), &size) == 0);
    port = ntohs(at.sin_port);
  }
  refusing(const refusing&) = delete;
  refusing& operator=(const refusing&) = delete;
  ~refusing() { ::close(fd); }
};

events texts(const hub::resolution& r) {
  events all;
  for (const hub::address& a : r.addresses) all.push_back(a.text());
  return all;
}

}  // namespace

TEST_CASE("numeric addresses are answered at once, with the pool full") {
  const hub_guard end;
  pool_taken taken;
  const auto switches = hub::statistics().switches;
  CHECK(texts(hub::resolve("127.0.0.1", 80)) == events{"127.0.0.1:80"});
  CHECK(texts(hub::resolve("::1", "443")) == events{"[::1]:443"});
  CHECK(hub::statistics().switches == switches);
}

TEST_CASE("a name has its addresses, each once, for streams, and a service its port") {
  const hub_guard end;
  const hub::resolution r = hub::resolve("localhost", 4711, hang_guard());
  REQUIRE(r);
  REQUIRE(!r.addresses.empty());
  events all = texts(r);
  for (const std::string& each : all) CHECK((each == "127.0.0.1:4711" || each == "[::1]:4711"));
  std::sort(all.begin(), all.end());
  CHECK(std::unique(all.begin(), all.end()) == all.end());
  if (getservbyname("http", "tcp")) CHECK(texts(hub::resolve("127.0.0.1", "http")) == events{"127.0.0.1:80"});
}

TEST_CASE("addresses are given in the system's order, and one that it gives twice, once") {
  const hub_guard end;
  CHECK(texts(hub::resolve("many.test", 7)) == events{"127.0.0.1:7", "127.0.0.2:7", "[::1]:7"});
}

TEST_CASE("what cannot be found is an error with the system's words") {
  const hub_guard end;
  const hub::resolution service = hub::resolve("127.0.0.1", "no-such-service", hang_guard());
  CHECK_FALSE(service);
  CHECK(service.addresses.empty());
  CHECK(service.error.category() == hub::name_category());
  CHECK((service.error.value() == EAI_SERVICE || service.error.value() == EAI_NONAME));
  CHECK(service.error.message() == gai_strerror(service.error.value()));
  CHECK(std::string(hub::name_category().name()) == "getaddrinfo");
  // Without a question to anybody.
  const hub::resolution empty = hub::resolve("", 1, hang_guard());
  CHECK(empty.error == std::error_code(EAI_NONAME, hub::name_category()));
  CHECK(hub::resolve(std::string("localhost\0.example", 18), 1).error.value() == EAI_NONAME);
  CHECK(hub::resolve("later.test", 1).error == std::error_code(EAI_AGAIN, hub::name_category()));
  CHECK(hub::resolve("no-descriptor.test", 1).error == std::errc::too_many_files_open);
  const hub::resolution too_long = hub::resolve(std::string(300, 'a'), 1, hang_guard());
  CHECK(too_long.error.category() == std::generic_category());
  CHECK_FALSE(too_long.timed_out());
}

TEST_CASE("a deadline or a cancel leaves a look-up at once, which is forgotten") {
  const hub_guard end;
  pool_taken taken;
  const hub::resolution late = hub::resolve("localhost", 1, milliseconds(5));
  CHECK(late.timed_out());
  CHECK(late.addresses.empty());
  hub::connection c;
  CHECK(hub::connect(c, "localhost", 1, milliseconds(5)).timed_out());
  auto t = hub::spawn([] { hub::resolve("localhost", 1); });
  yield_until_waiting(1);
  t.cancel();
  CHECK(t.join(hang_guard()));
  CHECK_THROWS_AS(t.get(), hub::cancelled);
  taken.release();
  CHECK(hub::resolve("localhost", 1, hang_guard()));
}

TEST_CASE("a look-up that has begun and is left ends by itself, also after the hub has") {
  hub::resolve("localhost", 1);
  for (int n = 0; n < 20; ++n) {
    auto t = hub::spawn([] { hub::resolve("localhost", 1); });
    for (int turns = 0; turns <= n % 3; ++turns) hub::yield();
    if (n % 2) t.cancel();
    if (n % 2) t.join();
    hub::shutdown();
    CHECK(t.ready());
  }
}

TEST_CASE("connecting by name, to the first address that answers; otherwise there is an error") {
  const hub_guard end;
  hub::listener l(hub::address("127.0.0.1", 0));
  const std::uint16_t port = l.local().port();
  hub::connection client, server;
  REQUIRE(hub::connect(client, "localhost", port, hang_guard()));  // the first may be ::1, where nobody listens
  CHECK(client.peer().text() == l.local().text());
  REQUIRE(l.accept(server, hang_guard()));
  CHECK(hub::connect(client, "127.0.0.1", port, hang_guard()));
  const int before = client.fd();
  const refusing nobody;
  CHECK(hub::connect(client, "127.0.0.1", nobody.port, hang_guard()).error == std::errc::connection_refused);
  CHECK(hub::connect(client, "", port, hang_guard()).error == std::error_code(EAI_NONAME, hub::name_category()));
  CHECK(client.fd() == before);
}

TEST_CASE("connecting by name tries one address after the other, and the deadline bounds all of them") {
  const hub_guard end;
  hub::connection c;
  const refusing first;
  hub::listener second(hub::address("127.0.0.2", first.port));
  CHECK(hub::connect(c, "many.test", first.port, hang_guard()));
  CHECK(c.peer().text() == second.local().text());
  // A queue that is full: whoever connects waits.
  const refusing full;
  REQUIRE(listen(full.fd, 0) == 0);
  std::vector<hub::connection> waiting(20);
  std::size_t n = 0;
  const hub::address where("127.0.0.1", full.port);
  while (n < waiting.size() && !hub::connect(waiting[n], where, milliseconds(50)).timed_out()) ++n;
  REQUIRE(n < waiting.size());
  CHECK(hub::connect(c, "many.test", full.port, milliseconds(20)).timed_out());  // and does not go on to 127.0.0.2
}

TEST_CASE("connecting by name passes over what the system has no sockets for, and nothing else") {
  const hub_guard end;
  hub::listener l(hub::address("127.0.0.1", 0));
  hub::connection c;
  {
    const failing none(call::socket, EAFNOSUPPORT);
    CHECK(hub::connect(c, "127.0.0.1", l.local().port(), hang_guard()).error == std::errc::address_family_not_supported);
  }
  const failing none(call::socket, EMFILE);
  CHECK(system_error_of([&] { hub::connect(c, "127.0.0.1", l.local().port()); }) == std::errc::too_many_files_open);
}
