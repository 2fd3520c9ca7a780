// SPDX-License-Identifier: MIT
// generator: values given from any depth to whoever reads them (t/generator_ends.cpp: how they end, and
// misuse).
#include "testing.hpp"

#include <algorithm>
#include <functional>
#include <iterator>
#include <memory>
#include <numeric>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

using namespace greenlets;
using testing::events;
using testing::noting;

namespace {

template <class F>
void in_thread(F&& f) {
  std::thread(std::forward<F>(f)).join();
}

template <class T>
std::vector<T> all(generator<T> g) {
  return std::vector<T>(g.begin(), g.end());
}

generator<int> up_to(int n) {
  return generator<int>([n](const auto& give) {
    for (int i = 0; i < n; ++i) give(i);
  });
}

// Every order of the numbers, by recursion: each level a generator of its own.
generator<std::vector<int>> orders(std::vector<int> numbers) {
  return generator<std::vector<int>>([numbers = std::move(numbers)](const auto& give) {
    if (numbers.size() <= 1) return give(numbers);
    for (const int first : numbers) {
      std::vector<int> others;
      std::copy_if(numbers.begin(), numbers.end(), std::back_inserter(others), [first](int n) { return n != first; });
      for (std::vector<int>& rest : orders(std::move(others))) {
        rest.insert(rest.begin(), first);
        give(std::move(rest));
      }
    }
  });
}

generator<int> recursive(int n) {
  return generator<int>([n](const auto& give) {
    if (n == 0) return;
    for (const int i : recursive(n - 1)) give(i);
    give(n);
  });
}

}  // namespace

TEST_CASE("47: a generator and its reader take turns; it runs only while it is read") {
  std::vector<int> seen;
  generator<int> g([&](auto& give) {
    for (int i = 0; i < 3; ++i) {
      seen.push_back(i);
      give(i);
    }
    seen.push_back(99);
  });
  CHECK(seen.empty());
  for (const int n : g) seen.push_back(10 * n + 100);
  CHECK(seen == std::vector<int>{0, 100, 1, 110, 2, 120, 99});
}

TEST_CASE("47: it gives from nested calls") {
  generator<int> g([](auto& give) {
    const std::function<void(int)> tree = [&](int depth) {
      if (depth == 0) return;
      tree(depth - 1);
      give(depth);
      tree(depth - 1);
    };
    tree(4);
  });
  CHECK(std::vector<int>(g.begin(), g.end()) == std::vector<int>{1, 2, 1, 3, 1, 2, 1, 4, 1, 2, 1, 3, 1, 2, 1});
}

// main       outer      inner
//  |--------->|--------->|
//  |          |<---------| to outer: 1
//  |          |--------->|
//  |<--------------------| to the reader of outer: 100
//  |-------------------->|
TEST_CASE("47: in another generator it gives past that one's reader, and the next read goes on there") {
  std::vector<int> seen;
  generator<int> outer([&](auto& to_main) {
    generator<int> inner([&](auto& to_outer) {
      for (int i = 1; i < 4; ++i) {
        to_outer(i);
        to_main(100 * i);
      }
    });
    for (const int n : inner) seen.push_back(n);
    to_main(7);
  });
  for (const int n : outer) seen.push_back(n);
  CHECK(seen == std::vector<int>{1, 100, 2, 200, 3, 300, 7});
}

TEST_CASE("47: so it does from a greenlet that the function has started") {
  generator<std::string> g([](auto& give) {
    greenlet helper([&] {
      give("from the helper");
      switch_to_parent();
      give("from the helper again");
    });
    helper.switch_to();
    give("from the function");
    helper.switch_to();
    CHECK(helper.dead());
  });
  CHECK(std::vector<std::string>(g.begin(), g.end()) ==
        std::vector<std::string>{"from the helper", "from the function", "from the helper again"});
}

TEST_CASE("47: generators of generators: every permutation, in order") {
  const auto every = all(orders({0, 1, 2, 3}));
  REQUIRE(every.size() == 24);
  CHECK(every.front() == std::vector<int>{0, 1, 2, 3});
  CHECK(every.back() == std::vector<int>{3, 2, 1, 0});
  for (std::size_t i = 1; i < every.size(); ++i) CHECK(every[i - 1] < every[i]);
}

TEST_CASE("47: two that are read by turns do not mix") {
  auto four = orders({0, 1, 2, 3}), three = orders({0, 1, 2});
  std::size_t pairs = 0;
  auto a = four.begin();
  for (auto b = three.begin(); b != three.end(); ++a, ++b, ++pairs) {
    CHECK(a->size() == 4);
    CHECK(b->size() == 3);
    CHECK((*a)[0] == 0);
  }
  CHECK(pairs == 6);
  CHECK(*a == std::vector<int>{1, 0, 2, 3});
}

TEST_CASE("47: recursive ones, sixty deep") {
  const auto sixty = all(recursive(60));
  REQUIRE(sixty.size() == 60);
  CHECK(sixty.front() == 1);
  CHECK(sixty.back() == 60);
}

TEST_CASE("next() gives values until the end, and then nothing, as often as it is asked") {
  auto g = up_to(2);
  CHECK(g.next() == 0);
  CHECK(g.next() == 1);
  for (int i = 0; i < 3; ++i) CHECK(g.next() == std::nullopt);
  CHECK(g.begin() == g.end());
  CHECK(all(up_to(0)).empty());
}

TEST_CASE("a loop goes on where the last reader stopped") {
  auto g = up_to(10);
  CHECK(g.next() == 0);
  for (const int n : g)
    if (n == 3) break;
  std::vector<int> rest;
  for (const int n : g) rest.push_back(n);
  CHECK(rest == std::vector<int>{4, 5, 6, 7, 8, 9});
}

TEST_CASE("iterators are input iterators") {
  using iterator = generator<int>::iterator;
  static_assert(std::is_same_v<std::iterator_traits<iterator>::iterator_category, std::input_iterator_tag>);
  static_assert(std::is_same_v<std::iterator_traits<iterator>::value_type, int>);
  auto g = up_to(5);
  CHECK(std::accumulate(g.begin(), g.end(), 0) == 10);
  auto h = up_to(3);
  iterator i = h.begin();
  CHECK(*i == 0);
  CHECK(*i++ == 0);
  CHECK(*i == 1);
  *i = 50;
  CHECK(*i++ == 50);
  CHECK(i != h.end());
  CHECK(++i == h.end());
}

TEST_CASE("values may be of a type that can only be moved, or references to what is there") {
  generator<std::unique_ptr<int>> moved([](auto& give) {
    for (int i = 0; i < 3; ++i) give(std::make_unique<int>(i));
  });
  CHECK(**moved.next() == 0);
  auto i = moved.begin();
  std::unique_ptr<int> taken = std::move(*i);
  CHECK(*taken == 1);
  CHECK(*i++ == nullptr);
  CHECK(**i == 2);

  std::vector<int> numbers{1, 2, 3};
  generator<int&> refs([&](auto& give) {
    for (int& n : numbers) give(n);
  });
  CHECK(refs.next() == &numbers[0]);
  for (int& n : refs) n *= 10;
  CHECK(numbers == std::vector<int>{1, 20, 30});
  CHECK(refs.next() == nullptr);

  generator<const std::string&> constant([](auto& give) {
    const std::string s = "on the stack of the generator";
    give(s);
    give(std::string("while it is given"));
  });
  const std::string* s = constant.next();
  CHECK(*s == "on the stack of the generator");
  CHECK(*constant.next() == "while it is given");
  // What a conversion makes would be gone before it is read.
  static_assert(!std::is_invocable_v<generator<const std::string&>::sink&, const char*>);
  static_assert(!std::is_invocable_v<generator<int&>::sink&, int>);
  static_assert(std::is_invocable_v<generator<std::string>::sink&, const char*>);
}

TEST_CASE("what making a value throws comes out of the sink, and the function may go on") {
  struct picky {
    int n;
    explicit picky(int i) : n(i) {
      if (i == 1) throw std::runtime_error("not one");
    }
  };
  generator<picky> g([](auto& give) {
    for (int i = 0; i < 3; ++i) try {
        give(i);
      } catch (const std::runtime_error&) {
        give(10);
      }
  });
  std::vector<int> seen;
  for (const picky& p : g) seen.push_back(p.n);
  CHECK(seen == std::vector<int>{0, 10, 2});
}

TEST_CASE("values that switch when they are made and destroyed") {
  int visits = 0;
  greenlet helper([&] {
    for (;; ++visits) switch_to_parent();
  });
  helper.switch_to();
  struct restless {
    const greenlet* whom;
    int n;
    restless(const greenlet* g, int i) : whom(g), n(i) { visit(); }
    restless(const restless& o) : whom(o.whom), n(o.n) { visit(); }
    ~restless() { visit(); }
    void visit() const {
      whom->set_parent(current());
      whom->switch_to();
      whom->set_parent(main_greenlet());
    }
  };
  {
    generator<restless> g([&](auto& give) {
      for (int i = 0; i < 3; ++i) give(restless(&helper, i));
    });
    CHECK(g.next()->n == 0);
    int next = 1;
    for (const restless& r : g) CHECK(r.n == next++);
    CHECK(next == 3);
  }
  CHECK(visits > 6);
}

TEST_CASE("any greenlet may read; while it runs its parent is the reader, between reads the main greenlet") {
  greenlet function;
  std::vector<std::uint64_t> parents;
  generator<int> g([&](auto& give) {
    function = current();
    for (int i = 0;; ++i) {
      parents.push_back(current().parent().id());
      give(i);
    }
  });
  std::vector<std::uint64_t> readers;
  for (int i = 0; i < 3; ++i) {
    greenlet reader([&] {
      CHECK(g.next() == 2 * i);
      CHECK(function.parent() == main_greenlet());
    });
    readers.push_back(reader.id());
    reader.switch_to();
    CHECK(g.next() == 2 * i + 1);
    readers.push_back(current().id());
  }
  CHECK(parents == readers);
  CHECK(function.parent() == current());
}

TEST_CASE("a function that switches elsewhere keeps its reader waiting") {
  //   main        reader      function     elsewhere
  //    |----------->|----------->|----------->|
  //    |<-------------------------------------|
  //    |------------------------------------->| wakes it
  //    |            |            |<-----------|
  //    |            |<-----------| gives
  events log;
  greenlet elsewhere, function;
  generator<int> g([&](auto& give) {
    function = current();
    elsewhere.switch_to();
    log.push_back("function goes on");
    give(1);
  });
  elsewhere = greenlet([&] {
    main_greenlet().switch_to();
    log.push_back("wakes it");
    function.switch_to();
  });
  greenlet reader([&] {
    log.push_back("reads");
    CHECK(g.next() == 1);
    log.push_back("has it");
  });
  reader.switch_to();
  log.push_back("main");
  elsewhere.switch_to();
  CHECK(log == events{"reads", "main", "wakes it", "function goes on", "has it"});
  function = {};
}

TEST_CASE("a generator belongs to the thread that first reads it, wherever it was made") {
  std::optional<generator<int>> g;
  events log;
  in_thread([&] {
    g.emplace([&log](auto& give) {
      const noting n{log, "function"};
      for (int i = 0;; ++i) give(i);
    });
  });
  CHECK(g->next() == 0);
  CHECK(g->next() == 1);
  g.reset();
  CHECK(log == events{"~function"});
  auto here = up_to(3);
  in_thread([&] { CHECK(all(std::move(here)).size() == 3); });
}

TEST_CASE("its locals and context variables are its own") {
  static local<int> mine;
  static context_var<int> v("v", 0);
  *mine = 1;
  v.set(1);
  generator<int> g([](auto& give) {
    give(*mine + v.get());
    *mine = 20;
    v.set(5);
    give(*mine + v.get());
  });
  CHECK(g.next() == 0);
  CHECK(g.next() == 25);
  CHECK(*mine + v.get() == 2);
  mine.reset();
  current().set_context({});
}

TEST_CASE("it may be moved, before, between and during reads") {
  auto g = up_to(4);
  auto h = std::move(g);
  CHECK(h.next() == 0);
  g = std::move(h);
  CHECK(g.next() == 1);
  h = up_to(1);
  g.swap(h);
  CHECK(h.next() == 2);
  CHECK(g.next() == 0);

  std::optional<generator<int>> from, to;
  from.emplace([&](auto& give) {
    to = std::move(*from);
    from.reset();
    give(1);
    give(2);
  });
  CHECK(from->next() == 1);
  CHECK_FALSE(from.has_value());
  CHECK(to->next() == 2);
  CHECK(to->next() == std::nullopt);
}

TEST_CASE("attributes: a name, a stack size") {
  generator<std::string> g(attributes().name("numbers").stack_size(64 * 1024),
                           [](auto& give) { give(current().name()); });
  CHECK(g.next() == "numbers");
}
