// SPDX-License-Identifier: MIT
// Step 1: one greenlet.
//
// A greenlet is a function with a stack of its own. It runs when somebody switches to it, until it switches away or
// ends; whoever switched goes on where he was. What is sent along comes out of the other side's switch.
#include <greenlet/greenlet.hpp>

#include <cctype>
#include <cstdio>
#include <string>

using greenlets::greenlet;

int main() {
  greenlet shouter([](std::string word) {
    for (;;) {
      for (char& c : word) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
      // Gives its answer to whom it came from, here its parent, the main greenlet; and waits for the next word.
      word = greenlets::switch_to_parent(word).take<std::string>();
      if (word == "enough") return std::string("goodbye");
    }
  });

  for (const char* word : {"one", "two", "enough"}) {
    const auto answer = shouter.switch_to(std::string(word)).take<std::string>();
    std::printf("%s -> %s\n", word, answer.c_str());
  }
  std::printf("it has ended: %s\n", shouter.dead() ? "yes" : "no");

  // One that is dropped while it is suspended is unwound: its destructors run.
  struct noisy {
    ~noisy() { std::printf("its destructors run\n"); }
  };
  greenlet dropped([] {
    const noisy local;
    greenlets::switch_to_parent();
    std::printf("never\n");
  });
  dropped.switch_to();
}
