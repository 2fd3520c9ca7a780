// SPDX-License-Identifier: MIT
// The whole interface before main and after it: in static constructors and destructors, atexit and
// at_quick_exit handlers, thread_local destructors of the main thread. Whichever of them uses the
// library first, and whatever it uses first. The programs are those of t/exiting.
#include "exit_testing.hpp"

#include <algorithm>

using namespace greenlets;
using testing::child;
using testing::events;
using testing::exited_with;
using testing::lines;
using testing::run_program;

namespace {

const std::string constructor = "static constructor", in_main = "main", local = "thread_local destructor",
                  last = "atexit, registered last", quick = "at_quick_exit", first = "atexit, registered first",
                  destructor = "static destructor";

// What comes when the process exits, in its order.
const events ordinarily{constructor, in_main, local, last, first, destructor};
const events quickly{constructor, in_main, quick};

constexpr unsigned parts = 13;  // of use_everything()

// What is printed when the library is used in `place` and in all that come later.
std::string from(const std::string& place, const events& places, bool with_handle) {
  events result;
  for (auto each = std::find(places.begin(), places.end(), place); each != places.end(); ++each) {
    // A static object's handle; its destructor is later than the handlers, and earlier than the other's.
    if (with_handle && *each == destructor) {
      result.emplace_back("static handle: turn 2");
      result.emplace_back("static handle: unwound");
    }
    result.push_back(*each + ": all well");
  }
  return lines(result);
}

child everywhere(const std::string& place, unsigned part, const std::string& how) {
  return run_program("exiting/program", {"everywhere", place, std::to_string(part), how});
}

}  // namespace

TEST_CASE("26, 203, B21: everything works before main, in it, and in every handler of the process's exit") {
  for (const char* how : {"return", "exit"}) {
    CAPTURE(how);
    const child c = everywhere(constructor, 0, how);
    CHECK(exited_with(c, 3));
    CHECK(c.output == from(constructor, ordinarily, true));
  }
}

TEST_CASE("203, B21: ... whichever place is the first to use the library, and with whatever") {
  for (const std::string& place : ordinarily)
    for (unsigned part = 0; part < parts; part += testing::every_run_is_slow() ? 6 : 1) {
      CAPTURE(place);
      CAPTURE(part);
      const child c = everywhere(place, part, "return");
      CHECK(exited_with(c, 3));
      CHECK(c.output == from(place, ordinarily, place == constructor || place == in_main));
    }
}

TEST_CASE("203: ... also when exit() is called in a nested greenlet, on whose stack the handlers then run") {
  for (const std::string& place : ordinarily) {
    CAPTURE(place);
    const child c = everywhere(place, 0, "greenlet exit");
    CHECK(exited_with(c, 3));
    CHECK(c.output == from(place, ordinarily, place == constructor || place == in_main));
  }
}

TEST_CASE("203: quick_exit() calls its own handlers, where everything works too; _exit() none") {
  for (const char* how : {"quick_exit", "greenlet quick_exit"})
    for (const std::string& place : quickly) {
      CAPTURE(how);
      CAPTURE(place);
      const child c = everywhere(place, 0, how);
      CHECK(exited_with(c, 3));
      CHECK(c.output == from(place, quickly, false));
    }
  const child c = everywhere(in_main, 0, "greenlet _exit");
  CHECK(exited_with(c, 3));
  CHECK(c.output == "main: all well\n");
}
