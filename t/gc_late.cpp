// SPDX-License-Identifier: MIT
// A program that enables the collector when it is too late, is told so, and goes on without one.
#include "testing.hpp"

#include <greenlet/gc.hpp>

using namespace greenlets;
using testing::error_of;

TEST_CASE("nothing is collected before enable()") {
  CHECK(!gc::enabled());
  std::string what;
  CHECK(error_of([] { gc::collect(); }, &what) == errc::not_running);
  CHECK(what.find("has not been enabled") != std::string::npos);
  CHECK(gc::statistics().collections == 0);
  CHECK(gc::leaks().empty());
}

// The thread's main greenlet is one.
TEST_CASE("enable() after the first greenlet says that it is too late, where, and changes nothing") {
  greenlet g([] { switch_to_parent(); });
  g.switch_to();
  for (int i = 0; i < 2; ++i) {
    std::string what;
    CHECK(error_of([] { gc::enable(); }, &what) == errc::already_started);
    CHECK(what.find("too late") != std::string::npos);
    CHECK(what.find("beginning of main()") != std::string::npos);
    CHECK(what.find("thread " + std::to_string(gettid())) != std::string::npos);
  }
  CHECK(!gc::enabled());
  CHECK(error_of([] { gc::collect(); }) == errc::not_running);
  g.switch_to();
  CHECK(g.dead());
  int ran = 0;
  for (int i = 0; i < 100; ++i) greenlet([&ran] { ++ran; }).switch_to();
  CHECK(ran == 100);
}
