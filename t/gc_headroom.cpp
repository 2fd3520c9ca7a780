// SPDX-License-Identifier: MIT
// libgc stops threads by a signal, whose handler runs on the stack that the thread is on; there another signal lets it
// go on. How much of a greenlet's stack that takes, and what becomes of one that has less.
#include "gc_testing.hpp"

#include <sys/auxv.h>

using namespace gc_testing;

namespace {

const left_out_under_tsan because_of_storms;
const enabling on;

// Collects until it is told to stop, from when the greenlet is where it is to be.
class storm {
 public:
  storm() : thread_([this] {
    while (!ready_ && !over_) let_others_run();
    current();
    while (!over_) {
      gc::collect();
      use_free_memory();
      ++collections_;
    }
  }) {}
  ~storm() {
    over_ = true;
    thread_.join();
  }
  // Calls nobody, so that only signals use what is below.
  void wait_for(int collections) noexcept {
    ready_ = true;
    while (collections_.load(std::memory_order_relaxed) < collections) {
    }
  }

 private:
  std::atomic<bool> ready_{false};
  std::atomic<bool> over_{false};
  std::atomic<int> collections_{0};
  std::thread thread_;
};

// As gc.hpp says.
std::size_t headroom() {
  const unsigned long frame = getauxval(AT_MINSIGSTKSZ);
  return 2 * (frame ? frame : 4096) + 2048;
}

int rounds() { return std::getenv("GREENLET_TEST_GC_SECONDS") ? 10000 : 50; }

}  // namespace

TEST_CASE("a greenlet that has left of its stack what is documented survives storms of collections, with all it holds") {
  storm s;
  std::size_t used = 0;
  bool intact = false;
  greenlet g(attributes().stack_size(64 * 1024), [&] {
    witness* volatile here = make_witness();
    [[maybe_unused]] char* const end = testing::end_of_stack();
    testing::with_stack_left(headroom(), [&] {
      // Painted, to see how far it goes; no call from here on.
#ifdef T_ASAN  // has marked what others have left there
      s.wait_for(rounds());
      used = 1;
#else
      auto* const high = static_cast<volatile char*>(__builtin_frame_address(0)) - 256;
      for (volatile char* at = end; at < high; ++at) *at = 0x5a;
      s.wait_for(rounds());
      volatile char* low = end;
      while (low < high && *low == 0x5a) ++low;
      used = static_cast<std::size_t>(high - low);
#endif
    });
    intact = here->intact();
  });
  g.switch_to();
  CHECK(intact);
  CHECK(used > 0);
  MESSAGE("of ", headroom(), " bytes some ", used + 256, " were used");
}

namespace {

testing::child stopped_with_stack_left(std::size_t left, bool report) {
  return testing::in_child([left, report] {
    std::signal(SIGSEGV, SIG_DFL);  // that was doctest's handler
#ifndef T_ASAN
    stack_t none = {};
    none.ss_flags = SS_DISABLE;
    sigaltstack(&none, nullptr);
#endif
    if (report) report_stack_overflows();
    greenlet(attributes().name("deep").stack_size(64 * 1024), [left] {
      storm s;
      testing::with_stack_left(left, [&s] { s.wait_for(rounds()); });
      _exit(7);
    }).switch_to();
  });
}

}  // namespace

TEST_CASE("one that has not dies of SIGSEGV at the next stop, and is named when overflows are reported") {
  testing::child c = stopped_with_stack_left(700, true);
  INFO(c.output);
  CHECK(WIFSIGNALED(c.status));
  CHECK(WTERMSIG(c.status) == SIGSEGV);
  CHECK(c.output.find("stack overflow in greenlet ") != std::string::npos);
  CHECK(c.output.find("\"deep\" of thread ") != std::string::npos);
  CHECK(c.output.find(" of its 65536 bytes are left, too few for a signal\n  0x") != std::string::npos);

  c = stopped_with_stack_left(700, false);
  CHECK(WIFSIGNALED(c.status));
  CHECK(WTERMSIG(c.status) == SIGSEGV);
  CHECK(c.output == "");

  c = stopped_with_stack_left(headroom(), true);
  CHECK(WIFEXITED(c.status));
  CHECK(WEXITSTATUS(c.status) == 7);
  CHECK(c.output == "");
}
