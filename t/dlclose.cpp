// SPDX-License-Identifier: MIT
// Symptom: a thread that had used a plugin crashed when it ended after the plugin was unloaded: the
// library had gone with it, and with it the function that the C library calls for our pthread key.
// The library asks to stay loaded (-z nodelete); the plugin itself goes.
#include "exit_testing.hpp"

using namespace greenlets;
using testing::child;
using testing::exited_with;
using testing::lines;

namespace {

const char* const as_it_should = "plugin unmapped, library mapped";

child load(const std::string& scenario) {
  return testing::run_program("exiting/loader", {testing::directory_of_tests() + "/exiting/.libs/plugin.so", scenario});
}

// A library without shared objects has no plugins.
bool nothing_to_load() { return access((testing::directory_of_tests() + "/exiting/.libs/plugin.so").c_str(), R_OK) != 0; }

}  // namespace

TEST_CASE("136, B17: a plugin is unloaded while threads that have used greenlets in it live on, and end later") {
  if (nothing_to_load()) return;
  const child c = load("threads end later");
  CHECK(exited_with(c, 3));
  CHECK(c.output == lines({as_it_should, "joined"}));
}

TEST_CASE("136, B17, B23: plugins come and go, with threads; the library's record of each thread ends with it") {
  if (nothing_to_load()) return;
  const child c = load("again and again");
  CHECK(exited_with(c, 3));
  CHECK(c.output == lines({as_it_should}));
}

TEST_CASE("B17: greenlets that a plugin lets go before it is unloaded are unwound; nothing is left") {
  if (nothing_to_load()) return;
  child c = load("let go first");
  CHECK(exited_with(c, 3));
  CHECK(c.output == lines({"10 unwound", as_it_should, "1 greenlet, 0 stacks"}));
  c = load("let go by unloading");
  CHECK(exited_with(c, 3));
  CHECK(c.output == lines({as_it_should, "1 greenlet, 0 stacks"}));
}

TEST_CASE("165, B17: the library keeps nothing of the exceptions and values of a plugin that is unloaded") {
  if (nothing_to_load()) return;
  const child c = load("exceptions");
  CHECK(exited_with(c, 3));
  CHECK(c.output == lines({"4 right", "out of the plugin", as_it_should, "4 right, 6"}));
}

TEST_CASE("B17: the process exits when the plugin through which its main thread used the library has gone") {
  if (nothing_to_load()) return;
  const child c = load("exits without");
  CHECK(exited_with(c, 3));
  CHECK(c.output == "1\n");
}
