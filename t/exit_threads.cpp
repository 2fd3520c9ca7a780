// SPDX-License-Identifier: MIT
// Threads that go on, or end, while the process does; and what threads have dropped of each other's
// by then. The programs are in t/exiting/threads.cpp.
#include "exit_testing.hpp"

#include <csignal>

using namespace greenlets;
using testing::child;
using testing::events;
using testing::exited_with;
using testing::lines;
using testing::run_program;

namespace {

child scenario(const std::string& name) { return run_program("exiting/program", {"threads", name}); }

bool contains(const child& c, const std::string& text) { return c.output.find(text) != std::string::npos; }

}  // namespace

TEST_CASE("206, B17: threads that outlive main switch, make, throw and drop until the very end") {
  for (const char* how : {"return", "exit"})
    for (int times = 0; times < (testing::every_run_is_slow() ? 1 : 10); ++times) {
      CAPTURE(how);
      const child c = scenario(std::string("busy, ") + how);
      CHECK(exited_with(c, 3));
      CHECK(c.output == lines({"main", "atexit", "atexit: all well", "static destructor", "static destructor: all well"}));
    }
  for (const char* how : {"quick_exit", "_exit"}) {
    CAPTURE(how);
    const child c = scenario(std::string("busy, ") + how);
    CHECK(exited_with(c, 3));
    CHECK(c.output == "main\n");
  }
}

TEST_CASE("136, 137, B16: a thread that ends while static objects are destroyed unwinds its greenlets as ever") {
  const child c = scenario("ended in static destruction");
  CHECK(exited_with(c, 3));
  CHECK(c.output == lines({"dropped there", "~dropped", "~kept", "unwound"}));
}

TEST_CASE("26, 135, B16: ... also one whose first use of the library is then the process's first") {
  const child c = scenario("first use in static destruction");
  CHECK(exited_with(c, 3));
  CHECK(c.output == lines({"~kept", "joined"}));
}

// ThreadSanitizer's pthread_exit cannot work on a fiber's stack (see t/forced_unwind.cpp). And when the
// last thread's end exits the process, AddressSanitizer has forgotten that thread already, and clears
// the wrong stack after an exception.
#if !defined(T_TSAN) && !defined(T_ASAN)
TEST_CASE("208: when the main thread has ended by pthread_exit, the last thread's end exits the process") {
  for (const char* name : {"last thread", "last thread, exit in a greenlet"}) {
    CAPTURE(name);
    const child c = scenario(name);
    CHECK(exited_with(c, 0));
    CHECK(c.output == lines({"~main's", "main's is unwound", "~the last thread's", "atexit: all well",
                             "static destructor: all well"}));
  }
}
#endif

TEST_CASE("209: what was dropped for the main thread waits until it enters the library, or for ever") {
  child c = scenario("queue of main");
  CHECK(exited_with(c, 3));
  CHECK(c.output == "");
  c = scenario("queue of main, entered");
  CHECK(exited_with(c, 3));
  CHECK(c.output == lines({"atexit", "~main's", "entered"}));
}

TEST_CASE("209: what was dropped for threads that are still there, before the exit and in it") {
  child c = scenario("queue of a thread");
  CHECK(exited_with(c, 3));
  CHECK(c.output == lines({"25 in atexit", "atexit: all well", "50 in the static destructor"}));
  c = scenario("both wait");
  CHECK(exited_with(c, 3));
  CHECK(c.output == lines({"~main's", "made"}));
}

// What AddressSanitizer and ThreadSanitizer keep of a thread they cannot free then.
#if !defined(T_TSAN) && !defined(T_ASAN)
TEST_CASE("B22: a thread that ends without its destructors leaves its greenlets behind, and harms nobody") {
  const child c = scenario("raw exit");
  CHECK(exited_with(c, 3));
  CHECK(c.output == lines({"main: all well", "thread: all well", "thread: all well", "thread: all well", "dropped"}));
}

TEST_CASE("27, B22: ... as does one whose first use of the library comes when its destructors have all run") {
  const child c = scenario("last round");
  CHECK(exited_with(c, 3));
  CHECK(c.output == lines({"used", "thread: all well", "thread: all well", "thread: all well", "suspended",
                           "main: all well"}));
}
#endif

TEST_CASE("166: std::terminate in a greenlet names the exception, as anywhere") {
  for (const char* name : {"terminate", "terminate, nested", "terminate by a destructor"}) {
    CAPTURE(name);
    const child c = scenario(name);
    CHECK(testing::died_of(c, SIGABRT));
    CHECK(contains(c, "std::runtime_error"));
    CHECK(contains(c, "what():  broken promise"));
  }
}

TEST_CASE("166: a terminate handler runs in the greenlet whose promise is broken, and may ask which that is") {
  const child c = scenario("terminate handler");
  CHECK(exited_with(c, 3));
  CHECK(c.output == "guilty with an exception\n");
}
