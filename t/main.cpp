// SPDX-License-Identifier: MIT
// The main function of every test program; and the check, after each test case and at the end, that
// no greenlet, stack, thread or descriptor is left.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <greenlet/greenlet.hpp>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <dirent.h>
#include <unistd.h>

#ifdef T_COVERAGE
#include <sys/syscall.h>

// The counters of executed lines are written when the program exits. A child process that is to end
// otherwise, or to die, writes them first: these take the place of the C library's own.
extern "C" void __gcov_dump();

extern "C" void _exit(int status) {
  __gcov_dump();
  for (;;) syscall(SYS_exit_group, status);
}

extern "C" void abort() noexcept {
  __gcov_dump();
  std::raise(SIGABRT);
  std::signal(SIGABRT, SIG_DFL);  // that was doctest's handler
  std::raise(SIGABRT);
  _exit(127);
}
#endif

namespace testing {
std::size_t may_be_kept = 0;
}

namespace {

bool leaked = false;

std::size_t open_descriptors() {
  std::size_t count = 0;
  DIR* d = opendir("/proc/self/fd");
  if (!d) return 0;
  while (readdir(d)) ++count;
  closedir(d);
  return count;
}

struct holdings {
  greenlets::process_counts counts;
  std::size_t descriptors;

  static holdings now() {
    greenlets::current();  // this thread's main greenlet counts from the beginning; unwinds what others dropped
    greenlets::trim_stacks();
    return {greenlets::counts(), open_descriptors()};
  }
};

// What a case was allowed to keep may go in any later one.
struct allowance {
  std::size_t kept = 0;

  bool covers(std::size_t before, std::size_t after) {
    const bool covered = after <= before ? before - after <= kept : after - before <= testing::may_be_kept;
    kept += after;
    kept -= std::min(kept, before);
    return covered;
  }
};

void compare(const char* where, const holdings& before, const holdings& after) {
  static allowance greenlets_kept, stacks_kept;
  const auto check = [&](const char* what, std::size_t b, std::size_t a, allowance* allowed = nullptr) {
    if (b == a || (allowed && allowed->covers(b, a))) return;
    std::fprintf(stderr, "LEFT BEHIND by \"%s\": %s: %zu before, %zu after\n", where, what, b, a);
    leaked = true;
  };
  check("greenlets", before.counts.greenlets, after.counts.greenlets, &greenlets_kept);
  check("main greenlets", before.counts.main_greenlets, after.counts.main_greenlets);
  check("stacks", before.counts.stacks, after.counts.stacks, &stacks_kept);
  check("threads", before.counts.threads, after.counts.threads);
  check("descriptors", before.descriptors, after.descriptors);
}

// A test that leaves something on purpose says so with `* doctest::description("leaves ...")`.
struct leak_check : doctest::IReporter {
  explicit leak_check(const doctest::ContextOptions&) {}
  void test_case_start(const doctest::TestCaseData& data) override {
    name = data.m_name;
    exempt = data.m_description && std::string(data.m_description).rfind("leaves ", 0) == 0;
    testing::may_be_kept = 0;
    before = holdings::now();
  }
  void test_case_end(const doctest::CurrentTestCaseStats&) override {
    if (!exempt) compare(name, before, holdings::now());
  }
  void report_query(const doctest::QueryData&) override {}
  void test_run_start() override {}
  void test_run_end(const doctest::TestRunStats&) override {}
  void test_case_reenter(const doctest::TestCaseData&) override {}
  void test_case_exception(const doctest::TestCaseException&) override {}
  void subcase_start(const doctest::SubcaseSignature&) override {}
  void subcase_end() override {}
  void log_assert(const doctest::AssertData&) override {}
  void log_message(const doctest::MessageData&) override {}
  void test_case_skipped(const doctest::TestCaseData&) override {}

  const char* name = "";
  bool exempt = false;
  holdings before{};
};

REGISTER_LISTENER("leak_check", 1, leak_check);

}  // namespace

int main(int argc, char** argv) {
  doctest::Context context(argc, argv);
  // Whoever hangs is ended long before the whole run is, and doctest says in which case.
  std::signal(SIGALRM, [](int) { std::abort(); });
  alarm(600);
  const int result = context.run();
  if (context.shouldExit()) return result;
  return result != 0 ? result : leaked;
}
