// SPDX-License-Identifier: MIT
// A shared object that uses the library, and is loaded and unloaded by t/exiting/loader.
//
// Everything in it is hidden but these functions: with GCC, visible static data of a template or of an
// inline function (std::to_string has some) keeps a shared object loaded for ever, and there would be
// nothing to test.
#include <greenlet/greenlet.hpp>

#include <stdexcept>
#include <string>
#include <vector>

#define EXPORTED extern "C" __attribute__((visibility("default")))

using namespace greenlets;

namespace {

struct own_error : std::runtime_error {
  std::string detail;
  explicit own_error(const std::string& d) : std::runtime_error("the plugin's own"), detail(d) {}
};

struct own_exit : greenlet_exit {
  int code = 7;
};

struct own_value {
  std::string text;
  int number;
};

std::vector<greenlet> kept;
int unwound = 0;

}  // namespace

// Runs greenlets to their ends; nothing is left of them but what the library keeps for the thread.
EXPORTED int plugin_switches(int times) {
  greenlet g([](int n) {
    for (;;) n = switch_to_parent(own_value{"text", n}).get<int>();
  });
  int sum = 0;
  for (int i = 1; i <= times; ++i) sum += g.switch_to(i).take<own_value>().number;
  return sum;
}

// Its own types thrown through greenlets, out of them and into them; the number that were right.
EXPORTED int plugin_throws() {
  int right = 0;
  try {
    greenlet([] { greenlet([] { throw own_error("inner"); }).switch_to(); }).switch_to();
  } catch (const own_error& e) {
    right += e.detail == "inner";
  }
  greenlet g([&right] {
    try {
      switch_to_parent();
    } catch (const own_error& e) {
      right += e.detail == "into";
      throw own_exit();
    }
  });
  g.switch_to();
  const value v = g.throw_in(own_error("into"));
  right += v.is<own_exit>() && v.get<own_exit>().code == 7;
  const unraisable_handler before = set_unraisable_handler(
      [&right](const greenlet&, const std::exception_ptr& e) {
        try {
          std::rethrow_exception(e);
        } catch (const own_error& thrown) {
          right += thrown.detail == "unraisable";
        }
      });
  greenlet killed([] {
    try {
      switch_to_parent();
    } catch (const greenlet_exit&) {
      throw own_error("unraisable");
    }
  });
  killed.switch_to();
  killed = greenlet();
  set_unraisable_handler(before);
  return right;
}

// Leaves the plugin's frames with an exception that the program knows too.
EXPORTED void plugin_throws_out() {
  greenlet([] { throw std::runtime_error("out of the plugin"); }).switch_to();
}

EXPORTED void plugin_suspends() {
  kept.emplace_back([] {
    struct counting {
      ~counting() { ++unwound; }
    } const c;
    switch_to_parent();
  });
  kept.back().switch_to();
}

// For a greenlet of the program's.
EXPORTED void plugin_waits() {
  switch_to_parent();
  __asm__ volatile("");
}

EXPORTED int plugin_lets_go() {
  kept.clear();
  return unwound;
}

EXPORTED int plugin_threads() { return static_cast<int>(counts().threads); }
EXPORTED int plugin_greenlets() { return static_cast<int>(counts().greenlets); }
EXPORTED int plugin_stacks() { return static_cast<int>(counts().stacks); }
EXPORTED void plugin_trims() { trim_stacks(); }
EXPORTED int plugin_has_main() { return static_cast<int>(main_greenlet().is_main()); }
