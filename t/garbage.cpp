// SPDX-License-Identifier: MIT
// What is let go, when, and to whom it goes back: stacks, callables, what lies on a suspended stack; and
// which cycles of handles end by themselves.
#include "testing.hpp"

#include <cstdint>
#include <functional>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

using namespace greenlets;
using testing::at_end;
using testing::events;

namespace {

template <class F>
void in_thread(F&& f) {
  std::thread(std::forward<F>(f)).join();
}

void drop_elsewhere(greenlet&& g) {
  in_thread([mine = std::move(g)]() mutable { mine = greenlet(); });
}

greenlet suspended_one() {
  greenlet g([] { switch_to_parent(); });
  g.switch_to();
  return g;
}

// Notes on which thread it was destroyed, and whether its own class's operator delete was used.
struct own_class {
  static inline int made = 0, freed = 0;
  std::thread::id* destroyed_on;
  int* times;
  char room[100] = {};  // too large to be kept in the handle's record
  own_class(std::thread::id& on, int& n) : destroyed_on(&on), times(&n) {}
  own_class(own_class&& other) noexcept
      : destroyed_on(std::exchange(other.destroyed_on, nullptr)), times(other.times) {}
  ~own_class() {
    if (!destroyed_on) return;
    *destroyed_on = std::this_thread::get_id();
    ++*times;
  }
  void operator()() { switch_to_parent(); }
  static void* operator new(std::size_t size) {
    ++made;
    return ::operator new(size);
  }
  static void operator delete(void* p) {
    ++freed;
    ::operator delete(p);
  }
};

}  // namespace

TEST_CASE("185: the stack of a greenlet that is dropped while suspended goes to the pool, or back to the system") {
  trim_stacks();
  const auto before = counts();
  SUBCASE("dropped here") {
    greenlet g = suspended_one();
    CHECK(counts().stacks == before.stacks + 1);
    CHECK(counts().pooled_stacks == before.pooled_stacks);
    g = greenlet();
    CHECK(counts().stacks == before.stacks + 1);
    CHECK(counts().pooled_stacks == before.pooled_stacks + 1);
    g = suspended_one();  // on the same one
    CHECK(counts().stacks == before.stacks + 1);
    CHECK(counts().pooled_stacks == before.pooled_stacks);
  }
  SUBCASE("dropped elsewhere: it goes back when its thread comes by") {
    drop_elsewhere(suspended_one());
    CHECK(counts().stacks == before.stacks + 1);
    CHECK(counts().pooled_stacks == before.pooled_stacks);
    current();
    CHECK(counts().pooled_stacks == before.pooled_stacks + 1);
  }
  SUBCASE("more at once than the pool keeps") {
    std::vector<greenlet> all;
    for (int i = 0; i < 300; ++i) all.push_back(suspended_one());
    CHECK(counts().stacks == before.stacks + 300);
    all.clear();
    CHECK(counts().pooled_stacks == before.pooled_stacks + 256);
    CHECK(counts().stacks == before.stacks + 256);
  }
  SUBCASE("at its thread's exit, and dropped after it") {
    greenlet kept;
    in_thread([&] {
      kept = suspended_one();
      CHECK(counts().stacks == before.stacks + 1);
    });
    CHECK(counts().stacks == before.stacks);
    kept = greenlet();
    CHECK(counts().stacks == before.stacks);
  }
  trim_stacks();
  CHECK(counts().stacks == before.stacks);
  CHECK(counts().greenlets == before.greenlets);
}

TEST_CASE("186: greenlets that hold each other by their callables are free when they are dead, whichever way they died") {
  const auto before = counts();
  const auto pair = [](bool started) {
    greenlet a{attributes()}, b{attributes()};
    a.set_run([b] { switch_to_parent(); });
    b.set_run([a] { switch_to_parent(); });
    if (started)
      for (const greenlet& g : {a, b}) g.switch_to();
    return std::make_pair(a, b);
  };
  SUBCASE("finished") {
    auto [a, b] = pair(true);
    a.switch_to();
    b.switch_to();
    CHECK(a.dead());
    CHECK(b.dead());
  }
  SUBCASE("killed") {
    auto [a, b] = pair(true);
    a.throw_in();
    CHECK_THROWS_AS(b.throw_in(1), int);
  }
  SUBCASE("one is enough") {
    auto [a, b] = pair(true);
    a.throw_in();  // which keeps b no longer; b, suspended, goes with its last handle, and with it a
    CHECK(b.state() == greenlet_state::suspended);
  }
  SUBCASE("dead without having run") {
    auto [a, b] = pair(false);
    a.throw_in();
    CHECK(a.dead());
    CHECK(b.state() == greenlet_state::unstarted);
  }
  SUBCASE("holding itself, by what it was sent, and sent on") {
    const greenlet g([](greenlet me, const greenlet& again) {
      CHECK(me == again);
      switch_to_parent(me);
      return me;
    });
    CHECK(g.switch_to(g, g).get<greenlet>() == g);
    CHECK(g.switch_to(g).get<greenlet>() == g);
    CHECK(g.dead());
  }
  CHECK(counts().greenlets == before.greenlets);
}

TEST_CASE("186: unstarted greenlets that hold each other stay until one of their callables is taken away") {
  const auto before = counts();
  weak_greenlet weak_a, weak_b;
  {
    const greenlet a{attributes()}, b{attributes()};
    a.set_run([b] {});
    b.set_run([a] {});
    weak_a = a;
    weak_b = b;
  }
  CHECK_FALSE(weak_a.expired());
  CHECK_FALSE(weak_b.expired());
  CHECK(counts().greenlets == before.greenlets + 2);
  weak_a.lock().reset_run();
  CHECK(weak_a.expired());
  CHECK(weak_b.expired());
  CHECK(counts().greenlets == before.greenlets);
}

TEST_CASE("188: whatever a suspended stack holds is let go when its greenlet ends, by whatever end") {
  const auto before = counts();
  std::vector<std::weak_ptr<int>> held;
  const auto note = [&held] {
    auto object = std::make_shared<int>();
    held.push_back(object);
    return object;
  };
  struct node {
    std::shared_ptr<int> content;
    std::shared_ptr<node> next;
  };
  const auto body = [&] {
    const auto local = note();
    const std::vector<std::shared_ptr<int>> many{note(), note()};
    // A cycle of the user's own that its owner breaks, as one does without a collector.
    const auto first = std::make_shared<node>(), second = std::make_shared<node>();
    first->content = note();
    first->next = second;
    second->next = first;
    const auto breaks = at_end([f = first.get()] { f->next.reset(); });
    try {
      throw note();  // an exception that is being handled
    } catch (const std::shared_ptr<int>&) {
      const greenlet inner([&, captured = note()] {
        const auto deeper = note();
        main_greenlet().switch_to();
      }, main_greenlet());
      inner.switch_to();
      main_greenlet().switch_to();
    }
  };
  const auto all_there = [&] {
    CHECK(held.size() == 7);
    for (const auto& each : held) CHECK_FALSE(each.expired());
  };
  SUBCASE("it finishes") {
    const greenlet g(body);
    g.switch_to();  // to inner's switch, which came to main
    g.switch_to();  // to the last line
    all_there();
    g.switch_to();
    CHECK(g.dead());
  }
  SUBCASE("something is thrown into it") {
    const greenlet g(body);
    g.switch_to();
    all_there();
    CHECK_THROWS_AS(g.throw_in(std::runtime_error("")), std::runtime_error);
  }
  SUBCASE("its last handle goes") {
    greenlet g(body);
    g.switch_to();
    all_there();
    g = greenlet();
  }
  SUBCASE("its last handle goes on another thread") {
    greenlet g(body);
    g.switch_to();
    drop_elsewhere(std::move(g));
    all_there();
    current();
  }
  SUBCASE("its thread exits") {
    in_thread([&] {
      auto holder = std::make_shared<greenlet>();
      *holder = greenlet([&, holder] { body(); });  // and holds itself
      holder->switch_to();
      all_there();
    });
  }
  CHECK(held.size() == 7);
  for (const auto& each : held) CHECK(each.expired());
  CHECK(counts().greenlets == before.greenlets);
}

TEST_CASE("191: greenlets of an exited thread, which held each other there, go with their last handle") {
  const auto before = counts();
  greenlet a, b, unstarted;
  in_thread([&] {
    a = greenlet{attributes()};
    b = greenlet{attributes()};
    a.set_run([b = b] {
      const greenlet on_the_stack = b;
      switch_to_parent();
    });
    b.set_run([a = a] {
      const greenlet on_the_stack = a;
      switch_to_parent();
    });
    a.switch_to();
    b.switch_to();
    unstarted = greenlet([a = a] {}, b);
  });
  CHECK(a.state() == greenlet_state::unwound);
  CHECK(b.state() == greenlet_state::unwound);
  const weak_greenlet weak_a = a, weak_b = b;
  a = greenlet();
  b = greenlet();
  CHECK_FALSE(weak_a.expired());  // by the callable of the one that never ran
  CHECK_FALSE(weak_b.expired());  // as its parent
  unstarted = greenlet();
  CHECK(weak_a.expired());
  CHECK(weak_b.expired());
  CHECK(counts().greenlets == before.greenlets);
  CHECK(counts().main_greenlets == before.main_greenlets);
}

TEST_CASE("197: a copied handle is another handle to the same greenlet, and a value is not copied at all") {
  static_assert(!std::is_copy_constructible_v<value>);
  static_assert(!std::is_copy_assignable_v<value>);
  static_assert(std::is_nothrow_copy_constructible_v<greenlet>);
  static_assert(std::is_nothrow_copy_constructible_v<weak_greenlet>);
  const auto before = counts();
  int runs = 0;
  const greenlet g([&] {
    ++runs;
    switch_to_parent();
  });
  greenlet copy = g, assigned;
  assigned = copy;
  const std::vector<greenlet> many(10, g);
  CHECK(counts().greenlets == before.greenlets + 1);
  CHECK(copy == g);
  CHECK(copy.id() == g.id());
  copy.set_name("by the copy");
  CHECK(g.name() == "by the copy");
  copy.switch_to();
  CHECK(runs == 1);
  CHECK(g.state() == greenlet_state::suspended);  // copied while it is started, it is still one stack
  const greenlet late = g;
  late.switch_to();
  for (const greenlet& each : many) CHECK(each.dead());
  CHECK(assigned.dead());
  CHECK(runs == 1);
}

TEST_CASE("199: a callable of the user's class is destroyed as its class wants it, once, on the right thread") {
  own_class::made = own_class::freed = 0;
  int times = 0;
  std::thread::id destroyed_on, dropper;
  const std::thread::id here = std::this_thread::get_id();
  const auto make = [&] { return greenlet(own_class(destroyed_on, times)); };
  const auto drop = [&](greenlet&& g) {
    in_thread([&, mine = std::move(g)]() mutable {
      dropper = std::this_thread::get_id();
      mine = greenlet();
    });
  };
  SUBCASE("unstarted: where the handle goes") {
    drop(make());
    CHECK(times == 1);
    CHECK(destroyed_on == dropper);
  }
  SUBCASE("suspended: at home, when its thread comes by") {
    greenlet g = make();
    g.switch_to();
    drop(std::move(g));
    CHECK(times == 0);
    current();
    CHECK(times == 1);
    CHECK(destroyed_on == here);
  }
  SUBCASE("finished: when it finished") {
    greenlet g = make();
    g.switch_to();
    g.switch_to();
    CHECK(times == 1);
    drop(std::move(g));
    CHECK(destroyed_on == here);
  }
  SUBCASE("suspended at its thread's exit: there") {
    greenlet g;
    std::thread::id owner;
    in_thread([&] {
      owner = std::this_thread::get_id();
      g = make();
      g.switch_to();
    });
    CHECK(times == 1);
    CHECK(destroyed_on == owner);
    drop(std::move(g));
  }
  SUBCASE("kept again while it was being unwound") {
    greenlet saved;
    struct keeps : own_class {
      greenlet* saved;
      keeps(std::thread::id& on, int& n, greenlet& s) : own_class(on, n), saved(&s) {}
      void operator()() {
        try {
          switch_to_parent();
        } catch (const greenlet_exit&) {
          *saved = current();
          switch_to_parent();
        }
      }
    };
    greenlet g(keeps(destroyed_on, times, saved));
    g.switch_to();
    drop(std::move(g));
    current();
    CHECK(times == 0);
    CHECK(saved.state() == greenlet_state::suspended);
    drop(std::move(saved));
    CHECK(times == 0);
    current();
    CHECK(destroyed_on == here);
  }
  CHECK(times == 1);
  CHECK(own_class::made == 1);
  CHECK(own_class::freed == 1);
}

TEST_CASE("199: callables that ask for an alignment of their own get it") {
  struct alignas(128) wide {
    char line[128];
    bool operator()() const { return reinterpret_cast<std::uintptr_t>(this) % 128 == 0; }
  };
  std::vector<greenlet> all;
  for (int i = 0; i < 20; ++i) all.emplace_back(wide{});
  for (const greenlet& g : all) CHECK(g.switch_to().get<bool>());
}
