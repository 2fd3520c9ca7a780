// SPDX-License-Identifier: MIT
// Boost.Context: fiber, with pooled stacks of 64 KiB where they help. No guard pages.
//   switch, start, cold, million   as in greenlet.cpp
#include "bench.h"

#include <boost/context/fiber.hpp>
#include <boost/context/fixedsize_stack.hpp>
#include <boost/context/pooled_fixedsize_stack.hpp>

#include <vector>

namespace context = boost::context;

namespace {

context::fiber loop(context::fiber&& from) {
  for (;;) from = std::move(from).resume();
}

void just_switch(long n) {
  context::fiber f(loop);
  for (long i = 0; i < n; ++i) f = std::move(f).resume();
}

void start(long n) {
  static context::pooled_fixedsize_stack pool(64 * 1024);
  for (long i = 0; i < n; ++i) {
    context::fiber f(std::allocator_arg, pool, [](context::fiber&& from) { return std::move(from); });
    f = std::move(f).resume();
  }
}

// As much stack as ours have, and from malloc, which gives such sizes mappings of their own.
std::vector<context::fiber> suspended(long n) {
  std::vector<context::fiber> all;
  all.reserve(static_cast<std::size_t>(n));
  for (long i = 0; i < n; ++i) all.push_back(context::fiber(std::allocator_arg, context::fixedsize_stack(64 * 1024), loop).resume());
  return all;
}

void cold(long) {
  constexpr long n = 100000;
  auto all = suspended(n);
  std::vector<char> other(16 << 20, 1);
  USE(other[0]);
  const double begin = now_ns();
  for (context::fiber& f : all) f = std::move(f).resume();
  finish((now_ns() - begin) / n / 2, 0);
}

void million(long) {
  constexpr long n = 1000000;
  const double before = memory_bytes(), begin = now_ns();
  const auto all = suspended(n);
  const double ns = (now_ns() - begin) / n;
  finish(ns, (memory_bytes() - before) / n);
}

constexpr work works[] = {{"switch", just_switch, 3000000, 2},
                          {"start", start, 500000, 1},
                          {"cold", cold, 1, 1},
                          {"million", million, 1, 1},
                          {nullptr, nullptr, 0, 0}};

}  // namespace

int main(int argc, char** argv) { return bench_main(argc, argv, works); }
