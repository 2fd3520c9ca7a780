// SPDX-License-Identifier: MIT
// What fails when greenlets are made, started and switched to: everything that can, one call at a time.
#include "faults.hpp"

#include <array>
#include <functional>
#include <thread>
#include <tuple>

using namespace greenlets;
using faults::exhaust;
using faults::kind;

namespace {

const char* const long_text = "a text that does not fit into a string object itself";

// Larger than a value holds in place.
using large = std::array<long, 16>;
large numbered(long from) {
  large a{};
  for (long& each : a) each = from++;
  return a;
}

struct making {
  int ran = 0;
  greenlet g;

  void act() {
    g = greenlet([this, big = numbered(0)] { ran += static_cast<int>(big[1]); });
  }
  bool right(const std::exception_ptr& e) {
    if (!e != !g.empty()) return false;
    if (e) act();
    g.switch_to();
    return g.dead() && ran == 1;
  }
};

// Everything an attribute can say, and what can be changed before the start, one after the other.
struct making_with_attributes {
  int done = 0;
  greenlet parent{[](value v) { return v.take<std::string>() + " through its parent"; }};
  greenlet g;

  void act() {
    g = greenlet(attributes().stack_size(64 * 1024).name(long_text).parent(parent).preserve_fp_env());
    done = 1;
    g.set_run([big = numbered(0)] { return std::string("never"); });
    done = 2;
    g.set_run([text = std::string(long_text)] { return text; });
    done = 3;
    g.set_name(std::string(long_text) + " changed");
    done = 4;
    g.set_parent(parent);
    done = 5;
  }
  bool right(const std::exception_ptr& e) {
    if (!e != (done == 5) || g.empty() != (done == 0)) return false;
    if (done > 0) {
      if (g.has_run() != (done > 1) || g.state() != greenlet_state::unstarted || g.parent() != parent) return false;
      if (g.name() != std::string(long_text) + (done > 3 ? " changed" : "")) return false;
      // What could not replace it has left it as it was.
      if (done == 2 && greenlet(g).switch_to().get<std::string>() != "never through its parent") return false;
      if (done > 2 && g.switch_to().get<std::string>() != long_text + std::string(" through its parent")) return false;
    }
    return true;
  }
};

// What is sent at the start and comes back at the end: small, in a box, or several.
struct small {
  static std::tuple<int> make() { return {5}; }
};
struct boxed {
  static std::tuple<large> make() { return {numbered(5)}; }
};
struct several {
  static std::tuple<int, std::string, large> make() { return {5, long_text, numbered(5)}; }
};
template <class Sent>
using sent_by = std::conditional_t<std::tuple_size_v<Sent> == 1, std::tuple_element_t<0, Sent>, Sent>;

template <class What>
struct starting {
  using sent = sent_by<decltype(What::make())>;
  int entered = 0;
  value got;
  greenlet g{[this](value v) {
    ++entered;
    return v.take<sent>();
  }};

  void act() {
    got = std::apply([this](auto&&... each) { return g.switch_to(std::move(each)...); }, What::make());
  }
  bool right(const std::exception_ptr& e) {
    if (e && entered == 0) {
      if (g.state() != greenlet_state::unstarted || !g.has_run()) return false;
      act();  // nothing has changed: it can be started now
    } else if (e) {
      return g.dead() && entered == 1;  // it ran, and could not give its result
    }
    sent& back = got.get<sent>();
    if constexpr (std::tuple_size_v<decltype(What::make())> == 1)
      return g.dead() && entered == 1 && back == std::get<0>(What::make());
    else
      return g.dead() && entered == 1 && back == What::make();
  }
};

template <class What>
struct switching {
  using sent = sent_by<decltype(What::make())>;
  int received = 0, replied = 0;
  value got;
  greenlet g{[this] {
    value v = switch_to_parent();
    for (;;) {
      ++received;
      value next = switch_to_parent(v.take<sent>());
      ++replied;
      v = std::move(next);
    }
  }};

  switching() { g.switch_to(); }
  void act() {
    got = std::apply([this](auto&&... each) { return g.switch_to(std::move(each)...); }, What::make());
  }
  bool right(const std::exception_ptr& e) {
    if (e && received == 1) return g.dead();  // it could not reply, and ended of that
    if (e) {
      if (g.state() != greenlet_state::suspended) return false;
      act();
    }
    return g.state() == greenlet_state::suspended && received == 1 && got.is<sent>();
  }
};

// Three in a ring, with a value in a box: main -> a -> b -> main.
struct ring {
  int sent = 0, passed = 0;
  value got;
  greenlet main = current();
  greenlet b{[this] {
    for (value v = switch_to_parent();;) {
      ++passed;
      v = main.switch_to(v.take<large>());
    }
  }};
  greenlet a{[this] {
    for (value v = switch_to_parent();;) {
      ++sent;
      v = b.switch_to(v.take<large>());
    }
  }};

  ring() {
    b.switch_to();
    a.switch_to();
  }
  void act() { got = a.switch_to(numbered(1)); }
  bool right(const std::exception_ptr& e) {
    if (!e) return got.get<large>() == numbered(1);
    // Who could not pass it on has ended of it; the rest is as it was.
    if (sent == 0) act();
    if (sent == 1 && passed == 0 && a.dead()) got = b.switch_to(numbered(1));
    return passed == 1 && (b.dead() || got.get<large>() == numbered(1)) && a.dead() == (sent == 1 && a.dead());
  }
};

// The same when another thread has dropped a greenlet of ours: it is unwound on the way, and may even drop
// the handle that is switched to.
struct switching_with_one_dropped {
  int exits = 0, received = 0;
  value got;
  greenlet g{[this] {
    for (value v = switch_to_parent();;) {
      ++received;
      v = switch_to_parent(v.take<large>());
    }
  }};
  weak_greenlet target{g};
  greenlet dropped{[this] {
    try {
      switch_to_parent();
    } catch (const greenlet_exit&) {
      ++exits;
      g = greenlet();
      throw;
    }
  }};

  switching_with_one_dropped() {
    g.switch_to();
    dropped.switch_to();
    std::thread([this] { dropped = greenlet(); }).join();
  }
  void act() { got = g.switch_to(numbered(3)); }
  bool right(const std::exception_ptr& e) {
    if (exits == 0) act();  // the value could not even be packed
    // It was kept for the switch alone: afterwards it is unwound, and what it had sent is here.
    return exits == 1 && g.empty() && target.expired() && (e || (received == 1 && got.get<large>() == numbered(3)));
  }
};

// A new parent; the old one's last handle goes, and it is unwound.
struct changing_parents {
  int exits = 0;
  greenlet main = current();
  greenlet g{attributes().parent(greenlet([this] {
    try {
      switch_to_parent();
    } catch (const greenlet_exit&) {
      ++exits;
      throw;
    }
  }))};

  changing_parents() {
    g.parent().switch_to();
  }
  void act() { g.set_parent(main); }
  bool right(const std::exception_ptr& e) const { return !e && exits == 1 && g.parent() == main; }
};

}  // namespace

TEST_CASE("214: a greenlet that cannot be made is not there, and can be made afterwards") {
  const auto n = exhaust<making>("making");
  if (faults::can_refuse_memory()) CHECK(n[kind::allocation] == 1);  // the box of its callable
  CHECK(n[kind::body_memory] == 1);
  CHECK(n[kind::mmap] == 0);
  CHECK(n[kind::first_switch] == 0);
}

TEST_CASE("attributes, run, name and parent are as they were when they cannot be changed") {
  const auto n = exhaust<making_with_attributes>("making with attributes");
  if (faults::can_refuse_memory()) CHECK(n[kind::allocation] >= 9);
  CHECK(n[kind::body_memory] == 1);
  CHECK(n[kind::mmap] == 0);
}

TEST_CASE("58: a greenlet that cannot be started stays unstarted, and starts when it is tried again") {
  for (const auto& n : {exhaust<starting<small>>("starting with something small"),
                        exhaust<starting<boxed>>("starting with something large"),
                        exhaust<starting<several>>("starting with several objects")}) {
    CHECK(n[kind::mmap] == 1);
    CHECK(n[kind::mprotect] == 1);
    CHECK(n[kind::madvise] == 1);
    CHECK(n[kind::install_guard] == (testing::emulated() ? 0 : 1));  // whose advice is not asked for (lib/slab.cpp)
    CHECK(n[kind::first_switch] == 1);
    CHECK(n[kind::next_switch] == 1);  // back to the main greenlet
  }
}

TEST_CASE("a start and a switch with something small allocate nothing") {
  if (!faults::can_refuse_memory()) return;
  CHECK(exhaust<starting<small>>("starting with something small")[kind::allocation] == 0);
  CHECK(exhaust<switching<small>>("switching with something small")[kind::allocation] == 0);
  CHECK(exhaust<switching<boxed>>("switching with something large")[kind::allocation] == 2);  // two boxes
}

TEST_CASE("59, 214: a suspended greenlet that cannot be switched to stays suspended, and can be switched to later") {
  for (const auto& n : {exhaust<switching<small>>("switching with something small"),
                        exhaust<switching<boxed>>("switching with something large"),
                        exhaust<switching<several>>("switching with several objects")}) {
    CHECK(n[kind::mmap] == 0);
    CHECK(n[kind::next_switch] == 2);
  }
  CHECK(exhaust<ring>("a ring")[kind::next_switch] == 3);
}

TEST_CASE("a switch that is to unwind one first keeps its target meanwhile, and no longer") {
  exhaust<switching_with_one_dropped>("switching with one dropped elsewhere");
}

TEST_CASE("set_parent() cannot fail for want of anything") {
  const auto n = exhaust<changing_parents>("changing parents");
  CHECK(n[kind::first_switch] == 0);
}

TEST_CASE("guard pages that are protected are counted, for each splits a mapping") {
  trim_stacks();
  const std::size_t before = stack_statistics().guarded_by_mprotect;
  std::array<greenlet, 3> all;
  faults::arm({kind::install_guard, EINVAL, true}, 1);
  {
    const faults::counted here;
    for (greenlet& g : all) (g = greenlet([] { switch_to_parent(); })).switch_to();
  }
  faults::disarm();
  CHECK(stack_statistics().guarded_by_mprotect == before + 3);
  for (greenlet& g : all) g = greenlet();
  trim_stacks();
  CHECK(stack_statistics().guarded_by_mprotect == before);
}

TEST_CASE("pages that cannot be given back are kept, and nothing else is wrong") {
  trim_stacks();
  std::vector<greenlet> all(600);
  for (greenlet& g : all) (g = greenlet([] { switch_to_parent(); })).switch_to();
  faults::arm({kind::madvise, EINVAL, true}, 1);
  {
    const faults::counted here;
    all.clear();
  }
  CHECK(faults::disarm().refused);
  CHECK(counts().pooled_stacks < 256);
  CHECK(greenlet([] { return 3; }).switch_to().get<int>() == 3);
}
