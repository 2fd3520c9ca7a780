// SPDX-License-Identifier: MIT
// Runs programs of t/exiting, whose ends are watched from outside.
#ifndef T_EXIT_TESTING_HPP
#define T_EXIT_TESTING_HPP

#include "testing.hpp"

#include <algorithm>
#include <cstdlib>
#include <sstream>

namespace testing {

// The prefix under which programs are run, which `make check-valgrind` and t/machines set.
inline events run_under() {
  const char* words = std::getenv("GREENLET_TEST_RUN_UNDER");
  std::istringstream list(words ? words : "");
  events result;
  for (std::string word; list >> word;) result.push_back(word);
  return result;
}

// When one run takes a tenth of a second or more, of many alike only some are done.
inline bool every_run_is_slow() {
#if defined(T_ASAN) || defined(T_TSAN)
  return true;
#else
  return !run_under().empty();
#endif
}

// The program that this process runs.
inline std::string this_program() {
  char path[4096];
  const ssize_t n = readlink("/proc/self/exe", path, sizeof path);
  REQUIRE(n > 0);
  return {path, static_cast<std::size_t>(n)};
}

// Where the test programs are: ours, or libtool's directory beside it.
inline std::string directory_of_tests() {
  std::string directory = this_program();
  directory.erase(directory.rfind('/'));
  if (const std::size_t at = directory.rfind("/.libs"); at + 6 == directory.size()) directory.erase(at);
  return directory;
}

// Runs a program with arguments, after `prepare` in the new process; its status and what it printed.
inline child run_path(const std::string& path, const events& arguments, void (*prepare)() = [] {},
                      events words = run_under()) {
  words.push_back(path);
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  child result = in_child([&argv, prepare] {
    prepare();
    execvp(argv[0], argv.data());
    perror(argv[0]);
  });
  // AddressSanitizer says of each program with the ucontext backend that it may be misled.
  const std::string warning = "WARNING: ASan doesn't fully support";
  for (std::size_t at; (at = result.output.find(warning)) != std::string::npos;) {
    const std::size_t line = result.output.rfind('\n', at) + 1;  // npos + 1 is 0
    result.output.erase(line, result.output.find('\n', at) + 1 - line);
  }
  return result;
}

// The same of one that is given relative to the tests.
inline child run_program(const std::string& program, const events& arguments) {
  return run_path(directory_of_tests() + "/" + program, arguments);
}

inline bool exited_with(const child& c, int code) { return WIFEXITED(c.status) && WEXITSTATUS(c.status) == code; }

inline bool died_of(const child& c, int signal) { return WIFSIGNALED(c.status) && WTERMSIG(c.status) == signal; }

inline std::string lines(const events& each) {
  std::string result;
  for (const std::string& line : each) result += line + "\n";
  return result;
}

}  // namespace testing

#endif
