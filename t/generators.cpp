// SPDX-License-Identifier: MIT
// Greenlets as generators, by switches alone: greenlet's own examples of yielding from any depth, to
// any ancestor; and that siblings and recursive children keep their order.
#include "testing.hpp"

#include <functional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

using greenlets::current;
using greenlets::greenlet;
using greenlets::greenlet_state;
using greenlets::switch_to_parent;
using greenlets::value;
using testing::at_end;
using testing::events;
using testing::noting;

namespace {

// A generator whose function may yield from nested calls, and past the generator that reads it. Who
// asks for the next becomes its parent. After a yield two levels up, the next is asked of the one
// that yielded, and not of the one between (greenlet's test_generator_nested.py).
class genlet {
 public:
  explicit genlet(std::function<void()> f) : run_(std::move(f)) {}
  genlet(const genlet&) = delete;
  genlet& operator=(const genlet&) = delete;
  // Dropping the handle is not enough when it is left half-read: generators on its own stack are its
  // children, and keep it.
  ~genlet() {
    if (!run_) return;
    run_.set_parent(current());
    run_.throw_in();
  }

  // The next that is yielded; nothing when the function has returned.
  value next() {
    genlet* asked = this;
    while (asked->child_) asked = std::exchange(asked->child_, nullptr);
    genlet* const here = running_;
    if (asked == this) {
      run_.set_parent(current());
      reader_ = &current();
      outer_ = here;
    }
    running_ = asked;
    const auto back = at_end([here] { running_ = here; });
    value result = asked->run_.switch_to();
    return run_.dead() ? value() : std::move(result);
  }

  // Yields to whoever reads `level` generators up.
  static void yield(value v, int level = 1) {
    genlet* g = running_;
    for (; g && level > 1; --level) {
      if (g->outer_) g->outer_->child_ = g;
      g = g->outer_;
    }
    if (!g) throw std::logic_error("yield outside a generator");
    // Not a counted handle: that would wait on our stack and keep a reader that may hold us.
    g->reader_->switch_to(std::move(v));
  }

 private:
  static inline genlet* running_ = nullptr;
  greenlet run_;
  const greenlet* reader_ = nullptr;
  genlet* outer_ = nullptr;  // which ran when this was asked
  genlet* child_ = nullptr;  // which is to be asked instead
};

template <class T>
std::vector<T> all(genlet& g) {
  std::vector<T> result;
  for (value v = g.next(); v.has_value(); v = g.next()) result.push_back(v.take<T>());
  return result;
}

// Every order of the numbers, by recursion: each level a generator of its own.
void permute(const std::vector<int>& numbers) {
  if (numbers.size() <= 1) return genlet::yield(numbers);
  for (const int first : numbers) {
    std::vector<int> others;
    for (const int n : numbers)
      if (n != first) others.push_back(n);
    genlet rest([&] { permute(others); });
    for (value v = rest.next(); v.has_value(); v = rest.next()) {
      std::vector<int> order{first};
      for (const int n : v.get<std::vector<int>>()) order.push_back(n);
      genlet::yield(std::move(order));
    }
  }
}

void count_up(int n) {
  if (n == 0) return;
  genlet below([n] { count_up(n - 1); });
  for (value v = below.next(); v.has_value(); v = below.next()) genlet::yield(std::move(v));
  genlet::yield(n);
}

}  // namespace

TEST_CASE("47: a generator and its reader take turns") {
  std::vector<int> seen;
  for (int thrice = 0; thrice < 3; ++thrice) {
    genlet g([&] {
      for (int i = 0; i < 5; ++i) {
        seen.push_back(i);
        genlet::yield(i);
      }
    });
    for (value v = g.next(); v.has_value(); v = g.next()) seen.push_back(10 * v.get<int>());
  }
  const std::vector<int> once{0, 0, 1, 10, 2, 20, 3, 30, 4, 40};
  std::vector<int> expected;
  for (int thrice = 0; thrice < 3; ++thrice) expected.insert(expected.end(), once.begin(), once.end());
  CHECK(seen == expected);
}

TEST_CASE("47: it yields from nested calls") {
  const std::function<void(int)> tree = [&tree](int depth) {
    if (depth == 0) return;
    tree(depth - 1);
    genlet::yield(depth);
    tree(depth - 1);
  };
  genlet g([&] { tree(4); });
  CHECK(all<int>(g) == std::vector<int>{1, 2, 1, 3, 1, 2, 1, 4, 1, 2, 1, 3, 1, 2, 1});
}

TEST_CASE("47: a generator yields past the one that reads it") {
  std::vector<int> seen;
  genlet outer([&] {
    genlet inner([] {
      for (int i = 1; i < 5; ++i) {
        genlet::yield(i);         // to `outer`
        genlet::yield(i * i, 2);  // to who reads that
      }
    });
    for (value v = inner.next(); v.has_value(); v = inner.next()) seen.push_back(v.get<int>());
  });
  for (value v = outer.next(); v.has_value(); v = outer.next()) seen.push_back(v.get<int>());
  CHECK(seen == std::vector<int>{1, 1, 2, 4, 3, 9, 4, 16});
}

TEST_CASE("47: generators of generators: every permutation, in order") {
  genlet g([] { permute({0, 1, 2, 3}); });
  const auto orders = all<std::vector<int>>(g);
  REQUIRE(orders.size() == 24);
  CHECK(orders.front() == std::vector<int>{0, 1, 2, 3});
  CHECK(orders.back() == std::vector<int>{3, 2, 1, 0});
  for (std::size_t i = 1; i < orders.size(); ++i) CHECK(orders[i - 1] < orders[i]);
}

TEST_CASE("47: two generators read by turns do not mix") {
  genlet four([] { permute({0, 1, 2, 3}); }), three([] { permute({0, 1, 2}); });
  std::vector<std::pair<std::vector<int>, std::vector<int>>> both;
  for (;;) {
    value a = four.next(), b = three.next();
    if (!b.has_value()) break;
    both.emplace_back(a.take<std::vector<int>>(), b.take<std::vector<int>>());
  }
  using v = std::vector<int>;
  REQUIRE(both.size() == 6);
  CHECK(both[0] == std::make_pair(v{0, 1, 2, 3}, v{0, 1, 2}));
  CHECK(both[1] == std::make_pair(v{0, 1, 3, 2}, v{0, 2, 1}));
  CHECK(both[2] == std::make_pair(v{0, 2, 1, 3}, v{1, 0, 2}));
  CHECK(both[5] == std::make_pair(v{0, 3, 2, 1}, v{2, 1, 0}));
}

TEST_CASE("47: recursive generators, each reading the next") {
  genlet five([] { count_up(5); });
  CHECK(all<int>(five) == std::vector<int>{1, 2, 3, 4, 5});
  genlet sixty([] { count_up(60); });
  CHECK(all<int>(sixty).size() == 60);
}

TEST_CASE("47: to yield outside a generator is an error, and nothing switches") {
  CHECK_THROWS_WITH_AS(genlet::yield(10), "yield outside a generator", std::logic_error);
  greenlet not_one([] { CHECK_THROWS_AS(genlet::yield(10), std::logic_error); });
  not_one.switch_to();
  CHECK(not_one.dead());
}

TEST_CASE("47: a generator that is left half-read is unwound, with those that it reads") {
  events log;
  {
    genlet outer([&log] {
      const noting local{log, "outer"};
      genlet inner([&log] {
        const noting innermost{log, "inner"};
        for (int i = 0;; ++i) genlet::yield(i);
      });
      for (;;) genlet::yield(inner.next());
    });
    CHECK(outer.next().get<int>() == 0);
    CHECK(outer.next().get<int>() == 1);
    CHECK(log.empty());
  }
  CHECK(log == events{"~inner", "~outer"});
  log.clear();
  {
    greenlet endless([&log] {
      const noting local{log, "local"};
      for (int i = 0;; ++i) switch_to_parent(i);
    });
    for (int i = 0; i < 3; ++i) log.push_back(std::to_string(endless.switch_to().get<int>()));
    CHECK(log == events{"0", "1", "2"});
  }
  CHECK(log.back() == "~local");
}

TEST_CASE("47: what a generator throws reaches its reader, who may read others on") {
  genlet bad([] {
    genlet::yield(1);
    throw std::runtime_error("in the generator");
  });
  CHECK(bad.next().get<int>() == 1);
  CHECK_THROWS_WITH_AS(bad.next(), "in the generator", std::runtime_error);
}

// main     1      2
//  |------>|
//  |<------|
//  |------>| 1 ends
//  |<------|
TEST_CASE("48: one child, in order") {
  std::vector<int> order;
  greenlet g([&] {
    order.push_back(1);
    switch_to_parent();
    order.push_back(3);
  });
  order.push_back(0);
  g.switch_to();
  order.push_back(2);
  g.switch_to();
  order.push_back(4);
  CHECK(order == std::vector<int>{0, 1, 2, 3, 4});
}

TEST_CASE("48: two children that take turns with main") {
  events log;
  const auto child = [&log](const char* name) {
    return [&log, name] {
      log.push_back(std::string(name) + "1");
      switch_to_parent();
      log.push_back(std::string(name) + "2");
    };
  };
  greenlet a(child("a")), b(child("b"));
  a.switch_to();
  CHECK(log == events{"a1"});
  b.switch_to();
  CHECK(log == events{"a1", "b1"});
  a.switch_to();
  CHECK(a.dead());
  CHECK_FALSE(b.dead());
  b.switch_to();
  CHECK(b.dead());
  CHECK(log == events{"a1", "b1", "a2", "b2"});
}

TEST_CASE("48: two children that switch to each other directly") {
  std::string log;
  greenlet a, b;
  a = greenlet([&] {
    for (int i = 0; i < 3; ++i) {
      log += 'a';
      b.switch_to();
    }
    log += 'A';
  });
  b = greenlet([&] {
    for (int i = 0; i < 3; ++i) {
      log += 'b';
      a.switch_to();
    }
    log += 'B';
  });
  a.switch_to();
  CHECK(log == "abababA");
  CHECK(a.dead());
  CHECK(b.state() == greenlet_state::suspended);
  b.switch_to();
  CHECK(log == "abababAB");
  CHECK(b.dead());
}

TEST_CASE("48: two children that each run a child of their own") {
  std::vector<int> order;
  greenlet main = current();
  const auto f = [&] {
    order.push_back(1);
    switch_to_parent();
  };
  const auto g = [&] {
    order.push_back(0);
    greenlet inner(f);
    inner.switch_to();
    order.push_back(2);
    inner.switch_to();
  };
  greenlet g0(g), g1(g);
  g0.switch_to();
  g1.switch_to();
  CHECK(g0.dead());
  CHECK(g1.dead());
  CHECK(order == std::vector<int>{0, 1, 2, 0, 1, 2});
}

TEST_CASE("48: children that make children, a hundred deep, come back in reverse") {
  constexpr int depth = 100;
  std::vector<int> down, up;
  const std::function<void(int)> descend = [&](int level) {
    down.push_back(level);
    if (level < depth) {
      greenlet below([&descend, level] { descend(level + 1); });
      below.switch_to();
      CHECK(below.dead());
    }
    up.push_back(level);
  };
  greenlet top([&] { descend(1); });
  top.switch_to();
  REQUIRE(down.size() == depth);
  for (int i = 0; i < depth; ++i) {
    CHECK(down[static_cast<std::size_t>(i)] == i + 1);
    CHECK(up[static_cast<std::size_t>(i)] == depth - i);
  }
}

TEST_CASE("48: a thousand suspended siblings are gone on with in any order") {
  std::vector<greenlet> siblings;
  std::vector<int> order;
  for (int i = 0; i < 1000; ++i) {
    siblings.emplace_back([&order, i] {
      switch_to_parent();
      order.push_back(i);
    });
    siblings.back().switch_to();
  }
  std::vector<int> expected;
  for (int k = 0; k < 1000; ++k) {
    const int i = k * 389 % 1000;  // 389 and 1000 have no common divisor
    siblings[static_cast<std::size_t>(i)].switch_to();
    expected.push_back(i);
  }
  CHECK(order == expected);
  for (const greenlet& g : siblings) CHECK(g.dead());
}
