// SPDX-License-Identifier: MIT
// A switch allocates and frees nothing. t/hard_allocation has allocators that switch.
#include "testing.hpp"

#include <cstdlib>
#include <memory>
#include <new>
#include <utility>
#include <vector>

using namespace greenlets;

namespace {

thread_local std::size_t allocated = 0, freed = 0;

void* allocate(std::size_t size) {
  ++allocated;
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
