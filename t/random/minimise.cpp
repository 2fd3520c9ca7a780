// SPDX-License-Identifier: MIT
// Child processes and delta debugging.
#include "minimise.hpp"

#include "run.hpp"

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <new>
#include <stdexcept>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <utility>
#include <vector>

namespace programs {
namespace {

// A program that does not end is one that fails. They take milliseconds, hundreds of them where
// sanitizers or valgrind look on, and the machine may be busy.
constexpr unsigned seconds_for_one = 20;
// While it is minimised: a slow machine then only makes the result longer.
constexpr unsigned seconds_for_a_trial = 2;

using clock = std::chrono::steady_clock;

// Runs `f` in a child process whose alarm `f` sets itself; its standard error is the report.
outcome in_child(const std::function<void()>& f) {
  int ends[2];
  if (pipe(ends) != 0) throw std::runtime_error("pipe");
  const pid_t pid = fork();
  if (pid < 0) throw std::runtime_error("fork");
  if (pid == 0) {
    for (const int n : {SIGSEGV, SIGABRT, SIGBUS, SIGFPE, SIGILL}) signal(n, SIG_DFL);  // not the test program's handlers
    dup2(ends[1], STDERR_FILENO);
    close(ends[0]);
    close(ends[1]);
    f();
    _exit(0);
  }
  close(ends[1]);
  outcome result;
  char buffer[4096];
  for (ssize_t n; (n = read(ends[0], buffer, sizeof buffer)) > 0;)
    if (result.report.size() < 64 * 1024) result.report.append(buffer, static_cast<std::size_t>(n));
  close(ends[0]);
  int status = 0;
  waitpid(pid, &status, 0);
  result.failed = status != 0;
  if (WIFSIGNALED(status))
    result.report += std::string("killed by signal ") + strsignal(WTERMSIG(status)) + "\n";
  return result;
}

void run_here(const program& p, unsigned seconds) {
  alarm(seconds);
  run(p, [](const std::string& report) {
    if (write(STDERR_FILENO, report.data(), report.size()) < 0) _exit(2);
    _exit(1);
  });
}

class minimiser {
 public:
  minimiser(program p, clock::time_point end) : program_(std::move(p)), end_(end) {}

  program result() {
    do {
      leave_out();
    } while (simplify());
    return program_;
  }

 private:
  bool fails(program&& changed) {
    if (clock::now() > end_) return false;
    if (!in_child([&] { run_here(changed, seconds_for_a_trial); }).failed) return false;
    program_ = std::move(changed);
    return true;
  }

  // Tries it without a part: from the end, halves first, then ever smaller ones.
  void leave_out() {
    for (std::size_t length = std::max<std::size_t>(program_.ops.size() / 2, 1);; length /= 2) {
      for (std::size_t at = program_.ops.size(); at > 0;) {
        at = std::min(at, program_.ops.size());
        const std::size_t from = at > length ? at - length : 0;
        program shorter = program_;
        const auto begin = shorter.ops.begin();
        shorter.ops.erase(begin + static_cast<std::ptrdiff_t>(from), begin + static_cast<std::ptrdiff_t>(at));
        fails(std::move(shorter));
        at = from;
      }
      if (length <= 1) return;
    }
  }

  // Tries it with each operation made plainer. Returns whether any could be.
  bool simplify() {
    const std::function<void(op&)> ways[] = {
        [](op& o) { o.thread = 0; },    [](op& o) { o.active = false; }, [](op& o) { o.with = false; },
        [](op& o) { o.given = false; }, [](op& o) { o.kind = 0; },
    };
    bool any = false;
    for (std::size_t n = 0; n < program_.ops.size(); ++n)
      for (const auto& way : ways) {
        program plainer = program_;
        way(plainer.ops[n]);
        if (to_string(plainer.ops[n]) != to_string(program_.ops[n]) && fails(std::move(plainer))) any = true;
      }
    return any;
  }

  program program_;
  clock::time_point end_;
};

}  // namespace

outcome try_out(const program& p) {
  return in_child([&] { run_here(p, seconds_for_one); });
}

outcome try_out(std::uint64_t seed, std::uint64_t from, std::uint64_t to, std::uint64_t& failed_at) {
  void* const shared = mmap(nullptr, sizeof(std::uint64_t), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (shared == MAP_FAILED) throw std::bad_alloc();
  auto* const reached = new (shared) volatile std::uint64_t(from);
  const outcome result = in_child([&] {
    for (std::uint64_t n = from; n < to; ++n) {
      *reached = n;
      const std::vector<std::uint8_t> bytes = random_bytes(seed, n);
      run_here(decode(bytes.data(), bytes.size()), seconds_for_one);
    }
  });
  failed_at = *reached;
  munmap(shared, sizeof(std::uint64_t));
  return result;
}

program minimise(program p, std::chrono::seconds at_most) { return minimiser(std::move(p), clock::now() + at_most).result(); }

}  // namespace programs
