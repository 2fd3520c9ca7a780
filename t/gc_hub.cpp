// SPDX-License-Identifier: MIT
// The hub and the collector: who waits for what can still happen is kept, and an idle hub is woken to unwind.
#include "gc_testing.hpp"

#include <greenlet/hub.hpp>

#include <thread>
#include <unistd.h>

using namespace gc_testing;

namespace {

const enabling on;
// libuv opens descriptors at its first use that it keeps.
const bool warm = [] {
  std::thread([] { hub::run([] {}); }).join();
  return true;
}();
std::atomic<int> destroyed{0};

struct counts_end {
  ~counts_end() { ++destroyed; }
};

void leave_cycle() {
  far_below([] {
    greenlet g([] {
      const greenlet self = current();
      const counts_end here;
      switch_to_parent();
    });
    g.switch_to();
  });
}

}  // namespace

TEST_CASE("B33: who waits for a timer, a descriptor or a queue of live code is never taken") {
  destroyed = 0;
  int ends[2];
  REQUIRE(pipe(ends) == 0);
  // On a thread of its own, which takes its hub with it.
  std::thread([&] { hub::run([&] {
    hub::event event;
    hub::latch woken(3);
    far_below([&] {
      hub::spawn([&] {
        const counts_end here;
        hub::sleep_for(std::chrono::milliseconds(100));  // that a timer keeps it is what is tested
        woken.count_down();
      });
      hub::spawn([&] {
        const counts_end here;
        hub::wait(ends[0], hub::direction::readable);
        woken.count_down();
      });
      hub::spawn([&] {
        const counts_end here;
        event.wait();
        woken.count_down();
      });
    });
    while (hub::statistics().waiting < 3) hub::yield();
    for (int i = 0; i < 3; ++i) collect_twice();
    CHECK(destroyed == 0);
    REQUIRE(write(ends[1], "x", 1) == 1);
    event.set();
    woken.wait();
  }); }).join();
  CHECK(destroyed == 3);
  close(ends[0]);
  close(ends[1]);
}

TEST_CASE("123: an owner that is blocked in its hub is woken, and unwinds what was found of it") {
  constexpr int cycles = 8;  // a word that lies about may keep one
  destroyed = 0;
  std::atomic<int> step{0};
  std::thread owner([&] {
    hub::run([&] {
      for (int i = 0; i < cycles; ++i) leave_cycle();
      wipe_stack();
      const hub::remote reach = hub::this_hub();
      hub::event over;
      std::thread poster([&, reach] {
        while (step < 2) let_others_run();
        reach.post([&over] { over.set(); });
      });
      step = 1;
      over.wait();  // in the kernel
      poster.join();
    });
  });
  while (step < 1) let_others_run();
  std::this_thread::sleep_for(std::chrono::milliseconds(20));  // nothing tells when a thread has got into the kernel
  CHECK(collect_twice().found >= 1);
  // Nobody but the collector has a reason to wake it. Bounded, for a test that hangs says less than one that fails.
  for (int i = 0; i < 2000 && destroyed < 1; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  CHECK(destroyed >= 1);
  step = 2;
  owner.join();
  CHECK(destroyed == cycles);
}
