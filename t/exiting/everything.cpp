// SPDX-License-Identifier: MIT
// Uses every part of the interface, in any order; for places where programs are hard to get right.
#include "program.hpp"

#include <atomic>
#include <functional>
#include <iterator>
#include <memory>
#include <stdexcept>
#include <thread>
#include <utility>

using namespace greenlets;

namespace exiting {
namespace {

void expect(bool condition, const char* what) {
  if (!condition) throw std::logic_error(what);
}

template <class F>
bool refused(errc code, F&& f) {
  try {
    f();
  } catch (const error& e) {
    return e.code() == code;
  }
  return false;
}

// Suspends itself, and tells `unwound` why its destructors run.
struct waiting {
  int& unwound;
  void operator()() const {
    struct counting {
      int& count;
      ~counting() { ++count; }
    } const c{unwound};
    switch_to_parent();
  }
};

void the_current_one() {
  const greenlet& me = current();
  expect(static_cast<bool>(me) && !me.dead() && me.state() == greenlet_state::current, "current() is not current");
  expect(&current() == &me, "current() has changed");
}

void the_main_one() {
  const greenlet m = main_greenlet();
  expect(m.is_main() && m && m.parent().empty(), "the main greenlet is not alive");
  expect(refused(errc::main_parent, [&] { m.set_parent(m); }), "a main greenlet took a parent");
}

void making() {
  const greenlet g([] {});
  expect(!g.started() && !g.dead() && g.has_run(), "a new greenlet is not new");
  expect(g.parent() == current(), "a new greenlet has another parent");
  const greenlet with(attributes().name("named").stack_size(64 * 1024));
  expect(with.name() == "named" && with.id() > g.id(), "attributes are lost");
}

void switching() {
  greenlet g([](int n) {
    for (int i = 0; i < 3; ++i) n = switch_to_parent(2 * n).get<int>();
    return n;
  });
  for (int n = 1; n <= 3; ++n) expect(g.switch_to(n).get<int>() == 2 * n, "a switch gave something else");
  expect(g.switch_to(7).get<int>() == 7 && g.dead(), "a result is wrong");
}

void throwing() {
  greenlet g([] {
    try {
      switch_to_parent();
    } catch (const std::out_of_range&) {
      throw std::runtime_error("back");
    }
  });
  g.switch_to();
  bool caught = false;
  try {
    g.throw_in(std::out_of_range("there"));
  } catch (const std::runtime_error& e) {
    caught = e.what() == std::string("back");
  }
  expect(caught && g.dead(), "an exception did not come back");
  greenlet told([] { switch_to_parent(); });
  told.switch_to();
  expect(told.throw_in().is<greenlet_exit>() && told.dead(), "a greenlet_exit came back otherwise");
}

void dropping() {
  int unwound = 0;
  greenlet g(waiting{unwound});
  g.switch_to();
  expect(unwound == 0, "unwound too early");
  g = greenlet();
  expect(unwound == 1, "not unwound when the last handle went");
}

void weak_handles() {
  greenlet g([] {});
  const weak_greenlet w(g);
  expect(w.lock() == g, "a weak handle found nothing");
  g = greenlet();
  expect(w.expired(), "a weak handle keeps");
}

void reparenting() {
  greenlet parent([](int n) { return n + 1; }), child([] { return 1; });
  child.set_parent(parent);
  expect(child.switch_to().get<int>() == 2, "the result went elsewhere");
  greenlet a([] {}), b([] {}, a);
  expect(refused(errc::cyclic_parent, [&] { a.set_parent(b); }), "a cycle was made");
}

void unraisable() {
  int seen = 0;
  const unraisable_handler before =
      set_unraisable_handler([&seen](const greenlet&, const std::exception_ptr& e) { seen += e != nullptr; });
  greenlet g([] {
    try {
      switch_to_parent();
    } catch (const greenlet_exit&) {
      throw std::runtime_error("instead");
    }
  });
  g.switch_to();
  g = greenlet();
  set_unraisable_handler(before);
  expect(seen == 1, "the unraisable handler was not told");
}

void counting() {
  greenlet g([] { switch_to_parent(); });
  g.switch_to();
  // Other threads may be making and freeing theirs.
  const process_counts now = counts();
  expect(now.greenlets >= 2 && now.main_greenlets >= 1 && now.threads >= 1, "this thread's greenlets are not counted");
  expect(now.stacks >= 1, "this thread's stack is not counted");
  g = greenlet();
  trim_stacks();
}

void nesting() {
  std::function<int(int)> down = [&down](int depth) -> int {
    if (depth == 0) return 0;
    greenlet g([&down, depth] { return down(depth - 1); });
    return g.switch_to().get<int>() + 1;
  };
  expect(down(50) == 50, "nested greenlets lost count");
}

void misuse() {
  const greenlet none;
  expect(refused(errc::empty_handle, [&] { none.switch_to(); }), "an empty handle was switched to");
  expect(refused(errc::no_run, [] { greenlet(attributes()).switch_to(); }), "nothing was run");
  expect(refused(errc::wrong_type, [] { value(1).get<long>(); }), "a wrong type was given");
}

void another_thread() {
  int unwound = 0;
  greenlet kept;
  std::thread([&] {
    kept = greenlet(waiting{unwound});
    kept.switch_to();
  }).join();
  expect(unwound == 1 && kept.state() == greenlet_state::unwound, "a thread's exit unwound nothing");
  expect(refused(errc::thread_exited, [&] { kept.switch_to(); }), "an exited thread's greenlet was switched to");
}

void (*const all[])() = {the_current_one, the_main_one, making,   switching, throwing, dropping, weak_handles,
                         reparenting,     unraisable,   counting, nesting,   misuse,   another_thread};

void use(const std::string& place, unsigned first, unsigned parts) {
  for (unsigned i = 0; i < parts; ++i) {
    const unsigned part = (first + i) % parts;
    try {
      all[part]();
    } catch (const std::exception& e) {
      say(place + ": part " + std::to_string(part) + ": " + e.what());
      return;
    }
  }
  say(place + ": all well");
}

}  // namespace

void use_everything(const std::string& place, unsigned first) { use(place, first, std::size(all)); }

void use_everything_here(const std::string& place) { use(place, 0, std::size(all) - 1); }

}  // namespace exiting
