// SPDX-License-Identifier: MIT
// A program that leaks for ever runs in flat memory by itself.
#include "gc_testing.hpp"

#include <fstream>
#include <sys/resource.h>
#include <system_error>
#include <unistd.h>

using namespace gc_testing;

namespace {

const left_out_under_tsan because_of_their_number;
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
  CHECK(last < first + 2048);  // of 40,000 stacks; as many pages as there may be stacks between two collections, twice
#endif
  for (int i = 0; i < 4; ++i) collect_twice();
}

namespace {

// So much more address space than there is now.
class address_space {
 public:
  explicit address_space(std::size_t more) {
    getrlimit(RLIMIT_AS, &before_);
    rlimit now = before_;
    std::size_t pages = 0;
    std::ifstream("/proc/self/statm") >> pages;
    now.rlim_cur = pages * static_cast<std::size_t>(sysconf(_SC_PAGESIZE)) + more;
    setrlimit(RLIMIT_AS, &now);
  }
  address_space(const address_space&) = delete;
  address_space& operator=(const address_space&) = delete;
  ~address_space() { setrlimit(RLIMIT_AS, &before_); }

 private:
  rlimit before_;
};

[[maybe_unused]] greenlet suspended() {
  greenlet g([] { switch_to_parent(); });
  g.switch_to();
  return g;
}

}  // namespace

#ifndef T_ASAN
TEST_CASE("when there is no memory for a stack, those that nobody can reach are had back" *
          doctest::description("leaves what a dead frame may keep")) {
  for (int i = 0; i < 3; ++i) collect_twice();
  trim_stacks();
  const gc::statistics_t before = gc::statistics();
  std::vector<greenlet> wanted;
  const long destroyed_before = destroyed;
  {
    const address_space limit(std::size_t{24} << 20);  // 90 stacks, of 64 MiB, which is when it would collect by itself
    for (int i = 0; i < 300; ++i) request();
    CHECK(destroyed > destroyed_before + 400);
    // What is wanted stays; and then there is nothing to be had.
    std::string what;
    try {
      for (int i = 0; i < 300; ++i) wanted.push_back(suspended());
      FAIL("there was memory for all");
    } catch (const std::system_error& e) {
      CHECK(e.code() == std::errc::not_enough_memory);
      what = e.what();
    }
    CHECK(what.find("mmap") != std::string::npos);
    CHECK(wanted.size() > 20);
  }
  CHECK(gc::statistics().collections > before.collections);
  for (greenlet& g : wanted) {
    CHECK(!g.dead());
    g.switch_to();
    CHECK(g.dead());
  }
  wanted.clear();
  for (int i = 0; i < 3; ++i) collect_twice();
}
#endif

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

TEST_CASE("100,000 greenlets that are wanted, one in twenty suspended: a collection walks them all, and keeps them") {
  constexpr int n = 100000, every = 20;
  std::vector<greenlet> all;
  all.reserve(n);
  int intact = 0;
  for (int i = 0; i < n; ++i) {
    if (i % every != 0) {
      all.emplace_back([&intact, object = make_witness()] { intact += object->intact(); });
    } else {
      all.emplace_back(attributes().stack_size(64 * 1024), [&intact] {
        witness* volatile here = make_witness();
        switch_to_parent();
        intact += here->intact();
      });
      all.back().switch_to();
    }
  }
  for (int i = 0; i < 3; ++i) {
    gc::collect();
    use_free_memory();
  }
  MESSAGE("longest pause ", gc::statistics().longest_pause.count() / 1000, " us");
  for (greenlet& g : all) g.switch_to();
  CHECK(intact == n);
}
