// SPDX-License-Identifier: MIT
// What greenlets hold survives: on stacks and in registers, while threads switch without pause and one collects.
// GREENLET_TEST_GC_SECONDS=60 for the long form.
#include "gc_testing.hpp"

#include <mutex>
#include <thread>

using namespace gc_testing;

namespace {

const left_out_under_tsan because_of_storms;
const enabling on;

// What has to be intact, of which a case makes as many as it likes.
struct result {
  std::atomic<std::uint64_t> looked{0};
  std::atomic<std::uint64_t> lost{0};

  void look(const witness* w) {
    ++looked;
    if (!w->intact()) ++lost;
  }
};

// Collects, and uses what has been freed, for as long as there is one.
class collecting {
 public:
  collecting() {
    enabling::give_segv_back();
    thread_ = std::thread([this] {
      current();
      while (!over_) {
        gc::collect();
        use_free_memory();
        ++collections;
      }
    });
  }
  ~collecting() {
    over_ = true;
    thread_.join();
  }
  std::atomic<std::uint64_t> collections{0};

 private:
  std::atomic<bool> over_{false};
  std::thread thread_;
};

using clock_type = std::chrono::steady_clock;

// Two greenlets hand control to each other, and `hold` is called in each with what it is to keep alive.
template <class F>
std::uint64_t storm(result& r, F&& hold) {
  const auto until = clock_type::now() + duration() / 6;
  std::uint64_t switches = 0;
  while (clock_type::now() < until) {
    greenlet a([&] { hold(r); });
    a.switch_to();
    for (int i = 0; i < 200 && a; ++i, ++switches) a.switch_to();
  }
  return switches;
}

void check(const char* what, result& r, std::uint64_t switches, const collecting& c) {
  CHECK(r.lost == 0);
  CHECK(r.looked > 0);
  CHECK(c.collections > 0);
  MESSAGE(std::string(what), ": ", switches, " switches, ", c.collections.load(), " collections, ", r.looked.load(), " objects, ",
          r.lost.load(), " lost");
}

template <class F>
void during_storm(const char* what, F&& hold) {
  result r;
  std::atomic<std::uint64_t> switches{0};
  collecting c;
  std::vector<std::thread> others;
  for (int i = 0; i < 2; ++i) others.emplace_back([&] { switches += storm(r, hold); });
  for (std::thread& t : others) t.join();
  while (c.collections == 0) let_others_run();
  check(what, r, switches, c);
}

}  // namespace

TEST_CASE("B29, 189: an object that only a suspended greenlet's stack refers to survives") {
  during_storm("stack", [](result& r) {
    witness* volatile here = make_witness();
    for (int i = 0; i < 100; ++i) {
      switch_to_parent();
      r.look(here);
      here = make_witness();
    }
  });
}

#if defined(GREENLET_INLINE_SWITCH) && defined(__x86_64__)
namespace {

// Goes to the parent by the instructions of machine::go(), with the object at PLACE, as it is left, and nowhere else:
// it comes with its bits inverted, and `*visible` keeps it until then.
#define GO_TO_PARENT(PLACE)                                                                                           \
  hot_thread* const t = hot_thread_v1;                                                                                \
  auto* const from = reinterpret_cast<hot_body*>(t->current.load());                                                  \
  auto* const to = reinterpret_cast<hot_body*>(from->parent.load());                                                  \
  t->current.store(reinterpret_cast<body*>(to));                                                                      \
  machine::context* f = &from->where;                                                                                 \
  machine::context* g = &to->where;                                                                                   \
  machine::cargo c;                                                                                                   \
  witness* found = nullptr;                                                                                           \
  register std::uintptr_t object __asm__("r8") = bits;                                                                \
  register witness* volatile* before __asm__("r9") = visible;                                                         \
  __asm__ volatile("notq %%r8\n\t"                                                                                    \
                   "movq %%r8, " PLACE "\n\t"                                                                         \
                   "xorl %%r8d, %%r8d\n\t"                                                                            \
                   "movq %%r8, (%%r9)\n\t"                                                                            \
                   "leaq 1f(%%rip), %%rcx\n\t"                                                                        \
                   "movq %%rsp, 0(%[f])\n\t"                                                                          \
                   "movq %%rbp, 8(%[f])\n\t"                                                                          \
                   "movq %%rcx, 16(%[f])\n\t"                                                                         \
                   "movq %%rbx, 24(%[f])\n\t"                                                                         \
                   "movq 0(%[t]), %%rsp\n\t"                                                                          \
                   "movq 8(%[t]), %%rbp\n\t"                                                                          \
                   "movq 24(%[t]), %%rbx\n\t"                                                                         \
                   "jmpq *16(%[t])\n"                                                                                 \
                   "1:\n\t"                                                                                           \
                   "movq " PLACE ", %%r8\n\t"                                                                         \
                   "movq %%r8, %[found]\n\t"                                                                          \
                   : "+a"(c.kind), "+d"(c.word), [f] "+D"(f), [t] "+S"(g), "+r"(object), "+r"(before),                \
                     [found] "=m"(found)                                                                              \
                   :                                                                                                  \
                   : "cc", "memory", "rbx", "rcx", "r10", "r11", "r12", "r13", "r14", "r15", "xmm0", "xmm1",          \
                     "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12",       \
                     "xmm13", "xmm14", "xmm15");                                                                      \
  r.look(found);                                                                                                      \
  landed(c, reinterpret_cast<body*>(g))

using namespace greenlets::detail;
using leaver = void (*)(result& r, std::uintptr_t bits, witness* volatile* visible);

__attribute__((noinline)) void leave_in_rbx(result& r, std::uintptr_t bits, witness* volatile* visible) {
  GO_TO_PARENT("%%rbx");
}

// What is between here and there is the compiler's.
__attribute__((noinline)) void leave_in_red_zone(result& r, std::uintptr_t bits, witness* volatile* visible) {
  GO_TO_PARENT("-128(%%rsp)");
}

void leave(result& r, leaver how, std::atomic<std::uint64_t>& straight) {
  for (int i = 0; i < 100; ++i) {
    witness* volatile visible = make_witness();
    wipe_stack();
    if (hot_thread_v1->attention.load() != 0) {
      switch_to_parent();
      r.look(visible);
    } else {
      ++straight;
      // In no function of its own, whose dead frame would have it still.
      const std::uintptr_t bits = ~reinterpret_cast<std::uintptr_t>(visible);
      how(r, bits, &visible);
    }
  }
}

void leave_during_storm(const char* what, leaver how) {
  std::atomic<std::uint64_t> straight{0};
  during_storm(what, [&](result& r) { leave(r, how, straight); });
  if (straight == 0) MESSAGE("skipped: no switch here is straight");
}

}  // namespace

namespace {

// Where a suspended greenlet has a word: how often in its red zone and above it, and in the register saved beside.
struct places {
  int red_zone = 0, above = 0, register_ = 0;
};

places places_of(std::uintptr_t word, const hot_body* b, std::size_t used) {
  places found;
  const auto* const sp = static_cast<const std::uintptr_t*>(b->where.sp);
  for (const std::uintptr_t* at = sp - 128 / 8; at < sp; ++at) found.red_zone += *at == word;
  for (const std::uintptr_t* at = sp; at < sp + used / 8; ++at) found.above += *at == word;
  found.register_ = reinterpret_cast<std::uintptr_t>(b->where.base) == word;
  return found;
}

// Leaves one there a hundred times, and looks at each from outside.
template <class F>
void leave_and_look(leaver how, F&& check_places) {
  enabling::give_segv_back();
  result r;
  std::uintptr_t inverted = 0;
  hot_body* left = nullptr;
  greenlet g([&] {
    for (int i = 0; i < 100; ++i) {
      witness* volatile visible = make_witness();
      wipe_stack();
      left = hot_thread_v1->attention.load() == 0 ? reinterpret_cast<hot_body*>(hot_thread_v1->current.load()) : nullptr;
      inverted = ~reinterpret_cast<std::uintptr_t>(visible);
      if (left)
        how(r, inverted, &visible);
      else
        switch_to_parent();
    }
  });
  int looked = 0;
  for (g.switch_to(); g; g.switch_to()) {
    if (!left) continue;
    check_places(places_of(~inverted, left, g.stack().used));
    gc::collect();
    use_free_memory();
    ++looked;
  }
  CHECK(r.lost == 0);
  CHECK(r.looked == static_cast<std::uint64_t>(looked));
  if (looked == 0) MESSAGE("skipped: no switch here is straight");
}

}  // namespace

// The collector that does not look just there loses it: in the storms below it would have to come at the right moment.
TEST_CASE("what the next two cases leave in a register, or in the red zone, is nowhere else in its greenlet, and is kept") {
  leave_and_look(&leave_in_rbx, [](const places& p) {
    CHECK(p.register_ == 1);
    CHECK(p.red_zone + p.above == 0);
  });
  leave_and_look(&leave_in_red_zone, [](const places& p) {
    CHECK(p.red_zone == 1);
    CHECK(p.register_ + p.above == 0);
  });
}

TEST_CASE("B29: one that only a saved register refers to survives") { leave_during_storm("register", &leave_in_rbx); }

// What inline code leaves is the red zone of whoever it is inlined into, which is live while that is suspended.
TEST_CASE("B29: one that only the red zone of a suspended leaf refers to survives") {
  leave_during_storm("red zone", &leave_in_red_zone);
}
#endif

#ifdef __x86_64__
// A switch loses them, so whoever has something there saves it.
TEST_CASE("one that only a vector register refers to, which is saved across a switch, survives") {
  during_storm("vector register", [](result& r) {
    using vector = std::uintptr_t __attribute__((vector_size(16)));
    for (int i = 0; i < 100; ++i) {
      vector v = {reinterpret_cast<std::uintptr_t>(make_witness()), 0};
      __asm__ volatile("" : "+x"(v));
      switch_to_parent();
      __asm__ volatile("" : "+x"(v));
      r.look(reinterpret_cast<witness*>(v[0]));
    }
  });
}
#endif

TEST_CASE("one that only the running greenlet's stack refers to survives") {
  result r;
  collecting c;
  std::uint64_t rounds = 0;
  greenlet g([&] {
    const auto until = clock_type::now() + duration() / 6;
    while (clock_type::now() < until || c.collections == 0) {
      witness* volatile here = make_witness();
      for (volatile int i = 0; i < 1000; i = i + 1) {
      }
      r.look(here);
      ++rounds;
    }
  });
  g.switch_to();
  check("running", r, rounds, c);
}

TEST_CASE("one that only the native stack of a thread refers to, which is in a greenlet, survives") {
  result r;
  std::atomic<std::uint64_t> switches{0};
  collecting c;
  const auto native = [&] {
    const auto until = clock_type::now() + duration() / 6;
    greenlet a([] {
      for (;;) switch_to_parent();
    });
    greenlet b([&] {
      for (;;) {
        for (int i = 0; i < 100; ++i, ++switches) a.switch_to();
        main_greenlet().switch_to();
      }
    });
    a.set_parent(current());
    while (clock_type::now() < until) {
      witness* volatile here = make_witness();
      b.switch_to();
      r.look(here);
      ++switches;
    }
  };
  std::thread other(native);
  native();
  other.join();
  while (c.collections == 0) let_others_run();
  check("native", r, switches, c);
}

TEST_CASE("one that only a callable refers to, which has not started, survives") {
  result r;
  collecting c;
  std::uint64_t rounds = 0;
  const auto until = clock_type::now() + duration() / 6;
  while (clock_type::now() < until || c.collections == 0) {
    std::vector<greenlet> waiting;
    for (int i = 0; i < 20; ++i) {
      waiting.emplace_back([&r, object = make_witness()] { r.look(object); });
      waiting.emplace_back([&r, object = make_witness(), large = std::string(100, 'x')] { r.look(object); });
    }
    for (volatile int i = 0; i < 10000; i = i + 1) {
    }
    for (greenlet& g : waiting) g.switch_to();
    ++rounds;
  }
  check("callable", r, rounds, c);
}

namespace {

struct large {
  std::string text;
  witness* object;
};
struct three {
  int a, b;
  witness* object;
};

}  // namespace

TEST_CASE("one that only a value refers to survives: of any size, in flight, held, and in malloc's memory") {
  result r;
  collecting c;
  std::uint64_t rounds = 0;
  const auto until = clock_type::now() + duration() / 6;
  const auto looks_at = [&r](const value& v) {
    if (v.is<large>()) r.look(v.get<large>().object);
    if (v.is<three>()) r.look(v.get<three>().object);
    if (v.is<witness*>()) r.look(v.get<witness*>());
  };
  greenlet echo([&](value&& first) {
    value now = std::move(first);
    for (;;) {
      looks_at(now);
      now = switch_to_parent(std::move(now));
    }
  });
  const auto make = [](std::uint64_t i) -> value {
    switch (i % 3) {
      case 0: return make_witness();
      case 1: return three{1, 2, make_witness()};
      default: return large{"in a box", make_witness()};
    }
  };
  std::vector<value> held;  // malloc's: boxes are seen there
  while (clock_type::now() < until || c.collections == 0) {
    looks_at(echo.switch_to(make(rounds)));
    held.push_back(large{"held", make_witness()});
    if (held.size() == 100) {
      for (const value& v : held) looks_at(v);
      held.clear();
    }
    ++rounds;
  }
  for (const value& v : held) looks_at(v);
  check("values", r, rounds, c);
}

TEST_CASE("one that only a local or a context variable refers to survives") {
  result r;
  collecting c;
  std::uint64_t rounds = 0;
  static local<witness*> mine([] { return make_witness(); });
  static context_var<witness*> variable("of the test");
  const auto until = clock_type::now() + duration() / 6;
  while (clock_type::now() < until || c.collections == 0) {
    std::vector<greenlet> all;
    for (int i = 0; i < 20; ++i) {
      all.emplace_back([&r] {
        static_cast<void>(*mine);
        variable.set(make_witness());
        switch_to_parent();
        r.look(*mine);
        r.look(variable.get());
      });
      all.back().switch_to();
    }
    for (volatile int i = 0; i < 10000; i = i + 1) {
    }
    for (greenlet& g : all) g.switch_to();
    ++rounds;
  }
  check("variables", r, rounds, c);
}

TEST_CASE("what generators are about to give survives") {
  result r;
  collecting c;
  std::uint64_t rounds = 0;
  const auto until = clock_type::now() + duration() / 6;
  while (clock_type::now() < until || c.collections == 0) {
    generator<witness*> all([](auto& give) {
      for (int i = 0; i < 50; ++i) give(make_witness());
    });
    for (witness* const w : all) {
      for (volatile int i = 0; i < 300; i = i + 1) {
      }
      r.look(w);
    }
    ++rounds;
  }
  check("generators", r, rounds, c);
}

TEST_CASE("one that only the result of a greenlet refers to survives the greenlet's end") {
  result r;
  collecting c;
  std::uint64_t rounds = 0;
  const auto until = clock_type::now() + duration() / 6;
  while (clock_type::now() < until || c.collections == 0) {
    const value boxed = greenlet([] { return large{"in a box", make_witness()}; }).switch_to();
    r.look(boxed.get<large>().object);
    const value in_place = greenlet([] { return three{1, 2, make_witness()}; }).switch_to();
    r.look(in_place.get<three>().object);
    ++rounds;
  }
  check("results", r, rounds * 2, c);
}
