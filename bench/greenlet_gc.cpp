// SPDX-License-Identifier: MIT
// libgreenlet with the collector enabled.
//
//   switch, start, handle  as in greenlet.cpp
//   collect                a full collection while 100,000 greenlets are suspended that are wanted, for each of them
//   hooks                  of that, what the library's own hooks take
#include "bench.h"

#include <greenlet/gc.hpp>
#include <greenlet/greenlet.hpp>

#include <algorithm>
#include <vector>

using namespace greenlets;

namespace {

void loop() {
  for (;;) switch_to_parent();
}

void just_switch(long n) {
  const greenlet g(loop);
  g.switch_to();
  for (long i = 0; i < n; ++i) g.switch_to();
}

void start(long n) {
  for (long i = 0; i < n; ++i) greenlet([] {}).switch_to();
}

void handle(long n) {
  const greenlet g(loop);
  g.switch_to();
  for (long i = 0; i < n; ++i) {
    const greenlet copy(g);
    USE(copy);
  }
}

// The median of five.
template <class F>
void measure_collections(F&& figure) {
  constexpr long n = 100000;
  std::vector<greenlet> all;
  for (long i = 0; i < n; ++i) {
    all.emplace_back(loop);
    all.back().switch_to();
  }
  std::vector<double> each;
  for (int i = 0; i < 5; ++i) {
    const double before = now_ns();
    if (gc::collect().found != 0) std::abort();
    each.push_back(figure(now_ns() - before) / n);
  }
  std::sort(each.begin(), each.end());
  finish(each[2], 0);
}

void collect(long) {
  measure_collections([](double ns) { return ns; });
}

void hooks(long) {
  measure_collections([](double) { return static_cast<double>(gc::statistics().last_pause.count()); });
}

constexpr work works[] = {{"switch", just_switch, 3000000, 2}, {"start", start, 200000, 1}, {"handle", handle, 2000000, 1},
                          {"collect", collect, 1, 1},          {"hooks", hooks, 1, 1},      {nullptr, nullptr, 0, 0}};

}  // namespace

int main(int argc, char** argv) {
  gc::enable();
  return bench_main(argc, argv, works);
}
