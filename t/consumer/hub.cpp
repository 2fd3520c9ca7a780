// SPDX-License-Identifier: MIT
// A program of somebody else's that uses the hub.
#include <greenlet/greenlet.hpp>
#include <greenlet/hub.hpp>

#include <chrono>
#include <cstdio>

int main() {
  greenlets::hub::spawn([] { std::puts("spawned"); });
  // Time is what is waited for, so that timers are linked and work; t/consumer/run compares what is printed.
  greenlets::hub::sleep_for(std::chrono::milliseconds(1));
  std::puts("slept");
}
