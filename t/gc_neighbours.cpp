// SPDX-License-Identifier: MIT
// In a program that uses Boehm GC itself: its hooks and finalizers, its other ways to stop and to block, signals,
// fork; and what destructors may do while their greenlet is unwound on behalf of the collector.
#include "gc_testing.hpp"

#include <csignal>
#include <pthread.h>
#include <sys/mman.h>
#include <thread>

using namespace gc_testing;

namespace {

// Hooks that were there before ours.
std::atomic<int> events_before{0}, pushes_before{0}, events_after{0}, pushes_after{0};
GC_push_other_roots_proc libgcs_push = nullptr;
GC_push_other_roots_proc our_push = nullptr;
GC_on_collection_event_proc our_event = nullptr;

struct hooked_before {
  hooked_before() {
    GC_INIT();
    libgcs_push = GC_get_push_other_roots();
    GC_set_push_other_roots([] {
      ++pushes_before;
      libgcs_push();
    });
    GC_set_on_collection_event([](GC_EventType) { ++events_before; });
  }
} before;
const enabling on;

std::atomic<int> destroyed{0};
std::atomic<int> damaged{0};

struct looks {
  witness* const object = make_witness();
  ~looks() {
    ++destroyed;
    if (!object->intact()) ++damaged;
  }
};

// A greenlet that holds itself, and runs `in_destructor` when it is unwound.
template <class F>
__attribute__((noinline)) void leave_one_here(F in_destructor) {
  greenlet g([in_destructor] {
    const greenlet self = current();
    struct at_end {
      F f;
      ~at_end() { f(); }
    };
    const at_end last{in_destructor};
    const looks here;
    switch_to_parent();
  });
  g.switch_to();
}

template <class F>
void leave_one(F in_destructor) {
  far_below([&] { leave_one_here(in_destructor); });
}

void start() {
  for (int i = 0; i < 3; ++i) collect_twice();
  destroyed = damaged = 0;
}

void finish(int n = 1) {
  collect_twice();
  CHECK(destroyed == n);
  CHECK(damaged == 0);
  for (int i = 0; i < 3; ++i) collect_twice();
}

}  // namespace

TEST_CASE("hooks that were there before are called, and those that are put there later and call ours") {
  start();
  const int e = events_before, p = pushes_before;
  gc::collect();
  CHECK(events_before > e);
  CHECK(pushes_before > p);
  our_push = GC_get_push_other_roots();
  our_event = GC_get_on_collection_event();
  GC_set_push_other_roots([] {
    ++pushes_after;
    our_push();
  });
  GC_set_on_collection_event([](GC_EventType event) {
    ++events_after;
    our_event(event);
  });
  leave_one([] {});
  finish();
  CHECK(pushes_after > 0);
  CHECK(events_after > 0);
  GC_set_push_other_roots(our_push);
  GC_set_on_collection_event(our_event);
}

TEST_CASE("B32: a destructor may allocate, collect, make greenlets, throw inside, and drop others") {
  start();
  leave_one([] {
    for (int i = 0; i < 1000; ++i) make_witness();
    gc::collect();
    greenlet g([] { switch_to_parent(make_witness()); });
    CHECK(g.switch_to().get<witness*>()->intact());
    try {
      throw std::runtime_error("inside");
    } catch (const std::runtime_error&) {
    }
    use_free_memory();
  });
  finish();
}

TEST_CASE("190, B30: a destructor of what is found may switch, and is gone back to") {
  start();
  std::vector<int> order;
  greenlet other([&order] {
    for (;;) {
      order.push_back(2);
      switch_to_parent();
    }
  });
  leave_one([&] {
    order.push_back(1);
    other.set_parent(current());
    other.switch_to();
    other.set_parent(main_greenlet());
    order.push_back(3);
  });
  finish();
  CHECK(order == std::vector<int>{1, 2, 3});
}

TEST_CASE("a destructor may keep its own greenlet, which is dead then") {
  start();
  auto kept = std::make_unique<greenlet>();
  leave_one([&kept] { *kept = current(); });
  finish();
  CHECK(kept->dead());
  CHECK(!kept->empty());
}

TEST_CASE("one that swallows its exit and switches away is reported once and left") {
  start();
  testing::unraisables reported;
  const std::size_t refused = gc::statistics().refused;
  static bool let_go = false;
  let_go = false;
  static weak_greenlet who;
  far_below([&] {
    greenlet g([] {
      const greenlet self = current();
      const looks here;
      while (!let_go) {
        try {
          switch_to_parent();
        } catch (const greenlet_exit&) {
        }
      }
    });
    g.switch_to();
    who = g;
  });
  for (int i = 0; i < 10; ++i) collect_twice();
  CHECK(gc::statistics().refused == refused + 1);
  CHECK(reported.seen.size() == 1);
  CHECK(destroyed == 0);
  reported.seen.clear();
  let_go = true;
  who.lock().switch_to();
  finish();
}

TEST_CASE("of many collections between finding and unwinding nothing is lost") {
  start();
  std::atomic<int> step{0};
  std::thread owner([&] {
    for (int i = 0; i < 20; ++i) leave_one([] {});
    wipe_stack();
    step = 1;
    while (step < 2) let_others_run();
    current();
  });
  while (step < 1) let_others_run();
  for (int i = 0; i < 10; ++i) {
    collect_twice();
    use_free_memory();
  }
  step = 2;
  owner.join();
  finish(20);
}

TEST_CASE("a thread that blocks in GC_do_blocking on a greenlet's stack loses nothing") {
  start();
  std::atomic<int> step{0};
  bool intact = false;
  std::thread blocked([&] {
    witness* volatile native = make_witness();
    greenlet g([&] {
      witness* volatile here = make_witness();
      GC_do_blocking(
          [](void* s) -> void* {
            auto& at = *static_cast<std::atomic<int>*>(s);
            at = 1;
            while (at < 2) let_others_run();
            return nullptr;
          },
          &step);
      intact = here->intact();
    });
    g.switch_to();
    intact = intact && native->intact();
  });
  while (step < 1) let_others_run();
  for (int i = 0; i < 5; ++i) {
    collect_twice();
    use_free_memory();
  }
  step = 2;
  blocked.join();
  CHECK(intact);
}

TEST_CASE("GC_call_with_gc_active on a greenlet's stack leaves the thread's own in its place") {
  start();
  witness* volatile native = make_witness();
  GC_stack_base before_it, after_it;
  GC_get_my_stackbottom(&before_it);
  greenlet g([] {
    witness* volatile here = make_witness();
    GC_call_with_gc_active(
        [](void*) -> void* {
          GC_gcollect();
          use_free_memory();
          return nullptr;
        },
        nullptr);
    gc::collect();
    use_free_memory();
    CHECK(here->intact());
  });
  g.switch_to();
  gc::collect();
  use_free_memory();
  CHECK(native->intact());
  GC_get_my_stackbottom(&after_it);
  CHECK(after_it.mem_base == before_it.mem_base);
}

TEST_CASE("stacks of any size that may be asked for have room for the collector and for finalizers") {
  start();
  static std::atomic<int> finalized{0};
  finalized = 0;
  for (const std::size_t size : {16, 24, 28, 64, 100, 256}) {
    greenlet g(attributes().stack_size(size * 1024), [] {
      for (int i = 0; i < 20000; ++i) {
        void* const p = GC_MALLOC(64);
        if (i % 100 == 0)
          GC_REGISTER_FINALIZER(p, [](void*, void*) {
            char room[4000];
            __builtin_memset(room, 1, sizeof room);
            __asm__ volatile("" : : "r"(room) : "memory");
            ++finalized;
          }, nullptr, nullptr, nullptr);
      }
      gc::collect();
      gc::collect();
    });
    g.switch_to();
    CHECK(g.dead());
  }
  CHECK(finalized > 0);
}

TEST_CASE("long chains, for which libgc's mark stack is too small at first, and deep stacks full of pointers") {
  start();
  struct link {
    link* next;
    witness* object;
  };
  greenlet g([] {
    link* volatile first = nullptr;
    witness* wide[6000];
    for (witness*& w : wide) w = make_witness();
    for (int i = 0; i < 300000; ++i) {
      auto* const l = static_cast<link*>(GC_MALLOC(sizeof(link)));
      l->next = first;
      l->object = make_witness();
      first = l;
    }
    switch_to_parent();
    int bad = 0;
    for (witness* const w : wide) bad += !w->intact();
    for (const link* l = first; l; l = l->next) bad += !l->object->intact();
    CHECK(bad == 0);
  });
  g.switch_to();
  for (int i = 0; i < 3; ++i) {
    collect_twice();
    use_free_memory();
  }
  g.switch_to();
  CHECK(g.dead());
}

namespace {

std::atomic<bool> threads_stopped{false};
std::atomic<int> pushes_while_running{0};
std::atomic<int> wide_intact{0};

// On a stack: more objects than libgc's mark stack has room for, seen again when it is unwound.
struct wide {
  static constexpr int n = 100000;
  witness* all[n];
  wide() {
    for (witness*& w : all) w = make_witness();
  }
  ~wide() {
    int bad = 0;
    for (const witness* const w : all) bad += !w->intact();
    wide_intact += bad == 0;
  }
};

}  // namespace

// What is found is marked for its destructors when the threads run again, and there may be no room to do so.
TEST_CASE("roots that libgc wants once more while threads run: nothing is lost, and nothing is taken twice") {
  start();
  pushes_while_running = wide_intact = 0;
  our_push = GC_get_push_other_roots();
  our_event = GC_get_on_collection_event();
  GC_set_push_other_roots([] {
    if (!threads_stopped) ++pushes_while_running;
    our_push();
  });
  GC_set_on_collection_event([](GC_EventType event) {
    if (event == GC_EVENT_POST_STOP_WORLD) threads_stopped = true;
    if (event == GC_EVENT_PRE_START_WORLD) threads_stopped = false;
    our_event(event);
  });
  far_below([] {
    greenlet g(attributes().stack_size(2 * sizeof(wide)), [] {
      const greenlet self = current();
      const wide here;
      const looks last;
      switch_to_parent();
    });
    g.switch_to();
  });
  collect_twice();
  use_free_memory();
  GC_set_push_other_roots(our_push);
  GC_set_on_collection_event(our_event);
  finish();
  CHECK(wide_intact == 1);
  CHECK(pushes_while_running > 0);
}

TEST_CASE("libgc goes on collecting by itself, from greenlets and from the thread's own stack") {
  start();
  for (int round = 0; round < 3; ++round) {
    const GC_word before_it = GC_get_gc_no();
    const auto allocate = [before_it] {
      for (int i = 0; i < 2000000 && GC_get_gc_no() < before_it + 2; ++i) static_cast<void>(GC_MALLOC(1000));
    };
    if (round % 2)
      allocate();
    else
      greenlet(allocate).switch_to();
    CHECK(GC_get_gc_no() >= before_it + 2);
  }
}

TEST_CASE("with GC_disable nothing is found until it is enabled again") {
  start();
  GC_disable();
  leave_one([] {});
  CHECK(collect_twice().found == 0);
  CHECK(destroyed == 0);
  GC_enable();
  finish();
}

TEST_CASE("with finalize-on-demand the program says when finalizers run, and finding goes on") {
  start();
  static int finalized = 0;
  finalized = 0;
  GC_set_finalize_on_demand(1);
  far_below([&] {
    void* const p = GC_MALLOC(64);
    GC_REGISTER_FINALIZER(p, [](void*, void*) { ++finalized; }, nullptr, nullptr, nullptr);
  });
  leave_one([] {});
  finish();
  CHECK(finalized == 0);
  GC_set_finalize_on_demand(0);
  GC_invoke_finalizers();
}

TEST_CASE("a new greenlet on a stack that was used before does not keep what was there") {
  start();
  for (int i = 0; i < 50; ++i) {
    leave_one([] {});
    wipe_stack();
    gc::collect();
    greenlet([] {}).switch_to();
  }
  greenlet g([] { switch_to_parent(); });
  g.switch_to();
  collect_twice();
  CHECK(destroyed >= 49);
}

namespace {

std::atomic<int> handled{0};

// Allocates nothing itself: a signal may have interrupted the allocator.
void on_signal(int) {
  ++handled;
  volatile char room[512];
  for (volatile char& c : room) c = 1;
}

}  // namespace

TEST_CASE("signals on alternate stacks while another thread collects: what was interrupted is seen" *
          doctest::skip(under_tsan)) {
  start();
  struct sigaction act = {};
  act.sa_handler = &on_signal;
  act.sa_flags = SA_ONSTACK | SA_RESTART;
  struct sigaction old;
  sigaction(SIGUSR1, &act, &old);
  std::atomic<bool> over{false};
  std::atomic<int> ready{0};
  int bad = 0;
  std::thread interrupted([&] {
    static char alternate[64 * 1024];
    stack_t s = {};
    s.ss_sp = alternate;
    s.ss_size = sizeof alternate;
    sigaltstack(&s, nullptr);
    witness* volatile native = make_witness();
    greenlet g([&] {
      ready = 1;
      while (!over) {
        witness* volatile here = make_witness();
        for (volatile int i = 0; i < 200; i = i + 1) {
        }
        bad += !here->intact();
        switch_to_parent();
      }
    });
    while (!over) {
      g.switch_to();
      bad += !native->intact();
    }
    g.switch_to();
    s.ss_flags = SS_DISABLE;
    sigaltstack(&s, nullptr);
  });
  while (!ready) let_others_run();
  const auto until = std::chrono::steady_clock::now() + duration();
  while (std::chrono::steady_clock::now() < until) {
    for (int i = 0; i < 20; ++i) pthread_kill(interrupted.native_handle(), SIGUSR1);
    gc::collect();
    use_free_memory();
  }
  over = true;
  interrupted.join();
  sigaction(SIGUSR1, &old, nullptr);
  CHECK(bad == 0);
  CHECK(handled > 0);
  MESSAGE(handled.load(), " signals");
}

TEST_CASE("fork in a greenlet, between finding and unwinding too: the child finds its own, and not the dead threads'") {
  start();
  std::atomic<int> step{0};
  std::thread other([&] {
    for (int i = 0; i < 5; ++i) leave_one([] {});
    wipe_stack();
    step = 1;
    while (step < 2) let_others_run();
  });
  while (step < 1) let_others_run();
  gc::collect();
  greenlet g([] {
    const pid_t child = fork();
    if (child == 0) {
      destroyed = 0;
      for (int i = 0; i < 10; ++i) leave_one([] {});
      for (int i = 0; i < 3; ++i) {
        collect_twice();
        use_free_memory();
      }
      _exit(damaged == 0 && destroyed >= 9 && destroyed <= 10 ? 0 : 1);
    }
    int status = -1;
    waitpid(child, &status, 0);
    CHECK(status == 0);
  });
  g.switch_to();
  step = 2;
  other.join();
  finish(5);
}

TEST_CASE("the loss of a hook is noticed and reported, and nothing more is taken") {
  start();
  testing::unraisables reported;
  const testing::child c = testing::in_child([&] {
    GC_set_push_other_roots(libgcs_push);
    const std::size_t found = gc::statistics().found;
    leave_one([] {});
    collect_twice();
    if (reported.seen.size() != 1 || gc::statistics().found != found || destroyed != 0) _exit(2);
    if (write(1, "told", 4) != 4) _exit(3);
  });
  CHECK(c.status == 0);
  CHECK(c.output == "told");
  const testing::child d = testing::in_child([&] {
    GC_set_on_collection_event(nullptr);
    const std::size_t found = gc::statistics().found;
    witness* volatile native = make_witness();
    leave_one([] {});
    greenlet g([&] {
      collect_twice();
      use_free_memory();
    });
    g.switch_to();
    if (reported.seen.size() != 1 || gc::statistics().found != found || destroyed != 0 || !native->intact()) _exit(2);
  });
  CHECK(d.status == 0);
}
