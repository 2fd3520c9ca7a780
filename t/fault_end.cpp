// SPDX-License-Identifier: MIT
// Ends, when memory, stacks or switches fail: a greenlet's result, its kill, its thread's exit, and what is
// reported. What cannot say that it has failed must not fail.
#include "faults.hpp"

#include <array>
#include <fcntl.h>
#include <pthread.h>
#include <thread>

using namespace greenlets;
using faults::counted;
using faults::exhaust;
using faults::kind;

namespace {

const char* const long_text = "a text that does not fit into a string object itself";
using large = std::array<long, 16>;

// Sees why the greenlet whose stack it is on ends.
struct witness {
  int exits = 0, others = 0, destroyed = 0;
  greenlet_exit::reason why{};

  struct guard {
    witness& w;
    ~guard() { ++w.destroyed; }
  };
  void wait() {
    const guard g{*this};
    try {
      switch_to_parent();
    } catch (const greenlet_exit& e) {
      ++exits;
      why = e.why;
      throw;
    } catch (...) {
      ++others;
      throw;
    }
  }
  bool saw(greenlet_exit::reason r) const { return exits == 1 && others == 0 && destroyed == 1 && why == r; }
};

// Runs `f` on a thread of its own, counted to its very end; the thread itself is made uncounted.
template <class F>
void on_a_thread(F&& f) {
  const counted not_here(false);
  std::thread t([&f] {
    counted::for_good();
    f();
  });
  t.join();
}

enum class by { value, exception, exit };

// Its parents are unstarted: the first takes what it is sent and gives a value in a box, and so on.
struct finishing {
  const by how;
  int entered = 0, parents = 0;
  value got;
  greenlet top{[this](value) { return ++parents, large{3}; }};
  greenlet middle{[this](value) { return ++parents, large{2}; }, top};
  greenlet child{[this]() -> value {
    ++entered;
    if (how == by::exception) throw std::runtime_error(long_text);
    if (how == by::exit) throw greenlet_exit();
    return large{1};
  }, middle};
  bool told = false;

  explicit finishing(by h) : how(h) {}
  void act() {
    try {
      got = child.switch_to();
    } catch (const std::system_error&) {
      throw;
    } catch (const error&) {
      throw;
    } catch (const std::runtime_error& e) {
      told = e.what() == std::string(long_text);
      if (!told) throw;
    }
  }
  bool right(const std::exception_ptr& e) {
    if (entered == 0) {
      if (!e || child.state() != greenlet_state::unstarted || parents != 0) return false;
      act();
    } else if (e) {
      // What failed on the way up has ended all that it went past, one of which may not have been started.
      return child.dead() && parents <= 2 && (middle.dead() || parents == 0) && (top.dead() || parents <= 1);
    }
    if (how == by::exception) return told ? parents == 0 && middle.dead() && top.dead() : child.dead();
    return child.dead() && middle.dead() && top.dead() && parents == 2 && got.get<large>()[0] == 3;
  }
};

struct killing {
  witness seen;
  bool same = true;  // the exception handled by who drops it
  bool handling = false;
  greenlet g{[this] { seen.wait(); }};

  explicit killing(bool h) : handling(h) { g.switch_to(); }
  void act() {
    if (!handling) return void(g = greenlet());
    same = false;
    try {
      throw 42;
    } catch (int) {
      g = greenlet();
      try {
        throw;
      } catch (int n) {
        same = n == 42;
      }
    }
  }
  bool right(const std::exception_ptr& e) const { return !e && same && seen.saw(greenlet_exit::reason::last_handle); }
};

// Sets a handler that needs no memory.
struct handler {
  int told = 0, refusals = 0, bad_allocs = 0, others = 0;
  std::uint64_t of = 0;
  unraisable_handler before = set_unraisable_handler([this](const greenlet& g, const std::exception_ptr& e) { note(g, e); });

  handler() = default;
  handler(const handler&) = delete;
  handler& operator=(const handler&) = delete;
  ~handler() { set_unraisable_handler(before); }
  void note(const greenlet& g, const std::exception_ptr& e) {
    ++told;
    of = g.id();
    try {
      std::rethrow_exception(e);
    } catch (const std::bad_alloc&) {
      ++bad_allocs;
    } catch (const std::exception& x) {
      ++(std::strstr(x.what(), "did not kill") ? refusals : others);
    }
  }
};

struct killing_what_throws {
  handler h;
  witness seen;
  greenlet g{[this] {
    try {
      seen.wait();
    } catch (const greenlet_exit&) {
      throw std::runtime_error(long_text);
    }
  }};
  std::uint64_t id = g.id();

  killing_what_throws() { g.switch_to(); }
  void act() { g = greenlet(); }
  bool right(const std::exception_ptr& e) const {
    // Its own exception, or its failure to make it.
    return !e && seen.saw(greenlet_exit::reason::last_handle) && h.told == 1 && h.of == id && h.bad_allocs + h.others == 1;
  }
};

// What goes to standard error meanwhile.
class standard_error {
 public:
  standard_error() : before_(dup(2)) {
    REQUIRE(pipe2(ends_, O_NONBLOCK | O_CLOEXEC) == 0);
    dup2(ends_[1], 2);
  }
  standard_error(const standard_error&) = delete;
  standard_error& operator=(const standard_error&) = delete;
  ~standard_error() { restore(); }
  std::string taken() {
    char text[4096];
    const ssize_t n = read(ends_[0], text, sizeof text);
    restore();
    return {text, n > 0 ? static_cast<std::size_t>(n) : 0};
  }

 private:
  void restore() {
    if (before_ < 0) return;
    dup2(before_, 2);
    for (int fd : {before_, ends_[0], ends_[1]}) close(fd);
    before_ = -1;
  }
  int before_;
  int ends_[2];
};

// The same with no handler set, or with one that fails itself: something is printed in any case.
struct killing_what_throws_with_nobody_told {
  unraisable_handler before;
  witness seen;
  greenlet g{[this] {
    try {
      seen.wait();
    } catch (const greenlet_exit&) {
      throw std::runtime_error(long_text);
    }
  }};
  std::string id = std::to_string(g.id());
  standard_error output;

  explicit killing_what_throws_with_nobody_told(bool failing) : before(set_unraisable_handler(nullptr)) {
    if (failing) set_unraisable_handler([](const greenlet&, const std::exception_ptr&) { throw std::bad_alloc(); });
    g.switch_to();
  }
  ~killing_what_throws_with_nobody_told() { set_unraisable_handler(before); }
  void act() { g = greenlet(); }
  bool right(const std::exception_ptr& e) {
    const std::string text = output.taken();
    return !e && seen.saw(greenlet_exit::reason::last_handle) &&
           text.find("greenlet: exception ignored in greenlet " + id) != std::string::npos && text.back() == '\n';
  }
};

// Swallows its exit and switches away.
struct refusing {
  handler h;
  int exits = 0, last = 0;
  greenlet g{[this] {
    try {
      switch_to_parent();
    } catch (const greenlet_exit&) {
      ++exits;
    }
    switch_to_parent();
    ++last;
  }};
  weak_greenlet weak{g};
  std::uint64_t id = g.id();

  refusing() { g.switch_to(); }
  void act() { g = greenlet(); }
  bool right(const std::exception_ptr& e) {
    if (e || exits != 1) return false;
    if (weak.expired()) return h.told == 1 && h.others == 1;  // it could not switch away, and ended of that
    weak.lock().switch_to();
    return last == 1 && weak.expired() && h.told == 1 && h.of == id && h.refusals == 1;
  }
};

// Keeps itself when its last handle goes.
struct resurrecting {
  greenlet kept;
  int exits = 0, last = 0;
  greenlet g{[this] {
    try {
      switch_to_parent();
    } catch (const greenlet_exit&) {
      ++exits;
      kept = current();
    }
    switch_to_parent();
    ++last;
  }};
  handler h;

  resurrecting() { g.switch_to(); }
  void act() { g = greenlet(); }
  bool right(const std::exception_ptr& e) {
    if (e || exits != 1) return false;
    if (kept.dead()) return h.told == 1;  // it could not switch away
    kept.switch_to();
    return h.told == 0 && last == 1 && kept.dead();
  }
};

struct dropping_elsewhere {
  witness seen;
  int yet = 0;
  greenlet g{[this] { seen.wait(); }};

  dropping_elsewhere() { g.switch_to(); }
  void act() {
    on_a_thread([this] { g = greenlet(); });
    yet = seen.exits;
    current();
  }
  bool right(const std::exception_ptr& e) const { return !e && yet == 0 && seen.saw(greenlet_exit::reason::last_handle); }
};

// A thread's first use, in which anything may fail, and its exit, at which nothing may.
struct thread_exiting {
  witness kept, dropped, deep;
  greenlet outside;
  std::exception_ptr first;
  bool again = true;
  int made = 0;

  void act() {
    on_a_thread([this] {
      try {
        work();
      } catch (...) {
        first = std::current_exception();
        const counted not_now(false);
        try {
          outside = greenlet();
          of_thread() = greenlet();
          kept = dropped = deep = {};
          work();
        } catch (...) {
          again = false;
        }
      }
    });
    if (first) std::rethrow_exception(first);
  }
  // The C library ends the process when it has no memory to register the destructor.
  static greenlet& of_thread() {
    const counted not_here(false);
    thread_local greenlet g;
    return g;
  }
  // On the thread.
  void work() {
    greenlet& inside = of_thread();
    inside = greenlet();
    outside = greenlet([this] { kept.wait(); });
    outside.switch_to();
    inside = greenlet([this] {
      greenlet child([this] { deep.wait(); }, main_greenlet());
      child.switch_to();
      dropped.wait();
    });
    inside.switch_to();  // its child comes back here
    inside.switch_to();
  }
  bool right(const std::exception_ptr& e) const {
    const auto ended = [](const witness& w, greenlet_exit::reason r) { return w.saw(r); };
    if (!again || !e != !first) return false;
    return outside.state() == greenlet_state::unwound && ended(kept, greenlet_exit::reason::thread_exit) &&
           deep.destroyed == 1 && deep.others == 0 && dropped.destroyed == 1 && dropped.others == 0;
  }
};

#ifndef T_TSAN
// pthread_exit in a greenlet: its stack, the main one's and the others are unwound.
struct thread_exiting_by_force {
  witness other;
  int destroyed = 0;
  std::exception_ptr failed;

  struct guard {
    int& n;
    ~guard() { ++n; }
  };
  void act() {
    pthread_t t;
    const counted not_here(false);
    const auto run = [](void* self) -> void* {
      static_cast<thread_exiting_by_force*>(self)->work();
      return nullptr;
    };
    REQUIRE(pthread_create(&t, nullptr, run, this) == 0);
    pthread_join(t, nullptr);
    if (failed) std::rethrow_exception(failed);
  }
  void work() {
    greenlet waiting([this] { other.wait(); });
    waiting.switch_to();
    const guard outer{destroyed};
    counted::for_good();
    try {
      greenlet([this] {
        const guard inner{destroyed};
        pthread_exit(nullptr);
      }).switch_to();
    } catch (const std::exception&) {
      failed = std::current_exception();
    }
  }
  bool right(const std::exception_ptr& e) const { return other.exits + other.others == 1 && other.destroyed == 1 && destroyed == (e ? 1 : 2); }
};

#endif

// An exception thrown into one that is inside a destructor which drops a handle waits for its next switch.
// Who threw it has refused to end.
struct held_back {
  greenlet main = current();
  greenlet victim{[this] {
    try {
      switch_to_parent();
    } catch (const greenlet_exit&) {
      main.throw_in(5);  // past who kills us
      throw;
    }
  }};
  weak_greenlet weak{victim};
  int arrived = 0;
  handler h;

  held_back() { victim.switch_to(); }
  void act() {
    victim = greenlet();
    try {
      current();
    } catch (int n) {
      arrived = n;
    }
  }
  bool right(const std::exception_ptr& e) {
    if (e) return false;
    if (weak.expired()) return arrived == 0 && h.told == 1 && h.others == 1;  // it could not throw, and ended of that
    weak.lock().throw_in();
    return arrived == 5 && h.told == 1 && h.refusals == 1 && weak.expired();
  }
};

struct setting_a_handler {
  int told = 0;
  unraisable_handler before;
  unraisable_handler next = [this, big = large{}](const greenlet&, const std::exception_ptr&) { told += 10 + static_cast<int>(big[1]); };
  bool set = false;

  setting_a_handler()
      : before(set_unraisable_handler([this, big = large{}](const greenlet&, const std::exception_ptr&) { told += 1 + static_cast<int>(big[1]); })) {}
  ~setting_a_handler() { set_unraisable_handler(before); }
  void act() {
    const unraisable_handler old = set_unraisable_handler(next);
    set = true;
  }
  bool right(const std::exception_ptr& e) {
    report_unraisable(current(), nullptr);
    return set == !e && told == (e ? 1 : 10);
  }
};

struct weak_handles {
  greenlet g{[] {}};
  weak_greenlet weak;
  bool found = false;
  void act() {
    const weak_greenlet one(g), copy(one);
    weak = copy;
    found = copy.lock() == g && !one.expired();
    g = greenlet();
  }
  bool right(const std::exception_ptr& e) const { return !e && found && weak.expired() && weak.lock().empty(); }
};

}  // namespace

TEST_CASE("a result that cannot be handed on is replaced by the reason, which goes on up") {
  for (const by how : {by::value, by::exception, by::exit}) {
    const auto n = exhaust<finishing>("finishing below unstarted parents", how);
    // Those that an exception passes are consumed without a stack. The others reuse their child's second next.
    CHECK(n[kind::first_switch] == (how == by::exception ? 1 : 3));
    CHECK(n[kind::mmap] >= 1);
    CHECK(n[kind::next_switch] == 1);
  }
}

TEST_CASE("109, 114: whatever fails, who loses its last handle gets greenlet_exit and is gone, and its killer is as before") {
  for (const bool handling : {false, true}) {
    const auto n = exhaust<killing>("dropping the last handle", handling);
#if !defined(T_ASAN) && !defined(T_TSAN)
    if (faults::can_refuse_memory()) CHECK(n[kind::allocation] >= 2);  // the exception, and its throw
#endif
    CHECK(n[kind::next_switch] == 1);  // its end comes back; the kill itself cannot be refused
  }
}

TEST_CASE("113: an exception out of a killed greenlet is reported, whatever fails") {
  exhaust<killing_what_throws>("killing what throws");
}

TEST_CASE("113: with no handler, or one that fails, a line that names the greenlet is printed, whatever fails") {
  exhaust<killing_what_throws_with_nobody_told>("killing what throws, with no handler", false);
  exhaust<killing_what_throws_with_nobody_told>("killing what throws, with a failing handler", true);
}

TEST_CASE("117: one that refuses to end is reported as that, whatever fails") { exhaust<refusing>("refusing"); }

TEST_CASE("115: one that keeps itself lives on, whatever fails") { exhaust<resurrecting>("resurrecting"); }

TEST_CASE("124, 127: a greenlet dropped on another thread is unwound on its own, whatever fails") {
  exhaust<dropping_elsewhere>("dropping elsewhere");
}

TEST_CASE("a thread whose first use fails can try again, and its exit unwinds all it has, whatever fails") {
  const auto n = exhaust<thread_exiting>("a thread's first use and exit");
  CHECK(n[kind::pthread_setspecific] == 1);
  CHECK(n[kind::mmap] == 3);
  if (faults::can_refuse_memory()) CHECK(n[kind::allocation] + n[kind::body_memory] >= 5);
}

#ifndef T_TSAN  // which cannot do that on a stack of ours
TEST_CASE("pthread_exit in a greenlet ends the thread, whatever fails") {
  const auto n = exhaust<thread_exiting_by_force>("pthread_exit in a greenlet");
  CHECK(n[kind::mmap] == 1);
}
#endif

TEST_CASE("what is thrown into a greenlet that is dropping a handle is not lost, whatever fails") {
  exhaust<held_back>("an exception held back");
}

TEST_CASE("a handler that cannot be set leaves the one before in its place") {
  const auto n = exhaust<setting_a_handler>("setting a handler");
  if (faults::can_refuse_memory()) CHECK(n[kind::allocation] >= 3);
}

TEST_CASE("194: weak handles need nothing that can fail") {
  const auto n = exhaust<weak_handles>("weak handles");
  if (faults::can_refuse_memory()) CHECK(n[kind::allocation] == 0);
}

TEST_CASE("20: a thread with no memory left at all unwinds any number of greenlets when it exits") {
  // The C++ runtime keeps some 70 KB for exceptions when there is no memory, and ends the process when
  // that is used up: each exit must be gone before the next is thrown.
  constexpr int many = 3000;
  static int destroyed;
  destroyed = 0;
  struct guard {
    ~guard() { ++destroyed; }
  };
  std::vector<greenlet> kept;
  std::thread([&] {
    for (int n = 0; n < many; ++n) {
      kept.emplace_back(attributes().stack_size(16 * 1024), [] {
        const guard g;
        switch_to_parent();
      });
      kept.back().switch_to();
    }
    faults::arm({kind::allocation, ENOMEM, true}, 1);
    counted::for_good();
  }).join();
  [[maybe_unused]] const auto all = faults::disarm();
  CHECK(destroyed == many);
  for (const greenlet& g : kept) REQUIRE(g.state() == greenlet_state::unwound);
#if !defined(T_ASAN) && !defined(T_TSAN)
  if (faults::can_refuse_memory()) CHECK(all.calls >= many);
#endif
}
