// SPDX-License-Identifier: MIT
// Stacks: sizes, reuse, what the system may refuse, overflow; and what belongs to the thread.
#include "testing.hpp"

#include <cerrno>
#include <cfenv>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <sys/mman.h>
#include <sys/resource.h>
#include <system_error>

using namespace greenlets;

namespace {

// Uses about so many bytes of stack, all of them.
__attribute__((noinline)) std::size_t use_stack(std::size_t bytes) {
  volatile char block[1024];
  std::memset(const_cast<char*>(block), 1, sizeof block);
  return block[bytes % sizeof block] + (bytes > sizeof block + 256 ? use_stack(bytes - sizeof block - 256) : 0);
}

__attribute__((noinline)) int overflow(int depth) {
  volatile char block[4096];
  block[0] = static_cast<char>(depth);
  return depth < 0 ? 0 : overflow(depth + 1) + block[0];
}

bool died_of(const testing::child& c, int signal) { return WIFSIGNALED(c.status) && WTERMSIG(c.status) == signal; }

}  // namespace

TEST_CASE("6: an unstarted greenlet has no stack; a finished one gives it back to be used again") {
  trim_stacks();
  const auto before = counts();
  greenlet a([] {});
  CHECK(counts().stacks == before.stacks);
  a.switch_to();
  CHECK(counts().stacks == before.stacks + 1);
  CHECK(counts().pooled_stacks == before.pooled_stacks + 1);
  for (int n = 0; n < 100; ++n) greenlet([] {}).switch_to();
  CHECK(counts().stacks == before.stacks + 1);
  trim_stacks();
  CHECK(counts().stacks == before.stacks);
}

TEST_CASE("the same stack is used again, last in, first out, and only for its own size") {
  const auto where = [](std::size_t size) {
    void* address = nullptr;
    greenlet(attributes().stack_size(size), [&address] { address = __builtin_frame_address(0); }).switch_to();
    return address;
  };
  void* const small = where(32 * 1024);
  void* const large = where(512 * 1024);
  CHECK(small != large);
  CHECK(where(32 * 1024) == small);
  CHECK(where(512 * 1024) == large);
}

TEST_CASE("a stack of the size asked for can be used nearly whole") {
#if !defined(T_ASAN) && !defined(T_TSAN)  // which make each frame larger
  for (std::size_t size : {std::size_t{16} * 1024, std::size_t{64} * 1024, std::size_t{256} * 1024, std::size_t{8} << 20}) {
    std::size_t used = 0;
    greenlet(attributes().stack_size(size), [&] { used = use_stack(size - 4096); }).switch_to();
    CHECK(used > 0);
  }
  std::size_t used = 0;
  greenlet([&] { used = use_stack(240 * 1024); }).switch_to();  // the default is 256 KiB
  CHECK(used > 0);
#endif
}

TEST_CASE("a size that cannot be is refused, and nothing is made") {
  const auto before = counts();
  CHECK_THROWS_AS(greenlet(attributes().stack_size(1), [] {}), std::invalid_argument);
  CHECK_THROWS_AS(greenlet(attributes().stack_size(16 * 1024 - 1), [] {}), std::invalid_argument);
  CHECK_THROWS_AS(greenlet(attributes().stack_size(SIZE_MAX), [] {}), std::invalid_argument);
  CHECK(counts().greenlets == before.greenlets);
}

TEST_CASE("58: no memory for a stack is std::system_error in the switcher, and every greenlet is as it was") {
  int ran = 0;
  greenlet suspended([&] {
    switch_to_parent(1);
    return 2;
  });
  CHECK(suspended.switch_to().get<int>() == 1);
  greenlet huge(attributes().stack_size(testing::too_large()).name("huge"), [&] { ++ran; });
  greenlet parent_of_dead([&] { FAIL_CHECK("ran"); });

  const auto before = counts();
  for (int n = 0; n < 3; ++n) {
    try {
      huge.switch_to(42);
      FAIL("it was started");
    } catch (const std::system_error& e) {
      CHECK(e.code() == std::errc::not_enough_memory);
      CHECK(std::string(e.what()).find("mmap") != std::string::npos);
    }
    CHECK(huge.state() == greenlet_state::unstarted);
    CHECK(huge.has_run());
    CHECK(counts().stacks == before.stacks);
  }
  CHECK(ran == 0);
  CHECK(suspended.switch_to().get<int>() == 2);
}

TEST_CASE("58: an ancestor for which there is no stack dies of it, and the failure goes on up") {
  const auto huge = attributes().stack_size(testing::too_large());
  int ran = 0;
  const auto before = counts();
  greenlet parent(huge, [&] { ++ran; });
  greenlet child([] { return 5; }, parent);
  CHECK_THROWS_AS(child.switch_to(), std::system_error);  // the child's end has picked it
  CHECK(child.dead());
  CHECK(parent.state() == greenlet_state::finished);

  greenlet next_parent(huge, [&] { ++ran; });
  child.set_parent(next_parent);
  CHECK_THROWS_AS(child.switch_to(6), std::system_error);  // a switch to the dead has
  CHECK(next_parent.state() == greenlet_state::finished);
  CHECK(child.switch_to(7).get<int>() == 7);
  CHECK(ran == 0);
  CHECK(counts().stacks == before.stacks + 1);
}

#if !defined(T_ASAN) && !defined(T_TSAN)  // whose shadow memory needs the address space
TEST_CASE("58: at the limit of the address space greenlets fail one by one, and go on when there is room again") {
  const auto c = testing::in_child([] {
    std::vector<greenlet> kept;
    kept.reserve(10000);
    long mapped = 0;
    std::FILE* const statm = std::fopen("/proc/self/statm", "r");
    if (!statm || std::fscanf(statm, "%ld", &mapped) != 1) _exit(9);
    std::fclose(statm);
    rlimit limit{};
    limit.rlim_cur = limit.rlim_max = static_cast<rlim_t>(mapped) * static_cast<rlim_t>(getpagesize()) + (rlim_t{1} << 29);
    if (setrlimit(RLIMIT_AS, &limit) != 0) _exit(10);
    bool refused = false;
    while (!refused && kept.size() < 10000) {
      greenlet g([n = static_cast<int>(kept.size())] { switch_to_parent(n); });
      try {
        if (g.switch_to().get<int>() != static_cast<int>(kept.size())) _exit(11);
        kept.push_back(g);
      } catch (const std::system_error&) {
        refused = true;
        if (g.started()) _exit(12);
      }
    }
    if (!refused || kept.size() < 1000) _exit(13);
    kept.resize(kept.size() / 2);
    greenlet again([] { return 6; });
    if (again.switch_to().get<int>() != 6) _exit(14);
    for (greenlet& g : kept) g.switch_to();
  });
  CHECK(WIFEXITED(c.status));
  CHECK(WEXITSTATUS(c.status) == 0);
}

TEST_CASE("more guard pages than the system allows is an error that names the setting") {
  const auto c = testing::in_child([] {
    std::vector<greenlet> kept;
    for (int n = 0; n < 100000; ++n) {
      greenlet g(attributes().stack_size(16 * 1024), [] { switch_to_parent(); });
      try {
        g.switch_to();
      } catch (const error& e) {
        const bool named = e.code() == errc::stack_limit && std::strstr(e.what(), "vm.max_map_count");
        kept.resize(10);
        _exit(named && !g.started() ? 20 : 21);
      } catch (const std::system_error&) {
        _exit(22);  // the mapping itself came first to the limit: also an answer
      }
      kept.push_back(std::move(g));
    }
    _exit(23);  // a system without such a limit
  });
  CHECK(WIFEXITED(c.status));
  CHECK(WEXITSTATUS(c.status) != 21);
  CHECK(WEXITSTATUS(c.status) >= 20);
}

TEST_CASE("in a process that has locked its memory stacks are guarded too, and given back") {
  for (const bool overflows : {false, true}) {
    const auto c = testing::in_child([overflows] {
      greenlet first([] { switch_to_parent(); });
      first.switch_to();
      if (mlockall(MCL_CURRENT | MCL_FUTURE) != 0) _exit(77);
      std::vector<greenlet> more;
      for (int n = 0; n < 5; ++n) {
        more.emplace_back([n] { switch_to_parent(n); });
        if (more.back().switch_to().get<int>() != n) _exit(20);
      }
      if (overflows) greenlet([] { return overflow(0); }).switch_to();
      more.clear();
      first = greenlet();
      trim_stacks();
      if (counts().stacks != 0) _exit(21);
      munlockall();
      std::vector<greenlet> again(10);
      for (greenlet& g : again) (g = greenlet([] { switch_to_parent(); })).switch_to();
      _exit(counts().stacks == 10 ? 7 : 22);
    });
    if (WIFEXITED(c.status) && WEXITSTATUS(c.status) == 77) {
      MESSAGE("memory cannot be locked here");
      return;
    }
    if (overflows)
      CHECK(died_of(c, SIGSEGV));
    else
      CHECK((WIFEXITED(c.status) && WEXITSTATUS(c.status) == 7));
  }
}

TEST_CASE("a hundred thousand guarded stacks need few mappings, where guards can be advised; others are intact beside them") {
  // Of 32 bits' addresses two thousand take half a GiB, which too_large() has left.
  static constexpr int many = sizeof(void*) == 4 ? 2000 : 100000;
  const auto c = testing::in_child([] {
    const auto mappings = [] {
      int n = 0;
      if (std::FILE* f = std::fopen("/proc/self/maps", "r")) {
        for (int byte; (byte = std::getc(f)) != EOF;) n += byte == '\n';
        std::fclose(f);
      }
      return n;
    };
    std::vector<greenlet> all;
    all.reserve(many);
    for (int n = 0; n < many; ++n) {
      all.emplace_back([n] {
        for (;;) switch_to_parent(n);
      });
      try {
        if (all.back().switch_to().get<int>() != n) _exit(20);
      } catch (const error& e) {
        _exit(e.code() == errc::stack_limit ? 77 : 21);
      }
    }
    if (mappings() > 200 + many / 20) _exit(stack_statistics().guarded_by_mprotect > 0 ? 77 : 22);
    for (int n = 0; n < many; n += 7)
      if (all[static_cast<std::size_t>(n)].switch_to().get<int>() != n) _exit(23);
    all.clear();
    trim_stacks();
    _exit(counts().stacks == 0 && mappings() < 500 ? 7 : 24);
  });
  REQUIRE(WIFEXITED(c.status));
  if (WEXITSTATUS(c.status) == 77)
    MESSAGE("this system's guard pages split mappings");
  else
    CHECK(WEXITSTATUS(c.status) == 7);
}
TEST_CASE("an overflow hits the guard page: the process dies of SIGSEGV and nothing else is overwritten") {
  for (std::size_t size : {std::size_t{16} * 1024, std::size_t{256} * 1024}) {
    const auto c = testing::in_child([size] {
      greenlet(attributes().stack_size(size), [] { return overflow(0); }).switch_to();
    });
    CHECK(died_of(c, SIGSEGV));
  }
}
#endif

// Symptom: in an emulator, which accepts every advice, stacks had no guard pages, and an overflow went on into
// whatever lay below.
TEST_CASE("below every stack there is a guard page, whatever lies beyond it") {
  constexpr std::size_t size = 64 * 1024;
  constexpr int count = 4;  // some lie side by side
  for (int who = 0; who < count; ++who) {
    const auto c = testing::in_child([who] {
      std::signal(SIGSEGV, SIG_DFL);
      std::vector<greenlet> all;
      for (int n = 0; n < count; ++n) {
        all.emplace_back(attributes().stack_size(size), [] {
          const auto here = reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0));
          switch_to_parent();
          // One byte in each page, until it is outside.
          for (std::size_t below = 4096; below <= size + 4096; below += 4096)
            *reinterpret_cast<volatile char*>(here - below) = 1;
        });
        all.back().switch_to();
      }
      all[static_cast<std::size_t>(who)].switch_to();
      _exit(0);
    });
    CAPTURE(who);
    CHECK(c.status != 0);
  }
}

TEST_CASE("B40: a greenlet's first function finds its stack aligned as the ABI wants it") {
  for (int n = 0; n < 3; ++n) {
    std::uintptr_t address = 1;
    greenlet([&] {
      alignas(64) volatile char wide[64];
      alignas(16) volatile char narrow[16];
      narrow[0] = 1;
      wide[0] = 1;
      address = reinterpret_cast<std::uintptr_t>(&narrow) % 16 + reinterpret_cast<std::uintptr_t>(&wide) % 64;
      volatile long double x = 1.5L;  // movaps or fld of aligned spills
      CHECK(static_cast<double>(x * x) == 2.25);
    }).switch_to();
    CHECK(address == 0);
  }
}

TEST_CASE("the signal mask belongs to the thread") {
  sigset_t original, usr1;
  sigemptyset(&usr1);
  sigaddset(&usr1, SIGUSR1);
  pthread_sigmask(SIG_SETMASK, nullptr, &original);
  const auto blocked = [] {
    sigset_t now;
    pthread_sigmask(SIG_SETMASK, nullptr, &now);
    return sigismember(&now, SIGUSR1) == 1;
  };
  greenlet g([&] {
    CHECK(!blocked());
    switch_to_parent();
    CHECK(blocked());  // blocked by the other meanwhile
    pthread_sigmask(SIG_UNBLOCK, &usr1, nullptr);
  });
  g.switch_to();
  pthread_sigmask(SIG_BLOCK, &usr1, nullptr);
  g.switch_to();
  CHECK(!blocked());
  pthread_sigmask(SIG_SETMASK, &original, nullptr);
}

TEST_CASE("B35: errno belongs to the thread") {
  greenlet g([] {
    switch_to_parent();
    CHECK(errno == ERANGE);
    errno = EDOM;
  });
  g.switch_to();
  errno = ERANGE;
  g.switch_to();
  CHECK(errno == EDOM);
}

TEST_CASE("B40: the floating-point environment belongs to the thread, unless the greenlet keeps its own") {
  REQUIRE(std::fegetround() == FE_TONEAREST);
  SUBCASE("the thread's") {
    greenlet g([] {
      std::fesetround(FE_UPWARD);
      switch_to_parent();
      CHECK(std::fegetround() == FE_DOWNWARD);
    });
    g.switch_to();
    CHECK(std::fegetround() == FE_UPWARD);
    std::fesetround(FE_DOWNWARD);
    g.switch_to();
    CHECK(std::fegetround() == FE_DOWNWARD);
  }
  SUBCASE("its own") {
    greenlet own(attributes().preserve_fp_env(), [] {
      CHECK(std::fegetround() == FE_TONEAREST);  // the starter's, to begin with
      std::fesetround(FE_TOWARDZERO);
      switch_to_parent();
      CHECK(std::fegetround() == FE_TOWARDZERO);
    });
    own.switch_to();
    CHECK(std::fegetround() == FE_TONEAREST);
    std::fesetround(FE_UPWARD);
    greenlet third([&] {
      CHECK(std::fegetround() == FE_UPWARD);
      own.set_parent(current());
      own.switch_to();
      CHECK(std::fegetround() == FE_UPWARD);
    });
    third.switch_to();
    CHECK(own.dead());
    CHECK(std::fegetround() == FE_UPWARD);
    // The stack that kept an environment does not keep it for the next greenlet on it.
    greenlet([] { std::fesetround(FE_DOWNWARD); }).switch_to();
    CHECK(std::fegetround() == FE_DOWNWARD);
  }
  std::fesetround(FE_TONEAREST);
}
