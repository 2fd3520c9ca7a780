// SPDX-License-Identifier: MIT
// What is found, told to people and unwound: policy::reclaim_and_report.
#include "gc_testing.hpp"

#include <algorithm>
#include <string>
#include <vector>

using namespace gc_testing;

namespace {

std::vector<gc::leak> told;
int destroyed = 0;
int destroyed_when_told = -1;

gc::options telling() {
  gc::options o;
  o.unreachable = gc::policy::reclaim_and_report;
  o.told = [](const gc::leak& l) {
    told.push_back(l);
    destroyed_when_told = destroyed;
  };
  return o;
}
const enabling on(telling());

struct counts_end {
  ~counts_end() { ++destroyed; }
};

void waits(const greenlet& other) {
  const greenlet mine = other;
  const counts_end here;
  switch_to_parent();
}

}  // namespace

// The second of two that held each other went when the first let go of it, and was never told.
TEST_CASE("each of those that are found together is told, before the first of them is unwound" * doctest::skip(frames_keep)) {
  constexpr int n = 5;
  far_below([] {
    std::vector<greenlet, gc::allocator<greenlet>> ring;
    for (int i = 0; i < n; ++i) ring.emplace_back(attributes().name("member " + std::to_string(i)), &waits);
    for (int i = 0; i < n; ++i) ring[static_cast<std::size_t>(i)].switch_to(ring[static_cast<std::size_t>((i + 1) % n)]);
    std::fill(ring.begin(), ring.end(), greenlet());
  });
  collect_twice();
  CHECK(destroyed == n);
  REQUIRE(told.size() == n);
  CHECK(destroyed_when_told == 0);
  CHECK(gc::leaks().size() == n);
  CHECK(gc::statistics().found == n);
  for (int i = 0; i < n; ++i) {
    const std::string name = "member " + std::to_string(i);
    CHECK(std::count_if(told.begin(), told.end(), [&](const gc::leak& l) { return l.name == name; }) == 1);
  }
}

TEST_CASE("one that was told is not told again in later collections" * doctest::skip(frames_keep)) {
  told.clear();
  destroyed = 0;
  far_below([] {
    greenlet a(attributes().name("alone"), &waits);
    a.switch_to(a);
  });
  collect_twice();
  CHECK(destroyed == 1);
  CHECK(told.size() == 1);
  collect_twice();
  CHECK(told.size() == 1);
}
