// SPDX-License-Identifier: MIT
// Boost.Fiber: yields, through its scheduler.
//   switch   two fibers that yield to each other, one way
//   start    a fiber of an empty lambda with pooled stacks, joined
#include "bench.h"

#include <boost/fiber/all.hpp>

namespace fibers = boost::fibers;

namespace {

void just_switch(long n) {
  const auto loop = [n] {
    for (long i = 0; i < n; ++i) boost::this_fiber::yield();
  };
  fibers::fiber one(loop), other(loop);
  one.join();
  other.join();
}

void start(long n) {
  static fibers::pooled_fixedsize_stack pool(64 * 1024);
  for (long i = 0; i < n; ++i) fibers::fiber(fibers::launch::dispatch, std::allocator_arg, pool, [] {}).join();
}

constexpr work works[] = {{"switch", just_switch, 500000, 2}, {"start", start, 200000, 1}, {nullptr, nullptr, 0, 0}};

}  // namespace

int main(int argc, char** argv) { return bench_main(argc, argv, works); }
