// SPDX-License-Identifier: MIT
// A program that leaks for ever runs in flat memory by itself.
#include "gc_testing.hpp"

using namespace gc_testing;

namespace {

const enabling on;
std::atomic<long> destroyed{0};

struct counts_end {
  ~counts_end() { ++destroyed; }
};

// The classic mistake: two that wait for each other.
__attribute__((noinline)) void request() {
  greenlet a, b;
  const auto wait = [](const greenlet& other) {
    const greenlet held = other;
    const counts_end here;
    switch_to_parent();
  };
  a = greenlet(wait);
  b = greenlet(wait);
  a.switch_to(b);
  b.switch_to(a);
}

}  // namespace

TEST_CASE("a suspended cycle leaked by each request leaves memory flat: stacks count" *
          doctest::description("leaves what a dead frame may keep")) {
  const bool whole = std::getenv("GREENLET_TEST_GC_SECONDS") != nullptr;
  const long requests = whole ? 1000000 : 20000;
  long first = 0;
  std::size_t most_stacks = 0;
  for (long i = 1; i <= requests; ++i) {
    request();
    if (i % (requests / 100) != 0) continue;
    if (i == requests / 2) first = testing::resident_pages();
    most_stacks = std::max(most_stacks, stack_statistics().in_use);
    if (whole) std::fprintf(stderr, "%ld %ld %zu\n", i, testing::resident_pages() * 4, stack_statistics().in_use);
  }
  const long last = testing::resident_pages();
  const gc::statistics_t s = gc::statistics();
  MESSAGE(requests, " requests: ", s.collections, " collections, ", s.found, " found, ", destroyed.load(), " destroyed, at most ",
          most_stacks, " stacks in use; resident ", first * 4, " KiB after half of them, ", last * 4, " KiB at the end; longest in our hooks ",
          s.longest_pause.count() / 1000, " us");
  CHECK(destroyed > requests * 2 - 10000);
  CHECK(most_stacks < 5000);
#if !defined(T_ASAN) && !defined(T_TSAN)
  CHECK(last < first + first / 4 + 512);
#endif
  for (int i = 0; i < 4; ++i) collect_twice();
}

TEST_CASE("greenlets that are wanted are not looked at again and again" *
          doctest::description("leaves what a dead frame may keep")) {
  const std::size_t before = gc::statistics().collections;
  std::vector<greenlet> all;
  for (int i = 0; i < 20000; ++i) {
    all.emplace_back([] { switch_to_parent(); });
    all.back().switch_to();
  }
  CHECK(gc::statistics().collections - before < 20);
  all.clear();
  for (int i = 0; i < 3; ++i) collect_twice();
}
