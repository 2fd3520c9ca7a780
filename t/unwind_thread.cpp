// SPDX-License-Identifier: MIT
// unwind_thread(): what a thread's exit does, on request; and who is told before it.
#include "testing.hpp"

#include <cfenv>
#include <exception>
#include <memory>
#include <pthread.h>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

using namespace greenlets;
using testing::at_end;
using testing::error_of;
using testing::events;
using testing::noting;
using testing::unraisables;

namespace {

// Runs it on a thread of its own, for each case ends its thread's greenlets.
template <class F>
void on_thread(F&& f) {
  std::thread(std::forward<F>(f)).join();
}

auto waiting(events& log, const std::string& name) {
  return [&log, name] {
    noting n{log, name};
    try {
      switch_to_parent();
    } catch (const greenlet_exit& e) {
      log.push_back(name + (e.why == greenlet_exit::reason::thread_exit ? " told" : " told wrongly"));
      throw;
    }
  };
}

}  // namespace

TEST_CASE("136, 138: on request the suspended greenlets are unwound here and now, and the main greenlet is dead") {
  on_thread([] {
    events log;
    greenlet main = main_greenlet();
    greenlet a(waiting(log, "a")), b(waiting(log, "b")), unstarted([] { return 1; });
    a.switch_to();
    b.switch_to();
    settrace([](trace_event, const greenlet&, const greenlet&) {});
    unwind_thread();
    CHECK(log == events{"b told", "~b", "a told", "~a"});
    CHECK(main.dead());
    CHECK(main.state() == greenlet_state::unwound);
    CHECK(a.state() == greenlet_state::unwound);
    CHECK(!gettrace());

    // What follows begins anew.
    CHECK(current() != main);
    CHECK(current().is_main());
    CHECK(current());
    CHECK(error_of([&] { main.switch_to(); }) == errc::collected);
    CHECK(error_of([&] { a.switch_to(); }) == errc::thread_exited);
    CHECK(error_of([&] { unstarted.switch_to(); }) == errc::thread_exited);
    unstarted.set_parent(current());
    CHECK(unstarted.switch_to().get<int>() == 1);
  });
}

TEST_CASE("137: it may be called again, and the thread's exit does the rest") {
  events log;
  greenlet kept;
  on_thread([&] {
    unwind_thread();  // a thread that has used nothing
    const auto before = counts();
    for (int i = 0; i < 100; ++i) {
      greenlet a(waiting(log, "a"));
      a.switch_to();
      unwind_thread();
      CHECK(a.dead());
    }
    unwind_thread();
    CHECK(counts().threads == before.threads);
    CHECK(counts().greenlets == before.greenlets);
    CHECK(log.size() == 200);
    log.clear();
    kept = greenlet(waiting(log, "last"));
    kept.switch_to();
  });
  CHECK(log == events{"last told", "~last"});
}

TEST_CASE("137: the thread's floating-point environment is there again when a survivor with its own has ended") {
  on_thread([] {
    greenlet g(attributes().preserve_fp_env(), [] {
      std::fesetround(FE_UPWARD);
      unwind_thread();
      CHECK(std::fegetround() == FE_UPWARD);
      CHECK(greenlet([] { return std::fegetround(); }).switch_to().get<int>() == FE_UPWARD);
      return 5;
    });
    std::fesetround(FE_DOWNWARD);
    CHECK(g.switch_to().get<int>() == 5);
    CHECK(std::fegetround() == FE_DOWNWARD);
  });
}

TEST_CASE("27: in destructors: of a local, of a thread_local, of a greenlet that is being unwound") {
  events log;
  on_thread([&] {
    static thread_local std::shared_ptr<void> late;  // goes after the thread's function
    late = at_end([&] {
      greenlet a(waiting(log, "a"));
      a.switch_to();
      unwind_thread();
      log.push_back("late");
    });
    const auto local = at_end([] { unwind_thread(); });
    greenlet b([&] {
      const auto inner = at_end([] { unwind_thread(); });  // its thread is being unwound already
      switch_to_parent();
    });
    b.switch_to();
    unwind_thread();
    CHECK(b.dead());
  });
  CHECK(log == events{"a told", "~a", "late"});
}

TEST_CASE("27: in destructors that run in the middle of the library's work on the main greenlet's stack") {
  struct unwinder {
    std::shared_ptr<void> end = at_end([] { unwind_thread(); });
  };
  on_thread([] {  // a value that was thrown away
    greenlet never([](int) {});
    CHECK_THROWS_AS(never.switch_to(unwinder()), error);
    CHECK(never.dead());
  });
  on_thread([] {  // the callable of an unstarted target that a throw consumes
    greenlet never([u = unwinder()] {});
    CHECK_THROWS_WITH(never.throw_in(std::runtime_error("x")), "x");  // nobody else is left to throw it to
    CHECK(never.dead());
  });
  on_thread([] {  // the callable of a greenlet whose last handle is dropped by another thread
    greenlet a([u = unwinder()] { switch_to_parent(); });
    a.switch_to();
    on_thread([&] { a = greenlet(); });
    greenlet main = main_greenlet();
    greenlet b([] {});
    CHECK(b.switch_to().has_value() == false);
  });
  on_thread([] {  // a tracer
    greenlet a([] { switch_to_parent(4); });
    settrace([](trace_event, const greenlet&, const greenlet& target) {
      if (target.is_main()) unwind_thread();
    });
    CHECK(a.switch_to().get<int>() == 4);
    CHECK(a.dead());
    CHECK(!gettrace());
  });
  on_thread([] {  // a resolver
    greenlet a(attributes().on_start([] {
      unwind_thread();
      return [] { FAIL_CHECK("ran"); };
    }));
    CHECK(error_of([&] { a.switch_to(); }) == errc::thread_exited);
    CHECK(!a.started());
  });
  on_thread([] {  // the unraisable handler
    const auto before = set_unraisable_handler([](const greenlet&, std::exception_ptr) { unwind_thread(); });
    greenlet a([] {
      try {
        switch_to_parent();
      } catch (const greenlet_exit&) {
        throw std::runtime_error("x");
      }
    });
    a.switch_to();
    a = greenlet();
    CHECK(current().is_main());
    set_unraisable_handler(before);
  });
}

TEST_CASE("in a greenlet: it goes on as the thread's code, and its result reaches where the main greenlet waited") {
  on_thread([] {
    events log;
    greenlet main = main_greenlet(), other(waiting(log, "other")), self;
    other.switch_to();
    self = greenlet([&] {
      noting n{log, "self"};
      unwind_thread();
      CHECK(log == events{"other told", "~other"});
      CHECK(self.dead());
      CHECK(main.dead());
      CHECK(current() != self);
      CHECK(current().is_main());
      CHECK(current().stack().used == 0);  // it is on another stack than the thread's
      greenlet inner([] { return switch_to_parent(1).get<int>() + 1; });
      CHECK(inner.switch_to().get<int>() == 1);
      CHECK(inner.switch_to(2).get<int>() == 3);
      return 42;
    });
    CHECK(self.switch_to().get<int>() == 42);
    CHECK(log == events{"other told", "~other", "~self"});
    CHECK(current().is_main());
    CHECK(current() != main);
    CHECK(greenlet([] { return 5; }).switch_to().get<int>() == 5);
    CHECK(error_of([&] { self.switch_to(); }) == errc::thread_exited);
  });
}

TEST_CASE("in a greenlet: without handles, with exceptions, deep in others, and again in what follows") {
  events log;
  on_thread([&] {
    CHECK_THROWS_WITH(greenlet([] {
                        unwind_thread();
                        throw std::runtime_error("from the survivor");
                      }).switch_to(),
                      "from the survivor");
    CHECK(greenlet([&] {
            return greenlet([&] {
                     noting n{log, "inner"};
                     unwind_thread();  // the greenlet between is unwound, too
                     return 1;
                   }).switch_to().get<int>() + 100;
          }).switch_to().get<int>() == 1);
    CHECK(greenlet([] {
            unwind_thread();
            const int n = greenlet([] {
                            unwind_thread();
                            CHECK(greenlet([] { return 1; }).switch_to().get<int>() == 1);
                            return 2;
                          }).switch_to().get<int>();
            CHECK(n == 2);
            CHECK(current().is_main());
            return n + 1;
          }).switch_to().get<int>() == 3);
    // Started on the survivor's stack, it goes on when that has ended.
    greenlet later;
    greenlet([&] {
      unwind_thread();
      later = greenlet([] { return switch_to_parent(1).get<int>(); });
      CHECK(later.switch_to().get<int>() == 1);
    }).switch_to();
    CHECK(later);
    CHECK(later.switch_to(6).get<int>() == 6);
  });
  CHECK(log == events{"~inner"});
}

TEST_CASE("in a greenlet that handles an exception while the main greenlet handles another") {
  on_thread([] {
    try {
      throw 1;
    } catch (int) {
      greenlet g([] {
        try {
          throw 2;
        } catch (int) {
          unwind_thread();
          try {
            throw;
          } catch (int n) {
            CHECK(n == 2);
          }
        }
      });
      g.switch_to();
      try {
        throw;
      } catch (int n) {
        CHECK(n == 1);
      }
    }
    CHECK(!std::current_exception());
  });
}

#ifndef T_TSAN  // pthread_exit on a greenlet's stack fails a check in its interceptor
TEST_CASE("167: pthread_exit in a greenlet that has unwound its thread ends the thread cleanly") {
  events log;
  pthread_t thread;
  REQUIRE(pthread_create(&thread, nullptr, [](void* l) -> void* {
            auto& to = *static_cast<events*>(l);
            noting outer{to, "main"};
            greenlet([&to] {
              noting inner{to, "survivor"};
              unwind_thread();
              current();
              pthread_exit(&to);
            }).switch_to();
            return nullptr;
          }, &log) == 0);
  void* result = nullptr;
  pthread_join(thread, &result);
  CHECK(result == &log);
  CHECK(log == events{"~survivor", "~main"});
}
#endif

TEST_CASE("at_thread_unwind: told before it begins, the last first, and those that come meanwhile") {
  events log;
  greenlet a;
  const auto run = [&](bool by_request) {
    log.clear();
    on_thread([&] {
      a = greenlet(waiting(log, "a"));
      a.switch_to();
      at_thread_unwind([&] { log.push_back(a ? "first: a is there" : "first: a is gone"); });
      at_thread_unwind([&] {
        log.push_back("second");
        at_thread_unwind([&] { log.push_back("meanwhile"); });
      });
      at_thread_unwind(nullptr);
      if (by_request) {
        unwind_thread();
        unwind_thread();
        log.push_back("unwound");
      }
    });
    CHECK(log == (by_request ? events{"second", "meanwhile", "first: a is there", "a told", "~a", "unwound"}
                             : events{"second", "meanwhile", "first: a is there", "a told", "~a"}));
  };
  run(true);
  run(false);
}

TEST_CASE("at_thread_unwind: what is told may switch, throw, and start greenlets") {
  unraisables failed;
  events log;
  on_thread([&] {
    greenlet a(waiting(log, "a"));
    a.switch_to();
    at_thread_unwind([&] {
      CHECK(a);
      greenlet b(waiting(log, "b"));
      b.switch_to();
      throw std::runtime_error("ignored");
    });
    unwind_thread();
    CHECK(a.dead());
  });
  CHECK(log == events{"b told wrongly", "~b", "a told", "~a"});  // b lost its last handle before
  REQUIRE(failed.seen.size() == 1);
  CHECK_THROWS_WITH(std::rethrow_exception(failed.seen[0].second), "ignored");
}

TEST_CASE("at_thread_unwind: what is told may ask for the unwinding itself, also in a greenlet; it is done once") {
  events log;
  on_thread([&] {  // at the thread's exit
    greenlet a(waiting(log, "a"));
    a.switch_to();
    at_thread_unwind([&, keep = a] {
      unwind_thread();
      log.push_back("inner");
      CHECK(current().is_main());
    });
  });
  CHECK(log == events{"a told", "~a", "inner"});
  log.clear();
  on_thread([&] {
    at_thread_unwind([&] { log.push_back("first"); });
    at_thread_unwind([&] {
      greenlet([&] {
        unwind_thread();
        log.push_back("survivor");
      }).switch_to();
      log.push_back("second");
    });
    unwind_thread();
    log.push_back("done");
  });
  CHECK(log == events{"first", "survivor", "second", "done"});
}

TEST_CASE("in a greenlet that has refused to end before: nothing of it is left") {
  // The reference by which its thread keeps one that refuses was never dropped.
  unraisables failed;
  const std::size_t before = counts().greenlets;
  weak_greenlet again;
  on_thread([&] {
    {
      greenlet g([] {
        try {
          switch_to_parent();
        } catch (const greenlet_exit&) {
        }
        switch_to_parent();
        unwind_thread();
      });
      again = g;
      g.switch_to();
    }
    again.lock().switch_to();
  });
  CHECK(failed.seen.size() == 1);
  failed.seen.clear();
  CHECK(again.expired());
  CHECK(counts().greenlets == before);
}

TEST_CASE("at_thread_unwind: those that come while greenlets are unwound are called, too") {
  // They were not, and a handle in one to a greenlet of the thread kept that, and it kept the thread's record.
  events log;
  greenlet kept;
  weak_greenlet gone;
  const auto run = [&](bool by_request) {
    log.clear();
    on_thread([&] {
      greenlet a([&] {
        const auto end = at_end([&] { at_thread_unwind([&, keep = current()] { log.push_back("late"); }); });
        switch_to_parent();
      });
      a.switch_to();
      gone = kept = a;
      if (by_request) unwind_thread();
    });
    CHECK(log == events{"late"});
    kept = greenlet();
    CHECK(gone.expired());
  };
  run(true);
  run(false);
}

TEST_CASE("at_thread_unwind: a thread that has used nothing else of the library") {
  bool told = false;
  on_thread([&] { at_thread_unwind([&] { told = true; }); });
  CHECK(told);
}

TEST_CASE("117, 137: a greenlet that refuses to end by request is reported and left" *
          doctest::description("leaves the greenlet and its stack, as intended")) {
  unraisables failed;
  on_thread([] {
    greenlet stubborn([] {
      for (;;) try {
          switch_to_parent();
        } catch (const greenlet_exit&) {
        }
    });
    stubborn.switch_to();
    unwind_thread();
    CHECK(stubborn.dead());
    CHECK(current().is_main());
  });
  CHECK(failed.seen.size() == 1);
}

TEST_CASE("183: the stack in bytes: used, resident and reserved") {
  greenlet unstarted([] {});
  CHECK(unstarted.stack().reserved == 0);
  CHECK(greenlet().stack().reserved == 0);
  greenlet g(attributes().stack_size(128 * 1024), [] {
    const stack_usage shallow = current().stack();
    CHECK(shallow.used > 0);
    CHECK(shallow.committed > 0);  // not all of `used`: the array below is in this frame, and not touched yet
    volatile char deep[50'000];
    for (std::size_t i = 0; i < sizeof deep; i += 512) deep[i] = 1;
    const stack_usage below = [&] { return current().stack(); }();
    CHECK(below.used > 50'000 - 512);
    CHECK(below.committed >= 50'000);
    CHECK(below.reserved >= 128 * 1024);
    switch_to_parent(deep[0] + 0);
  });
  g.switch_to();
  const stack_usage waiting = g.stack();
  CHECK(waiting.used > 49'000);
  CHECK(waiting.used < waiting.reserved);
  std::thread([&] {
    CHECK(g.stack().used == 0);
    CHECK(g.stack().reserved == 128 * 1024);
    const stack_usage native = current().stack();
    CHECK(native.used > 0);
    CHECK(native.committed > 0);
    CHECK(native.reserved >= native.used);
  }).join();
  g.throw_in();
  CHECK(g.stack().reserved == 0);
  const stack_usage own = main_greenlet().stack();
  CHECK(own.used > 0);
  CHECK(own.reserved >= own.used);
}

TEST_CASE("117, 137: what is held for a greenlet that refuses to end is reported, when that is dead" *
          doctest::description("leaves greenlets and their stacks, as intended")) {
  // It was lost, and destroyed while the greenlet still seemed to be suspended, on a stack that was none.
  struct held_one {
    std::shared_ptr<void> end;
  };
  unraisables failed;
  bool was_dead = false;
  on_thread([&] {
    // Each refuses for ever, and lets the main greenlet go on.
    const auto refuses = [](const std::function<void()>& then) {
      greenlet g([then] {
        bool told = false;
        for (;;) try {
            if (told) main_greenlet().switch_to();
            switch_to_parent();
          } catch (const greenlet_exit&) {
            if (!std::exchange(told, true)) then();
          }
      });
      g.switch_to();
      return g;
    };
    greenlet b;
    std::vector<greenlet> children;
    for (int i = 0; i < 40; ++i) children.push_back(refuses([] {}));
    children.push_back(refuses([&] {
      auto e = std::make_exception_ptr(held_one{at_end([&] {
        was_dead = b.dead();
        if (!was_dead) b.switch_to();
      })});
      b.throw_in(std::move(e));
    }));
    b = greenlet([&] {
      while (!children.empty()) {
        greenlet last = std::move(children.back());
        children.pop_back();
      }
    });
    b.switch_to();
    unwind_thread();
    failed.seen.clear();
  });
  CHECK(was_dead);
}
