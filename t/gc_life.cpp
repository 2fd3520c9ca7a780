// SPDX-License-Identifier: MIT
// Who is never taken: whoever somebody can still switch to. And what dies at once, as without a collector.
#include "gc_testing.hpp"

#include <greenlet/c.hpp>
#include <map>
#include <thread>
#include <vector>

using namespace gc_testing;

namespace {

struct large {
  char bytes[200];
};
struct alignas(64) aligned : large {};

// They have memory of their own, from before there is a collector.
value early = large{{1}};
value early_and_aligned = aligned{{{2}}};

const enabling on;

int destroyed = 0;

struct counts_end {
  ~counts_end() { ++destroyed; }
};

greenlet suspended() {
  greenlet g([] {
    const counts_end here;
    switch_to_parent();
  });
  g.switch_to();
  return g;
}

// With one that only `place` refers to.
template <class F>
void check_kept(F&& in_place) {
  destroyed = 0;
  in_place();
  CHECK(destroyed == 1);
}

void collect_and_look() {
  for (int i = 0; i < 3; ++i) collect_twice();
  CHECK(destroyed == 0);
}

greenlet in_static_memory;
thread_local greenlet in_thread_local;

}  // namespace

TEST_CASE("a value from before there was a collector is moved and freed as any other") {
  {
    value moved = std::move(early);
    collect_twice();
    CHECK(moved.get<large>().bytes[0] == 1);
    early = large{{3}};
    early = std::move(moved);
  }
  early = value();
  value moved = std::move(early_and_aligned);
  CHECK(reinterpret_cast<std::uintptr_t>(moved.get_if<aligned>()) % 64 == 0);
  moved = value();
  collect_twice();
}

TEST_CASE("a handle in malloc's memory keeps its greenlet") {
  check_kept([] {
    auto held = std::make_unique<greenlet>(suspended());
    auto hidden = ~reinterpret_cast<std::uintptr_t>(held.release());
    collect_and_look();
    delete reinterpret_cast<greenlet*>(~hidden);
  });
  check_kept([] {
    std::map<int, std::vector<greenlet>> table;
    for (int i = 0; i < 10; ++i) table[1].push_back(table[1].empty() ? suspended() : table[1].front());
    table[2] = table[1];
    table[1].clear();
    table[3].swap(table[2]);
    std::swap(table[3][0], table[3][9]);
    table[3].erase(table[3].begin(), table[3].begin() + 9);
    collect_and_look();
  });
}

TEST_CASE("a static one and a thread's own keep theirs") {
  check_kept([] {
    in_static_memory = suspended();
    collect_and_look();
    in_static_memory = greenlet();
  });
  check_kept([] {
    in_thread_local = suspended();
    collect_and_look();
    in_thread_local = greenlet();
  });
}

TEST_CASE("one on a thread's own stack, one in an exception and one in a value keep theirs") {
  check_kept([] {
    const greenlet here = suspended();
    collect_and_look();
  });
  check_kept([] {
    struct thrown {
      greenlet g;
    };
    try {
      throw thrown{suspended()};
    } catch (const thrown&) {
      wipe_stack();
      collect_and_look();
    }
  });
  check_kept([] {
    std::vector<value> held;
    held.emplace_back(suspended());
    std::vector<value> moved = std::move(held);
    moved.insert(moved.begin(), value(1));  // moves what it has byte by byte
    collect_and_look();
    const greenlet taken = moved[1].take<greenlet>();
    moved.clear();
    moved.shrink_to_fit();
    collect_and_look();
  });
  check_kept([] {
    auto held = std::make_unique<value>(std::make_tuple(suspended(), 7));
    auto boxed = std::make_unique<value>(std::make_pair(std::get<0>(held->get<std::tuple<greenlet, int>>()), std::string("x")));
    held.reset();
    collect_and_look();
  });
}

TEST_CASE("a handle that a greenlet which is kept holds keeps its greenlet, through any number") {
  check_kept([] {
    greenlet next = suspended();
    for (int i = 0; i < 100; ++i) {
      greenlet g([](const greenlet& given) {
        const greenlet held = given;
        switch_to_parent();
      });
      g.switch_to(std::move(next));
      next = std::move(g);
    }
    collect_and_look();
  });
}

TEST_CASE("what live code holds in the collected heap is kept") {
  check_kept([] {
    using waiting = std::vector<greenlet, gc::allocator<greenlet>>;
    auto* queue = ::new (GC_MALLOC(sizeof(waiting))) waiting;
    for (int i = 0; i < 100; ++i) queue->push_back(i ? queue->front() : suspended());
    collect_and_look();
    queue->~waiting();
  });
}

TEST_CASE("a handle in memory of the collector's that is not looked at pins") {
  check_kept([] {
    auto* const held = ::new (GC_MALLOC_ATOMIC(sizeof(greenlet))) greenlet(suspended());
    collect_and_look();
    held->~greenlet();
  });
  check_kept([] {
    auto* const held = ::new (GC_MALLOC_UNCOLLECTABLE(sizeof(greenlet))) greenlet(suspended());
    const std::uintptr_t hidden = ~reinterpret_cast<std::uintptr_t>(held);
    collect_and_look();
    reinterpret_cast<greenlet*>(~hidden)->~greenlet();
    GC_FREE(reinterpret_cast<void*>(~hidden));
  });
}

TEST_CASE("a reference of C's keeps its greenlet") {
  check_kept([] {
    const std::uintptr_t hidden = ~reinterpret_cast<std::uintptr_t>(to_c(suspended()));
    collect_and_look();
    greenlet_t* const g = greenlet_ref(reinterpret_cast<greenlet_t*>(~hidden));
    greenlet_unref(g);
    collect_and_look();
    const greenlet taken = adopt_from_c(g);
    collect_and_look();
  });
}

TEST_CASE("parents, unstarted greenlets and what they hold are kept by who is") {
  check_kept([] {
    greenlet parent = suspended();
    greenlet child([] {}, parent);
    parent = greenlet();
    collect_and_look();
    child.set_parent(current());
  });
  check_kept([] {
    greenlet g([held = suspended()] {});
    collect_and_look();
    g.switch_to();
  });
}

TEST_CASE("with a weak handle alone a greenlet goes at once; one that is locked keeps it") {
  check_kept([] {
    greenlet g = suspended();
    const weak_greenlet weak = g;
    auto strong = std::make_unique<greenlet>(weak.lock());
    g = greenlet();
    collect_and_look();
    strong.reset();
    CHECK(weak.expired());
  });
}

TEST_CASE("a weak handle that is locked before its greenlet is unwound saves it, and what hangs together with it" *
          doctest::skip(frames_keep)) {
  destroyed = 0;
  weak_greenlet weak;
  std::atomic<int> step{0};
  bool alive = false;
  std::thread owner([&] {
    far_below([&] {
      greenlet a([](const greenlet& given) {
        const greenlet other = given;
        const counts_end here;
        switch_to_parent();
      });
      greenlet b([](const greenlet& given) {
        const greenlet other = given;
        const counts_end here;
        switch_to_parent();
      });
      a.switch_to(b);
      b.switch_to(a);
      weak = a;
    });
    wipe_stack();
    step = 1;
    while (step < 2) let_others_run();  // enters nothing
    {
      const greenlet saved = weak.lock();
      alive = static_cast<bool>(saved);
      current();
      CHECK(destroyed == 0);
    }
    step = 3;
    while (step < 4) {
      current();
      let_others_run();
    }
    // The thread's end.
  });
  while (step < 1) let_others_run();
  const std::size_t found = collect_twice().found;
#ifdef __clang__
  WARN(found == 2);  // its frames without optimisation keep both
#else
  CHECK(found == 2);
#endif
  step = 2;
  while (step < 3) let_others_run();
  CHECK(alive);
  CHECK(destroyed == 0);
  collect_twice();
  // By the clock: what is kept by a stale word ends with the thread, which waits for us.
  for (int i = 0; i < 1000 && destroyed < 2; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(2));
  step = 4;
  owner.join();
  CHECK(destroyed == 2);
}

TEST_CASE("where counts reach zero a greenlet dies at once, wherever its handles were") {
  destroyed = 0;
  {
    greenlet g = suspended();
    greenlet copy = g;
    std::vector<greenlet> more(10, g);
    g = greenlet();
    more.clear();
    CHECK(destroyed == 0);
    copy = greenlet();
    CHECK(destroyed == 1);
  }
  {
    std::vector<greenlet, gc::allocator<greenlet>> held(5, suspended());
    held.resize(1);
    CHECK(destroyed == 1);
    held.clear();
    CHECK(destroyed == 2);
  }
  greenlet holder([] {
    greenlet g = suspended();
    greenlet copy = g;
    g = greenlet();
    copy = greenlet();
    CHECK(destroyed == 3);
    switch_to_parent(std::make_tuple(suspended(), 1));
  });
  {
    value v = holder.switch_to();
    CHECK(destroyed == 3);
    v = 7;
    CHECK(destroyed == 4);
  }
  const std::size_t found = gc::statistics().found;
  collect_twice();
  CHECK(gc::statistics().found == found);
}

TEST_CASE("a greenlet dropped on another thread, whose owner has not come by, is not taken") {
  destroyed = 0;
  greenlet g = suspended();
  std::thread([&g] { g = greenlet(); }).join();
  const std::size_t found = gc::statistics().found;
  std::thread([] {
    current();
    gc::collect();
    gc::collect();
  }).join();
  CHECK(gc::statistics().found == found);
  CHECK(destroyed == 0);
  current();
  CHECK(destroyed == 1);
}

TEST_CASE("it is too late, and twice, to enable it") {
  std::string what;
  CHECK(testing::error_of([] { gc::enable(); }, &what) == errc::already_started);
  CHECK(what.find("has been enabled already") != std::string::npos);
  CHECK(gc::enabled());
}

// Its record went on holding what was moved out of it.
TEST_CASE("what a greenlet was to run keeps nothing when that has been replaced, or the greenlet is dead" *
          doctest::skip(frames_keep)) {
  static int finalized;
  finalized = 0;
  static std::vector<greenlet> wanted;
  far_below([] {
    for (int i = 0; i < 3; ++i) {
      witness* const object = make_witness();
      GC_REGISTER_FINALIZER(object, [](void*, void*) { ++finalized; }, nullptr, nullptr, nullptr);
      wanted.emplace_back([object] { object->number = 0; });  // in place
    }
  });
  collect_twice();
  GC_invoke_finalizers();
  CHECK(finalized == 0);
  far_below([] {
    wanted[0].throw_in();
    wanted[1].set_run([] {});
    wanted[2].switch_to();
  });
  collect_twice();
  GC_invoke_finalizers();
  CHECK(wanted[0].dead());
  CHECK(wanted[2].dead());
  CHECK(finalized == 3);
  wanted.clear();
  wanted.shrink_to_fit();
}
