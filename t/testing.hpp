// SPDX-License-Identifier: MIT
// What the test programs share.
#ifndef T_TESTING_HPP
#define T_TESTING_HPP

#include "too_large.h"

#include <doctest/doctest.h>

#include <greenlet/greenlet.hpp>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <ostream>  // lets doctest show what it compares
#include <string>
#include <sys/wait.h>
#include <unistd.h>
#include <utility>
#include <vector>

#if defined(__SANITIZE_THREAD__)
#define T_TSAN 1
#elif defined(__SANITIZE_ADDRESS__)
#define T_ASAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define T_TSAN 1
#elif __has_feature(address_sanitizer)
#define T_ASAN 1
#endif
#endif

namespace testing {

// How many greenlets and stacks this case may leave, because a conservative scan may keep them: the case says so, and
// the check after it (t/main.cpp) allows no more.
extern std::size_t may_be_kept;

using ::too_large;
using events = std::vector<std::string>;

// Notes when it is destroyed, and in which greenlet.
struct noting {
  events& log;
  std::string name;
  ~noting() { log.push_back("~" + name); }
};

// What `f` throws as a greenlets::error; fails the test when it throws none.
template <class F>
greenlets::errc error_of(F&& f, std::string* what = nullptr) {
  try {
    std::forward<F>(f)();
  } catch (const greenlets::error& e) {
    if (what) *what = e.what();
    return e.code();
  }
  FAIL("no greenlets::error was thrown");
  return {};
}

// The same, whole.
template <class F>
greenlets::error error_from(F&& f) {
  try {
    std::forward<F>(f)();
  } catch (const greenlets::error& e) {
    return e;
  }
  FAIL("no greenlets::error was thrown");
  return {{}, ""};
}

// Whether the error's text names the greenlet: its number, and its name if it has one.
inline bool names(const greenlets::error& e, const greenlets::greenlet& g) {
  std::string described = "greenlet " + std::to_string(g.id()) + " ";
  if (const std::string name = g.name(); !name.empty()) described += "\"" + name + "\"";
  return std::string(e.what()).find(described) != std::string::npos;
}

// Pages of 4 KiB in memory, but for those of files. What statm says lags behind, by 32 pages for each processor.
inline long resident_pages() {
  long kib = 0;
  if (std::FILE* f = std::fopen("/proc/self/smaps_rollup", "r")) {
    char line[200];
    while (std::fgets(line, sizeof line, f) && std::sscanf(line, "Anonymous: %ld", &kib) != 1) continue;
    std::fclose(f);
  }
  return kib / 4;
}

// Whether the processor is an emulated one (t/machines). Then everything is slow; and what memory the process
// has, the system says of the emulator, which keeps some 280 KiB for each thread that there has been.
inline bool emulated() { return std::getenv("GREENLET_TEST_EMULATED") != nullptr; }

// How often to do what is done many times: in an emulator a twentieth.
inline unsigned times(unsigned n) { return emulated() ? n / 20 : n; }

// Sanitizers and valgrind keep what is freed for a while, to see whether it is used.
inline bool freed_memory_is_kept() {
#if defined(T_ASAN) || defined(T_TSAN)
  return true;
#else
  if (emulated()) return true;
  const char* const preloaded = std::getenv("LD_PRELOAD");
  return preloaded && std::strstr(preloaded, "vgpreload");
#endif
}

// Calls `f` when the last copy is destroyed; for callables to capture.
inline std::shared_ptr<void> at_end(std::function<void()> f) {
  return {nullptr, [f = std::move(f)](void*) { f(); }};
}

// Sets the unraisable handler for a scope, and keeps what it is told.
struct unraisables {
  std::vector<std::pair<greenlets::greenlet, std::exception_ptr>> seen;
  greenlets::unraisable_handler before;

  unraisables()
      : before(greenlets::set_unraisable_handler(
            [this](const greenlets::greenlet& g, std::exception_ptr e) { seen.emplace_back(g, std::move(e)); })) {}
  unraisables(const unraisables&) = delete;
  unraisables& operator=(const unraisables&) = delete;
  ~unraisables() { greenlets::set_unraisable_handler(before); }
};

// The result of running something in a child process.
struct child {
  int status = 0;      // as waitpid gives it
  std::string output;  // both streams
};

// Forks, calls `f` there, exits with 0 when it returns and with 1 when it throws.
inline child in_child(const std::function<void()>& f) {
  int ends[2];
  REQUIRE(pipe(ends) == 0);
  const pid_t pid = fork();
  REQUIRE(pid >= 0);
  if (pid == 0) {
    dup2(ends[1], 1);
    dup2(ends[1], 2);
    close(ends[0]);
    close(ends[1]);
    try {
      f();
    } catch (...) {
      _exit(1);
    }
    _exit(0);
  }
  close(ends[1]);
  child result;
  char buffer[4096];
  for (ssize_t n; (n = read(ends[0], buffer, sizeof buffer)) > 0;)
    result.output.append(buffer, static_cast<std::size_t>(n));
  close(ends[0]);
  waitpid(pid, &result.status, 0);
  return result;
}

// Where the stack that the caller is on ends: its guard page is below. A pipe does not take what cannot be read.
inline char* end_of_stack() {
  int ends[2];
  REQUIRE(pipe(ends) == 0);
  const auto page = static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE));
  auto at = reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0)) / page * page;
  while (write(ends[1], reinterpret_cast<char*>(at - 1), 1) == 1) at -= page;
  close(ends[0]);
  close(ends[1]);
  return reinterpret_cast<char*>(at);
}

// Calls `f` with the stack pointer so many bytes above the end of the stack, or a few more.
template <class F>
__attribute__((noinline)) void with_stack_left(std::size_t left, F&& f) {
  const auto here = reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0));
  const auto end = reinterpret_cast<std::uintptr_t>(end_of_stack());
  constexpr std::size_t own = 256;  // the frame's, below here
  volatile char* const gap = static_cast<volatile char*>(__builtin_alloca(here - end - left - own));
  gap[0] = 0;
  f();
  gap[0] = 1;  // else the call could be the last thing here, for which the stack is given back
}

}  // namespace testing

#endif
