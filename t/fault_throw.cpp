// SPDX-License-Identifier: MIT
// Throwing into greenlets, and misuse, when memory or a switch fails: the error is what it should be or that
// failure, never something in between; and nothing has changed.
#include "faults.hpp"

#include <functional>
#include <thread>

using namespace greenlets;
using faults::exhaust;
using faults::kind;

namespace {

const char* const long_text = "a text that does not fit into a string object itself";

// Can only be copied, and copying it may fail.
struct copied {
  std::string text = long_text;
  copied() = default;
  copied(const copied&) = default;
  copied& operator=(const copied&) = delete;
};

struct derived_exit : greenlet_exit {
  long more[8] = {1};
};

struct plain_exit {
  using type = greenlet_exit;
  static void into(const greenlet& g) { g.throw_in(); }
};
struct object {
  using type = std::string;
  static void into(const greenlet& g) { g.throw_in(std::string(long_text)); }
};
struct costly {
  using type = copied;
  static void into(const greenlet& g) { g.throw_in(copied()); }
};
struct kept_whole {
  using type = derived_exit;
  static void into(const greenlet& g) { g.throw_in(derived_exit()); }
};
struct pointer {
  using type = std::logic_error;
  static void into(const greenlet& g) {
    static const auto made = std::make_exception_ptr(std::logic_error(long_text));
    g.throw_in(made);
  }
};

enum class target { suspended, unstarted, dead, self };

template <class What>
struct throwing {
  const target where;
  const greenlet main = current();
  int arrived = 0;  // in the target, or in whom it is to go on to
  bool other = false;
  greenlet g{[this] { wait(); }};

  explicit throwing(target t) : where(t) {
    if (t == target::suspended || t == target::dead) g.switch_to();
    if (t == target::dead) g.switch_to();
    if (t == target::self) g = main;
  }
  void wait() {
    try {
      switch_to_parent();
    } catch (const typename What::type&) {
      ++arrived;
    } catch (...) {
      other = true;
    }
  }
  void act() {
    try {
      What::into(g);
      // An exit that ends one that did not run is a value.
      if (where == target::unstarted || where == target::dead) arrived += std::is_base_of_v<greenlet_exit, typename What::type>;
    } catch (const typename What::type&) {
      ++arrived;
    }
  }
  bool right(const std::exception_ptr& e) {
    // An unstarted one that could not hand it on has ended of the failure.
    if (e && where == target::unstarted && g.dead()) return arrived == 0;
    if (e && arrived == 1) return where == target::suspended && g.dead();  // it could not come back
    if (e) {
      if (other || arrived != 0) return false;
      if (where == target::suspended && g.state() != greenlet_state::suspended) return false;
      if (where == target::unstarted && g.state() != greenlet_state::unstarted) return false;
      act();
    }
    return arrived == 1 && !other && (where == target::self || g.dead());
  }
};

template <class What>
void throwing_everywhere(const char* name) {
  for (const target t : {target::suspended, target::unstarted, target::dead, target::self}) {
    const auto n = exhaust<throwing<What>>(name, t);
    CHECK(n[kind::mmap] == 0);
    CHECK(n[kind::next_switch] == (t == target::suspended ? 2 : 0));
    if (t == target::suspended && faults::can_refuse_memory()) {
#if !defined(T_ASAN) && !defined(T_TSAN)
      CHECK(n[kind::allocation] > 0);
#endif
    }
  }
}

// An error is made of strings. When there is no memory for them it is std::bad_alloc instead; in both
// cases nothing has changed.
struct misuse {
  std::function<void()> wrong;
  std::function<bool()> unchanged;
  errc code;
  bool told = false;

  misuse(errc c, std::function<void()> w, std::function<bool()> u = [] { return true; })
      : wrong(std::move(w)), unchanged(std::move(u)), code(c) {}
  void act() {
    try {
      wrong();
    } catch (const error& x) {
      if (x.code() != code) throw;
      told = !x.summary().empty() && std::string_view(x.what()).substr(0, x.summary().size()) == x.summary();
    }
  }
  bool right(const std::exception_ptr& e) {
    if (told == (e != nullptr) || !unchanged()) return false;
    if (e) act();
    return told && unchanged();
  }
};

// A thread with an unstarted, a suspended and a dead greenlet, which waits for its end.
class elsewhere {
 public:
  greenlet main, suspended, dead;

  elsewhere() : thread_([this] {
    main = current();
    suspended = greenlet([] { switch_to_parent(); });
    suspended.switch_to();
    dead = greenlet([] {});
    dead.switch_to();
    ready_.set();
    end_.wait();
  }) {
    ready_.wait();
  }
  void finish() {
    end_.set();
    thread_.join();
  }
  ~elsewhere() {
    if (thread_.joinable()) finish();
  }

 private:
  struct flag {
    int ends[2];
    flag() { REQUIRE(pipe(ends) == 0); }
    ~flag() {
      close(ends[0]);
      close(ends[1]);
    }
    void set() { REQUIRE(write(ends[1], "", 1) == 1); }
    void wait() {
      char c;
      REQUIRE(read(ends[0], &c, 1) == 1);
    }
  };
  flag ready_, end_;
  std::thread thread_;
};

}  // namespace

TEST_CASE("what is thrown into a greenlet arrives as it is, or the thrower is told and the target untouched") {
  throwing_everywhere<plain_exit>("greenlet_exit");
  throwing_everywhere<kept_whole>("a greenlet_exit with more in it");
  throwing_everywhere<object>("an object that can be moved");
  throwing_everywhere<costly>("an object that has to be copied");
  throwing_everywhere<pointer>("an exception_ptr");
}

TEST_CASE("misuse with no memory for the error is std::bad_alloc, and has changed nothing either") {
  const greenlet main = current();
  greenlet suspended([] { switch_to_parent(); });
  suspended.switch_to();
  greenlet child([] {}, suspended), dead([] {});
  dead.switch_to();
  const auto as_before = [&] {
    return suspended.state() == greenlet_state::suspended && suspended.parent() == main && child.parent() == suspended &&
           child.state() == greenlet_state::unstarted && child.has_run() && dead.dead() && main.parent().empty();
  };
  const auto refuses = [&](const char* name, errc code, std::function<void()> wrong) {
    const auto n = exhaust<misuse>(name, code, wrong, std::function<bool()>(as_before));
    if (faults::can_refuse_memory()) CHECK(n[kind::allocation] > 0);
  };
  SUBCASE("of the tree") {
    refuses("a cycle", errc::cyclic_parent, [&] { suspended.set_parent(child); });
    refuses("a parent for the main greenlet", errc::main_parent, [&] { main.set_parent(suspended); });
    refuses("the parent of none", errc::empty_handle, [] { static_cast<void>(greenlet().parent()); });
    refuses("the main greenlet's parent", errc::main_parent, [] { switch_to_parent(1); });
  }
  SUBCASE("of what is run") {
    const greenlet without{attributes()};
    refuses("nothing to run", errc::no_run, [&] { without.switch_to(); });
    refuses("run after the start", errc::already_started, [&] { suspended.set_run([] {}); });
    refuses("an empty handle", errc::empty_handle, [] { greenlet().switch_to(1); });
    refuses("a name for none", errc::empty_handle, [] { greenlet().set_name(long_text); });
    refuses("no exception", errc::wrong_arguments, [&] { suspended.throw_in(std::exception_ptr()); });
  }
  SUBCASE("of values") {
    const value holds(5), nothing;
    refuses("another type", errc::wrong_type, [&] { static_cast<void>(holds.get<std::string>()); });
    refuses("a type of nothing", errc::wrong_type, [&] { static_cast<void>(nothing.get<int>()); });
  }
  SUBCASE("of threads") {
    elsewhere other;
    const greenlet of_other([] {}, other.suspended);
    refuses("a running thread's main greenlet", errc::different_thread, [&] { other.main.switch_to(1); });
    refuses("a running thread's suspended one", errc::different_thread, [&] { other.suspended.throw_in(5); });
    refuses("a running thread's dead one", errc::different_thread, [&] { other.dead.switch_to(); });
    refuses("an unstarted one of that tree", errc::different_thread, [&] { of_other.switch_to(); });
    refuses("a parent there", errc::parent_thread, [&] { suspended.set_parent(other.main); });
    refuses("its parent from here", errc::different_thread, [&] { other.suspended.set_parent(other.main); });
    other.finish();
    refuses("an exited thread's main greenlet", errc::collected, [&] { other.main.switch_to(1); });
    refuses("an exited thread's unwound one", errc::thread_exited, [&] { other.suspended.throw_in(5); });
    refuses("an unstarted one of that thread's tree", errc::thread_exited, [&] { of_other.switch_to(); });
  }
}

TEST_CASE("arguments that do not fit, and no memory to say so: the greenlet ends of either, the parent is told") {
  struct wrong_arguments {
    greenlet g{[](int, std::string) { FAIL_CHECK("it ran"); }};
    bool told = false;
    void act() {
      try {
        g.switch_to(5);
      } catch (const error& x) {
        if (x.code() != errc::wrong_arguments) throw;
        told = true;
      }
    }
    bool right(const std::exception_ptr& e) const {
      if (e && g.state() == greenlet_state::unstarted) return !told;  // it could not even be started
      return g.dead() && told == !e;
    }
  };
  const auto n = exhaust<wrong_arguments>("arguments that do not fit");
  if (faults::can_refuse_memory()) CHECK(n[kind::allocation] > 3);
  CHECK(n[kind::mmap] == 1);
}
