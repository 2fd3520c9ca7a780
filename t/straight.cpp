// SPDX-License-Identifier: MIT
// The straight path of a switch, which is compiled into the program: what is sent goes in two registers, and
// everything else of the one who waits stays where its compiler put it.
#include "testing.hpp"

#include <alloca.h>
#include <array>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

using namespace greenlets;

namespace {

// Sends what `make(n)` gives there and back, and compares.
template <class T, class Make>
bool goes_there_and_back(Make make) {
  std::size_t wrong = 0;
  const greenlet g([&](T first) {
    if (!(first == make(0))) ++wrong;
    for (int n = 1;; ++n) {
      const value back = switch_to_parent(make(n));
      if (!back.is<T>() || !(back.get<T>() == make(n))) ++wrong;
    }
  });
  for (int n = 0; n < 1000; ++n) {
    const value back = g.switch_to(make(n));
    if (!back.is<T>() || !(back.get<T>() == make(n + 1))) ++wrong;
  }
  return wrong == 0;
}

template <std::size_t N>
struct bytes {
  std::array<unsigned char, N> all;
  friend bool operator==(const bytes& a, const bytes& b) { return a.all == b.all; }
  static bytes make(int n) {
    bytes b;
    std::iota(b.all.begin(), b.all.end(), static_cast<unsigned char>(n));
    return b;
  }
};

template <std::size_t... N>
bool every_size(std::index_sequence<N...>) {
  return (goes_there_and_back<bytes<N + 1>>(&bytes<N + 1>::make) && ...);
}

}  // namespace

TEST_CASE("35: what is sent arrives, of whatever size it is, in registers, in place or in a box") {
  CHECK(every_size(std::make_index_sequence<40>()));
  CHECK(goes_there_and_back<bool>([](int n) { return n % 3 == 0; }));
  CHECK(goes_there_and_back<char>([](int n) { return static_cast<char>(n); }));
  CHECK(goes_there_and_back<int>([](int n) { return n * -7; }));
  CHECK(goes_there_and_back<std::uint64_t>([](int n) { return ~std::uint64_t{0} - static_cast<std::uint64_t>(n); }));
  // Thirds would be compared with more digits than they are sent with, where the x87 calculates.
  CHECK(goes_there_and_back<float>([](int n) { return static_cast<float>(n) / 4; }));
  CHECK(goes_there_and_back<double>([](int n) { return n / 4.0; }));
  CHECK(goes_there_and_back<long double>([](int n) { return n / 3.0L; }));
  CHECK(goes_there_and_back<const void*>([](int n) { return reinterpret_cast<const void*>(std::intptr_t{n} * 4); }));
  CHECK(goes_there_and_back<std::string>([](int n) { return std::string(static_cast<std::size_t>(n) % 50, 'x'); }));
  const auto shared = std::make_shared<int>(5);
  CHECK(goes_there_and_back<std::shared_ptr<int>>([&](int n) { return n % 2 ? shared : nullptr; }));
  CHECK(shared.use_count() == 1);
  const greenlet some([] {});
  CHECK(goes_there_and_back<greenlet>([&](int n) { return n % 2 ? some : greenlet(); }));
}

TEST_CASE("35: a value that is sent on arrives as what it holds, and one that holds nothing as nothing") {
  const greenlet g([](value v) {
    for (;;) v = switch_to_parent(std::move(v));
  });
  CHECK_FALSE(g.switch_to(value()).has_value());
  CHECK(g.switch_to(value(1)).get<int>() == 1);
  CHECK(g.switch_to(value(bytes<20>::make(3))).get<bytes<20>>() == bytes<20>::make(3));
  CHECK(g.switch_to(value(std::string("boxed"))).get<std::string>() == "boxed");
  CHECK(*g.switch_to(std::make_unique<int>(7)).get<std::unique_ptr<int>>() == 7);
  CHECK_FALSE(g.switch_to().has_value());
  CHECK(std::get<2>(g.switch_to(1, 2.0, 'c').get<std::tuple<int, double, char>>()) == 'c');
}

namespace {

// A frame that is realigned, and has a part of unknown size: its compiler keeps a pointer to the rest in a
// register of its own.
__attribute__((noinline)) bool realigned(std::size_t size, const greenlet* to, double& sum) {
  alignas(64) unsigned char wide[64];
  auto* const more = static_cast<unsigned char*>(alloca(size));
  double d = static_cast<double>(size), e = d / 3;
  long double l = static_cast<long double>(size) / 7;
  for (int round = 0; round < 5; ++round) {
    for (unsigned char& b : wide) b = static_cast<unsigned char>(size + static_cast<std::size_t>(round));
    for (std::size_t i = 0; i < size; ++i) more[i] = static_cast<unsigned char>(i * size);
    if (to)
      to->switch_to();
    else
      switch_to_parent();
    for (const unsigned char b : wide)
      if (b != static_cast<unsigned char>(size + static_cast<std::size_t>(round))) return false;
    for (std::size_t i = 0; i < size; ++i)
      if (more[i] != static_cast<unsigned char>(i * size)) return false;
    if (reinterpret_cast<std::uintptr_t>(wide) % 64 != 0) return false;
    d += e;
    e *= 1.5;
    l += d;
  }
  sum = d + e + static_cast<double>(l);
  return true;
}

}  // namespace

TEST_CASE("B40: frames that are realigned or of unknown size find their locals, and numbers in flight are kept") {
  for (std::size_t size = 1; size < 2000; size += 111) {
    double one = 0, other = 0, alone = 0;
    bool right = false;
    const greenlet g([&] { right = realigned(size, nullptr, other); });
    CHECK(realigned(size, &g, one));
    g.switch_to();
    CHECK(right);
    const greenlet nobody([] {
      for (;;) switch_to_parent();
    });
    CHECK(realigned(size, &nobody, alone));
    CHECK(one == other);
    CHECK(one == alone);
  }
}

TEST_CASE("52: whatever a thread is to attend to, the next switch leaves the straight path for it, and comes back") {
  int hooked = 0, traced = 0;
  const greenlet g([] {
    for (;;) switch_to_parent();
  });
  const greenlet rounds([] {
    for (;;) switch_to_parent();
  });
  const auto once = [&] {
    g.switch_to();
    rounds.switch_to();
  };
  once();
  g.set_on_switch([](void* n) { ++*static_cast<int*>(n); }, [](void* n) { ++*static_cast<int*>(n); }, &hooked);
  once();
  CHECK(hooked == 2);
  settrace([&](trace_event, const greenlet&, const greenlet&) { ++traced; });
  once();
  CHECK(hooked == 4);
  CHECK(traced == 4);
  settrace(nullptr);
  g.set_on_switch(nullptr, nullptr, nullptr);
  once();
  CHECK(hooked == 4);
  CHECK(traced == 4);
  // The last handle of the one that runs goes: it is unwound by its next switch away.
  greenlet own;
  bool unwound = false;
  own = greenlet([&] {
    const std::shared_ptr<void> note = testing::at_end([&] { unwound = true; });
    own = greenlet();
    switch_to_parent(5);
  });
  const greenlet* const handle = &own;
  CHECK(handle->switch_to().get<int>() == 5);
  CHECK(unwound);
  once();
}

#ifdef GREENLET_INLINE_SWITCH
TEST_CASE("a debugger's bit of attention makes each switch a call into the library, and nothing else") {
  const greenlet g([](int v) {
    for (;;) v = switch_to_parent(v + 1).get<int>();
  });
  CHECK(g.switch_to(1).get<int>() == 2);
  std::atomic<std::uint32_t>& attention = detail::hot_thread_v1->attention;
  if (attention != 0) return;  // each is one anyway
  detail::hot_body* hot;
  std::memcpy(&hot, static_cast<const void*>(&g), sizeof hot);
  const void* const in_the_program = hot->where.pc;
  attention |= detail::attention_debugger;
  CHECK(g.switch_to(2).get<int>() == 3);
  CHECK(hot->where.pc != in_the_program);
  CHECK(attention == detail::attention_debugger);
  CHECK(greenlet([] { return 7; }).switch_to().get<int>() == 7);
  CHECK(attention == detail::attention_debugger);
  attention &= ~detail::attention_debugger;
  CHECK(g.switch_to(3).get<int>() == 4);
  CHECK(hot->where.pc == in_the_program);
}
#endif
