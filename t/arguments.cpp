// SPDX-License-Identifier: MIT
// How the parameters of what a greenlet runs are filled from what the first switch sends.
#include "testing.hpp"

#include <functional>
#include <memory>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>

using greenlets::current;
using greenlets::errc;
using greenlets::greenlet;
using greenlets::greenlet_state;
using greenlets::switch_to_parent;
using greenlets::value;
using testing::at_end;
using testing::error_from;
using testing::error_of;
using testing::events;

namespace {

int twice(int n) { return 2 * n; }
int thrice(int n) noexcept { return 3 * n; }
std::string nothing() { return "nothing"; }
std::string joined(const std::string& a, int b) { return a + std::to_string(b); }

struct member {
  int bias;
  int operator()(int n) const { return n + bias; }
};
struct on_lvalues {
  int operator()(int n) & { return n; }
};
struct on_const_lvalues_noexcept {
  int operator()(int n) const& noexcept { return n; }
};
struct on_rvalues {
  int operator()(int n) && { return n; }
};
struct overloaded {
  const char* operator()() { return "none"; }
  const char* operator()(int) { return "int"; }
};
struct overloaded_with_value {
  const char* operator()(value v) { return v.has_value() ? "value" : "nothing"; }
  const char* operator()(int) { return "int"; }
};
struct overloaded_without {
  void operator()(int) {}
  void operator()(std::string) {}
};

struct with_static {
  static int run(int n) { return n; }
  int not_static(int n) { return n; }
};

bool mentions(const greenlets::error& e, const char* text) {
  return std::string(e.what()).find(text) != std::string::npos;
}

}  // namespace

TEST_CASE("34: no parameters take nothing, and nothing else") {
  CHECK(greenlet(nothing).switch_to().get<std::string>() == "nothing");
  const greenlets::error e = error_from([] { greenlet(nothing).switch_to(5); });
  CHECK(e.code() == errc::wrong_arguments);
  CHECK(e.summary() == "what was sent does not fit the callable's parameters");
  CHECK(mentions(e, "the callable takes (); sent was int"));
}

TEST_CASE("34: one parameter takes one object of its type") {
  CHECK(greenlet([](int n) { return n; }).switch_to(5).get<int>() == 5);
  CHECK(greenlet([](std::string s) { return s.size(); }).switch_to(std::string("four")).get<std::size_t>() == 4);
  greenlet unconverted([](std::string) {});
  const greenlets::error e = error_from([&] { unconverted.switch_to("a literal is a const char*"); });
  CHECK(mentions(e, "takes (std::"));
  CHECK(mentions(e, "sent was char const*"));
  const greenlets::error none = error_from([] { greenlet(twice).switch_to(); });
  CHECK(none.code() == errc::wrong_arguments);
  CHECK(mentions(none, "the callable takes (int); nothing was sent"));
}

TEST_CASE("34: several parameters take as many objects") {
  CHECK(greenlet(joined).switch_to(std::string("a"), 1).get<std::string>() == "a1");
  const auto sum = [](int a, long b, char c, short d, unsigned e) { return a + b + c + d + static_cast<long>(e); };
  CHECK(greenlet(sum).switch_to(1, 2L, '\3', short(4), 5U).get<long>() == 15);
  // The tuple of them is the same.
  CHECK(greenlet(joined).switch_to(std::make_tuple(std::string("b"), 2)).get<std::string>() == "b2");

  const auto details = [](auto&&... sent) {
    greenlet g([](int, char) {});
    return error_from([&] { g.switch_to(std::forward<decltype(sent)>(sent)...); });
  };
  CHECK(mentions(details(1, 2), "the callable takes (int, char); sent was std::tuple<int, int>"));
  CHECK(mentions(details(1), "the callable takes (int, char); sent was int"));
  CHECK(mentions(details(), "the callable takes (int, char); nothing was sent"));
  CHECK(mentions(details(1, 'c', 3), "the callable takes (int, char); sent was std::tuple<int, char, int>"));
}

TEST_CASE("34: a tuple parameter takes the objects together") {
  using pair = std::tuple<int, char>;
  CHECK(greenlet([](pair p) { return std::get<0>(p); }).switch_to(1, 'a').get<int>() == 1);
  const auto first = [](const std::tuple<int>& p) { return std::get<0>(p); };
  CHECK(greenlet(first).switch_to(std::make_tuple(2)).get<int>() == 2);
  CHECK(greenlet([](std::tuple<>) { return 3; }).switch_to(std::tuple<>()).get<int>() == 3);
}

TEST_CASE("34: a value parameter takes whatever it is, as it is") {
  const auto run = [](auto callable) {
    CHECK_FALSE(greenlet(callable).switch_to().template get<bool>());
    CHECK(greenlet(callable).switch_to(1).template get<bool>());
    CHECK(greenlet(callable).switch_to(1, 2).template get<bool>());
  };
  run([](value v) { return v.has_value(); });
  run([](value&& v) { return v.has_value(); });
  run([](value& v) { return v.has_value(); });
  run([](const value& v) { return v.has_value(); });
  run([](auto v) { return v.has_value(); });
  run([](auto&& v) { return v.has_value(); });
  run([](const auto& v) { return v.has_value(); });
  run([](auto&&... all) { return (all.has_value() || ...); });
  CHECK(greenlet([](value v) { return v; }).switch_to(1, 2).is<std::tuple<int, int>>());
}

TEST_CASE("34: reference parameters refer to what was sent, for as long as the call") {
  greenlet g([](int& n, const std::string& s, std::unique_ptr<int>&& p) {
    n += *p;
    const std::unique_ptr<int> taken = std::move(p);
    switch_to_parent();
    return s + std::to_string(n + *taken);
  });
  g.switch_to(1, std::string("s"), std::make_unique<int>(10));
  CHECK(g.switch_to().get<std::string>() == "s21");

  int outside = 1;
  greenlet([](int& n) { n = 2; }).switch_to(outside);
  CHECK(outside == 1);  // a copy was sent
  greenlet([](std::reference_wrapper<int> n) { n.get() = 2; }).switch_to(std::ref(outside));
  CHECK(outside == 2);
  greenlet([](int* n) { *n = 3; }).switch_to(&outside);
  CHECK(outside == 3);
}

TEST_CASE("34: const parameters are of the type without it") {
  CHECK(greenlet([](const int n) { return n; }).switch_to(4).get<int>() == 4);
  CHECK(greenlet([](const int& a, const int& b) { return a - b; }).switch_to(4, 1).get<int>() == 3);
  CHECK(greenlet([](const char* s) { return std::string(s); }).switch_to("text").get<std::string>() == "text");
}

TEST_CASE("move-only arguments are moved into the parameters") {
  greenlet g([](std::unique_ptr<int> a, std::unique_ptr<int> b) { return std::make_unique<int>(*a + *b); });
  CHECK(*g.switch_to(std::make_unique<int>(1), std::make_unique<int>(2)).get<std::unique_ptr<int>>() == 3);
}

TEST_CASE("functions, and objects with one operator(), whatever its qualifiers") {
  CHECK(greenlet(twice).switch_to(4).get<int>() == 8);
  CHECK(greenlet(&twice).switch_to(4).get<int>() == 8);
  CHECK(greenlet(thrice).switch_to(4).get<int>() == 12);
  CHECK(greenlet(&with_static::run).switch_to(4).get<int>() == 4);
  CHECK(greenlet(member{3}).switch_to(4).get<int>() == 7);
  CHECK(greenlet(on_lvalues()).switch_to(4).get<int>() == 4);
  CHECK(greenlet(on_const_lvalues_noexcept()).switch_to(4).get<int>() == 4);
  CHECK(greenlet([](int n) noexcept { return n; }).switch_to(4).get<int>() == 4);
  CHECK(greenlet([n = 0](int m) mutable { return n += m; }).switch_to(4).get<int>() == 4);
  // What would have to be called as an rvalue, or with an object before it, is not taken.
  static_assert(!std::is_constructible_v<greenlet, on_rvalues>);
  static_assert(!std::is_constructible_v<greenlet, decltype(&with_static::not_static)>);
}

TEST_CASE("by std::ref the callable is called where it is") {
  struct adding {
    int sum = 0;
    void operator()(int n) { sum += n; }
  } object;
  greenlet(std::ref(object)).switch_to(3);
  greenlet(std::ref(object)).switch_to(4);
  CHECK(object.sum == 7);
  CHECK(error_of([&] { greenlet(std::ref(object)).switch_to(std::string()); }) == errc::wrong_arguments);
  CHECK(greenlet(std::ref(twice)).switch_to(5).get<int>() == 10);
}

TEST_CASE("an overloaded callable is given the value if it takes one, else nothing") {
  CHECK(greenlet(overloaded()).switch_to().get<const char*>() == std::string("none"));
  CHECK(error_of([] { greenlet(overloaded()).switch_to(1); }) == errc::wrong_arguments);
  CHECK(greenlet(overloaded_with_value()).switch_to(1).get<const char*>() == std::string("value"));
  CHECK(greenlet(overloaded_with_value()).switch_to().get<const char*>() == std::string("nothing"));
  static_assert(!std::is_constructible_v<greenlet, overloaded_without>);
  CHECK(greenlet(std::bind(twice, 6)).switch_to().get<int>() == 12);
}

TEST_CASE("9, 10: a null function pointer or an empty std::function is thrown by the new greenlet, not by us") {
  const auto check = [](auto empty, auto... sent) {
    greenlet parent([](int) {});  // not asked: an exception goes past it
    greenlet g(empty, parent);
    bool inside = false;
    greenlet outer([&] {
      try {
        g.switch_to(sent...);
      } catch (...) {
        inside = true;
      }
    });
    CHECK_THROWS_AS(outer.switch_to(), std::bad_function_call);
    CHECK_FALSE(inside);
    CHECK(g.state() == greenlet_state::finished);
    CHECK(parent.dead());
    CHECK(outer.state() == greenlet_state::suspended);
  };
  check(static_cast<void (*)()>(nullptr));
  check(static_cast<int (*)(int)>(nullptr), 1);
  check(std::function<void()>());
  check(std::function<int(int)>(), 1);
}

TEST_CASE("wrong arguments are thrown in the new greenlet, so that its parent is told") {
  const greenlet main = current();
  greenlet new_one;
  events log;
  greenlet parent([&] {
    new_one = greenlet([end = at_end([&] { log.push_back("~callable"); })](int) {});
    try {
      main.switch_to();
    } catch (const greenlets::error& e) {
      CHECK(e.code() == errc::wrong_arguments);
      CHECK(new_one.dead());
      log.push_back("parent");
    }
    return 3;
  });
  parent.switch_to();
  CHECK(new_one.parent() == parent);
  CHECK(new_one.switch_to(std::string("not an int")).get<int>() == 3);
  CHECK(log == events{"~callable", "parent"});
  CHECK(parent.dead());
}

TEST_CASE("what was sent is destroyed when the call ends, before the callable") {
  events log;
  struct sent {
    std::shared_ptr<void> end;
  };
  const auto object = [&](const char* text) { return sent{at_end([&log, text] { log.push_back(text); })}; };
  const auto end = at_end([] {});
  SUBCASE("by reference") {
    greenlet g([&, end = at_end([&] { log.push_back("~callable"); })](const sent&) { log.push_back("runs"); });
    g.switch_to(object("~sent"));
    CHECK(log == events{"runs", "~sent", "~callable"});
  }
  SUBCASE("by value, though it is dropped before the end") {
    greenlet g([&](sent s) {
      s.end.reset();
      log.push_back("goes on");
    });
    g.switch_to(object("~sent"));
    CHECK(log == events{"~sent", "goes on"});
  }
  SUBCASE("when it throws") {
    greenlet g([&, end = at_end([&] { log.push_back("~callable"); })](const sent&) -> int { throw 1; });
    CHECK_THROWS_AS(g.switch_to(object("~sent")), int);
    CHECK(log == events{"~sent", "~callable"});
  }
  SUBCASE("when it does not fit") {
    greenlet g([&, end = at_end([&] { log.push_back("~callable"); })](int) {});
    CHECK(error_of([&] { g.switch_to(object("~sent")); }) == errc::wrong_arguments);
    CHECK(log == events{"~sent", "~callable"});
  }
}

TEST_CASE("what is returned keeps its decayed type; void is nothing") {
  static int global = 5;
  static const std::string text = "constant";
  CHECK_FALSE(greenlet([] {}).switch_to().has_value());
  CHECK(greenlet([]() -> int& { return global; }).switch_to().get<int>() == 5);
  CHECK(greenlet([]() -> const std::string& { return text; }).switch_to().get<std::string>() == "constant");
  CHECK(greenlet([] { return std::make_tuple(1, 'a'); }).switch_to().is<std::tuple<int, char>>());
  CHECK(greenlet([] { return value(); }).switch_to().has_value() == false);
  CHECK(greenlet([] { return value(3); }).switch_to().get<int>() == 3);
  CHECK(greenlet([] { return std::make_unique<int>(4); }).switch_to().is<std::unique_ptr<int>>());
}
