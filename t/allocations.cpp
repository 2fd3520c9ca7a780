// SPDX-License-Identifier: MIT
// A switch allocates and frees nothing; and where the library does allocate, the allocator is code of
// the user's, which may run other greenlets.
#include "testing.hpp"

#include <cstdlib>
#include <functional>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

using namespace greenlets;
using testing::events;
using testing::unraisables;

namespace {

thread_local std::size_t allocated = 0, freed = 0;
// Called at every operator new of this thread, but not from within itself.
thread_local void (*at_allocation)() = nullptr;

void* allocate(std::size_t size) {
  ++allocated;
  if (void (*const call)() = std::exchange(at_allocation, nullptr)) {
    call();
    at_allocation = call;
  }
  if (void* const p = std::malloc(size ? size : 1)) return p;
  throw std::bad_alloc();
}

void release(void* p) {
  if (p) ++freed;
  std::free(p);
}

// How often the switches of `f` allocated and freed.
struct tally {
  std::size_t allocated, freed;
};
template <class F>
tally of(F&& f) {
  const tally before{allocated, freed};
  f();
  return {allocated - before.allocated, freed - before.freed};
}

value echo(value v) {
  for (;;) v = switch_to_parent(std::move(v));
}

// What at_allocation does: goes to another greenlet, which goes to a third, and back.
thread_local const greenlet* elsewhere = nullptr;
thread_local int visits = 0;
void visit() {
  ++visits;
  elsewhere->set_parent(current());
  elsewhere->switch_to();
}

// While it exists, every allocation of this thread is a visit elsewhere.
class visiting {
 public:
  visiting()
      : other_([this] {
          for (;;) {
            greenlet([] { switch_to_parent(); }).switch_to();  // begun and unwound each time
            main_.id() == main_greenlet().id() ? void() : std::abort();
            switch_to_parent();
          }
        }) {
    other_.switch_to();
    elsewhere = &other_;
    at_allocation = &visit;
  }
  visiting(const visiting&) = delete;
  visiting& operator=(const visiting&) = delete;
  ~visiting() {
    at_allocation = nullptr;
    other_.set_parent(main_);
  }

 private:
  greenlet main_ = main_greenlet();
  greenlet other_;
};

}  // namespace

void* operator new(std::size_t size) { return allocate(size); }
void* operator new[](std::size_t size) { return allocate(size); }
void operator delete(void* p) noexcept { release(p); }
void operator delete[](void* p) noexcept { release(p); }
void operator delete(void* p, std::size_t) noexcept { release(p); }
void operator delete[](void* p, std::size_t) noexcept { release(p); }

TEST_CASE("192: a switch allocates nothing and frees nothing, whatever small thing it carries, and to whomever") {
  const greenlet g(echo), sibling(echo), dead([] {}, g);
  g.switch_to();
  sibling.switch_to();
  dead.switch_to();
  const greenlet main = current();
  auto pointer = std::make_unique<int>(7);
  const tally t = of([&] {
    for (int i = 0; i < 1000; ++i) {
      g.switch_to();
      g.switch_to(i);
      g.switch_to(i, i);
      value back = g.switch_to(std::move(pointer));
      pointer = back.take<std::unique_ptr<int>>();
      g.switch_to(sibling);  // a handle
      dead.switch_to(i);
      main.switch_to(i);
    }
  });
  CHECK(t.allocated == 0);
  CHECK(t.freed == 0);
  CHECK(*pointer == 7);
}

TEST_CASE("192: nor does a start on a used stack, an end, or a switch between siblings") {
  constexpr int n = 200;
  std::vector<greenlet> all;
  std::vector<int> seen;
  seen.reserve(n);
  greenlet([] {}).switch_to();  // leaves its stack to the others
  const greenlet to(echo);
  to.switch_to();
  for (int i = 0; i < n; ++i)
    all.emplace_back([&seen, &to](int sent) {
      seen.push_back(to.switch_to(sent).get<int>());
      return sent;
    });
  to.set_parent(current());
  const tally t = of([&] {
    for (int i = 0; i < n; ++i) all[static_cast<std::size_t>(i)].switch_to(i);
  });
  CHECK(t.allocated == 0);
  CHECK(t.freed == 0);
  for (const greenlet& g : all) g.switch_to(0);
  CHECK(seen.size() == n);
}

TEST_CASE("192: what does not fit in place is allocated once, before the switch, and freed by who takes it") {
  struct large {
    char bytes[200] = {};
  };
  const greenlet g(echo);
  g.switch_to();
  const tally t = of([&] {
    for (int i = 0; i < 100; ++i) g.switch_to(large());
  });
  CHECK(t.allocated == 100);
  CHECK(t.freed == 100);
}

TEST_CASE("192, B1: an allocator that runs other greenlets at every allocation changes no result") {
  visits = 0;
  const unraisables handler;
  std::vector<std::string> seen;
  seen.reserve(100);
  const auto note = [&seen](const char* what) { seen.emplace_back(what); };
  struct large {
    int number = 0;
    char bytes[200] = {};
  };
  const greenlet main = current();
  {
    const visiting always;
    {
      greenlet g(attributes().name("a name too long to lie in the string itself"), [&](const large& sent) {
        if (sent.number == 3) note("arguments");
        const large back = switch_to_parent(large{4}).take<large>();
        if (back.number == 5) note("values");
        try {
          switch_to_parent();
        } catch (const std::runtime_error& e) {
          if (e.what() == std::string("a text too long to lie in the string itself")) note("thrown");
        }
        throw std::logic_error("another text too long to lie in the string itself");
      });
      if (g.parent() == main) note("parent");
      if (g.switch_to(large{3}).get<large>().number == 4) note("switch");
      g.switch_to(large{5});
      try {
        g.throw_in(std::runtime_error("a text too long to lie in the string itself"));
      } catch (const std::logic_error& e) {
        if (e.what() == std::string("another text too long to lie in the string itself")) note("uncaught");
      }
      if (g.dead()) note("dead");
    }
    {
      greenlet g([&] {
        const std::unique_ptr<large> local = std::make_unique<large>();
        try {
          switch_to_parent();
        } catch (const greenlet_exit&) {
          std::make_unique<large>();
          note("killed");
          throw std::runtime_error("reported, with a text that is long enough");
        }
      });
      g.switch_to();
      g = greenlet();
    }
    {
      const greenlet g([] {}), child([] {}, g);
      try {
        g.set_parent(child);
      } catch (const error& e) {
        if (e.code() == errc::cyclic_parent) note("cyclic");
      }
      try {
        greenlet([](int) {}).switch_to(std::string("no int"));
      } catch (const error& e) {
        if (e.code() == errc::wrong_arguments) note("arguments refused");
      }
      try {
        child.throw_in(large{7});
      } catch (const large& l) {
        if (l.number == 7 && child.dead() && g.dead()) note("chain");
      }
      const greenlet parent([](large l) { return large{l.number + 1}; });
      if (greenlet([] { return large{8}; }, parent).switch_to().get<large>().number == 9) note("result");
    }
  }
  CHECK(seen == std::vector<std::string>{"parent", "arguments", "switch", "values", "thrown", "uncaught", "dead",
                                         "killed", "cyclic", "arguments refused", "chain", "result"});
  CHECK(visits > 20);
  CHECK(handler.seen.size() == 1);
  CHECK(current() == main);
}

TEST_CASE("192: an allocator that uses the library while a thread begins to: there is one main greenlet") {
  // The hook runs inside the first use, and is one itself.
  const auto before = counts();
  std::thread([&] {
    static thread_local std::uint64_t inner;
    inner = 0;
    at_allocation = [] { inner = current().id(); };
    const std::uint64_t outer = current().id();
    at_allocation = nullptr;
    CHECK(inner != 0);
    CHECK(inner == outer);
    CHECK(main_greenlet().id() == outer);
    CHECK(counts().threads == before.threads + 1);
    CHECK(counts().main_greenlets == before.main_greenlets + 1);
    CHECK(greenlet([] { return 1; }).switch_to().get<int>() == 1);
  }).join();
  CHECK(counts().threads == before.threads);
  CHECK(counts().greenlets == before.greenlets);
}
