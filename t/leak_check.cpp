// SPDX-License-Identifier: MIT
// The check that watches every test of every program sees what it is to see: this program runs itself
// with cases that leave something.
#include "exit_testing.hpp"

#include <cstdlib>
#include <fcntl.h>
#include <memory>
#include <string>
#include <utility>

using namespace greenlets;

namespace {

// Runs the one case of this program with that name, though it is skipped otherwise.
testing::child run_alone(const std::string& name) {
  return testing::run_path(testing::this_program(), {"--test-case=" + name, "--no-skip"},
                           [] { setenv("ASAN_OPTIONS", "detect_leaks=0", 1); });  // which would find it as well
}

}  // namespace

TEST_CASE("leaves a greenlet" * doctest::skip()) {
  static greenlet kept;
  kept = greenlet([] {});
}

TEST_CASE("leaves a stack" * doctest::skip()) {
  static greenlet kept;
  kept = greenlet([] { switch_to_parent(); });
  kept.switch_to();
}

TEST_CASE("leaves a descriptor" * doctest::skip()) {
  CHECK(open("/dev/null", O_RDONLY | O_CLOEXEC) >= 0);
}

TEST_CASE("leaves nothing" * doctest::skip()) {
  greenlet g([] { switch_to_parent(); });
  g.switch_to();
}

TEST_CASE("leaves an admitted greenlet" * doctest::skip() * doctest::description("leaves a greenlet")) {
  static greenlet kept;
  kept = greenlet([] {});
}

TEST_CASE("leaves what it may keep" * doctest::skip()) {
  static greenlet kept;
  kept = greenlet([] { switch_to_parent(); });
  kept.switch_to();
  testing::may_be_kept = 1;
}

TEST_CASE("leaves more than it may keep" * doctest::skip()) {
  static greenlet kept[2];
  for (greenlet& g : kept) g = greenlet([] {});
  testing::may_be_kept = 1;
}

TEST_CASE("215: a test that leaves a greenlet, a stack or a descriptor fails its program, which names it") {
  const std::pair<const char*, const char*> cases[] = {
      {"leaves a greenlet", "LEFT BEHIND by \"leaves a greenlet\": greenlets: 1 before, 2 after\n"},
      {"leaves a stack", "LEFT BEHIND by \"leaves a stack\": stacks: 0 before, 1 after\n"},
      {"leaves a descriptor", "LEFT BEHIND by \"leaves a descriptor\": descriptors: "},
      {"leaves more than it may keep", "LEFT BEHIND by \"leaves more than it may keep\": greenlets: 1 before, 3 after\n"},
  };
  for (const auto& [name, message] : cases) {
    const testing::child c = run_alone(name);
    CAPTURE(c.output);
    CHECK(WIFEXITED(c.status));
    CHECK(WEXITSTATUS(c.status) == 1);
    CHECK(c.output.find(message) != std::string::npos);
    CHECK(c.output.find("SUCCESS") != std::string::npos);  // the case itself had nothing to say
  }
}

TEST_CASE("215: a test that leaves nothing, or that says what it leaves, passes") {
  for (const char* name : {"leaves nothing", "leaves an admitted greenlet", "leaves what it may keep"}) {
    const testing::child c = run_alone(name);
    CAPTURE(c.output);
    CHECK(WIFEXITED(c.status));
    CHECK(WEXITSTATUS(c.status) == 0);
    CHECK(c.output.find("LEFT BEHIND") == std::string::npos);
    CHECK(c.output.find("1 passed") != std::string::npos);
  }
}
