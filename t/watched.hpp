// SPDX-License-Identifier: MIT
// What the tests of dumps and of the monitor share: functions to be found in, and waiting for what another thread does.
#ifndef T_WATCHED_HPP
#define T_WATCHED_HPP

#include "testing.hpp"
#include "warm_frames.hpp"

#include <greenlet/dump.hpp>
#ifdef T_HUB
#include <greenlet/hub.hpp>
#endif

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <dirent.h>
#include <fstream>
#include <functional>
#include <iterator>
#include <string>
#include <sys/stat.h>
#include <thread>
#include <unistd.h>
#include <vector>

using namespace greenlets;
using std::chrono::milliseconds;
using std::chrono::seconds;

#define after_call() __asm__ volatile("")

namespace watched {

using steady = std::chrono::steady_clock;

inline std::string contents(const std::string& file) {
  std::ifstream in(file);
  return {std::istreambuf_iterator<char>(in), {}};
}

inline std::size_t count(const std::string& text, const std::string& what) {
  std::size_t n = 0;
  for (std::size_t at = 0; (at = text.find(what, at)) != std::string::npos; at += what.size()) ++n;
  return n;
}

struct directory {
  std::string name = "dump-test.XXXXXX";
  directory() { REQUIRE(mkdtemp(name.data()) != nullptr); }
  directory(const directory&) = delete;
  directory& operator=(const directory&) = delete;
  ~directory() {
    for (const std::string& f : files()) unlink((name + "/" + f).c_str());
    rmdir(name.c_str());
  }
  std::vector<std::string> files() const {
    std::vector<std::string> all;
    DIR* const d = opendir(name.c_str());
    while (const dirent* e = d ? readdir(d) : nullptr)
      if (e->d_name[0] != '.') all.emplace_back(e->d_name);
    if (d) closedir(d);
    return all;
  }
  std::string operator/(const char* file) const { return name + "/" + file; }
};

// Waits for something that is to come; a test that hangs fails instead.
template <class F>
bool comes(F&& so) {
  const auto give_up = steady::now() + seconds(100);
  while (!so()) {
    if (steady::now() > give_up) return false;
    std::this_thread::sleep_for(milliseconds(1));
  }
  return true;
}

inline bool has_dumps(const std::string& file, std::size_t n) { return count(contents(file), "greenlet dump ends\n") >= n; }

// Neither the calling thread nor any other switches meanwhile.
inline std::string dump_now(int signal, const std::string& file) {
  const std::size_t before = count(contents(file), "greenlet dump ends\n");
  kill(getpid(), signal);
  CHECK(comes([&] { return has_dumps(file, before + 1); }));
  return contents(file);
}

inline std::size_t threads_of_process() {
  std::size_t n = 0;
  DIR* const d = opendir("/proc/self/task");
  while (const dirent* e = d ? readdir(d) : nullptr) n += e->d_name[0] != '.';
  if (d) closedir(d);
  return n;
}

// Where handlers come later than their signals, or into other frames, there may be none.
inline constexpr bool frames_are_certain =
#ifdef T_TSAN
    false;
#else
    true;
#endif
// valgrind blocks every signal while a thread computes (SigBlk of /proc says so), so such a one is not asked.
inline bool frames_are_there() {
  const char* const preloaded = std::getenv("LD_PRELOAD");
  return frames_are_certain && !testing::emulated() && !(preloaded && std::strstr(preloaded, "vgpreload"));
}

// For who looks for frames: a machine may have much to do, and what nobody answers is not asked.
inline dump_options patient() {
  dump_options with;
  with.patience = seconds(30);
  return with;
}

inline constexpr const char* name_of_blocked = "t_blocks(";

}  // namespace watched

// In dump.cpp, not static: without debugging information only the names of exported functions are known (-rdynamic).
bool t_blocks(const std::function<bool()>& until);
bool t_blocks_otherwise(const std::function<bool()>& until);
void t_spins(const std::atomic<bool>& until);

#endif
