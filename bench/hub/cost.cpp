// SPDX-License-Identifier: MIT
// What the hub adds to the core: a program alone, as those of bench/bench.h.
//
//   switch      g.switch_to() and switch_to_parent(), one way: nothing is sent
//   start       a greenlet made of an empty lambda, run to its end, and dropped
//   spawn_join  an empty task spawned and joined
//   hand_over   an int from one greenlet to another, by a queue that the other waits for; each in turn
//   stream      an int by a queue that has room: both go on as long as they can
#include "../bench.h"

#include <greenlet/hub.hpp>

namespace hub = greenlets::hub;

namespace {

void just_switch(long n) {
  const greenlets::greenlet g([] {
    for (;;) greenlets::switch_to_parent();
  });
  g.switch_to();
  for (long i = 0; i < n; ++i) g.switch_to();
}

void start(long n) {
  for (long i = 0; i < n; ++i) greenlets::greenlet([] {}).switch_to();
}

void spawn_join(long n) {
  for (long i = 0; i < n; ++i) hub::spawn([] {}).join();
}

void hand_over(long n) {
  hub::queue<long> there, back;
  const auto other = hub::spawn([&] {
    while (const auto i = there.pop()) back.push(*i + 1);
  });
  for (long i = 0; i < n; ++i) {
    there.push(i);
    if (back.pop() != i + 1) std::abort();
  }
  there.close();
  other.join();
}

void stream(long n) {
  hub::queue<long> q(100);
  const auto other = hub::spawn([&] {
    for (long i = 0; i < n; ++i) q.push(i);
  });
  for (long i = 0; i < n; ++i)
    if (q.pop() != i) std::abort();
  other.join();
}

const work works[] = {{"switch", just_switch, 5000000, 2},
                      {"start", start, 1000000, 1},
                      {"spawn_join", spawn_join, 500000, 1},
                      {"hand_over", hand_over, 1000000, 2},
                      {"stream", stream, 2000000, 1},
                      {nullptr, nullptr, 0, 0}};

}  // namespace

int main(int argc, char** argv) { return bench_main(argc, argv, works); }
