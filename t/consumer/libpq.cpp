// SPDX-License-Identifier: MIT
// A program of somebody else's that uses PostgreSQL in the hub. That there is none here is what it is to find.
#include <greenlet/hub/libpq.hpp>

#include <chrono>
#include <cstdio>

int main() {
  try {
    auto c = greenlets::hub::libpq::connect("host=/nowhere", std::chrono::seconds(10));
    std::printf("connected to %d\n", c.backend());
  } catch (const greenlets::hub::libpq::failure&) {
    std::puts("no server");
  }
}
