// SPDX-License-Identifier: MIT
// Overflows of stacks, reported: in child processes, which die of them.
#include "testing.hpp"

#include <array>
#include <cerrno>
#include <csetjmp>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <regex>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <thread>
#include <vector>

using namespace greenlets;

namespace {

__attribute__((noinline)) int recurse(int depth) {
  volatile char block[512];
  block[0] = static_cast<char>(depth);
  return depth < 0 ? 0 : recurse(depth + 1) + block[0];
}

#ifdef __clang__
#define COMPILED_WITH(...)
#else
#define COMPILED_WITH(...) __attribute__((optimize(__VA_ARGS__)))
#endif

// Has an array that ends at `end`, and writes only there, as code does that was compiled without
// -fstack-clash-protection.
[[maybe_unused]] COMPILED_WITH("no-stack-clash-protection") __attribute__((noinline)) int large_array(const char* end) {
  auto* const block = static_cast<volatile char*>(
      __builtin_alloca(static_cast<std::size_t>(static_cast<const char*>(__builtin_frame_address(0)) - end)));
  block[0] = 1;
  return block[0];
}

// Writes to it page by page.
[[maybe_unused]] __attribute__((noinline)) int large_array_in_steps() {
  volatile char block[1 << 20];
  for (std::size_t n = sizeof block; n >= 4096; n -= 4096) block[n - 1] = 1;
  return block[4095];
}

// One that calls nobody writes below the stack pointer, where it is optimised.
COMPILED_WITH("O2") __attribute__((noinline)) int leaf(int n) {
  volatile char block[100];
  block[0] = static_cast<char>(n);
  return block[0];
}

// Goes down in small steps, and calls it on each.
[[maybe_unused]] __attribute__((noinline)) int recurse_to_leaf(int depth) {
  volatile char block[16];
  block[0] = static_cast<char>(depth);
  return depth < 0 ? 0 : leaf(depth) + recurse_to_leaf(depth + 1) + block[0];
}

// Of which the compiler does not see that it is none.
[[maybe_unused]] int dereference(volatile int* p) {
  volatile int* volatile hidden = p;
  return *hidden;
}

// The test program's main function has set a handler, and an alternate stack, for this thread.
void as_in_a_plain_program() {
  std::signal(SIGSEGV, SIG_DFL);
#ifndef T_ASAN
  stack_t none = {};
  none.ss_flags = SS_DISABLE;
  sigaltstack(&none, nullptr);
#endif
}

testing::child overflowing(const std::function<void()>& f) {
  return testing::in_child([&f] {
    as_in_a_plain_program();
    report_stack_overflows();
    f();
  });
}

bool died_of(const testing::child& c, int signal) { return WIFSIGNALED(c.status) && WTERMSIG(c.status) == signal; }
bool exited_with(const testing::child& c, int status) { return WIFEXITED(c.status) && WEXITSTATUS(c.status) == status; }

std::size_t times(const std::string& text, const char* part) {
  std::size_t n = 0;
  for (std::size_t at = 0; (at = text.find(part, at)) != std::string::npos; ++at) ++n;
  return n;
}

// What is said of it, with frames or without any.
void check_report(const testing::child& c, const std::string& who, std::size_t size, bool frames = true) {
  INFO(c.output);
  CHECK(times(c.output, "greenlet: stack overflow in ") == 1);
  const std::regex first("greenlet: stack overflow in greenlet [0-9]+ " + who + "of thread [0-9]+ (\"[^\"]*\")?: all of its " +
                         std::to_string(size) + " bytes are used\n");
  CHECK(std::regex_search(c.output, first));
  if (!frames) return;
  CHECK(std::regex_search(c.output, std::regex("\n  0x[0-9a-f]+ /[^ ]*\\+0x[0-9a-f]+\n")));
}

[[maybe_unused]] void check_no_report(const testing::child& c) {
  INFO(c.output);
  CHECK(times(c.output, "greenlet: ") == 0);
}

void start(const char* name, std::size_t size, int (*f)()) {
  greenlet(attributes().name(name).stack_size(size), [f] { return f(); }).switch_to();
}

// For a child that must not die, so that what it did is counted in a coverage build.
[[maybe_unused]] void exit_with_7(int) { _exit(7); }

}  // namespace

TEST_CASE("deep recursion is reported: the greenlet, its thread, the size of its stack, and frames; then the process dies of it") {
  for (const std::size_t size : {std::size_t{16}, std::size_t{64}, std::size_t{256}}) {
    const auto c = overflowing([size] { start("client 7", size * 1024, [] { return recurse(0); }); });
    check_report(c, "\"client 7\" ", size * 1024);
    CHECK(died_of(c, SIGSEGV));
  }
}

TEST_CASE("many threads may ask for it at once, while others begin and end") {
  const auto c = testing::in_child([] {
    std::vector<std::thread> all;
    for (int n = 0; n < 8; ++n) {
      all.emplace_back([] {
        for (int i = 0; i < 20; ++i) {
          greenlet([] { report_stack_overflows(); }).switch_to();
          unwind_thread();
        }
      });
      all.emplace_back([] {
        for (int i = 0; i < 20; ++i) std::thread([] { greenlet([] {}).switch_to(); }).join();
      });
    }
    for (std::thread& t : all) t.join();
    _exit(7);
  });
  INFO(c.output);
  CHECK(exited_with(c, 7));
}

#ifdef T_ASAN
// Set before main(), which has set another.
const struct sigaction asan = [] {
  struct sigaction now = {};
  sigaction(SIGSEGV, nullptr, &now);
  return now;
}();

TEST_CASE("AddressSanitizer's handler was there before: it is called after the report, and the process ends as it wants") {
  const auto c = testing::in_child([] {
    sigaction(SIGSEGV, &asan, nullptr);
    report_stack_overflows();
    start("asan", 64 * 1024, [] { return recurse(0); });
  });
  check_report(c, "\"asan\" ", 64 * 1024);
  const std::size_t theirs = c.output.find("ERROR: AddressSanitizer: ");
  CHECK(theirs != std::string::npos);
  CHECK(c.output.find("greenlet: stack overflow") < theirs);
  CHECK((WIFEXITED(c.status) && WEXITSTATUS(c.status) != 0));
}
#else   // the rest is no different there, but for the size of frames
TEST_CASE("of very many frames the first 24 and the last 8 are reported") {
  const auto c = overflowing([] { start("deep", 256 * 1024, [] { return recurse(0); }); });
  check_report(c, "\"deep\" ", 256 * 1024);
  CHECK(times(c.output, "\n  0x") == 32);
  CHECK(std::regex_search(c.output, std::regex("\n  \\.\\.\\. [0-9]+ more \\.\\.\\.\n")));
}

TEST_CASE("a greenlet without a name is reported by its number") {
  check_report(overflowing([] { greenlet([] { return recurse(0); }).switch_to(); }), "", 256 * 1024);
}

TEST_CASE("a large array that jumps over the guard page is reported when there is nothing where it ends") {
  const auto c = overflowing([] {
    greenlet(attributes().name("large"), [] {
      // A hole, wherever there is room for one below the stack: two pages, so that the frame's end is in it.
      auto at = reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0)) / 4096 * 4096;
      for (int n = 1; n < 10000; ++n) {  // ThreadSanitizer alone has 50 MiB of variables there
        at -= 512 * 1024;
        void* const hole = mmap(reinterpret_cast<void*>(at), 8192, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
        if (hole == reinterpret_cast<void*>(at)) return large_array(static_cast<char*>(hole) + 4096);
      }
      _exit(9);
    }).switch_to();
  });
  check_report(c, "\"large\" ", 256 * 1024);
  CHECK(died_of(c, SIGSEGV));
}

TEST_CASE("a large array that is written page by page is reported") {
  const auto c = overflowing([] { start("steps", 64 * 1024, large_array_in_steps); });
  check_report(c, "\"steps\" ", 64 * 1024);
  CHECK(died_of(c, SIGSEGV));
}

TEST_CASE("an overflow in a leaf function is reported") {
  const auto c = overflowing([] { start("leaf", 64 * 1024, [] { return recurse_to_leaf(0); }); });
  check_report(c, "\"leaf\" ", 64 * 1024);
  CHECK(died_of(c, SIGSEGV));
}

TEST_CASE("an overflow is reported in a thread that comes later, in one that was there, and in one of two greenlets") {
  auto c = overflowing([] {
    std::thread([] { start("later", 32 * 1024, [] { return recurse(0); }); }).join();
  });
  check_report(c, "\"later\" ", 32 * 1024);
  CHECK(died_of(c, SIGSEGV));

  c = testing::in_child([] {
    as_in_a_plain_program();
    int ready[2], go[2];
    if (pipe(ready) != 0 || pipe(go) != 0) _exit(90);
    std::thread before([&] {
      greenlet other([] { switch_to_parent(); });
      other.switch_to();
      char byte = 1;
      if (write(ready[1], &byte, 1) != 1 || read(go[0], &byte, 1) != 1) _exit(91);
      start("before", 32 * 1024, [] { return recurse(0); });
    });
    char byte = 0;
    if (read(ready[0], &byte, 1) != 1) _exit(92);
    report_stack_overflows();
    if (write(go[1], &byte, 1) != 1) _exit(93);
    before.join();
  });
  check_report(c, "\"before\" ", 32 * 1024);
  CHECK(died_of(c, SIGSEGV));
}

TEST_CASE("after a switch back the stack of the one that runs is looked at") {
  const auto c = overflowing([] {
    greenlet inner(attributes().name("inner"), [] { switch_to_parent(); });
    greenlet outer(attributes().name("outer").stack_size(64 * 1024), [&] {
      inner.switch_to();
      return recurse(0);
    });
    inner.set_parent(outer);
    outer.switch_to();
  });
  check_report(c, "\"outer\" ", 64 * 1024);
  CHECK(died_of(c, SIGSEGV));
}

TEST_CASE("what is not an overflow of a greenlet's stack is not reported, and goes to who was there before") {
  SUBCASE("a null pointer in a greenlet") {
    const auto c = overflowing([] { greenlet([] { return dereference(nullptr); }).switch_to(); });
    check_no_report(c);
    CHECK(died_of(c, SIGSEGV));
  }
  SUBCASE("a pointer into a guard page, with all of the stack left") {
    const auto c = overflowing([] {
      greenlet([] {
        const auto here = reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0));
        for (std::uintptr_t at = here; here - at < 512 * 1024; at -= 4096) dereference(reinterpret_cast<int*>(at & ~std::uintptr_t{3}));
      }).switch_to();
    });
    check_no_report(c);
    CHECK(died_of(c, SIGSEGV));
  }
  SUBCASE("the stack that the thread came with") {
    auto c = overflowing([] { recurse(0); });
    check_no_report(c);
    CHECK(died_of(c, SIGSEGV));
    c = overflowing([] { std::thread([] { current(), recurse(0); }).join(); });
    check_no_report(c);
    CHECK(died_of(c, SIGSEGV));
  }
  SUBCASE("a thread that has no greenlets") {
    const auto c = overflowing([] { std::thread([] { dereference(nullptr); }).join(); });
    check_no_report(c);
    CHECK(died_of(c, SIGSEGV));
  }
  SUBCASE("a signal that was sent") {
    const auto c = overflowing([] { greenlet([] { raise(SIGSEGV); }).switch_to(); });
    check_no_report(c);
    CHECK(died_of(c, SIGSEGV));
  }
}

TEST_CASE("a handler that was there before is called once, after the report, with what it asked for") {
  SUBCASE("with one argument") {
    const auto c = testing::in_child([] {
      as_in_a_plain_program();
      std::signal(SIGSEGV, exit_with_7);
      report_stack_overflows();
      start("handled", 64 * 1024, [] { return recurse(0); });
    });
    check_report(c, "\"handled\" ", 64 * 1024);
    CHECK(exited_with(c, 7));
  }
  SUBCASE("with three, one of which is the address; and the mask it asked for") {
    const auto c = testing::in_child([] {
      as_in_a_plain_program();
      struct sigaction action = {};
      action.sa_flags = SA_SIGINFO;
      sigaddset(&action.sa_mask, SIGUSR1);
      action.sa_sigaction = [](int number, siginfo_t* info, void* context) {
        sigset_t now;
        pthread_sigmask(SIG_SETMASK, nullptr, &now);
        _exit(number == SIGSEGV && info->si_addr == reinterpret_cast<void*>(16) && context && sigismember(&now, SIGUSR1) ? 7 : 8);
      };
      sigaction(SIGSEGV, &action, nullptr);
      report_stack_overflows();
      greenlet([] { return dereference(reinterpret_cast<int*>(16)); }).switch_to();
    });
    check_no_report(c);
    CHECK(exited_with(c, 7));
  }
  SUBCASE("one that mends it: the program goes on, and errno is as it was") {
    const auto c = testing::in_child([] {
      as_in_a_plain_program();
      static void* page;
      page = mmap(nullptr, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      struct sigaction action = {};
      action.sa_flags = SA_SIGINFO;
      action.sa_sigaction = [](int, siginfo_t* info, void*) {
        if (info->si_addr != page || mprotect(page, 4096, PROT_READ) != 0) _exit(8);
      };
      sigaction(SIGSEGV, &action, nullptr);
      report_stack_overflows();
      errno = ERANGE;
      const int read = greenlet([] { return dereference(static_cast<int*>(page)); }).switch_to().get<int>();
      _exit(read == 0 && errno == ERANGE ? 7 : 9);
    });
    check_no_report(c);
    CHECK(exited_with(c, 7));
  }
  SUBCASE("one that jumps out of it: each overflow is reported") {
    const auto c = testing::in_child([] {
      as_in_a_plain_program();
      static sigjmp_buf back;
      std::signal(SIGSEGV, [](int) { siglongjmp(back, 1); });
      report_stack_overflows();
      static int overflows = 0;
      greenlet(attributes().name("jumper"), [] {
        if (sigsetjmp(back, 1)) ++overflows;
        if (overflows < 2) recurse(0);
      }).switch_to();
      _exit(overflows == 2 ? 7 : 8);
    });
    CHECK(times(c.output, "\"jumper\"") == 2);
    CHECK(exited_with(c, 7));
  }
  SUBCASE("one that wants to be called once, and ends it") {
    const auto c = testing::in_child([] {
      as_in_a_plain_program();
      struct sigaction action = {};
      action.sa_flags = static_cast<int>(SA_RESETHAND);
      action.sa_handler = exit_with_7;
      sigaction(SIGSEGV, &action, nullptr);
      report_stack_overflows();
      start("once", 64 * 1024, [] { return recurse(0); });
    });
    check_report(c, "\"once\" ", 64 * 1024);
    CHECK(exited_with(c, 7));
  }
  SUBCASE("one that wants to be called once: then the default") {
    const auto c = testing::in_child([] {
      as_in_a_plain_program();
      struct sigaction action = {};
      action.sa_flags = static_cast<int>(SA_RESETHAND);
      action.sa_handler = [](int) {
        struct sigaction now = {};
        sigaction(SIGSEGV, nullptr, &now);
        if (now.sa_handler != SIG_DFL || write(1, "once\n", 5) != 5) _exit(8);
      };
      sigaction(SIGSEGV, &action, nullptr);
      report_stack_overflows();
      start("twice", 64 * 1024, [] { return recurse(0); });
    });
    check_report(c, "\"twice\" ", 64 * 1024);
    CHECK(times(c.output, "once\n") == 1);
    CHECK(died_of(c, SIGSEGV));
  }
}

TEST_CASE("when it was ignored, a signal that was sent still is, and a fault is not") {
  auto c = testing::in_child([] {
    as_in_a_plain_program();
    std::signal(SIGSEGV, SIG_IGN);
    report_stack_overflows();
    greenlet([] { raise(SIGSEGV); }).switch_to();
    _exit(7);
  });
  CHECK(exited_with(c, 7));
  c = testing::in_child([] {
    as_in_a_plain_program();
    std::signal(SIGSEGV, SIG_IGN);
    report_stack_overflows();
    start("ignored", 64 * 1024, [] { return recurse(0); });
  });
  check_report(c, "\"ignored\" ", 64 * 1024);
  CHECK(died_of(c, SIGSEGV));
}

TEST_CASE("installed twice it reports once; a handler installed between is called first, and may call it") {
  auto c = overflowing([] {
    report_stack_overflows();
    start("twice", 64 * 1024, [] { return recurse(0); });
  });
  check_report(c, "\"twice\" ", 64 * 1024);
  CHECK(died_of(c, SIGSEGV));

  c = overflowing([] {
    static struct sigaction below;
    struct sigaction action = {};
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    action.sa_sigaction = [](int number, siginfo_t* info, void* context) {
      if (write(1, "above\n", 6) != 6) _exit(8);
      below.sa_sigaction(number, info, context);
    };
    sigaction(SIGSEGV, &action, &below);
    report_stack_overflows();
    start("between", 64 * 1024, [] { return recurse(0); });
  });
  check_report(c, "\"between\" ", 64 * 1024);
  CHECK(c.output.find("above\n") == 0);
  CHECK(died_of(c, SIGSEGV));
}

TEST_CASE("an alternate stack of the program's own is used and kept; without frames when it is small") {
  for (const bool small : {true, false}) {
    alignas(64) static char own[64 * 1024];
    const auto c = testing::in_child([small] {
      stack_t mine = {};
      mine.ss_sp = own;
      mine.ss_size = small ? 8 * 1024 : sizeof own;
      as_in_a_plain_program();
      static sigjmp_buf back;  // off the stack that is too small to end there in a coverage build
      std::signal(SIGSEGV, [](int) { siglongjmp(back, 1); });
      if (sigaltstack(&mine, nullptr) != 0) _exit(9);
      report_stack_overflows();
      stack_t now = {};
      sigaltstack(nullptr, &now);
      if (now.ss_sp != own) _exit(10);
      unwind_thread();
      sigaltstack(nullptr, &now);
      if (now.ss_sp != own) _exit(11);
      start("own", 64 * 1024, [] { return sigsetjmp(back, 1) ? (_exit(7), 0) : recurse(0); });
    });
    check_report(c, "\"own\" ", 64 * 1024, !small);
    if (small) CHECK(c.output.find("too small to find its frames") != std::string::npos);
    CHECK(exited_with(c, 7));
  }
}

TEST_CASE("a thread has its alternate stack from its first use of the library to its end, and a new one when it is disabled") {
  const auto c = overflowing([] {
    const auto enabled = [] {
      stack_t now = {};
      sigaltstack(nullptr, &now);
      return !(now.ss_flags & SS_DISABLE);
    };
    std::thread([&] {
      if (enabled()) _exit(20);
      current();
      if (!enabled()) _exit(21);
      unwind_thread();
      if (enabled()) _exit(22);
      current();
      if (!enabled()) _exit(23);
      stack_t none = {};
      none.ss_flags = SS_DISABLE;
      sigaltstack(&none, nullptr);
      report_stack_overflows();
      if (!enabled()) _exit(24);
    }).join();
    // One that ends in a handler stands on it.
    std::thread([] {
      current();
      struct sigaction action = {};
      action.sa_flags = SA_ONSTACK;
      action.sa_handler = [](int) {
        unwind_thread();
        current();
      };
      sigaction(SIGUSR1, &action, nullptr);
      raise(SIGUSR1);
    }).join();
    _exit(7);
  });
  CHECK(exited_with(c, 7));
}

TEST_CASE("in the child of fork() overflows are reported, with the greenlet's thread there") {
  const auto c = overflowing([] {
    const pid_t pid = fork();
    if (pid == 0) start("child", 64 * 1024, [] { return recurse(0); });
    int status = 0;
    waitpid(pid, &status, 0);
    _exit(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV ? 7 : 8);
  });
  check_report(c, "\"child\" ", 64 * 1024);
  CHECK(exited_with(c, 7));
}

namespace {

// Directly, for what the C library does before it takes some of the stack.
void send_to_myself(int signal) { syscall(SYS_tgkill, getpid(), gettid(), signal); }

void signal_with_stack_left(std::size_t left) {
  std::signal(SIGUSR1, [](int) {});
  send_to_myself(0);  // so that the dynamic linker has found what is called, for which it takes some of the stack, too
  greenlet(attributes().name("close").stack_size(64 * 1024), [left] {
    testing::with_stack_left(left, [] { send_to_myself(SIGUSR1); });
  }).switch_to();
}

}  // namespace

// The system gives SIGSEGV then, and says no address. The signal is lost: a program that went on would wait for it.
TEST_CASE("a signal for which there is no room on what is left of the stack is reported, and the process dies of it") {
  auto c = overflowing([] {
    signal_with_stack_left(700);
    _exit(7);
  });
  INFO(c.output);
  CHECK(std::regex_search(c.output, std::regex("greenlet: stack overflow in greenlet [0-9]+ \"close\" of thread [0-9]+ (\"[^\"]*\")?: "
                                               "[0-9]+ of its 65536 bytes are left, too few for a signal\n"
                                               "  0x[0-9a-f]+ /[^ ]*\\+0x[0-9a-f]+\n")));
  CHECK(died_of(c, SIGSEGV));

  c = overflowing([] {
    signal_with_stack_left(20 * 1024);
    _exit(7);
  });
  check_no_report(c);
  CHECK(exited_with(c, 7));
}

#ifdef __x86_64__
TEST_CASE("a fault of which x86 says no address, near the end of the stack, is not taken for that") {
  const auto c = overflowing([] {
    greenlet(attributes().stack_size(64 * 1024), [] {
      testing::with_stack_left(1000, [] { dereference(reinterpret_cast<int*>(std::uintptr_t{1} << 63)); });
    }).switch_to();
  });
  check_no_report(c);
  CHECK(died_of(c, SIGSEGV));
}
#endif

TEST_CASE("in a handler on the alternate stack a fault is no overflow") {
  const auto c = overflowing([] {
    struct sigaction action = {};
    action.sa_flags = SA_ONSTACK;
    action.sa_handler = [](int) { dereference(reinterpret_cast<int*>(8)); };
    sigaction(SIGUSR1, &action, nullptr);
    greenlet([] { raise(SIGUSR1); }).switch_to();
  });
  check_no_report(c);
  CHECK(died_of(c, SIGSEGV));
}
#endif
