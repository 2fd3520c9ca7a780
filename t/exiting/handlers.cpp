// SPDX-License-Identifier: MIT
// "everywhere PLACE PART HOW": uses everything in PLACE, beginning with PART, and in every place that
// comes after it; before it the library is not touched. Then the process ends in the way HOW.
#include "program.hpp"

#include <algorithm>
#include <cstdlib>
#include <iterator>

namespace exiting {
namespace {

// In the order in which they come.
const char* const places[] = {"static constructor",     "main",          "thread_local destructor",
                              "atexit, registered last", "at_quick_exit", "atexit, registered first",
                              "static destructor"};

int position(const std::string& place) {
  return static_cast<int>(std::find(std::begin(places), std::end(places), place) - std::begin(places));
}

void reached(const char* place) {
  const words& t = told();
  if (t.size() < 5 || t[1] != "everywhere" || position(place) < position(t[2])) return;
  use_everything(place, static_cast<unsigned>(std::stoul(t[3])));
}

// What was suspended before is still there, and can be switched to and dropped.
struct outlasting {
  greenlets::greenlet kept;
  const char* where;
  outlasting(const char* w) : where(w) {}
  ~outlasting() {
    if (kept.empty()) return;
    use();
    kept = greenlets::greenlet();
  }
  void make() {
    kept = greenlets::greenlet([this] {
      struct telling {
        const char* name;
        ~telling() { say(std::string(name) + ": unwound"); }
      } const t{where};
      for (int turn = 1;; ++turn) greenlets::switch_to_parent(turn);
    });
    kept.switch_to();
  }
  void use() const {
    // Whose exit() it is, is gone back to; else the main greenlet would go on.
    kept.set_parent(greenlets::current());
    say(std::string(where) + ": turn " + std::to_string(kept.switch_to().get<int>()));
  }
};

struct in_statics {
  in_statics() { reached("static constructor"); }
  ~in_statics() { reached("static destructor"); }
} statics;
outlasting static_one("static handle");

struct in_thread_local {
  bool used = false;
  ~in_thread_local() { reached("thread_local destructor"); }
};
thread_local in_thread_local of_main;

}  // namespace

int everywhere(const words& arguments) {
  if (arguments.size() != 4) return 64;
  of_main.used = true;  // made here, so its destructor is due
  std::atexit([] { reached("atexit, registered first"); });
  std::at_quick_exit([] { reached("at_quick_exit"); });
  if (position(arguments[1]) <= position("main")) {
    reached("main");
    static_one.make();
  }
  std::atexit([] { reached("atexit, registered last"); });
  const std::string how = arguments[3];
  if (how.rfind("greenlet ", 0) == 0) {
    greenlets::greenlet outer([&how] {
      greenlets::greenlet inner([&how] { end(how.substr(9), 3); });
      inner.switch_to();
    });
    outer.switch_to();
  }
  end(how, 3);
  return 3;
}

}  // namespace exiting
