// SPDX-License-Identifier: MIT
// Step 2: the hub.
//
// Greenlets that wait need somebody to wake them: the hub, which each thread gets at its first use. Who waits switches
// to it, and it switches to whoever can go on. Nothing is interrupted in between: no locks are needed for what does
// not wait.
#include <greenlet/hub.hpp>

#include <cstdio>
#include <stdexcept>
#include <string>

namespace hub = greenlets::hub;
using std::chrono::milliseconds;

int main() {
  // Three that sleep, all at once: this takes as long as the longest.
  auto slow = hub::spawn([] { hub::sleep_for(milliseconds(30)), std::printf("slow\n"); });
  auto fast = hub::spawn([] { hub::sleep_for(milliseconds(10)), std::printf("fast\n"); });
  slow.join();

  // A result, and an exception, come to whoever asks for it.
  auto sum = hub::spawn([] { return 40 + 2; });
  auto bad = hub::spawn([]() -> int { throw std::runtime_error("no such file"); });
  std::printf("%d\n", sum.get());
  try {
    bad.get();
  } catch (const std::runtime_error& e) {
    std::printf("%s\n", e.what());
  }

  // A queue between two, of at most two words: who is faster waits for the other.
  hub::queue<std::string> words(2);
  auto reader = hub::spawn([&] {
    while (auto word = words.pop()) std::printf("read %s\n", word->c_str());
  });
  for (const char* word : {"a", "b", "c", "d"}) words.push(word);
  words.close();
  reader.join();

  // When nobody can ever be woken, that is an error with everybody's name, and no silence.
  try {
    hub::event never;
    never.wait();
  } catch (const hub::would_block_forever&) {
    std::printf("would block forever\n");
  }
}
