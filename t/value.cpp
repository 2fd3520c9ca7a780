// SPDX-License-Identifier: MIT
// class value: holds one object of any movable type, or nothing.
#include "testing.hpp"

#include <array>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <typeinfo>
#include <utility>
#include <vector>

using greenlets::errc;
using greenlets::greenlet;
using greenlets::greenlet_exit;
using greenlets::value;
using greenlets::weak_greenlet;
using testing::error_from;
using testing::error_of;
using testing::events;

namespace {

struct tally {
  int made = 0, copied = 0, moved = 0, destroyed = 0;
};

// Room bytes large, and counts.
template <std::size_t Room, bool NothrowMove = true>
struct tracked {
  tally* t;
  std::array<unsigned char, Room> room{};
  explicit tracked(tally& to) : t(&to) { ++t->made; }
  tracked(const tracked& o) : t(o.t), room(o.room) { ++t->made, ++t->copied; }
  tracked(tracked&& o) noexcept(NothrowMove) : t(o.t), room(o.room) { ++t->made, ++t->moved; }
  tracked& operator=(const tracked&) = delete;
  ~tracked() { ++t->destroyed; }
};
using small = tracked<8>;
using large = tracked<100>;
using throwing = tracked<8, false>;

template <std::size_t Alignment>
struct alignas(Alignment) aligned {
  char c = 'x';
};

struct moves_once {
  std::shared_ptr<int> moves_left = std::make_shared<int>(1);
  moves_once() = default;
  moves_once(moves_once&& o) : moves_left(o.moves_left) {
    if ((*moves_left)-- == 0) throw std::runtime_error("moved too often");
  }
};

int function() { return 0; }

struct base {
  virtual ~base() = default;
};
struct derived : base {};

struct detailed_exit : greenlet_exit {
  std::string text;
  explicit detailed_exit(std::string t) : text(std::move(t)) {}
};
struct other_exit : greenlet_exit {};

// What a greenlet that ends with `e` gives its parent.
template <class E>
value ended_with(const E& e) {
  return greenlet([&e] { throw e; }).switch_to();
}

template <class T>
bool in_place(value& v) {
  const auto at = reinterpret_cast<std::uintptr_t>(v.get_if<T>());
  const auto from = reinterpret_cast<std::uintptr_t>(&v);
  return at >= from && at < from + sizeof v;
}

}  // namespace

TEST_CASE("a value is empty by default, moves only, and is four words") {
  static_assert(!std::is_copy_constructible_v<value>);
  static_assert(!std::is_copy_assignable_v<value>);
  static_assert(std::is_nothrow_default_constructible_v<value>);
  static_assert(std::is_nothrow_move_constructible_v<value>);
  static_assert(std::is_nothrow_move_assignable_v<value>);
  static_assert(sizeof(value) == 4 * sizeof(void*));
  const value v;
  CHECK_FALSE(v.has_value());
  CHECK(v.type() == typeid(void));
  CHECK_FALSE(v.is<int>());
  CHECK(v.get_if<int>() == nullptr);
  CHECK(v.thrown() == nullptr);
  CHECK(error_of([&] { v.get<int>(); }) == errc::wrong_type);
}

TEST_CASE("a value says what it holds, by its exact type") {
  const value v(1);
  CHECK(v.has_value());
  CHECK(v.type() == typeid(int));
  CHECK(v.is<int>());
  CHECK_FALSE(v.is<unsigned>());
  CHECK_FALSE(v.is<long>());
  CHECK(*v.get_if<int>() == 1);

  derived d;
  const value object(d), pointer(&d);
  CHECK(object.is<derived>());
  CHECK_FALSE(object.is<base>());
  CHECK(pointer.is<derived*>());
  CHECK_FALSE(pointer.is<base*>());
  CHECK_FALSE(pointer.is<const derived*>());
}

TEST_CASE("types are decayed: references, const, arrays and functions") {
  int n = 1;
  int& reference = n;
  value v(reference);
  v.get<int>() = 2;
  CHECK(n == 1);
  const std::string constant("c");
  CHECK(value(constant).is<std::string>());
  CHECK(value("literal").is<const char*>());
  CHECK(value(function).is<int (*)()>());
  v = value(std::ref(n));
  v.get<std::reference_wrapper<int>>().get() = 3;
  CHECK(n == 3);
}

TEST_CASE("a wrong type is an error that names both types and changes nothing") {
  value v(std::vector<int>{1, 2});
  const auto asked = [&] { v.get<std::pair<char, long>>(); };
  const greenlets::error e = error_from(asked);
  CHECK(e.code() == errc::wrong_type);
  CHECK(e.summary() == "wrong type asked of a value");
  const std::string what = e.what();
  CHECK(what.find("asked for std::pair<char, long>") != std::string::npos);
  // With _GLIBCXX_DEBUG it is std::__debug::vector.
  CHECK(what.find("vector<int", what.find("it holds std::")) != std::string::npos);
  CHECK(error_of([&] { v.take<int>(); }) == errc::wrong_type);
  CHECK(error_of([&] { std::move(v).get<int>(); }) == errc::wrong_type);
  CHECK(error_of([&] { std::as_const(v).get<int>(); }) == errc::wrong_type);
  CHECK(v.get<std::vector<int>>() == std::vector<int>{1, 2});

  const std::string of_nothing = error_from([] { value().get<int>(); }).what();
  CHECK(of_nothing.find("asked for int; it holds nothing") != std::string::npos);
  const std::string of_exit = error_from([] { ended_with(other_exit()).get<int>(); }).what();
  CHECK(of_exit.find("other_exit") != std::string::npos);
}

TEST_CASE("small objects whose moves run no code of the user's lie in place, others in a box that is not moved") {
  tally t;
  {
    value v{small(t)};
    CHECK_FALSE(in_place<small>(v));  // it tells when it is moved
    const value w(std::move(v));
    CHECK(w.is<small>());
    CHECK_FALSE(v.has_value());
    CHECK(t.moved == 1);
    CHECK(t.copied == 0);
  }
  CHECK(t.made == t.destroyed);

  t = {};
  {
    value v{large(t)};
    CHECK_FALSE(in_place<large>(v));
    const large* const object = v.get_if<large>();
    value w(std::move(v));
    CHECK(w.get_if<large>() == object);
    v = std::move(w);
    CHECK(v.get_if<large>() == object);
    CHECK_FALSE(w.has_value());
    CHECK(t.moved == 1);
  }
  CHECK(t.made == t.destroyed);

  t = {};
  {
    value v{throwing(t)};
    CHECK_FALSE(in_place<throwing>(v));
    value w(std::move(v));
    CHECK(t.moved == 1);
  }
  CHECK(t.made == t.destroyed);

  value three_words(std::array<void*, 3>{}), four_words(std::array<void*, 4>{});
  CHECK(in_place<std::array<void*, 3>>(three_words));
  CHECK_FALSE(in_place<std::array<void*, 4>>(four_words));
  value handle{greenlets::current()}, weak{weak_greenlet(greenlets::current())}, thrown{std::exception_ptr()},
      shared{std::make_shared<small>(t)}, unique{std::make_unique<large>(t)};
  CHECK(in_place<greenlets::greenlet>(handle));
  CHECK(in_place<weak_greenlet>(weak));
  CHECK(in_place<std::exception_ptr>(thrown));
  CHECK(in_place<std::shared_ptr<small>>(shared));
  CHECK(in_place<std::unique_ptr<large>>(unique));
}

TEST_CASE("an object of a page is held") {
  // The compiler warned of it, in a public header.
  struct page {
    char bytes[4096];
  };
  page p{};
  p.bytes[4095] = 'x';
  value v(p);
  CHECK(v.get<page>().bytes[4095] == 'x');
  CHECK(std::as_const(v).get<page>().bytes[0] == 0);
}

TEST_CASE("objects are aligned as their type asks") {
  const auto check = [](const auto& object) {
    using T = std::decay_t<decltype(object)>;
    for (int i = 0; i < 20; ++i) {
      value v(object);
      value w(std::move(v));
      greenlet g([](value x) { return x; });
      value back = g.switch_to(std::move(w));
      CHECK(reinterpret_cast<std::uintptr_t>(back.get_if<T>()) % alignof(T) == 0);
      CHECK(back.get<T>().c == 'x');
    }
  };
  check(aligned<1>());
  check(aligned<8>());
  check(aligned<16>());
  check(aligned<64>());
  check(aligned<256>());
}

TEST_CASE("move-only objects are taken out whole") {
  value v(std::make_unique<int>(5));
  const std::unique_ptr<int> taken = v.take<std::unique_ptr<int>>();
  CHECK(*taken == 5);
  CHECK_FALSE(v.has_value());

  v = value(std::make_unique<int>(6));
  const std::unique_ptr<int> moved = std::move(v).get<std::unique_ptr<int>>();
  CHECK(*moved == 6);
  CHECK(v.has_value());  // only moved from
  CHECK_FALSE(static_cast<bool>(v.get<std::unique_ptr<int>>()));

  static_assert(std::is_same_v<decltype(std::declval<value&>().get<int>()), int&>);
  static_assert(std::is_same_v<decltype(std::declval<const value&>().get<int>()), const int&>);
  static_assert(std::is_same_v<decltype(std::declval<value>().get<int>()), int&&>);
  static_assert(std::is_same_v<decltype(std::declval<const value&>().get_if<int>()), const int*>);
}

TEST_CASE("what moving or copying throws passes, and the value is as it was") {
  value v{moves_once()};
  const auto left = v.get<moves_once>().moves_left;
  CHECK(*left == 0);
  value w(std::move(v));  // the box moves, the object does not
  CHECK(*left == 0);
  CHECK_THROWS_WITH_AS(w.take<moves_once>(), "moved too often", std::runtime_error);
  CHECK(w.is<moves_once>());
  CHECK(w.get<moves_once>().moves_left.get() == left.get());

  struct no_copy_today {
    no_copy_today() = default;
    no_copy_today(const no_copy_today&) { throw std::runtime_error("not copied"); }
  };
  const no_copy_today original;
  CHECK_THROWS_WITH_AS(value{original}, "not copied", std::runtime_error);
}

TEST_CASE("assigning and resetting destroy what was held, when the value no longer holds it") {
  events log;
  struct looks_back {
    std::shared_ptr<value> at;
    events* log;
    looks_back(std::shared_ptr<value> a, events& l) : at(std::move(a)), log(&l) {}
    looks_back(looks_back&&) noexcept = default;
    ~looks_back() {
      if (at) log->push_back(at->has_value() ? at->get<std::string>() : "nothing");
    }
  };
  const auto v = std::make_shared<value>();
  *v = value(looks_back(v, log));
  *v = value(std::string("the next"));
  CHECK(log == events{"the next"});
  *v = value(looks_back(v, log));
  v->reset();
  CHECK(log == events{"the next", "nothing"});
  v->reset();
  CHECK_FALSE(v->has_value());
}

TEST_CASE("a value moved into itself keeps what it holds") {
  value v(std::string("kept"));
  value& same = v;
  v = std::move(same);
  CHECK(v.get<std::string>() == "kept");
}

TEST_CASE("a moved-from value can be used again") {
  value v(1);
  value w(std::move(v));
  CHECK_FALSE(v.has_value());
  v = value(std::string("again"));
  CHECK(v.get<std::string>() == "again");
  std::swap(v, w);
  CHECK(v.get<int>() == 1);
  CHECK(w.get<std::string>() == "again");
}

TEST_CASE("2, 3: a greenlet_exit that ended a greenlet is a value that keeps the thrown object") {
  value v = ended_with(detailed_exit("whole"));
  CHECK(v.has_value());
  CHECK(v.type() == typeid(detailed_exit));
  CHECK(v.is<greenlet_exit>());
  CHECK(v.is<detailed_exit>());
  CHECK_FALSE(v.is<other_exit>());
  CHECK_FALSE(v.is<std::exception_ptr>());
  CHECK(v.get<detailed_exit>().text == "whole");
  const greenlet_exit* const seen = v.get_if<greenlet_exit>();
  CHECK(typeid(*seen) == typeid(detailed_exit));
  CHECK(dynamic_cast<const detailed_exit*>(seen) == v.get_if<detailed_exit>());

  REQUIRE(v.thrown() != nullptr);
  try {
    std::rethrow_exception(v.thrown());
  } catch (const detailed_exit& e) {
    CHECK(&e == v.get_if<detailed_exit>());
  }

  value moved(std::move(v));
  CHECK(moved.get_if<greenlet_exit>() == seen);  // the object stays where it was thrown
  CHECK(moved.take<detailed_exit>().text == "whole");
  CHECK_FALSE(moved.has_value());
}

TEST_CASE("2: greenlet_exit is not a std::exception") {
  static_assert(!std::is_base_of_v<std::exception, greenlet_exit>);
  static_assert(std::has_virtual_destructor_v<greenlet_exit>);
  bool swallowed = false;
  greenlet g([&] {
    try {
      greenlets::switch_to_parent();
    } catch (const std::exception&) {
      swallowed = true;
    }
  });
  g.switch_to();
  CHECK(g.throw_in().is<greenlet_exit>());
  CHECK_FALSE(swallowed);
}

TEST_CASE("a greenlet_exit or exception_ptr that is sent is an object like any other") {
  const value plain{detailed_exit("sent")};
  CHECK(plain.is<detailed_exit>());
  CHECK_FALSE(plain.is<greenlet_exit>());  // by the exact type
  CHECK(plain.thrown() == nullptr);
  CHECK(plain.type() == typeid(detailed_exit));
  const value pointer(std::make_exception_ptr(greenlet_exit()));
  CHECK(pointer.is<std::exception_ptr>());
  CHECK_FALSE(pointer.is<greenlet_exit>());
  CHECK(pointer.thrown() == nullptr);
}

TEST_CASE("whoever takes the exit as an argument gets the thrown object") {
  const greenlet parent([](const greenlet_exit& e) { return dynamic_cast<const detailed_exit&>(e).text; });
  const greenlet child([] { throw detailed_exit("as an argument"); }, parent);
  CHECK(child.switch_to().get<std::string>() == "as an argument");
}

TEST_CASE("an object in flight dies with the switch that does not want it") {
  tally t;
  {
    greenlet g([](value) { greenlets::switch_to_parent(); });
    g.switch_to(large(t));
    CHECK(t.made - t.destroyed == 1);  // the argument lives as long as the call
    g.switch_to(small(t));
    CHECK(t.made == t.destroyed);
  }
  greenlet([] {}).switch_to();
  CHECK(t.made == t.destroyed);
}
