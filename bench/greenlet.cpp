// SPDX-License-Identifier: MIT
// libgreenlet, through its C++ interface.
//
//   switch         g.switch_to() and switch_to_parent(), one way: nothing is sent
//   switch_int     the same, with an int that both change
//   switch_fp      the same to a greenlet with its own floating-point environment
//   start          a greenlet made of an empty lambda, run to its end, and dropped
//   cold           the first switch into each of 100,000 suspended greenlets, after 16 MiB of other memory
//   throw          throw_in() into a suspended greenlet that catches, there and back
//   throw_in_place a throw and its catch, in the same frame
//   million        1,000,000 suspended greenlets: the time to make and start one, and its memory
//   hot_among      switch, while 1,000,000 others are suspended
//   handle         a handle of a suspended greenlet copied and dropped on its thread
//   handle_idle    the same of one that was never started, which all threads count alike
//   shared_ptr     the same of a std::shared_ptr, in a program with threads
//   current, dead  current(), g.dead()
#include "bench.h"

#include <greenlet/greenlet.hpp>

#include <memory>
#include <stdexcept>
#include <thread>
#include <vector>

using namespace greenlets;

namespace {

void loop() {
  for (;;) switch_to_parent();
}

void ping_pong(const greenlet& g, long n) {
  g.switch_to();
  for (long i = 0; i < n; ++i) g.switch_to();
}

void just_switch(long n) { ping_pong(greenlet(loop), n); }
void switch_fp(long n) { ping_pong(greenlet(attributes().preserve_fp_env(), loop), n); }

void switch_int(long n) {
  const greenlet g([](int v) {
    for (;;) v = switch_to_parent(v + 1).get<int>();
  });
  int v = g.switch_to(0).get<int>();
  for (long i = 0; i < n; ++i) v = g.switch_to(v + 1).get<int>();
  if (v != 2 * n + 1) std::abort();
}

void start(long n) {
  for (long i = 0; i < n; ++i) greenlet([] {}).switch_to();
}

std::vector<greenlet> suspended(long n) {
  std::vector<greenlet> all;
  all.reserve(static_cast<std::size_t>(n));
  for (long i = 0; i < n; ++i) {
    all.emplace_back(loop);
    all.back().switch_to();
  }
  return all;
}

// Only the visits are timed.
void cold(long) {
  constexpr long n = 100000;
  const auto all = suspended(n);
  std::vector<char> other(16 << 20, 1);
  USE(other[0]);
  const double begin = now_ns();
  for (const greenlet& g : all) g.switch_to();
  finish((now_ns() - begin) / n / 2, 0);
}

struct ball {
  int n;
};

void throw_and_catch(long n) {
  const greenlet g([] {
    for (;;) try {
        switch_to_parent();
      } catch (const ball& b) {
        USE(b);
      }
  });
  g.switch_to();
  for (long i = 0; i < n; ++i) g.throw_in(ball{5});
}

__attribute__((noinline)) void throw_ball() { throw ball{5}; }

void throw_in_place(long n) {
  for (long i = 0; i < n; ++i) try {
      throw_ball();
    } catch (const ball& b) {
      USE(b);
    }
}

void million(long) {
  constexpr long n = 1000000;
  const double before = memory_bytes(), begin = now_ns();
  const auto all = suspended(n);
  const double ns = (now_ns() - begin) / n;
  finish(ns, (memory_bytes() - before) / n);
}

void hot_among(long) {
  const auto all = suspended(1000000);
  constexpr long n = 3000000;
  just_switch(1000);
  const double begin = now_ns();
  just_switch(n);
  finish((now_ns() - begin) / n / 2, 0);
}

void copies(const greenlet& g, long n) {
  for (long i = 0; i < n; ++i) {
    const greenlet copy(g);
    USE(copy);
  }
}

void handle(long n) {
  const greenlet g(loop);
  g.switch_to();
  copies(g, n);
}

void handle_idle(long n) { copies(greenlet(loop), n); }

void shared_ptr(long n) {
  std::thread([] {}).join();  // from now on its counts are atomic
  const auto p = std::make_shared<int>(5);
  for (long i = 0; i < n; ++i) {
    const auto copy = p;
    USE(copy);
  }
}

void just_current(long n) {
  for (long i = 0; i < n; ++i) {
    const greenlet& c = current();
    USE(c);
  }
}

void dead(long n) {
  const greenlet g(loop);
  for (long i = 0; i < n; ++i) {
    bool d = g.dead();
    USE(d);
  }
}

constexpr work works[] = {{"switch", just_switch, 3000000, 2},
                          {"switch_int", switch_int, 3000000, 2},
                          {"switch_fp", switch_fp, 3000000, 2},
                          {"start", start, 500000, 1},
                          {"cold", cold, 1, 1},
                          {"throw", throw_and_catch, 20000, 1},
                          {"throw_in_place", throw_in_place, 20000, 1},
                          {"million", million, 1, 1},
                          {"hot_among", hot_among, 1, 1},
                          {"handle", handle, 5000000, 1},
                          {"handle_idle", handle_idle, 5000000, 1},
                          {"shared_ptr", shared_ptr, 5000000, 1},
                          {"current", just_current, 5000000, 1},
                          {"dead", dead, 5000000, 1},
                          {nullptr, nullptr, 0, 0}};

}  // namespace

int main(int argc, char** argv) { return bench_main(argc, argv, works); }
