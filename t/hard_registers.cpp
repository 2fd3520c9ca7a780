// SPDX-License-Identifier: MIT
// What the compiler may keep over a switch: registers, constants, addresses. To be compiled in every
// mode (make check TEST_CXXFLAGS='-O3 -flto' ...), for each has its own ideas.
#include "testing.hpp"

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>
#include <functional>
#include <string>
#include <thread>
#include <unwind.h>
#include <utility>
#include <vector>

using namespace greenlets;
using testing::child;

namespace {

#if defined(__x86_64__)

// System V ABI, x86-64, 3.2.1: a function keeps these for its caller.
struct kept_registers {
  std::uint64_t rbx, rbp, r12, r13, r14, r15;
};

// Called by name from assembly.
extern "C" __attribute__((used)) void call_target(const std::function<void()>* f) { (*f)(); }

// Fills them, calls `f`, and reads them; also the direction flag, which must be clear.
kept_registers through(const kept_registers& in, const std::function<void()>& f, bool* direction) {
  struct {
    kept_registers registers;
    const std::function<void()>* target;
    std::uint64_t flags;
  } block{in, &f, 0};
  auto* at = &block;
  asm volatile(
      // Past the red zone, and aligned; rbp is put aside by hand, for it cannot be clobbered.
      "mov %%rsp, %%rcx\n\t"
      "sub $256, %%rsp\n\t"
      "and $-64, %%rsp\n\t"
      "push %%rcx\n\t"
      "push %%rbp\n\t"
      "push %%rax\n\t"
      "push %%rax\n\t"
      "mov 48(%%rax), %%rdi\n\t"
      "mov 0(%%rax), %%rbx\n\t"
      "mov 8(%%rax), %%rbp\n\t"
      "mov 16(%%rax), %%r12\n\t"
      "mov 24(%%rax), %%r13\n\t"
      "mov 32(%%rax), %%r14\n\t"
      "mov 40(%%rax), %%r15\n\t"
      "call call_target@PLT\n\t"
      "pushfq\n\t"
      "pop %%rcx\n\t"
      "pop %%rax\n\t"
      "pop %%rax\n\t"
      "mov %%rcx, 56(%%rax)\n\t"
      "mov %%rbx, 0(%%rax)\n\t"
      "mov %%rbp, 8(%%rax)\n\t"
      "mov %%r12, 16(%%rax)\n\t"
      "mov %%r13, 24(%%rax)\n\t"
      "mov %%r14, 32(%%rax)\n\t"
      "mov %%r15, 40(%%rax)\n\t"
      "pop %%rbp\n\t"
      "pop %%rsp\n\t"
      : "+a"(at)
      :
      : "rbx", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "xmm0", "xmm1", "xmm2",
        "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15",
        "cc", "memory");
  *direction = (block.flags >> 10) & 1;
  return block.registers;
}

#endif

// Live over a switch, in as many registers of both kinds as there are.
template <class T>
__attribute__((noinline)) T many(T seed, const std::function<void()>& f) {
  T a = seed + 1, b = a * 3, c = b + a, d = c * 5, e = d - b, g = e + c, h = g * 7, i = h - a, j = i + d, k = j * 2,
    l = k - h, m = l + e;
  f();
  T sum = a + b * 2 + c * 3 + d * 4;
  f();
  sum += e * 5 + g * 6 + h * 7 + i * 8;
  f();
  return sum + j * 9 + k * 10 + l * 11 + m * 12;
}

}  // namespace

#if defined(__x86_64__)
TEST_CASE("B34, B40: a switch keeps the registers that the ABI says a function keeps, on both sides") {
  const auto pattern = [](std::uint64_t n) {
    return kept_registers{n * 0x0101010101010101, n * 0x1111111111111111, ~n, n << 32 | n, n ^ 0xdeadbeef, n + 1};
  };
  const auto same = [](const kept_registers& a, const kept_registers& b) {
    return a.rbx == b.rbx && a.rbp == b.rbp && a.r12 == b.r12 && a.r13 == b.r13 && a.r14 == b.r14 && a.r15 == b.r15;
  };
  bool inner_same = true, direction = false;
  greenlet g([&] {
    for (std::uint64_t n = 100; n < 120; ++n) {
      bool set = false;
      const kept_registers mine = pattern(n);
      inner_same = same(through(mine, [] { switch_to_parent(); }, &set), mine) && inner_same;
      direction = direction || set;
    }
  });
  for (std::uint64_t n = 1; n <= 20; ++n) {
    const kept_registers mine = pattern(n);
    const kept_registers after = through(mine, [&g] { g.switch_to(); }, &direction);
    CHECK(same(after, mine));
    CHECK_FALSE(direction);
  }
  g.switch_to();
  CHECK(g.dead());
  CHECK(inner_same);
  CHECK_FALSE(direction);
  // Over a start, an end and an exception as well.
  const kept_registers mine = pattern(77);
  CHECK(same(through(mine, [] { greenlet([] {}).switch_to(); }, &direction), mine));
  const auto caught = [] {
    try {
      greenlet([] { throw 1; }).switch_to();
    } catch (int) {
    }
  };
  CHECK(same(through(mine, caught, &direction), mine));
}
#endif

TEST_CASE("B34: what is live over switches is right in each of many greenlets, integers and floating point") {
  std::vector<greenlet> all;
  std::vector<std::pair<double, std::uint64_t>> results(50);
  const auto leave = [] { switch_to_parent(); };
  for (std::size_t n = 0; n < results.size(); ++n)
    all.emplace_back([&results, &leave, n] {
      results[n].first = many(static_cast<double>(n) + 0.5, leave);
      results[n].second = many(static_cast<std::uint64_t>(n), leave);
    });
  for (int turn = 0; turn < 7; ++turn)
    for (const greenlet& g : all) g.switch_to();
  const auto stay = [] {};
  for (std::size_t n = 0; n < results.size(); ++n) {
    CHECK(results[n].first == many(static_cast<double>(n) + 0.5, stay));
    CHECK(results[n].second == many(static_cast<std::uint64_t>(n), stay));
    CHECK(all[n].dead());
  }
}

TEST_CASE("22, B6, B35: current() and errno are asked anew after every switch, on every thread") {
  const auto turns = [] {
    // Both in one function: a compiler that knew the address of a thread-local, or thought current() to
    // be constant, would use it again.
    std::array<greenlet, 3> all;
    bool right = true;
    const greenlet& main = current();
    for (std::size_t i = 0; i < all.size(); ++i)
      all[i] = greenlet([&all, &right, i] {
        for (int turn = 0; turn < 50; ++turn) {
          right = right && current() == all[i];
          errno = static_cast<int>(i) + 1;
          all[(i + 1) % all.size()].switch_to();
          right = right && current() == all[i];
          // In the last turn the first has ended, and main switches to the others.
          if (turn < 49) right = right && errno == static_cast<int>((i + all.size() - 1) % all.size()) + 1;
        }
      });
    all[0].switch_to();
    right = right && current() == main && main.is_main();
    for (const greenlet& g : all)
      while (g) g.switch_to();
    return right;
  };
  CHECK(turns());
  std::vector<std::thread> threads;
  std::array<bool, 4> right{};
  for (bool& each : right) threads.emplace_back([&each, &turns] { each = turns(); });
  for (std::thread& t : threads) t.join();
  for (const bool each : right) CHECK(each);
}

TEST_CASE("B40: every stack is aligned as the ABI wants it, whatever its size, at its first use and later") {
  for (const std::size_t size : {std::size_t{0}, std::size_t{16384}, std::size_t{16385}, std::size_t{100001}, std::size_t{1} << 20}) {
    for (int again = 0; again < 2; ++again) {
      std::uintptr_t wrong = 1;
      greenlet g(attributes().stack_size(size), [&wrong] {
        // A spill of a vector register would be fatal.
        alignas(32) volatile unsigned char wide[32];
        wide[0] = 1;
        wrong = reinterpret_cast<std::uintptr_t>(&wide) % 32 + reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0)) % 16;
        char text[64];
        wrong += std::snprintf(text, sizeof text, "%f %Lf", 1.5, 2.5L) != 17;  // needs alignment in the C library
      });
      g.switch_to();
#if defined(__x86_64__)
      CHECK(wrong == 0);
#endif
    }
  }
}

namespace {

#if defined(__GNUC__)
// An exception of no language that is known here (Itanium C++ ABI, Exception Handling, 1.2).
_Unwind_Exception foreign_exception = {};

[[noreturn]] void throw_foreign() {
  std::memcpy(&foreign_exception.exception_class, "LANG\0\0\0", 8);  // a number, or on 32-bit Arm characters
  foreign_exception.exception_cleanup = [](_Unwind_Reason_Code, _Unwind_Exception*) {};
  _Unwind_RaiseException(&foreign_exception);
  _exit(98);
}
#endif

}  // namespace

TEST_CASE("166, B36: an exception of another language that leaves a greenlet aborts, and never runs on in the starter") {
  const child c = testing::in_child([] {
    try {
      greenlet([] { throw_foreign(); }).switch_to();
    } catch (...) {
      _exit(97);  // caught by a frame of the starter
    }
    _exit(96);
  });
  CHECK(WIFSIGNALED(c.status));
  CHECK(WTERMSIG(c.status) == SIGABRT);
  CHECK(c.output.find("an exception of another language has left a greenlet") != std::string::npos);
}
