// SPDX-License-Identifier: MIT
// A program that ends, in every way that a process can, with greenlets in every state.
//
//   program everywhere PLACE PART HOW     handlers.cpp
//   program suspended STATE WHERE HOW     suspended.cpp
//   program threads SCENARIO              threads.cpp
#include "program.hpp"

#include <csignal>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <pthread.h>
#include <unistd.h>

// Asked by ThreadSanitizer, where that is: threads that are still there at the end are what this
// program is for.
extern "C" const char* __tsan_default_options() { return "report_thread_leaks=0"; }

namespace exiting {

void say(const std::string& line) {
  const std::string whole = line + "\n";
  if (write(STDOUT_FILENO, whole.data(), whole.size()) < 0) _exit(99);
}

const words& told() {
  // From the kernel: static constructors are not given the arguments.
  static const words& all = *new words([] {
    std::ifstream file("/proc/self/cmdline");
    words result;
    for (std::string word; std::getline(file, word, '\0');) result.push_back(word);
    return result;
  }());
  return all;
}

void end(const std::string& how, int status) {
  if (how == "exit") std::exit(status);
  if (how == "quick_exit") std::quick_exit(status);
  if (how == "_exit") _exit(status);
  if (how == "pthread_exit") pthread_exit(nullptr);
  if (how == "abort") std::abort();
  if (how == "kill") raise(SIGKILL);
}

}  // namespace exiting

int main(int argc, char** argv) {
  const exiting::words arguments(argv + 1, argv + argc);
  if (arguments.empty()) return 64;
  // Nothing may hang: the test that waits for us would, too.
  alarm(300);
  if (arguments[0] == "everywhere") return exiting::everywhere(arguments);
  if (arguments[0] == "suspended") return exiting::suspended(arguments);
  if (arguments[0] == "threads") return exiting::threads(arguments);
  return 64;
}
