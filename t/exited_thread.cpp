// SPDX-License-Identifier: MIT
// A thread has ended: what is left of its greenlets answers everybody truthfully for ever, and
// everything else of it is freed.
#include "testing.hpp"

#include <cstdlib>
#include <future>
#include <memory>
#include <pthread.h>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

using namespace greenlets;
using testing::error_from;
using testing::events;
using testing::names;

namespace {

// Runs `f` in a thread and returns when that can be joined.
template <class F>
void in_thread(F&& f) {
  std::thread(std::forward<F>(f)).join();
}

// Destroyed at the thread's exit, before the library's own record of it.
thread_local std::shared_ptr<void> thread_locals[2];

// One greenlet of an exited thread in every state.
struct remains {
  greenlet main, suspended, running_at_exit, finished, unstarted, child_of_suspended;
  std::thread::id thread;
  remains() {
    in_thread([this] {
      thread = std::this_thread::get_id();
      main = main_greenlet();
      suspended = greenlet(attributes().name("suspended"), [] { switch_to_parent(); });
      suspended.switch_to();
      finished = greenlet(attributes().name("finished"), [] {});
      finished.switch_to();
      unstarted = greenlet(attributes().name("unstarted"), [](int n) { return n + 1; });
      child_of_suspended = greenlet([] {}, suspended);
    });
  }
};

}  // namespace

TEST_CASE("139, B13: after the exit every switch and throw is refused, whatever the greenlet's state") {
  remains r;
  const std::string exited = "cannot switch to a different thread (which happens to have exited)";
  const auto refused = [&](const greenlet& g, errc code, const std::string& sentence) {
    const std::string what = g.name();
    CAPTURE(what);
    const auto before = g.state();
    for (const error& e : {error_from([&] { g.switch_to(1); }), error_from([&] { g.throw_in(); }),
                           error_from([&] { g.throw_in(std::runtime_error("lost")); })}) {
      CHECK(e.code() == code);
      CHECK(e.summary() == sentence);
      CHECK(names(e, g));
      CHECK(names(e, current()));
      CHECK(std::string(e.what()).find("(exited)") != std::string::npos);
    }
    CHECK(g.state() == before);
  };
  const auto all_refused = [&] {
    refused(r.main, errc::collected, "cannot switch to a garbage collected greenlet");
    for (const greenlet* g : {&r.suspended, &r.finished, &r.unstarted, &r.child_of_suspended})
      refused(*g, errc::thread_exited, exited);
  };
  SUBCASE("from main") { all_refused(); }
  SUBCASE("from a greenlet") { greenlet(all_refused).switch_to(); }
  SUBCASE("from another thread") { in_thread(all_refused); }
  SUBCASE("from a thread's exit") {
    in_thread([&] {
      thread_locals[0] = testing::at_end([&] { all_refused(); });
      thread_locals[1] = testing::at_end([&] { all_refused(); });
    });
  }
  CHECK(current() == main_greenlet());
}

TEST_CASE("139: a greenlet that ran when its thread ended is refused as the others") {
  // TSan's pthread_exit cannot work on a fiber: it aborts with a failed CHECK in its own code.
#ifndef T_TSAN
  greenlet g;
  pthread_t thread;
  const auto run = [](void* p) -> void* {
    greenlet& running = *static_cast<greenlet*>(p);
    running = greenlet([] { pthread_exit(nullptr); });
    running.switch_to();
    return nullptr;
  };
  REQUIRE(pthread_create(&thread, nullptr, run, &g) == 0);
  pthread_join(thread, nullptr);
  CHECK(g.dead());
  const error e = error_from([&] { g.switch_to(); });
  CHECK(e.code() == errc::thread_exited);
  CHECK(e.summary() == "cannot switch to a different thread (which happens to have exited)");
  CHECK(error_from([&] { g.throw_in(std::runtime_error("lost")); }).code() == errc::thread_exited);
#endif
}

TEST_CASE("140: once joined, a thread is known to have exited, every time") {
  for (int i = 0; i < 200; ++i) {
    greenlet main, suspended;
    in_thread([&] {
      main = current();
      suspended = greenlet([] { switch_to_parent(); });
      suspended.switch_to();
    });
    const bool dead = main.dead() && suspended.dead() && !main && !suspended;
    CHECK(dead);
    CHECK(error_from([&] { main.throw_in(); }).code() == errc::collected);
    CHECK(error_from([&] { suspended.throw_in(); }).code() == errc::thread_exited);
  }
}

TEST_CASE("141: the main greenlet afterwards: dead, not active, without a parent") {
  const remains r;
  CHECK(r.main.dead());
  CHECK_FALSE(bool(r.main));
  CHECK(r.main.is_main());
  CHECK(r.main.started());
  CHECK(r.main.parent().empty());
  CHECK(r.main.state() == greenlet_state::unwound);
  CHECK_FALSE(r.main.has_run());
  CHECK(error_from([&] { r.main.set_parent(current()); }).code() == errc::main_parent);
}

TEST_CASE("142: a suspended one afterwards: dead, not active, its parent still its old parent") {
  const remains r;
  CHECK(r.suspended.dead());
  CHECK_FALSE(bool(r.suspended));
  CHECK(r.suspended.state() == greenlet_state::unwound);
  CHECK(r.suspended.parent() == r.main);
  CHECK(r.suspended.name() == "suspended");
  CHECK_FALSE(r.suspended.has_run());
}

TEST_CASE("143: a finished one afterwards is unchanged") {
  const remains r;
  CHECK(r.finished.dead());
  CHECK(r.finished.state() == greenlet_state::finished);
  CHECK(r.finished.parent() == r.main);
}

TEST_CASE("143: an unstarted one is not dead, and runs after it was given a parent of a living thread") {
  const remains r;
  for (const greenlet* g : {&r.unstarted, &r.child_of_suspended}) {
    CHECK_FALSE(g->dead());
    CHECK_FALSE(bool(*g));
    CHECK(g->state() == greenlet_state::unstarted);
    CHECK(g->has_run());
  }
  CHECK(r.unstarted.parent() == r.main);
  CHECK(r.child_of_suspended.parent() == r.suspended);
  SUBCASE("here") {
    r.unstarted.set_parent(current());
    CHECK(r.unstarted.switch_to(41).get<int>() == 42);
    CHECK(r.unstarted.state() == greenlet_state::finished);
    r.child_of_suspended.set_parent(current());
    r.child_of_suspended.switch_to();
    CHECK(r.child_of_suspended.dead());
  }
  SUBCASE("in a third thread") {
    in_thread([&] {
      r.unstarted.set_parent(current());
      CHECK(r.unstarted.switch_to(1).get<int>() == 2);
    });
    CHECK(r.unstarted.dead());
  }
  SUBCASE("below another survivor that was brought here") {
    r.unstarted.set_parent(current());
    r.child_of_suspended.set_parent(r.unstarted);
    // Its result is nothing, which does not fit its unstarted parent: that one's error comes here.
    CHECK(error_from([&] { r.child_of_suspended.switch_to(); }).code() == errc::wrong_arguments);
    CHECK(r.unstarted.dead());
  }
}

TEST_CASE("77, 143: one whose thread has exited can never be given a living parent and run again") {
  const remains r;
  for (const greenlet* g : {&r.suspended, &r.finished}) {
    const error e = error_from([&] { g->set_parent(current()); });
    CHECK(e.code() == errc::parent_thread);
    CHECK(e.summary() == "parent cannot be on a different thread");
    CHECK(g->parent() == r.main);
    CHECK(error_from([&] { g->set_run([] {}); }).code() == errc::already_started);
    CHECK(g->dead());
  }
}

TEST_CASE("145: an exited thread's greenlets as parents: unstarted ones take them, started ones do not") {
  const remains r;
  for (const greenlet* parent : {&r.main, &r.suspended, &r.finished, &r.unstarted, &r.child_of_suspended}) {
    const greenlet unstarted([] {}, *parent);
    CHECK(unstarted.parent() == *parent);
    CHECK(error_from([&] { unstarted.switch_to(); }).code() == errc::thread_exited);
    CHECK(unstarted.state() == greenlet_state::unstarted);
    const greenlet other([] {});
    other.set_parent(*parent);
    CHECK(other.parent() == *parent);
    CHECK(error_from([&] { other.throw_in(); }).code() == errc::thread_exited);
    CHECK_FALSE(other.dead());

    const greenlet started([] { switch_to_parent(); });
    started.switch_to();
    CHECK(error_from([&] { started.set_parent(*parent); }).code() == errc::parent_thread);
    CHECK(started.parent() == current());
    started.switch_to();
    CHECK(error_from([&] { started.set_parent(*parent); }).code() == errc::parent_thread);  // dead, too
  }
}

TEST_CASE("146, 147: everything of a thread is freed by its exit, without a call of anybody's") {
  const auto before = counts();
  for (int i = 0; i < 50; ++i) {
    std::promise<process_counts> inside;
    in_thread([&] {
      std::vector<greenlet> some;
      for (int n = 0; n < 5; ++n) {
        some.emplace_back([] { switch_to_parent(); });
        some.back().switch_to();
        greenlet([] {}).switch_to();
      }
      inside.set_value(counts());
    });
    const process_counts then = inside.get_future().get(), after = counts();
    CHECK(then.threads == before.threads + 1);
    CHECK(then.main_greenlets == before.main_greenlets + 1);
    CHECK(then.greenlets == before.greenlets + 6);
    CHECK(then.stacks == before.stacks + 6);
    CHECK(then.pooled_stacks == before.pooled_stacks + 1);
    // No record of an exited thread waits to be cleaned up.
    CHECK(after.threads == before.threads);
    CHECK(after.main_greenlets == before.main_greenlets);
    CHECK(after.greenlets == before.greenlets);
    CHECK(after.stacks == before.stacks);
  }
}

TEST_CASE("148: an exited thread's main greenlet counts while it is referenced, its thread does not") {
  const auto before = counts();
  greenlet main, child;
  in_thread([&] { main = current(); });
  CHECK(counts().main_greenlets == before.main_greenlets + 1);
  CHECK(counts().threads == before.threads);
  child = greenlet([] {}, main);
  main = greenlet();
  CHECK(counts().main_greenlets == before.main_greenlets + 1);  // as a parent too
  child = greenlet();
  CHECK(counts().main_greenlets == before.main_greenlets);
}

TEST_CASE("146, B23: a thread that only ever asked for the current greenlet leaves nothing") {
  const auto before = counts();
  for (int i = 0; i < 100; ++i) in_thread([] { current(); });
  CHECK(counts().greenlets == before.greenlets);
  CHECK(counts().threads == before.threads);
}

TEST_CASE("146: a cycle through a greenlet's own stack ends with its thread") {
  events log;
  const auto before = counts();
  in_thread([&] {
    auto holder = std::make_shared<greenlet>();
    *holder = greenlet([&log, holder] {
      const testing::noting n{log, "cycle"};
      switch_to_parent();
    });
    holder->switch_to();
  });
  CHECK(log == events{"~cycle"});
  CHECK(counts().greenlets == before.greenlets);
}

TEST_CASE("140, 142: the predicates are right at any moment while the thread exits") {
  // Another thread looks all the time: a greenlet is seen alive, then dead, and never alive again.
  for (int round = 0; round < 20; ++round) {
    std::promise<std::pair<greenlet, greenlet>> made;
    std::promise<void> watched;
    std::thread dying([&] {
      const greenlet g([] { switch_to_parent(); });
      g.switch_to();
      made.set_value({g, current()});
      watched.get_future().wait();
    });
    auto [g, main] = made.get_future().get();
    CHECK(g.state() == greenlet_state::suspended);
    CHECK(main.state() == greenlet_state::current);
    watched.set_value();
    bool consistent = true;
    for (bool g_died = false, main_died = false; !(g_died && main_died);) {
      // In this order: main dies last.
      const bool main_dead = main.dead(), g_dead = g.dead();
      consistent = consistent && g_dead >= g_died && main_dead >= main_died && (!main_dead || g_dead) &&
                   g.parent() == main && !g.name().size();
      g_died = g_dead;
      main_died = main_dead;
    }
    CHECK(consistent);
    dying.join();
    CHECK_FALSE(bool(g));
  }
}
