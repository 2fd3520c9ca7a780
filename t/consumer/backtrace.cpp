// SPDX-License-Identifier: MIT
// A program of somebody else's that has frames told.
#include <greenlet/backtrace.hpp>
#include <greenlet/greenlet.hpp>

#include <cstdio>

__attribute__((noinline)) void waits() {
  greenlets::switch_to_parent();
  std::puts("went on");
}

int main() {
  const greenlets::greenlet g([] { waits(); });
  g.switch_to();
  bool named = false;  // linked with -rdynamic, so that the function's name is there
  for (const greenlets::frame& f : greenlets::frames(g)) named = named || f.function == "waits()";
  std::puts(named ? "suspended in waits()" : "suspended nowhere");
  try {
    greenlets::greenlet([] { throw 7; }).switch_to();
  } catch (int n) {
    std::printf("caught %d\n", n);
  }
  g.switch_to();
}
