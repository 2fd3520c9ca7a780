// SPDX-License-Identifier: MIT
// libgc in its find-leak mode (GC_FIND_LEAK=1): it reports on standard error what nothing reaches, and frees that, where
// it would have collected it. In child processes, whose output is what libgc has found.
#include "gc_testing.hpp"

#include <memory>
#include <vector>

using namespace gc_testing;

namespace {

struct finding_leaks {
  finding_leaks() { GC_set_find_leak(1); }
} before;
const left_out_under_tsan because_of_threads_after_fork;
const enabling on;

// As use_free_memory(), which leaks.
void use_freed_memory() {
  std::vector<void*, gc::allocator<void*>> all;  // in sight, for malloc's memory is not
  for (int i = 0; i < 500; ++i) {
    all.push_back(GC_MALLOC(sizeof(witness)));
    __builtin_memset(all.back(), 0x11, sizeof(witness));
  }
  for (void* const p : all) GC_FREE(p);
}

// An object that goes with its owner, as everything has to in this mode.
class owned {
 public:
  owned() : object_(make_witness()) {}
  owned(owned&& other) noexcept : object_(std::exchange(other.object_, nullptr)) {}
  owned& operator=(owned&&) = delete;
  ~owned() { GC_FREE(object_); }
  bool intact() const noexcept { return object_->intact(); }

 private:
  witness* object_;
};

struct large {
  owned object;
  char more[100];
};

void look(bool intact, int code) {
  if (!intact) _exit(code);
}

void collect_and_use() {
  for (int i = 0; i < 3; ++i) {
    wipe_stack();
    gc::collect();
    use_freed_memory();
  }
}

void hold_of_all_kinds() {
  greenlet suspended([] {
    const owned here;
    const value boxed = large{{}, {}};
    switch_to_parent();
    look(here.intact(), 10);
    look(boxed.get<large>().object.intact(), 11);
  });
  suspended.switch_to();
  const auto pinned = std::make_unique<greenlet>([] {
    const owned here;
    switch_to_parent();
    look(here.intact(), 12);
  });
  pinned->switch_to();
  greenlet unstarted([object = owned()] { look(object.intact(), 13); });
  const auto boxed = std::make_unique<value>(large{{}, {}});  // in malloc's memory, with a pin
  greenlet dead([] {});
  dead.switch_to();
  greenlet gone([] {});
  const weak_greenlet weak(gone);
  gone = greenlet();
  static context_var<int> variable("of the test");
  greenlet varied([] {
    variable.set(1);
    switch_to_parent();
    look(variable.get() == 1, 14);
  });
  varied.switch_to();
  collect_and_use();
  suspended.switch_to();
  pinned->switch_to();
  unstarted.switch_to();
  varied.switch_to();
  look(boxed->get<large>().object.intact(), 15);
  look(dead.dead() && weak.expired(), 16);
}

}  // namespace

TEST_CASE("in find-leak mode what greenlets hold is kept, and no record of the library's is taken for a leak, in use or after it") {
  const testing::child c = testing::in_child([] {
    hold_of_all_kinds();
    std::thread(hold_of_all_kinds).join();
    collect_and_use();
  });
  CHECK(c.output == "");
  CHECK(c.status == 0);
}

TEST_CASE("in find-leak mode thousands that end, with what they were given and gave, are given back and not reported") {
  const testing::child c = testing::in_child([] {
    std::atomic<bool> over{false};
    std::thread collecting([&over] {
      while (!over) gc::collect();
    });
    std::thread other([] {
      for (int i = 0; i < 1000; ++i) greenlet([] { switch_to_parent(); }).switch_to();
    });
    for (int i = 0; i < 1000; ++i) {
      greenlet g([object = owned()](value v) {
        const value given = std::move(v);
        switch_to_parent(large{{}, {}});
        look(object.intact() && given.get<large>().object.intact(), 17);
      });
      const value got = g.switch_to(value(large{{}, {}}));
      look(got.get<large>().object.intact(), 18);
      if (i % 2) g.switch_to();
    }
    other.join();
    over = true;
    collecting.join();
    collect_and_use();
  });
  CHECK(c.output == "");
  CHECK(c.status == 0);
}

// It crashed: libgc frees what it reports, and the library would have unwound one that was free.
TEST_CASE("in find-leak mode a greenlet that nothing reaches is not taken: it keeps itself") {
  const testing::child c = testing::in_child([] {
    std::vector<weak_greenlet> all;
    far_below([&all] {
      for (int i = 0; i < 50; ++i) {
        greenlet g([] {
          const greenlet self = current();
          const owned here;
          switch_to_parent();
          look(here.intact(), 19);
        });
        g.switch_to();
        all.push_back(g);
      }
    });
    collect_and_use();
    look(gc::statistics().found == 0 && gc::statistics().freed == 0, 20);
    for (const weak_greenlet& weak : all) weak.lock().switch_to();
    look(gc::statistics().collections > 0, 21);
    collect_and_use();
  });
  CHECK(c.output == "");
  CHECK(c.status == 0);
}

TEST_CASE("in find-leak mode what the program has lost is reported, from a greenlet's stack too") {
  const testing::child c = testing::in_child([] {
    greenlet([] {
      far_below([] {
        for (int i = 0; i < 20; ++i) make_witness();
      });
      collect_and_use();
    }).switch_to();
  });
  CHECK(c.output.find("eaked") != std::string::npos);
  CHECK(c.status == 0);
}
