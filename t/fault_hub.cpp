// SPDX-License-Identifier: MIT
// The hub when memory, stacks or descriptors fail: who asked is told, who waits is not forgotten, and
// nothing is left.
//
// libuv's own memory is never refused: where its tables grow it ends the process.
#include "faults.hpp"
#include "hub_testing.hpp"

#include <array>
#include <csignal>
#include <dlfcn.h>
#include <sys/epoll.h>
#include <sys/wait.h>
#include <uv.h>

using namespace greenlets;
using faults::counted;
using faults::exhaust_by;
using faults::kind;
using faults::plan;
namespace hub = greenlets::hub;

// -- Descriptors: the program's own functions take the place of the C library's ---------------------
//
// Not eventfd() and pipe2(): libuv 1.44 forgets the epoll descriptor that it has opened when it does not
// get those.

namespace {

template <class F, class... A>
int descriptor_from(const char* name, A... arguments) noexcept {
  if (const int code = faults::ask(kind::descriptor)) {
    errno = code;
    return -1;
  }
  return reinterpret_cast<F*>(dlsym(RTLD_NEXT, name))(arguments...);
}

}  // namespace

#define EXPORTED __attribute__((visibility("default")))
extern "C" {
EXPORTED int socket(int domain, int type, int protocol) noexcept { return descriptor_from<int(int, int, int)>("socket", domain, type, protocol); }
EXPORTED int accept4(int fd, sockaddr* from, socklen_t* size, int flags) {
  return descriptor_from<int(int, sockaddr*, socklen_t*, int)>("accept4", fd, from, size, flags);
}
EXPORTED int epoll_create1(int flags) noexcept { return descriptor_from<int(int)>("epoll_create1", flags); }
}

namespace {

// Before the first loop is made, which is in a constructor of hub_testing.hpp's.
__attribute__((constructor)) void spare_libuv() {
  uv_replace_allocator(
      [](std::size_t size) {
        const counted not_here(false);
        return std::malloc(size);
      },
      [](void* block, std::size_t size) {
        const counted not_here(false);
        return std::realloc(block, size);
      },
      [](std::size_t count, std::size_t size) {
        const counted not_here(false);
        return std::calloc(count, size);
      },
      std::free);
}

// A switch to one that is suspended has nothing that could fail, and the hub counts on that.
const std::vector<plan> ways{
    {kind::allocation, ENOMEM}, {kind::allocation, ENOMEM, true}, {kind::mmap, ENOMEM},       {kind::mmap, ENOMEM, true},
    {kind::mprotect, ENOMEM},   {kind::first_switch, EAGAIN},     {kind::descriptor, EMFILE}, {kind::descriptor, EMFILE, true},
};

using large = std::array<long, 16>;

// What is true of every scenario: no hub before, unless it wants one; none afterwards; what nobody could
// be told was reported; and in between a hub that works.
struct hub_scenario {
  int reported = 0;
  unraisable_handler before = set_unraisable_handler([this](const greenlet&, const std::exception_ptr&) { ++reported; });

  hub_scenario() = default;
  hub_scenario(const hub_scenario&) = delete;
  hub_scenario& operator=(const hub_scenario&) = delete;
  ~hub_scenario() {
    hub::shutdown();
    set_unraisable_handler(before);
  }
  static bool works() {
    auto t = hub::spawn([] {
      hub::yield();
      return 5;
    });
    return t.get() == 5;
  }
};

struct making : hub_scenario {
  void act() { hub::this_hub(); }
  bool right(const std::exception_ptr&) { return works() && reported == 0; }
};

struct spawning : hub_scenario {
  int got = 0, never = 0;

  void act() {
    auto a = hub::spawn([] {
      hub::yield();
      return large{2};
    });
    auto b = hub::spawn([big = large{3}] {  // which a timer wakes
      hub::sleep_for(std::chrono::milliseconds(1));
      return big;
    });
    // One whose greenlet could not be given a stack was reported, and counts as cancelled.
    for (auto* each : {&a, &b}) {
      try {
        got += static_cast<int>(each->get()[0]);
      } catch (const hub::cancelled&) {
        ++never;
      }
    }
  }
  bool right(const std::exception_ptr& e) { return works() && (e || (got + (never == 0 ? 0 : never == 1 ? 5 - got : 5) == 5 && reported == never)); }
};

// A connection over loopback, a request and an answer; and a wait that times out.
struct serving : hub_scenario {
  bool answered = false;
  int given_up = 0;  // by who has said why

  void act() {
    hub::listener l(hub::address("127.0.0.1", 0));
    auto client = hub::spawn([this, where = l.local()] {
      hub::connection c;
      hub::io_result r = hub::connect(c, where, testing::hang_guard());
      char text[4];
      if (r) r = c.write_all("ping", 4, testing::hang_guard());
      if (r) r = c.read_exactly(text, 4, testing::hang_guard());
      answered = r && std::string(text, 4) == "pong";
    });
    // The client may fail to come; then nobody does.
    hub::connection c;
    hub::io_result r = l.accept(c, std::chrono::milliseconds(200));
    if (r.error == std::errc::too_many_files_open) throw std::system_error(EMFILE, std::generic_category(), "accept4");
    char text[4];
    if (r) r = c.read_exactly(text, 4, testing::hang_guard());
    if (r) r = c.write_all("pong", 4, testing::hang_guard());
    if (!r) ++given_up;
    if (r && c.wait(hub::direction::readable, std::chrono::milliseconds(0)).error == std::errc::timed_out) r = {};
    c.close();
    try {
      client.get();
    } catch (const hub::cancelled&) {
      ++given_up;
    }
  }
  bool right(const std::exception_ptr& e) { return works() && (e || answered || given_up > 0); }
};

// A program, what it is given, and what it writes.
struct running : hub_scenario {
  hub::process_result result;
  bool lost = false;

  void act() {
    try {
      result = hub::run_process({"cat"}, "through");
    } catch (const hub::cancelled&) {  // a greenlet for one of its streams could not be given a stack, and was reported
      lost = true;
    }
  }
  bool right(const std::exception_ptr& e) {
    if (!works() || (lost ? reported == 0 : !e && (!result || result.out != "through"))) return false;
    siginfo_t info;
    while (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0) hub::yield();  // killed, and soon reaped
    return true;
  }
};

// A server with three clients in its backlog: each is answered or closed, and the server goes on, or run() tells and
// can be called again.
struct accepting : hub_scenario {
  struct enough {};
  static constexpr unsigned clients = 3;
  hub::address where;
  hub::server s;
  int answered = 0;
  greenlet runs;
  int client[clients + 1];

  accepting() : s([this](hub::connection& c) { serve(c); }) {
    hub::listener l(hub::address("127.0.0.1", 0));
    where = l.local();
    s.listen(std::move(l));
    for (unsigned n = 0; n < clients; ++n) client[n] = come();
    client[clients] = -1;
  }
  ~accepting() {
    for (const int fd : client) ::close(fd);
  }
  int come() const {
    const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    REQUIRE(::connect(fd, where.data(), where.size()) == 0);
    REQUIRE(::write(fd, "ping", 4) == 4);
    return fd;
  }
  void serve(hub::connection& c) {
    char text[4];
    if (c.read_exactly(text, 4, testing::hang_guard()) && c.write_all("pong", 4)) ++answered;
    if (s.statistics().accepted >= wanted && s.statistics().active == 1) hub::cancel(runs, std::make_exception_ptr(enough()));
  }
  // Until all have been accepted; should the last not come to say so, the time has.
  void run() {
    runs = current();
    hub::timeout limit(std::chrono::milliseconds(30));
    try {
      s.run();
    } catch (const enough&) {
    } catch (const hub::timed_out&) {
    }
    runs = {};
  }
  void act() { run(); }
  bool right(const std::exception_ptr&) {
    runs = {};
    if (s.statistics().accepted > clients) return false;
    wanted = clients + 1;
    client[clients] = come();
    for (int n = 0; n < 100 && s.statistics().accepted < wanted; ++n) run();
    testing::yield_until([this] { return s.statistics().active == 0; });
    const auto now = s.statistics();
    return works() && now.accepted == wanted && answered + static_cast<int>(now.failed) == static_cast<int>(wanted) && answered > 0;
  }
  std::uint64_t wanted = clients;
};

// Both signals arrive, whatever could not be noted; of the one that comes more often than there is room, not
// each.
struct catching : hub_scenario {
  static constexpr int many = 200;
  int caught[2] = {};

  catching() { hub::this_hub(); }
  void act() {
    bool failed = false;
    {
      hub::signals s{SIGUSR1, SIGUSR2};
      // They are caught now: what fails from here on must not lose them.
      for (int n = 0; n < many; ++n) raise(SIGUSR1);
      raise(SIGUSR2);
      const auto next = [&] {
        const hub::deadline until = caught[1] == 0 ? testing::hang_guard() : std::chrono::milliseconds(0);
        try {
          return s.wait(until);
        } catch (const std::bad_alloc&) {
          failed = true;
          const counted not_here(false);
          return s.wait(until);
        }
      };
      while (const auto n = next()) ++caught[n == SIGUSR2];
    }
    if (failed) throw std::bad_alloc();
  }
  bool right(const std::exception_ptr& e) {
    return works() && ((e && caught[0] + caught[1] == 0) || (caught[0] >= 1 && caught[0] <= many && caught[1] == 1));
  }
};

// Each message runs, or somebody is told.
struct posting : hub_scenario {
  int ran = 0, posted = 0;

  void act() {
    {
      const hub::remote r = hub::this_hub();
      for (int n = 0; n < 3; ++n, ++posted) r.post([this] { ++ran; });
    }
    const auto give_up = hub::clock::now() + std::chrono::seconds(60);
    while (ran + reported < posted && hub::clock::now() < give_up) hub::yield();
  }
  bool right(const std::exception_ptr&) {
    testing::yield_until([this] { return ran + reported >= posted; });
    return works() && ran + reported == posted;
  }
};

// Nobody will ever be woken; the main greenlet is told, of that or that there is no memory to say it.
struct blocked : hub_scenario {
  bool told = false;

  blocked() { hub::this_hub(); }
  void act() {
    hub::detail::wait_list nobody;
    try {
      nobody.wait();
    } catch (const hub::would_block_forever&) {
      told = true;
    }
  }
  bool right(const std::exception_ptr& e) { return works() && told == !e && reported == 0; }
};

// Whatever a shutdown could not do, the next does.
struct shutting_down : hub_scenario {
  static constexpr int many = 40;  // whom to tell takes another chunk of waiters
  int cancelled = 0, otherwise = 0;
  hub::detail::wait_list nobody;

  shutting_down() {
    for (int n = 0; n < many; ++n)
      hub::spawn([this] {
        try {
          nobody.wait();
          ++otherwise;
        } catch (const greenlet_exit& e) {
          if (e.why == greenlet_exit::reason::cancelled) ++cancelled;
          throw;
        }
      });
    testing::yield_until_waiting(many);
  }
  void act() { hub::shutdown(); }
  bool right(const std::exception_ptr& e) {
    if (e) hub::shutdown();
    return cancelled == many && otherwise == 0 && works();
  }
};

}  // namespace

TEST_CASE("a hub that cannot be made leaves nothing, and can be made afterwards") {
  const auto n = exhaust_by<making>(ways, "making a hub");
  CHECK(n[kind::mmap] == 1);
  CHECK(n[kind::descriptor] == 1);
  if (faults::can_refuse_memory()) CHECK(n[kind::allocation] >= 4);
}

TEST_CASE("tasks: who spawns or joins is told, and the others go on") {
  const auto n = exhaust_by<spawning>(ways, "spawning");
  CHECK(n[kind::mmap] >= 2);
  if (faults::can_refuse_memory()) CHECK(n[kind::allocation] >= 9);
}

TEST_CASE("connections: each end is told, and all descriptors are closed") {
  const auto n = exhaust_by<serving>(ways, "serving");
  CHECK(n[kind::descriptor] >= 4);
  if (faults::can_refuse_memory()) CHECK(n[kind::allocation] >= 10);
}

// Under ThreadSanitizer, and only there and on a busy machine, the end of a child is not told in one of eight runs: the
// signal has come, and libuv's handler has not been called. Why is not known.
#ifndef T_TSAN
TEST_CASE("programs: who starts one is told, and none is left") {
  const auto n = exhaust_by<running>(ways, "running a program");
  CHECK(n[kind::mmap] >= 2);
  if (faults::can_refuse_memory()) CHECK(n[kind::allocation] >= 10);
}
#endif

TEST_CASE("a server answers, or closes, each that comes, and goes on") {
  // Not with no memory from some moment on: a group, or a server, that goes cancels whom it has, and tries until it can.
  auto some = ways;
  some.erase(some.begin() + 1);
  const auto n = exhaust_by<accepting>(some, "accepting");
  CHECK(n[kind::mmap] >= 1);
  CHECK(n[kind::descriptor] >= 3);
  if (faults::can_refuse_memory()) CHECK(n[kind::allocation] >= 10);
}

TEST_CASE("signals that have been caught are not lost") {
  const auto n = exhaust_by<catching>(ways, "catching signals");
  if (faults::can_refuse_memory()) CHECK(n[kind::allocation] >= 4);
}

TEST_CASE("messages from other threads run, or their failure is reported, one by one") {
  const auto n = exhaust_by<posting>(ways, "posting");
  if (faults::can_refuse_memory()) CHECK(n[kind::allocation] >= 10);
}

TEST_CASE("that nobody will be woken is said, with no memory too") {
  const auto n = exhaust_by<blocked>(ways, "blocking for ever");
  if (faults::can_refuse_memory()) CHECK(n[kind::allocation] >= 3);
}

TEST_CASE("a shutdown that fails can be repeated, and tells everybody") {
  const auto n = exhaust_by<shutting_down>(ways, "shutting down");
  if (faults::can_refuse_memory()) CHECK(n[kind::allocation] >= 1);
}
