// SPDX-License-Identifier: MIT
// What nothing can reach is found, on every way that it can hang together, and unwound on its own thread.
#include "gc_testing.hpp"

#include <algorithm>
#include <cstring>
#include <thread>
#include <ucontext.h>

using namespace gc_testing;
using namespace gc_testing::on_a_stack;

namespace {

const enabling on;

struct numbers {
  numbers() {
    ++round;
    destroyed = damaged = elsewhere = 0;
  }
  ~numbers() {
    for (int i = 0; i < 2; ++i) collect_twice();  // the dead are freed by the next
    CHECK(damaged == 0);
    CHECK(elsewhere == 0);
  }
};

// Of so many, conservative scanning may keep this many.
int most_kept(int n) { return n / 100 + 1; }

// Of `n`, all but at most `kept` have gone.
void check_found(int n, int kept) {
  CHECK(destroyed >= n - kept);
  CHECK(destroyed <= n);
  testing::may_be_kept = static_cast<std::size_t>(n - destroyed);
}

void check_found(int n) { check_found(n, most_kept(n)); }

// In these the last references to a cycle are made and left, so that they are in no frame of the test's.

__attribute__((noinline)) void leave_self(int n) {
  for (int i = 0; i < n; ++i) {
    greenlet g([] {
      const greenlet self = current();
      const looks here;
      switch_to_parent();
    });
    g.switch_to();
  }
}

__attribute__((noinline)) void leave_ring(int n) {
  std::vector<greenlet> ring;
  for (int i = 0; i < n; ++i)
    ring.emplace_back([](const greenlet& next) {
      const greenlet neighbour = next;
      const looks here;
      switch_to_parent();
    });
  for (int i = 0; i < n; ++i) {
    greenlet next = ring[static_cast<std::size_t>((i + 1) % n)];
    ring[static_cast<std::size_t>(i)].switch_to(std::move(next));
  }
}

__attribute__((noinline)) void run(void (*f)(int), int n) {
  far_below([&] { f(n); });
  wipe_stack();
}

std::uintptr_t hidden = 0;  // the address of one, as no pointer looks

// Leaves it where the frames of whoever is called next will lie, who do not write everywhere.
__attribute__((noinline)) void litter() {
  volatile std::uintptr_t dead[200];
  for (volatile std::uintptr_t& word : dead) word = ~hidden;
}

}  // namespace

TEST_CASE("B33: a greenlet that only its own stack refers to is found, and unwound with greenlet_exit") {
  const numbers check;
  run([](int) {
    greenlet g([] {
      const greenlet self = current();
      const looks here;
      try {
        switch_to_parent();
      } catch (const greenlet_exit& e) {
        CHECK(e.why == greenlet_exit::reason::collected);
        throw;
      }
    });
    g.switch_to();
  }, 1);
  const gc::collection c = collect_twice();
  CHECK(c.found == 1);
  CHECK(c.unwound == 1);
  CHECK(destroyed == 1);
}

// The first two of "leaky report" stayed for ever, kept by a word in the frame of collect().
TEST_CASE("what was on the stack where collect() is called keeps nothing" * doctest::skip(frames_keep)) {
  const numbers check;
  run([](int) {
    greenlet g([] {
      const greenlet self = current();
      const looks here;
      switch_to_parent();
    });
    g.switch_to();
    std::memcpy(&hidden, &g, sizeof hidden);
    hidden = ~hidden;
  }, 1);
  litter();
  gc::collect();
  CHECK(destroyed == 1);
}

#if defined __x86_64__
TEST_CASE("what a collection leaves in registers that nobody keeps is forgotten") {
  if (!__builtin_cpu_supports("avx512f")) return;
  std::uint64_t left[8] = {};
  __asm__ volatile("vpternlogq $255, %%zmm16, %%zmm16, %%zmm16\n\tvmovdqu64 %%zmm16, %0" : "=m"(left));
  CHECK(left[7] == ~std::uint64_t{0});
  gc::collect();
  __asm__ volatile("vmovdqu64 %%zmm16, %0" : "=m"(left));
  CHECK(std::all_of(left, left + 8, [](std::uint64_t word) { return word == 0; }));
}
#endif

TEST_CASE("10,000 that hold themselves are found, but for less than one in a hundred" *
          doctest::skip(frames_keep || under_tsan)) {
  const numbers check;
  const gc::statistics_t before = gc::statistics();
  run(&leave_self, 10000);
  collect_twice();
  check_found(10000);
  const gc::statistics_t after = gc::statistics();
  MESSAGE("10,000 self-references: found ", after.found - before.found, ", kept ", 10000 - destroyed);
  CHECK(after.unwound - before.unwound == static_cast<std::size_t>(destroyed));
  leave_self(0);
  collect_twice();
}

TEST_CASE("two that hold each other are found" * doctest::skip(frames_keep)) {
  const numbers check;
  for (int i = 0; i < 200; ++i) run(&leave_ring, 2);
  collect_twice();
  check_found(400);
}

// One word that looks like a pointer to any of them keeps all of a ring: now and then there is one, in libgc's own
// static memory, say, until its next collections.
TEST_CASE("rings of 1,000 are found" * doctest::skip(frames_keep)) {
  const numbers check;
  constexpr int rings = 5;
  int at_once = 0;
  for (int i = 0; i < rings; ++i) {
    const int before = destroyed;
    run(&leave_ring, 1000);
    collect_twice();
    at_once += destroyed == before + 1000;
  }
  for (int i = 0; i < 10 && destroyed < rings * 1000; ++i) {
    use_free_memory();
    collect_twice();
  }
  MESSAGE(at_once, " of ", rings, " rings found within two collections");
  CHECK(at_once >= rings / 2);
  check_found(rings * 1000, 1000);
}

TEST_CASE("a cycle through a callable that has not been run is freed" * doctest::skip(frames_keep)) {
  const numbers check;
  const std::size_t before = counts().greenlets;
  run([](int n) {
    for (int i = 0; i < n; ++i) {
      greenlet g{attributes()};
      g.set_run([g, held = std::make_shared<looks>()] {});
    }
  }, 100);
  collect_twice();
  check_found(100);
  collect_twice();
  CHECK(counts().greenlets - before <= static_cast<std::size_t>(most_kept(100)));
}

TEST_CASE("a cycle through the callable of one that runs is found" * doctest::skip(frames_keep)) {
  const numbers check;
  run([](int n) {
    for (int i = 0; i < n; ++i) {
      greenlet g{attributes()};
      g.set_run([g] {
        const looks here;
        switch_to_parent();
      });
      g.switch_to();
    }
  }, 100);
  collect_twice();
  check_found(100);
}

TEST_CASE("a cycle through a queue in the collected heap is found" * doctest::skip(frames_keep)) {
  const numbers check;
  using waiting = std::vector<greenlet, gc::allocator<greenlet>>;
  run([](int n) {
    for (int i = 0; i < n; ++i) {
      greenlet g([] {
        const looks here;
        auto* const queue = ::new (GC_MALLOC(sizeof(waiting))) waiting;
        queue->push_back(current());
        switch_to_parent();
        queue->clear();
      });
      g.switch_to();
    }
  }, 100);
  collect_twice();
  check_found(100);
}

TEST_CASE("a cycle through a value, in flight in nobody's hands, is found" * doctest::skip(frames_keep)) {
  const numbers check;
  run([](int n) {
    for (int i = 0; i < n; ++i) {
      greenlet g([] {
        const looks here;
        std::pair<greenlet, std::string> both(current(), "in a box");
        const value boxed(std::move(both));
        const value in_place(current());
        switch_to_parent();
      });
      g.switch_to();
    }
  }, 100);
  collect_twice();
  check_found(100);
}

namespace {

struct with_finalizer {
  greenlet g;
  witness* object;
};
std::atomic<int> finalized{0};
std::atomic<int> finalized_too_early{0};

void finalize(void* p, void*) {
  if (destroyed == 0) ++finalized_too_early;
  ++finalized;
  static_cast<with_finalizer*>(p)->~with_finalizer();
}

}  // namespace

TEST_CASE("a cycle through an object with an ordinary finalizer is found, and that runs only afterwards" *
          doctest::skip(frames_keep)) {
  const numbers check;
  finalized = 0;
  finalized_too_early = 0;
  run([](int) {
    greenlet g([] {
      auto* const object = ::new (GC_MALLOC(sizeof(with_finalizer))) with_finalizer{current(), make_witness()};
      GC_REGISTER_FINALIZER(object, &finalize, nullptr, nullptr, nullptr);
      const looks here;
      try {
        switch_to_parent();
      } catch (const greenlet_exit&) {
        CHECK(finalized == 0);
        CHECK(object->object->intact());
        throw;
      }
    });
    g.switch_to();
  }, 1);
  CHECK(collect_twice().unwound == 1);
  CHECK(destroyed == 1);
  for (int i = 0; i < 4 && finalized == 0; ++i) collect_twice();
  CHECK(finalized == 1);
  CHECK(finalized_too_early == 0);
}

TEST_CASE("weak handles and weak links resolve while it is unwound, and expire afterwards" *
          doctest::skip(frames_keep)) {
  const numbers check;
  static bool resolved = false, intact = false;
  resolved = intact = false;
  weak_greenlet weak;
  static void* link = nullptr;
  run([](int) {}, 1);
  [&]() __attribute__((noinline)) {
    greenlet g([] {
      const weak_greenlet self = current();
      const greenlet strong = current();
      const looks here;
      link = reinterpret_cast<void*>(GC_HIDE_POINTER(here.object));
      GC_general_register_disappearing_link(&link, here.object);
      try {
        switch_to_parent();
      } catch (const greenlet_exit&) {
        resolved = !self.expired() && self.lock() == strong;
        intact = link != nullptr;
        throw;
      }
    });
    g.switch_to();
    weak = weak_greenlet(g);
  }();
  CHECK(!weak.expired());
  collect_twice();
  CHECK(destroyed == 1);
  CHECK(resolved);
  CHECK(intact);
  collect_twice();
  CHECK(weak.expired());
  CHECK(weak.lock().empty());
}

TEST_CASE("rings across four threads are found, and each is unwound on its own thread" *
          doctest::skip(frames_keep || under_tsan)) {
  const numbers check;
  constexpr int rings = 50;
  constexpr int size = 4;
  std::atomic<int> made{0}, step{0};
  const auto wait_for = [&step](int n) {
    while (step < n) let_others_run();
  };
  // The greenlets are handed round by memory that pins, and that is cleared.
  static std::vector<greenlet> handed(static_cast<std::size_t>(rings * size));
  std::vector<std::thread> threads;
  for (int t = 0; t < size; ++t)
    threads.emplace_back([&, t] {
      [&]() __attribute__((noinline)) {
        std::vector<greenlet> mine;
        for (int r = 0; r < rings; ++r) {
          mine.emplace_back([] {
            const looks here;
            const greenlet next = switch_to_parent().get<greenlet>();
            switch_to_parent();
          });
          mine.back().switch_to();
          handed[static_cast<std::size_t>(r * size + t)] = mine.back();
        }
        ++made;
        wait_for(1);
        for (int r = 0; r < rings; ++r) {
          greenlet next = handed[static_cast<std::size_t>(r * size + (t + 1) % size)];
          mine[static_cast<std::size_t>(r)].switch_to(std::move(next));
        }
      }();
      wipe_stack();
      ++made;
      // What another thread has dropped counts from the next entry on.
      wait_for(2);
      current();
      ++made;
      // Whoever has something to unwind does it at the next entry.
      while (step < 3) {
        current();
        let_others_run();
      }
    });
  while (made < size) let_others_run();
  step = 1;
  while (made < 2 * size) let_others_run();
  handed.assign(handed.size(), greenlet());
  step = 2;
  while (made < 3 * size) let_others_run();
  gc::collection found{};
  for (int i = 0; i < 2; ++i) found.found += collect_twice().found;
  // By the clock, because there may be no event to wait for: what a stale word keeps never comes.
  for (int i = 0; i < 1000 && destroyed < rings * size - 2 * size; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  check_found(rings * size, 2 * size);  // two rings may be kept by what is left in dead frames
  MESSAGE("rings across threads: found ", found.found, " of ", rings * size, ", unwound ", destroyed.load());
  step = 3;
  for (std::thread& t : threads) t.join();
  handed.clear();
  handed.shrink_to_fit();
}

#if defined(__x86_64__) || defined(__aarch64__)
namespace {

// The lowest word of a suspended stack that is in use: of the red zone, or where swapcontext has left.
std::uintptr_t* lowest_in_use(const greenlets::detail::hot_body* b) {
  auto* const sp = static_cast<std::uintptr_t*>(b->where.sp);
#ifdef __x86_64__
  if (b->where.pc) return sp - 128 / sizeof *sp;
  return reinterpret_cast<std::uintptr_t*>(reinterpret_cast<const ucontext_t*>(sp)->uc_mcontext.gregs[REG_RSP]);
#else
  if (b->where.pc) return sp;
  return reinterpret_cast<std::uintptr_t*>(reinterpret_cast<const ucontext_t*>(sp)->uc_mcontext.sp);
#endif
}

// How many of ten objects are there after a collection, when a word of a suspended stack is the only reference to each.
__attribute__((noinline)) int kept_by_word(bool in_use) {
  constexpr int n = 10;
  static std::uintptr_t inverted[n];  // 0 when it is gone
  greenlet all[n];
  greenlets::detail::hot_body* bodies[n];
  std::uintptr_t* words[n];
  std::uintptr_t before[n];
  for (int i = 0; i < n; ++i) {
    all[i] = greenlet([&bodies, i] {
      bodies[i] = reinterpret_cast<greenlets::detail::hot_body*>(greenlets::detail::hot_thread_v1->current.load());
      switch_to_parent();
    });
    all[i].switch_to();
    words[i] = lowest_in_use(bodies[i]) - (in_use ? 0 : 256 / sizeof *words[i]);
    before[i] = *words[i];
    far_below([&, i] {
      witness* const w = make_witness();
      inverted[i] = ~reinterpret_cast<std::uintptr_t>(w);
      GC_general_register_disappearing_link(reinterpret_cast<void**>(&inverted[i]), w);
      *words[i] = reinterpret_cast<std::uintptr_t>(w);
    });
  }
  collect_twice();
  int kept = 0;
  for (int i = 0; i < n; ++i) {
    kept += inverted[i] != 0;
    if (in_use) *words[i] = before[i];
    all[i].switch_to();
  }
  return kept;
}

}  // namespace

TEST_CASE("what lies just below a suspended stack is not taken for a reference, and its lowest word in use is" *
          doctest::skip(frames_keep)) {
  CHECK(kept_by_word(true) == 10);
  CHECK(kept_by_word(false) <= 1);
}
#endif
