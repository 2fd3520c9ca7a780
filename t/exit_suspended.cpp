// SPDX-License-Identifier: MIT
// The process ends while greenlets are suspended, in every state, on every thread, and in every way.
// The end of a process unwinds nothing by itself; who drops a handle then unwinds as ever.
#include "exit_testing.hpp"

#include <csignal>

using namespace greenlets;
using testing::child;
using testing::events;
using testing::exited_with;
using testing::lines;
using testing::run_program;

namespace {

// States, and how many objects are destroyed when they are let go.
const std::vector<std::pair<std::string, std::size_t>> states{
    {"one", 1},      {"many", 100},          {"nested", 21},        {"deep", 501}, {"handling", 2},
    {"throwing", 1}, {"unwound halfway", 1}, {"killed halfway", 0}, {"ending", 0}};
const events places{"main", "a thread", "all threads"};

child suspended(const std::string& state, const std::string& where, const std::string& how) {
  return run_program("exiting/program", {"suspended", state, where, how});
}

// Of a list only the first, where each run is slow.
template <class T>
std::vector<T> few(std::vector<T> all) {
  if (testing::every_run_is_slow()) all.resize(1);
  return all;
}

}  // namespace

TEST_CASE("204, B19, B21: the process exits with suspended greenlets in any state, in any thread") {
  for (const auto& state : states)
    for (const std::string& where : few(places))
      for (const char* how : few<const char*>({"return", "exit in a greenlet"})) {
        CAPTURE(state.first);
        CAPTURE(where);
        CAPTURE(how);
        const child c = suspended(state.first, where, how);
        CHECK(exited_with(c, 3));
        CHECK(c.output == "atexit: all well\n");
      }
}

TEST_CASE("204, B19: ... wherever exit() is called: in greenlets, handlers, destructors, threads and their exits") {
  for (const char* place : {"a greenlet", "a nested greenlet", "a handler", "a destructor", "a thread", "a thread's greenlet",
                            "a thread's exit"})
    for (const std::string& where : few(places))
      for (const char* state : few<const char*>({"nested", "handling", "unwound halfway"})) {
        CAPTURE(place);
        CAPTURE(where);
        CAPTURE(state);
        const child c = suspended(state, where, std::string("exit in ") + place);
        CHECK(exited_with(c, 3));
        CHECK(c.output == "atexit: all well\n");
      }
}

TEST_CASE("204: ... and by quick_exit(), _exit(), abort() and a signal, which run less, or nothing") {
  for (const char* place : {"", " in a nested greenlet", " in a destructor", " in a thread's greenlet"}) {
    CAPTURE(place);
    const child quick = suspended("nested", "all threads", std::string("quick_exit") + place);
    CHECK(exited_with(quick, 3));
    CHECK(quick.output == "at_quick_exit: all well\n");
    const child at_once = suspended("nested", "all threads", std::string("_exit") + place);
    CHECK(exited_with(at_once, 3));
    CHECK(at_once.output == "");
    CHECK(testing::died_of(suspended("nested", "all threads", std::string("kill") + place), SIGKILL));
    // Under valgrind too, but with its report.
    CHECK(testing::died_of(suspended("nested", "all threads", std::string("abort") + place), SIGABRT));
  }
}

TEST_CASE("205: a static object that drops its handles when the process exits unwinds them there") {
  for (const auto& state : states)
    for (const char* how : few<const char*>({"return", "exit in a nested greenlet"})) {
      CAPTURE(state.first);
      CAPTURE(how);
      const child c = suspended(state.first, "main, in a static", how);
      CHECK(exited_with(c, 3));
      const bool as_it_should = c.output == "atexit: all well\n" + lines(events(state.second, "unwound"));
      CHECK(as_it_should);  // what was printed may be long
    }
}

TEST_CASE("205, 209: ... those of a thread that is still there are queued for it, and the process ends") {
  for (const auto& state : states) {
    CAPTURE(state.first);
    const child c = suspended(state.first, "a thread, in a static", "return");
    CHECK(exited_with(c, 3));
    CHECK(c.output == "atexit: all well\n");
  }
}
