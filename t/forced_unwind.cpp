// SPDX-License-Identifier: MIT
// pthread_exit and pthread_cancel inside greenlets: the thread ends, with the right exit value, and
// every destructor of every stack has run, once.
//
// Threads are made with pthread_create, for their exit value. No CHECK stands around a switch that
// is left by force: doctest's catch (...) does not rethrow.
#include "exit_testing.hpp"

#include <cstdio>
#include <cstdlib>
#include <cxxabi.h>
#include <exception>
#include <functional>
#include <future>
#include <memory>
#include <pthread.h>
#include <string>
#include <utility>
#include <vector>

using namespace greenlets;
using testing::events;
using testing::noting;

namespace {

// Runs `f` in a thread of its own and returns the thread's exit value.
template <class F>
void* exit_value_of(F f, const std::function<void(pthread_t)>& meanwhile = {}) {
  std::function<void*()> call = std::move(f);
  pthread_t thread;
  REQUIRE(pthread_create(&thread, nullptr, [](void* c) { return (*static_cast<std::function<void*()>*>(c))(); }, &call) == 0);
  if (meanwhile) meanwhile(thread);
  void* result = nullptr;
  REQUIRE(pthread_join(thread, &result) == 0);
  return result;
}

void* const told = reinterpret_cast<void*>(0x7e11);

// Notes why it was unwound: by force, by an exit, or not at all.
struct frame {
  events& log;
  std::string name;
  // Runs `f` in this frame, which passes on everything.
  template <class F>
  void run(F&& f) {
    noting n{log, name};
    try {
      f();
    } catch (const greenlet_exit& e) {
      log.push_back(name + (e.why == greenlet_exit::reason::thread_exit ? " thread_exit" : " exit"));
      throw;
    } catch (...) {
      // Not by `const abi::__forced_unwind&`: libstdc++ binds that to nothing, and UBSan says so.
      log.push_back(name + (std::current_exception() ? " other" : " forced"));
      throw;
    }
  }
};

// What is to happen in the main thread of a process of its own, below no catch (...) of doctest's
// runner: this program, started again with a variable set, does it before its first test.
struct in_main_thread : doctest::IReporter {
  static constexpr const char* variable = "GREENLET_TEST_PTHREAD_EXIT_IN_MAIN";

  explicit in_main_thread(const doctest::ContextOptions&) {}
  void test_run_start() override {
    if (!getenv(variable)) return;
    struct telling {
      const char* what;
      ~telling() { std::puts(what); }
    };
    static pthread_t first = pthread_self();
    static greenlet kept([] {
      telling t{"suspended"};
      switch_to_parent();
    });
    pthread_t other;
    const auto go_on = [](void*) -> void* {
      pthread_join(first, nullptr);
      greenlet([] { std::puts("the other thread goes on"); }).switch_to();
      return nullptr;
    };
    if (pthread_create(&other, nullptr, go_on, nullptr) != 0) std::abort();
    kept.switch_to();
    telling t{"main"};
    greenlet g([] {
      telling inner{"g"};
      pthread_exit(nullptr);
    });
    g.switch_to();
    std::puts("not reached");
  }
  void test_run_end(const doctest::TestRunStats&) override {}
  void report_query(const doctest::QueryData&) override {}
  void test_case_start(const doctest::TestCaseData&) override {}
  void test_case_reenter(const doctest::TestCaseData&) override {}
  void test_case_end(const doctest::CurrentTestCaseStats&) override {}
  void test_case_exception(const doctest::TestCaseException&) override {}
  void subcase_start(const doctest::SubcaseSignature&) override {}
  void subcase_end() override {}
  void log_assert(const doctest::AssertData&) override {}
  void log_message(const doctest::MessageData&) override {}
  void test_case_skipped(const doctest::TestCaseData&) override {}
};

REGISTER_LISTENER("in_main_thread", 0, in_main_thread);

}  // namespace

// ThreadSanitizer's pthread_exit cannot work on a fiber's stack: it aborts with a failed CHECK in its
// own code. Cancellation, and pthread_exit on the thread's own stack, it can do: those are at the end.
#ifndef T_TSAN

TEST_CASE("167, B18: pthread_exit in a greenlet ends its thread: that greenlet, main, then the suspended") {
  events log;
  greenlet other;
  void* const value = exit_value_of([&]() -> void* {
    frame{log, "main"}.run([&] {
      other = greenlet([&] { frame{log, "other"}.run([] { switch_to_parent(); }); });
      other.switch_to();
      greenlet g([&] {
        frame{log, "outer"}.run([&] { frame{log, "inner"}.run([] { pthread_exit(told); }); });
      });
      g.switch_to();
      log.push_back("not reached");
    });
    return nullptr;
  });
  CHECK(value == told);
  CHECK(log == events{"inner forced", "~inner", "outer forced", "~outer", "main forced", "~main",  //
                      "other thread_exit", "~other"});
  CHECK(other.state() == greenlet_state::unwound);
}

TEST_CASE("167: pthread_exit in a nested greenlet goes on in main; the greenlets between are unwound at the exit") {
  events log;
  std::vector<greenlet> kept(3);
  void* const value = exit_value_of([&]() -> void* {
    frame{log, "main"}.run([&] {
      kept[0] = greenlet([&] {
        frame{log, "a"}.run([&] {
          kept[1] = greenlet([&] {
            frame{log, "b"}.run([&] {
              kept[2] = greenlet([&] { frame{log, "c"}.run([] { pthread_exit(told); }); });
              kept[2].switch_to();
            });
          });
          kept[1].switch_to();
        });
      });
      kept[0].switch_to();
    });
    return nullptr;
  });
  CHECK(value == told);
  // The newest first; what c's death leaves is independent of the tree.
  CHECK(log == events{"c forced", "~c", "main forced", "~main", "b thread_exit", "~b", "a thread_exit", "~a"});
  for (const greenlet& g : kept) CHECK(g.dead());
}

TEST_CASE("167: when the only handle lies on main's stack the forced unwind of main unwinds the suspended") {
  events log;
  void* const value = exit_value_of([&]() -> void* {
    frame{log, "main"}.run([&] {
      greenlet suspended([&] { frame{log, "suspended"}.run([] { switch_to_parent(); }); });
      suspended.switch_to();
      greenlet g([&] { frame{log, "g"}.run([] { pthread_exit(told); }); });
      g.switch_to();
    });
    return nullptr;
  });
  CHECK(value == told);
  // The local handles go before main's own frame notes anything: a kill in the middle of a forced unwind.
  CHECK(log == events{"g forced", "~g", "suspended exit", "~suspended", "main forced", "~main"});
}

TEST_CASE("167: pthread_exit in a handler in a greenlet while main handles an exception too") {
  // Nothing inside the handlers catches: libstdc++ cannot put a forced unwind, which is a foreign
  // exception to it, on top of one of its own, and terminates; in any thread, greenlets or not.
  events log;
  struct payload {
    std::shared_ptr<noting> note;
    payload(events& l, const char* name) : note(new noting{l, name}) {}
  };
  void* const value = exit_value_of([&]() -> void* {
    frame{log, "main"}.run([&] {
      try {
        throw payload(log, "main's exception");
      } catch (const payload&) {
        noting n{log, "main's handler"};
        greenlet g([&] {
          frame{log, "g"}.run([&] {
            try {
              throw payload(log, "g's exception");
            } catch (const payload&) {
              noting inside{log, "g's handler"};
              pthread_exit(told);
            }
          });
        });
        g.switch_to();
      }
    });
    return nullptr;
  });
  CHECK(value == told);
  CHECK(log == events{"~g's handler", "~g's exception", "g forced", "~g", "~main's handler", "~main's exception",
                      "main forced", "~main"});
}

TEST_CASE("167: a destructor that switches in the middle of a forced unwind comes back to it") {
  events log;
  void* const value = exit_value_of([&]() -> void* {
    frame{log, "main"}.run([&] {
      greenlet helper([&] {
        for (int turn = 0;; ++turn) {
          log.push_back("helper " + std::to_string(turn));
          try {
            throw turn;
          } catch (int) {
            switch_to_parent();
          }
        }
      });
      struct visiting {
        greenlet& whom;
        ~visiting() { whom.switch_to(); }
      };
      greenlet g([&] {
        helper.set_parent(current());
        visiting last{helper};
        frame{log, "g"}.run([&] {
          visiting first{helper};
          pthread_exit(told);
        });
      });
      g.switch_to();
      log.push_back("not reached");
    });
    return nullptr;
  });
  CHECK(value == told);
  CHECK(log == events{"helper 0", "g forced", "~g", "helper 1", "main forced", "~main"});
}

TEST_CASE("167: pthread_exit in the handler of a killed greenlet waits until main can go on with it") {
  events log;
  void* const value = exit_value_of([&]() -> void* {
    frame{log, "main"}.run([&] {
      greenlet victim([&] {
        frame{log, "victim"}.run([&] {
          try {
            switch_to_parent();
          } catch (const greenlet_exit&) {
            log.push_back("killed");
            pthread_exit(told);
          }
        });
      });
      victim.switch_to();
      // A destructor does the kill: nothing may be unwound through it.
      victim = greenlet();
      log.push_back("after the kill");
      current();
      log.push_back("not reached");
    });
    return nullptr;
  });
  CHECK(value == told);
  CHECK(log == events{"killed", "victim forced", "~victim", "after the kill", "main forced", "~main"});
}

TEST_CASE("167: the same when another greenlet did the kill") {
  events log;
  greenlet killer;
  void* const value = exit_value_of([&]() -> void* {
    frame{log, "main"}.run([&] {
      killer = greenlet([&] {
        frame{log, "killer"}.run([&] {
          greenlet victim([&] {
            try {
              switch_to_parent();
            } catch (const greenlet_exit&) {
              noting n{log, "victim"};
              pthread_exit(told);
            }
          });
          victim.switch_to();
          victim = greenlet();
          // Suspended inside that kill when its thread's exit reaches it; told at its next switch.
          log.push_back("killer goes on");
          switch_to_parent();
          log.push_back("not reached");
        });
      });
      killer.switch_to();
    });
    return nullptr;
  });
  CHECK(value == told);
  CHECK(log == events{"~victim", "main forced", "~main", "killer goes on", "killer thread_exit", "~killer"});
}

TEST_CASE("167: pthread_exit in the handler of a greenlet that its thread's exit unwinds") {
  events log;
  std::vector<greenlet> kept;
  void* const value = exit_value_of([&]() -> void* {
    for (const char* name : {"a", "b", "c"}) {
      kept.emplace_back([&log, name] {
        noting n{log, name};
        try {
          switch_to_parent();
        } catch (const greenlet_exit& e) {
          log.push_back(std::string(name) + (e.why == greenlet_exit::reason::thread_exit ? " exits" : "?"));
          pthread_exit(told);
        }
      });
      kept.back().switch_to();
    }
    return nullptr;
  });
  CHECK(value == told);  // who ends the thread last decides
  CHECK(log == events{"c exits", "~c", "b exits", "~b", "a exits", "~a"});
  for (const greenlet& g : kept) CHECK(g.state() == greenlet_state::unwound);
}

TEST_CASE("167: pthread_exit in a greenlet that somebody else switches to later") {
  // Its parent is not who switched to it; the unwind goes on in main, wherever main waits.
  events log;
  std::vector<greenlet> kept(2);
  void* const value = exit_value_of([&]() -> void* {
    frame{log, "main"}.run([&] {
      kept[0] = greenlet([&] {
        frame{log, "a"}.run([&] {
          switch_to_parent();
          pthread_exit(told);
        });
      });
      kept[1] = greenlet([&] { frame{log, "b"}.run([&] { kept[0].switch_to(); }); });
      kept[0].switch_to();
      kept[1].switch_to();
    });
    return nullptr;
  });
  CHECK(value == told);
  CHECK(log == events{"a forced", "~a", "main forced", "~main", "b thread_exit", "~b"});
}

TEST_CASE("167: the callable of the greenlet that called pthread_exit, and what it was sent, are destroyed once") {
  const auto callable = std::make_shared<int>(), sent = std::make_shared<int>();
  void* const value = exit_value_of([&]() -> void* {
    greenlet g([callable](const std::shared_ptr<int>& argument) {
      CHECK(argument.use_count() > 1);
      pthread_exit(told);
    });
    g.switch_to(sent);
    return nullptr;
  });
  CHECK(value == told);
  CHECK(callable.use_count() == 1);
  CHECK(sent.use_count() == 1);
}

TEST_CASE("167: C cleanup handlers run too, innermost first") {
  events log;
  const auto clean = [](void* l) { static_cast<events*>(l)->push_back("cleanup"); };
  void* const value = exit_value_of([&]() -> void* {
    pthread_cleanup_push(+clean, &log);
    greenlet g([&] {
      noting n{log, "g"};
      pthread_cleanup_push(+clean, &log);
      pthread_exit(told);
      pthread_cleanup_pop(0);
    });
    noting n{log, "main"};
    g.switch_to();
    pthread_cleanup_pop(0);
    return nullptr;
  });
  CHECK(value == told);
  CHECK(log == events{"cleanup", "~g", "~main", "cleanup"});
}

TEST_CASE("167: swallowing a forced unwind in a greenlet aborts, as it does in any thread") {
  const testing::child c = testing::in_child([] {
    greenlet g([] {
      try {
        pthread_exit(nullptr);
      } catch (...) {
      }
    });
    g.switch_to();
  });
  CHECK(WIFSIGNALED(c.status));
  CHECK(WTERMSIG(c.status) == SIGABRT);
  CHECK(c.output.find("exception not rethrown") != std::string::npos);
}

TEST_CASE("208, B18, B19: pthread_exit in a greenlet of the process's main thread; the others go on, the process ends with 0") {
  // For leaks nobody looks: main's stack is gone, with what doctest had there.
  const auto prepare = [] {
    setenv(in_main_thread::variable, "1", 1);
    setenv("ASAN_OPTIONS", "detect_leaks=0", 1);
  };
  const testing::child c = testing::run_path(testing::this_program(), {}, prepare,
                                             testing::emulated() ? testing::run_under() : testing::events{});
  CHECK(WIFEXITED(c.status));
  CHECK(WEXITSTATUS(c.status) == 0);
  CHECK(c.output.find("g\nmain\nsuspended\nthe other thread goes on\n") != std::string::npos);
}

TEST_CASE("167: threads that end by force in greenlets, many times, leave nothing") {
  for (int n = 0; n < 200; ++n) {
    int destroyed = 0;
    struct counting {
      int& n;
      ~counting() { ++n; }
    };
    void* const value = exit_value_of([&]() -> void* {
      counting c{destroyed};
      std::vector<greenlet> some;
      for (int i = 0; i < 4; ++i) {
        some.emplace_back([&] {
          counting inside{destroyed};
          switch_to_parent();
        });
        some.back().switch_to();
      }
      greenlet([&] {
        counting inside{destroyed};
        pthread_exit(told);
      }).switch_to();
      return nullptr;
    });
    CHECK(value == told);
    CHECK(destroyed == 6);
  }
}

#endif

TEST_CASE("167, B18: pthread_exit in main of a thread whose greenlets are suspended") {
  events log;
  greenlet kept;
  void* const value = exit_value_of([&]() -> void* {
    kept = greenlet([&] { frame{log, "kept"}.run([] { switch_to_parent(); }); });
    kept.switch_to();
    frame{log, "main"}.run([&] { pthread_exit(told); });
    return nullptr;
  });
  CHECK(value == told);
  CHECK(log == events{"main forced", "~main", "kept thread_exit", "~kept"});
  CHECK(kept.dead());
}

TEST_CASE("167, B18: pthread_cancel reaches a thread that waits in a greenlet") {
  events log;
  std::promise<void> ready;
  std::vector<greenlet> kept(2);
  void* const value = exit_value_of(
      [&]() -> void* {
        frame{log, "main"}.run([&] {
          kept[0] = greenlet([&] { frame{log, "suspended"}.run([] { switch_to_parent(); }); });
          kept[0].switch_to();
          kept[1] = greenlet([&] {
            frame{log, "g"}.run([&] {
              ready.set_value();
              for (;;) pause();  // a cancellation point
            });
          });
          kept[1].switch_to();
        });
        return nullptr;
      },
      [&](pthread_t thread) {
        ready.get_future().wait();
        REQUIRE(pthread_cancel(thread) == 0);
      });
  CHECK(value == PTHREAD_CANCELED);
  CHECK(log == events{"g forced", "~g", "main forced", "~main", "suspended thread_exit", "~suspended"});
  CHECK(kept[0].dead());
  CHECK(kept[1].dead());
}

TEST_CASE("167, B18: pthread_cancel reaches a thread that waits in main while greenlets are suspended") {
  events log;
  std::promise<void> ready;
  greenlet kept;
  void* const value = exit_value_of(
      [&]() -> void* {
        kept = greenlet([&] { frame{log, "suspended"}.run([] { switch_to_parent(); }); });
        kept.switch_to();
        frame{log, "main"}.run([&] {
          ready.set_value();
          for (;;) pause();  // a cancellation point
        });
        return nullptr;
      },
      [&](pthread_t thread) {
        ready.get_future().wait();
        REQUIRE(pthread_cancel(thread) == 0);
      });
  CHECK(value == PTHREAD_CANCELED);
  CHECK(log == events{"main forced", "~main", "suspended thread_exit", "~suspended"});
}

TEST_CASE("167: a thread cancels itself in the handler of an exception, greenlets deep") {
  events log;
  void* const value = exit_value_of([&]() -> void* {
    frame{log, "main"}.run([&] {
      greenlet g([&] {
        frame{log, "g"}.run([&] {
          greenlet h([&] {
            try {
              throw 1;
            } catch (int) {
              noting n{log, "h"};
              pthread_cancel(pthread_self());
              pthread_testcancel();
            }
          });
          h.switch_to();
        });
      });
      g.switch_to();
    });
    return nullptr;
  });
  CHECK(value == PTHREAD_CANCELED);
  // h, dead on g's stack, still has g for its parent: a cycle that only the thread's exit ends.
  CHECK(log == events{"~h", "main forced", "~main", "g thread_exit", "~g"});
}

TEST_CASE("167: the library's own functions are no cancellation points") {
  // A pending cancellation waits for a cancellation point of the user's, whatever he does here.
  events log;
  testing::unraisables handler;
  void* const value = exit_value_of([&]() -> void* {
    pthread_cancel(pthread_self());
    greenlet g([&] {
      noting n{log, "g"};
      try {
        switch_to_parent();
      } catch (const greenlet_exit&) {
        throw 42;  // reported
      }
    });
    g.switch_to();
    g.set_name("named");
    greenlet(g).switch_to(greenlet([] {}));
    g = greenlet();
    trim_stacks();
    log.push_back("not cancelled");
    pthread_testcancel();
    log.push_back("not reached");
    return nullptr;
  });
  CHECK(value == PTHREAD_CANCELED);
  CHECK(log.back() == "not cancelled");
}

TEST_CASE("2: greenlet_exit is not taken for a forced unwind, nor for a std::exception") {
  events log;
  greenlet g([&] {
    try {
      switch_to_parent();
    } catch (const std::exception&) {
      log.push_back("std::exception");
    } catch (const abi::__forced_unwind&) {
      log.push_back("forced");
      throw;
    } catch (const greenlet_exit&) {
      log.push_back("greenlet_exit");
      throw;
    }
  });
  g.switch_to();
  g = greenlet();
  CHECK(log == events{"greenlet_exit"});
}
