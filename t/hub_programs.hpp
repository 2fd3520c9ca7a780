// SPDX-License-Identifier: MIT
// What the tests that start programs share.
#ifndef T_HUB_PROGRAMS_HPP
#define T_HUB_PROGRAMS_HPP

#include "hub_testing.hpp"

#include <csignal>
#include <exception>
#include <string>
#include <sys/wait.h>

#ifdef T_TSAN
// libuv has a pipe while it starts a program, and closes it by system calls that the sanitizer does not see. To it the
// next thread that gets the number races with the one that had it. Not inline, which would make it as
// weak as the sanitizer's own.
extern "C" __attribute__((visibility("default"))) const char* __tsan_default_suppressions() {
  return "race:uv_pipe\nrace:uv_spawn\n";
}
#endif

namespace testing {

inline hub::process_options shell(const std::string& script) { return {"sh", {"-c", script}}; }

inline hub::process_options with_pipes(hub::process_options o) {
  o.in = o.out = o.err = hub::process_stream::piped();
  return o;
}

// Waits for something that is not to come before what is tested ends it.
inline hub::process_options endless() { return {"sleep", {"1000"}}; }

inline bool has_children() {
  siginfo_t info;
  return waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0;
}

inline std::string read_line(hub::descriptor& d) {
  std::string line;
  for (char c; d.read_some(&c, 1, hang_guard()) && c != '\n';) line += c;
  return line;
}

inline bool says(const std::exception& e, const std::string& what) {
  return std::string(e.what()).find(what) != std::string::npos;
}

}  // namespace testing

#endif
