// SPDX-License-Identifier: MIT
// The memory of stacks: what the library says of it, and when it goes back to the system.
#include "testing.hpp"

#include <cstddef>
#include <cstring>
#include <thread>
#include <vector>

using namespace greenlets;

namespace {

// Touches so many bytes of stack.
__attribute__((noinline)) std::size_t use_stack(std::size_t bytes) {
  volatile char block[1024];
  std::memset(const_cast<char*>(block), 1, sizeof block);
  return block[bytes % sizeof block] + (bytes > sizeof block ? use_stack(bytes - sizeof block) : 0);
}

// So many greenlets, which have all used 64 KiB when the first of them ends.
void at_once(int count) {
  std::vector<greenlet> all;
  all.reserve(static_cast<std::size_t>(count));
  for (int n = 0; n < count; ++n) {
    all.emplace_back([] {
      use_stack(64 * 1024);
      switch_to_parent();
    });
    all.back().switch_to();
  }
  for (greenlet& g : all) g.switch_to();
}

// While nothing else changes it.
void check_consistent(const process_stacks& s) {
  CHECK(s.in_use + s.pooled == counts().stacks);
  CHECK(s.pooled == counts().pooled_stacks);
  CHECK(s.mapped >= counts().stacks);
  CHECK(s.guarded == s.mapped);
  CHECK(s.guarded_by_mprotect <= s.guarded);
  CHECK(s.mapped_bytes >= s.mapped * 16 * 1024);
  CHECK(s.mapped_bytes % 4096 == 0);
  CHECK(s.high_water >= counts().stacks);
  CHECK(s.high_water_bytes >= s.mapped_bytes);
}

}  // namespace

TEST_CASE("statistics follow a stack from its mapping to its end") {
  trim_stacks();
  const process_stacks none = stack_statistics();
  check_consistent(none);
  CHECK(none.mapped == 0);
  CHECK(none.mapped_bytes == 0);
  CHECK(none.in_use == 0);
  CHECK(none.guarded_by_mprotect == 0);

  std::vector<greenlet> all(20);
  for (greenlet& g : all) (g = greenlet([] { switch_to_parent(); })).switch_to();
  const process_stacks used = stack_statistics();
  check_consistent(used);
  CHECK(used.in_use == 20);
  CHECK(used.pooled == 0);
  CHECK(used.mapped_bytes >= used.mapped * 256 * 1024);
  CHECK(used.high_water >= 20);

  for (greenlet& g : all) g.switch_to();
  const process_stacks pooled = stack_statistics();
  check_consistent(pooled);
  CHECK(pooled.in_use == 0);
  CHECK(pooled.pooled == 20);
  CHECK(pooled.mapped_bytes == used.mapped_bytes);

  trim_stacks();
  const process_stacks trimmed = stack_statistics();
  check_consistent(trimmed);
  CHECK(trimmed.mapped == 0);
  CHECK(trimmed.mapped_bytes == 0);
  CHECK(trimmed.high_water == used.high_water);  // it is for ever
  CHECK(trimmed.high_water_bytes == used.high_water_bytes);
}

TEST_CASE("statistics are of the whole process, on any thread, and make no thread one of the library's") {
  trim_stacks();
  greenlet g([] { switch_to_parent(); });
  g.switch_to();
  const auto threads = counts().threads;
  process_stacks seen{};
  std::thread([&] {
    seen = stack_statistics();
    CHECK(counts().threads == threads);
  }).join();
  check_consistent(seen);
  CHECK(seen.in_use == 1);
}

TEST_CASE("a load that comes and goes within the pool's limit maps nothing again") {
  trim_stacks();
  at_once(200);
  const process_stacks first = stack_statistics();
  CHECK(first.pooled == 200);
  for (int n = 0; n < 10; ++n) {
    at_once(200);
    CHECK(stack_statistics().pooled == 200);
    CHECK(stack_statistics().mapped_bytes == first.mapped_bytes);
  }
}

TEST_CASE("many that end, and that nobody wants again, leave a small pool, which grows when they come again") {
  trim_stacks();
  at_once(256);
  CHECK(stack_statistics().pooled == 256);
  at_once(1000);
  CHECK(stack_statistics().pooled == 4);
  CHECK(stack_statistics().in_use == 0);
  at_once(200);
  CHECK(stack_statistics().pooled == 200);
  at_once(1000);
  at_once(500);  // 244 more than are kept: not worth a smaller pool
  CHECK(stack_statistics().pooled == 256);
}

TEST_CASE("memory of 100,000 greenlets that have used 64 KiB each goes back: by itself, and all of it on request") {
  if (testing::freed_memory_is_kept()) return;
  at_once(1000);
  trim_stacks();
  const long before = testing::resident_pages();
  REQUIRE(before > 0);
  for (int n = 0; n < 100; ++n) at_once(1000);
  const long by_itself = testing::resident_pages();
  CHECK(stack_statistics().pooled == 4);
  trim_stacks();
  const long on_request = testing::resident_pages();
  CAPTURE(before);
  CHECK(by_itself <= before + before / 10);
  CHECK(on_request <= before + 4);
}

TEST_CASE("a stack whose pages were given back begins its next greenlet as before") {
  at_once(1000);
  CHECK(stack_statistics().pooled == 4);
  std::vector<greenlet> all(4);
  for (greenlet& g : all) (g = greenlet([] { return switch_to_parent(use_stack(64 * 1024)).take<int>() + 1; })).switch_to();
  for (greenlet& g : all) CHECK(g.switch_to(1).get<int>() == 2);
}
