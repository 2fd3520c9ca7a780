// SPDX-License-Identifier: MIT
// The frames of suspended greenlets, of running ones, and of those of other threads.
#include "testing.hpp"
#include "warm_frames.hpp"

#include <greenlet/backtrace.hpp>
#ifdef T_HUB
#include <greenlet/hub.hpp>
#endif

#include <atomic>
#include <cstring>
#include <dlfcn.h>
#include <future>
#include <search.h>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

using namespace greenlets;

// So that a call is not the last thing that a function does.
#define after_call() __asm__ volatile("")

// Not static: without debugging information only the names of exported functions are known (-rdynamic).
__attribute__((noinline)) void t_waits() {
  switch_to_parent();
  after_call();
}
__attribute__((noinline)) void t_calls(int depth) {
  if (depth > 0)
    t_calls(depth - 1);
  else
    t_waits();
  after_call();
}
constexpr unsigned t_line_of_call = __LINE__ + 2;
__attribute__((noinline)) void t_outermost() {
  t_calls(3);
  after_call();
}
__attribute__((noinline)) std::vector<frame> t_asks(const greenlet& g) {
  auto all = frames(g);
  after_call();
  return all;
}

namespace {

std::size_t count(const std::vector<frame>& all, const std::string& name) {
  std::size_t n = 0;
  for (const frame& f : all) n += f.function.find(name) == 0;
  return n;
}

std::size_t first(const std::vector<frame>& all, const std::string& name) {
  for (std::size_t i = 0; i < all.size(); ++i)
    if (all[i].function.find(name) == 0) return i;
  return all.size();
}

bool has_debug_information(const std::vector<frame>& all) {
  for (const frame& f : all)
    if (f.line) return true;
  return false;
}

}  // namespace

TEST_CASE("178: frames are those of a suspended greenlet, innermost first; of one unstarted or dead there are none") {
  const greenlet g(t_outermost);
  CHECK(frames(g).empty());
  g.switch_to();
  const auto all = frames(g);
  INFO([&] {
    std::ostringstream text;
    write_frames(text, all);
    return text.str();
  }());
  CHECK(count(all, "t_waits()") == 1);
  CHECK(count(all, "t_calls(int)") == 4);
  CHECK(count(all, "t_outermost()") == 1);
  CHECK(first(all, "t_waits()") < first(all, "t_calls(int)"));
  CHECK(first(all, "t_calls(int)") < first(all, "t_outermost()"));
  g.switch_to();
  CHECK(g.dead());
  CHECK(frames(g).empty());
  CHECK(frames(greenlet()).empty());
}

TEST_CASE("178: of the calling greenlet they begin with the caller, in a main greenlet, too") {
  auto all = t_asks(current());
  REQUIRE_FALSE(all.empty());
  CHECK(first(all, "t_asks(") == 0);
  CHECK(count(all, "main") == 1);
  greenlet([&] { all = t_asks(current()); }).switch_to();
  CHECK(first(all, "t_asks(") == 0);
  CHECK(count(all, "main") == 0);
}

TEST_CASE("178: a main greenlet that is suspended has frames, to its thread's first function") {
  std::vector<frame> all;
  const greenlet g([&] { all = frames(main_greenlet()); });
  g.switch_to();
  CHECK(count(all, "main") == 1);
  std::thread([&] {
    const greenlet other([&] { all = frames(main_greenlet()); });
    other.switch_to();
  }).join();
  CHECK(all.size() > 2);
  CHECK(count(all, "main") == 0);
}

TEST_CASE("179, B41: they reach to the greenlet's first one and end there, whoever has run meanwhile") {
  const greenlet g(t_outermost);
  g.switch_to();
  const auto before = frames(g);
  for (int i = 0; i < 100; ++i) {
    greenlet other(t_outermost);
    other.switch_to();
    CHECK(count(frames(other), "t_outermost()") == 1);
  }
  const auto after = frames(g);
  REQUIRE(before.size() == after.size());
  for (std::size_t i = 0; i < after.size(); ++i) {
    CHECK(before[i].address == after[i].address);
    CHECK(before[i].function == after[i].function);
  }
  // What comes after the outermost of ours is the library's, and none of whoever started it.
  CHECK(count(after, "main") == 0);
  CHECK(after.size() - first(after, "t_outermost()") < 20);
}

namespace {
int compare(const void*, const void*) {
  t_waits();
  return 0;
}
}  // namespace

TEST_CASE("180: they include those of the C library's functions that have called back") {
  const greenlet g([] {
    const int one[1] = {1};
    std::size_t n = 1;
    lfind(one, one, &n, sizeof one[0], compare);  // which no sanitizer has of its own
  });
  g.switch_to();
  const auto all = frames(g);
  CHECK(count(all, "t_waits()") == 1);
  std::size_t in_libc = 0;
  for (const frame& f : all) in_libc += f.object.find("libc.so") != std::string::npos;
  CHECK(in_libc > 0);
}

TEST_CASE("each has its address, its object and its offset; and its file and line where that is known") {
  const greenlet g(t_outermost);
  g.switch_to();
  const auto all = frames(g);
  const frame& f = all.at(first(all, "t_outermost()"));
  CHECK(static_cast<char*>(f.address) == reinterpret_cast<char*>(&t_outermost) + f.offset);
  CHECK(f.offset > 0);
  CHECK_FALSE(f.object.empty());
  if (!has_debug_information(all)) return;
  CHECK(f.file.find("backtrace.cpp") != std::string::npos);
  CHECK(f.line == t_line_of_call);
  std::ostringstream text;
  write_frames(text, {f});
  CHECK(text.str().find(" t_outermost()+0x") != std::string::npos);
  CHECK(text.str().find("backtrace.cpp:" + std::to_string(f.line)) != std::string::npos);
}

TEST_CASE("a function that was inlined, a lambda's call of it too, is told with the line that it was called from") {
  constexpr unsigned line = __LINE__ + 1;
  const greenlet g([] { switch_to_parent(); });
  g.switch_to();
  const auto all = frames(g);
  if (!has_debug_information(all)) return;
  bool told = false;
  for (const frame& f : all) told = told || (f.line == line && f.file.find("backtrace.cpp") != std::string::npos);
  CHECK(told);
  for (std::size_t i = 0; i < all.size(); ++i)
    if (all[i].inlined) CHECK(all[i].address == all.at(i + 1).address);
}

TEST_CASE("181, B41: they can be read on another thread; of one that is running there, there are none") {
  std::promise<greenlet> suspended;
  std::promise<greenlet> running;
  std::promise<void> enough;
  std::thread owner([&] {
    const greenlet g(t_outermost);
    g.switch_to();
    suspended.set_value(g);
    greenlet([&] {
      running.set_value(current());
      enough.get_future().wait();
    }).switch_to();
  });
  const greenlet g = suspended.get_future().get();
  const greenlet r = running.get_future().get();
  CHECK(count(frames(g), "t_calls(int)") == 4);
  CHECK(frames(r).empty());
  enough.set_value();
  owner.join();
  CHECK(frames(g).empty());
}

TEST_CASE("B41: they can be read while another thread switches without pause, makes and ends greenlets") {
  std::atomic<bool> stop{false};
  std::promise<std::vector<greenlet>> made;
  std::thread owner([&] {
    std::vector<greenlet> all;
    for (int i = 0; i < 4; ++i)
      all.emplace_back([i, &stop] {
        for (int n = 0; !stop; ++n) t_calls((n + i) % 8);
      });
    for (const greenlet& g : all) g.switch_to();
    made.set_value(all);
    while (!stop) {
      for (const greenlet& g : all) g.switch_to();
      greenlet(attributes().stack_size(64 * 1024), t_outermost).switch_to();
    }
    for (const greenlet& g : all) g.switch_to();
  });
  const auto all = made.get_future().get();
  std::size_t whole = 0;
  for (int i = 0; i < 300 || (whole < 100 && i < 1000000); ++i) {
    const auto f = frames(all[static_cast<std::size_t>(i) % all.size()]);
    if (count(f, "t_waits()") == 1) ++whole;
  }
  stop = true;
  owner.join();
  CHECK(whole >= 100);
}

TEST_CASE("a deep stack has all its frames") {
  const greenlet g(attributes().stack_size(4 << 20), [] { t_calls(5000); });
  g.switch_to();
  CHECK(count(frames(g), "t_calls(int)") == 5001);
}

TEST_CASE("exceptions are still libgcc's to unwind, and none of libunwind's") {
  // Static, it is in the program, which exports nothing.
  void* const found = dlsym(RTLD_DEFAULT, "_Unwind_RaiseException");
  REQUIRE(found != nullptr);
  Dl_info info;
  REQUIRE(dladdr(found, &info) != 0);
  INFO(info.dli_fname);
  CHECK(std::strstr(info.dli_fname, "libunwind") == nullptr);
}

#ifdef T_HUB
__attribute__((noinline)) void t_waits_for_ever(hub::event& never) {
  never.wait();
  after_call();
}

TEST_CASE("who waits for what nobody can do any more is told with his frames, but for those of the hub itself") {
  std::string what;
  {
    hub::event never;
    auto t = hub::spawn([&] { t_waits_for_ever(never); });
    try {
      t.join();
    } catch (const hub::would_block_forever& e) {
      what = e.what();
    }
    hub::shutdown();
  }
  INFO(what);
  const std::size_t at = what.find("waits for another greenlet\n    0x");
  REQUIRE(at != std::string::npos);
  CHECK(what.find(" t_waits_for_ever(greenlets::hub::event&)+0x") != std::string::npos);
  CHECK(what.find("greenlets::hub::detail::loop") == std::string::npos);
}
#endif
