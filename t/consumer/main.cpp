// SPDX-License-Identifier: MIT
// A program of somebody else's: switches, and catches by its type what the library throws.
#include <greenlet/greenlet.hpp>
#include <greenlet/version.hpp>

#include <cstdio>

int main() {
  std::printf("version %s\n", GREENLET_VERSION_STRING);
  greenlets::greenlet doubler([](int n) {
    for (;;) n = greenlets::switch_to_parent(2 * n).get<int>();
  });
  std::printf("doubled %d\n", doubler.switch_to(21).get<int>());
  try {
    greenlets::greenlet().switch_to();
  } catch (const greenlets::error& e) {
    std::printf("caught %d\n", e.code() == greenlets::errc::empty_handle);
  }
}
