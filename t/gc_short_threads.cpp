// SPDX-License-Identifier: MIT
// Threads that come, leave a greenlet suspended and go, several at a time, while another collects without pause.
// GREENLET_TEST_GC_SECONDS=60 for the long form, of 100,000.
#include "gc_testing.hpp"

#include <array>
#include <thread>

using namespace gc_testing;
using namespace gc_testing::on_a_stack;

namespace {

const left_out_under_tsan because_of_storms;
const enabling on;

unsigned how_many() {
  if (duration() >= std::chrono::seconds(60)) return 100000;
  return testing::times(frames_keep ? 1000 : 3000);  // with AddressSanitizer each takes longer
}

// Collects, and uses what has been freed now and then: that takes longer than a collection.
class storm {
 public:
  storm()
      : thread_([this] {
          current();
          while (!over_) {
            gc::collect();
            if (++collections_ % 8 == 0) use_free_memory();
          }
        }) {
    while (collections_ == 0) let_others_run();
  }
  ~storm() {
    over_ = true;
    thread_.join();
  }
  unsigned collections() const { return collections_; }

 private:
  std::atomic<bool> over_{false};
  std::atomic<unsigned> collections_{0};
  std::thread thread_;
};

// Suspended, refers to itself, and alone to an object. Whoever comes first ends it: the collector or its thread's end.
__attribute__((noinline)) void leave_suspended() {
  greenlet([] {
    const greenlet self = current();
    const looks here;
    switch_to_parent();
  }).switch_to();
}

void live_shortly(unsigned i) {
  leave_suspended();
  if (i % 2 == 0) return;
  // What a value has brought out of a greenlet's stack.
  witness* volatile here = make_witness();
  greenlet g([] { switch_to_parent(make_witness()); });
  witness* const there = g.switch_to().get<witness*>();
  if (!here->intact() || !there->intact()) ++damaged;
}

// Eight at a time: each waits for the one that began eight before. None is left.
void come_and_go(unsigned n) {
  std::array<std::thread, 8> all;
  for (unsigned i = 0; i < n; ++i) {
    std::thread& t = all[i % all.size()];
    if (t.joinable()) t.join();
    t = std::thread(live_shortly, i);
  }
  for (std::thread& t : all)
    if (t.joinable()) t.join();
}

}  // namespace

TEST_CASE("threads that come and go during collections without pause end their greenlets themselves, and leave nothing") {
  const unsigned half = how_many() / 2;
  const unsigned all = 2 * half;
  current();
  process_counts before, after;
  long pages_then = 0, pages_now = 0;
  unsigned collections = 0;
  {
    const storm all_the_time;
    before = counts();
    come_and_go(half);
    pages_then = testing::resident_pages();
    come_and_go(half);
    pages_now = testing::resident_pages();
    after = counts();
    collections = all_the_time.collections();
  }
  CHECK(destroyed == static_cast<int>(all));
  CHECK(damaged == 0);
  CHECK(elsewhere == 0);
  CHECK(after.greenlets == before.greenlets);
  CHECK(after.main_greenlets == before.main_greenlets);
  CHECK(after.stacks == before.stacks);
  CHECK(after.threads == before.threads);
  if (!testing::freed_memory_is_kept()) CHECK(pages_now - pages_then < 128);
  MESSAGE(all, " threads, ", collections, " collections, ", gc::statistics().found, " found; ", pages_then, " pages, then ",
          pages_now);
}
