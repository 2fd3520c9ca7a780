// SPDX-License-Identifier: MIT
// The tree: reading and changing a greenlet's parent.
#include "testing.hpp"

#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>

using greenlets::attributes;
using greenlets::counts;
using greenlets::current;
using greenlets::errc;
using greenlets::greenlet;
using greenlets::greenlet_state;
using greenlets::main_greenlet;
using greenlets::switch_to_parent;
using greenlets::value;
using greenlets::weak_greenlet;
using testing::at_end;
using testing::error_from;
using testing::error_of;
using testing::events;
using testing::names;
using testing::noting;

namespace {

// A thread with a greenlet in each state, which does as it is told until it is ended.
class other_thread {
 public:
  greenlet main, suspended, dead, unstarted;

  other_thread()
      : thread_([this] {
          std::unique_lock lock(lock_);
          while (true) {
            changed_.wait(lock, [this] { return job_ || ended_; });
            if (!job_) return;
            job_();
            job_ = nullptr;
            changed_.notify_all();
          }
        }) {
    run([this] {
      main = current();
      suspended = greenlet(attributes().name("suspended there"), [] { switch_to_parent(); });
      suspended.switch_to();
      dead = greenlet([] {});
      dead.switch_to();
      unstarted = greenlet([] { return std::this_thread::get_id(); });
    });
  }
  other_thread(const other_thread&) = delete;
  other_thread& operator=(const other_thread&) = delete;
  ~other_thread() { end(); }

  // Does it there, and waits until it is done.
  void run(std::function<void()> f) {
    std::unique_lock lock(lock_);
    job_ = std::move(f);
    changed_.notify_all();
    changed_.wait(lock, [this] { return !job_; });
  }
  void end() {
    if (!thread_.joinable()) return;
    {
      const std::lock_guard lock(lock_);
      ended_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }

 private:
  std::mutex lock_;
  std::condition_variable changed_;
  std::function<void()> job_;
  bool ended_ = false;
  std::thread thread_;  // last: it uses the others
};

void refused(errc code, const char* summary, const greenlet& g, const greenlet& parent) {
  const greenlet before = g.parent();
  const greenlet_state state = g.state();
  const greenlets::error e = error_from([&] { g.set_parent(parent); });
  CHECK(e.code() == code);
  CHECK(e.summary() == summary);
  CHECK(names(e, g));
  CHECK(names(e, parent));
  CHECK(g.parent() == before);
  CHECK(g.state() == state);
}

}  // namespace

TEST_CASE("78: the parent can be read and set, and control goes there at the end") {
  const greenlet other([](int n) { return -n; });
  const greenlet g([] { return 1; });
  CHECK(g.parent() == current());
  g.set_parent(other);
  CHECK(g.parent() == other);
  CHECK(g.switch_to().get<int>() == -1);
  CHECK(g.parent() == other);  // still, when both are dead
}

TEST_CASE("78: an empty handle is no parent and has none") {
  const greenlet g([] {}), none;
  const greenlet before = g.parent();
  CHECK(error_of([&] { g.set_parent(none); }) == errc::empty_handle);
  CHECK(g.parent() == before);
  CHECK(error_of([&] { none.set_parent(g); }) == errc::empty_handle);
  CHECK(error_of([&] { none.parent(); }) == errc::empty_handle);
}

TEST_CASE("78: a greenlet is not its own ancestor") {
  const greenlet a(attributes().name("a"), [] {}), b([] {}, a), c([] {}, b);
  const char* const cyclic = "cyclic parent chain";
  refused(errc::cyclic_parent, cyclic, a, a);
  refused(errc::cyclic_parent, cyclic, a, b);
  refused(errc::cyclic_parent, cyclic, a, c);
  refused(errc::cyclic_parent, cyclic, b, c);
  c.set_parent(a);
  b.set_parent(c);
  CHECK(b.parent() == c);
  refused(errc::cyclic_parent, cyclic, a, b);

  // Whatever state they are in.
  greenlet running;
  running = greenlet([&] {
    refused(errc::cyclic_parent, cyclic, current(), current());
    const greenlet below([&] { switch_to_parent(); });
    below.switch_to();
    refused(errc::cyclic_parent, cyclic, current(), below);
    below.switch_to();
    REQUIRE(below.dead());
    refused(errc::cyclic_parent, cyclic, current(), below);
    switch_to_parent();
  });
  running.switch_to();
  refused(errc::cyclic_parent, cyclic, running, running);
  running.switch_to();
  REQUIRE(running.dead());
  refused(errc::cyclic_parent, cyclic, running, running);
}

TEST_CASE("78: a started greenlet gets no parent that is on a different thread") {
  other_thread there;
  const char* const elsewhere = "parent cannot be on a different thread";
  const greenlet suspended([] { switch_to_parent(); }), dead([] {});
  suspended.switch_to();
  dead.switch_to();
  const greenlet lineage([] {}, there.suspended);  // unstarted, of their tree
  const auto all_refused = [&] {
    for (const greenlet& parent : {there.main, there.suspended, there.dead, there.unstarted, lineage}) {
      refused(errc::parent_thread, elsewhere, suspended, parent);
      refused(errc::parent_thread, elsewhere, dead, parent);
    }
    greenlet running([&] { refused(errc::parent_thread, elsewhere, current(), there.main); });
    running.switch_to();
  };
  all_refused();
  // Theirs get none of ours, neither here nor there.
  refused(errc::parent_thread, elsewhere, there.suspended, current());
  refused(errc::parent_thread, elsewhere, there.dead, current());
  there.run([&, here = greenlet(current())] { refused(errc::parent_thread, elsewhere, there.suspended, here); });
  there.end();
  all_refused();
  refused(errc::parent_thread, elsewhere, there.suspended, current());
  suspended.switch_to();
  CHECK(suspended.dead());
}

TEST_CASE("78: a started greenlet is reparented by its own thread only") {
  other_thread there;
  const char* const not_here = "cannot set the parent of a greenlet of a different thread";
  refused(errc::different_thread, not_here, there.suspended, there.dead);
  refused(errc::different_thread, not_here, there.dead, there.main);
  there.run([&] { there.suspended.set_parent(there.dead); });
  CHECK(there.suspended.parent() == there.dead);
  there.end();
  refused(errc::thread_exited, not_here, there.dead, there.main);
}

TEST_CASE("78: of several things that are wrong the first is told, and whoever asks") {
  other_thread there;
  const greenlet main = current(), none;
  // An empty handle, before everything.
  CHECK(error_of([&] { main.set_parent(none); }) == errc::empty_handle);
  CHECK(error_of([&] { there.suspended.set_parent(none); }) == errc::empty_handle);
  CHECK(error_of([&] { none.set_parent(none); }) == errc::empty_handle);
  // A main greenlet as the child, before the cycle and before the thread.
  CHECK(error_of([&] { main.set_parent(main); }) == errc::main_parent);
  CHECK(error_of([&] { there.main.set_parent(main); }) == errc::main_parent);
  CHECK(error_of([&] { there.main.set_parent(there.suspended); }) == errc::main_parent);
  // A cycle, before the thread: both are wrong here.
  CHECK(error_of([&] { there.suspended.set_parent(there.suspended); }) == errc::cyclic_parent);
  const greenlet below([] {}, there.suspended);
  CHECK(error_of([&] { there.suspended.set_parent(below); }) == errc::cyclic_parent);
  // The parent's tree, before who asks.
  CHECK(error_of([&] { there.suspended.set_parent(main); }) == errc::parent_thread);
  CHECK(error_of([&] { there.suspended.set_parent(there.dead); }) == errc::different_thread);
}

TEST_CASE("79: it is the same whether unstarted, running or suspended, and what is refused changes nothing") {
  const greenlet main = current();
  greenlet g;
  const auto check = [&] {
    CHECK(error_of([&] { g.set_parent(greenlet()); }) == errc::empty_handle);
    refused(errc::cyclic_parent, "cyclic parent chain", g, g);
    CHECK(g.parent() == main);
  };
  g = greenlet([&] {
    check();
    switch_to_parent();
  });
  check();
  g.switch_to();
  check();
  g.switch_to();
  CHECK(g.dead());
  check();
}

TEST_CASE("80: an unstarted greenlet takes a parent of any thread; the switch tells") {
  other_thread there;
  const greenlet g(attributes().name("astray"), [] { return 1; });
  for (const greenlet& parent : {there.main, there.suspended, there.dead, there.unstarted}) {
    g.set_parent(parent);
    CHECK(g.parent() == parent);
    const greenlets::error e = error_from([&] { g.switch_to(); });
    CHECK(e.code() == errc::different_thread);
    CHECK(e.summary() == "cannot switch to a different thread");
    CHECK(names(e, g));
    CHECK(names(e, current()));
    CHECK(error_of([&] { g.throw_in(1); }) == errc::different_thread);
    CHECK(g.state() == greenlet_state::unstarted);
  }
  there.end();
  for (const greenlet& parent : {there.main, there.suspended, there.dead, there.unstarted}) {
    g.set_parent(parent);
    const greenlets::error e = error_from([&] { g.switch_to(); });
    CHECK(e.code() == errc::thread_exited);
    CHECK(e.summary() == "cannot switch to a different thread (which happens to have exited)");
    CHECK(names(e, g));
    CHECK(g.state() == greenlet_state::unstarted);
  }
  CHECK(error_of([&] { there.main.switch_to(); }) == errc::collected);
  g.set_parent(current());
  CHECK(g.switch_to().get<int>() == 1);
}

TEST_CASE("80: one can be made with a parent of another thread") {
  other_thread there;
  const greenlet g([] {}, there.suspended), h(attributes().parent(there.dead), [] {});
  CHECK(g.parent() == there.suspended);
  CHECK(error_of([&] { g.switch_to(); }) == errc::different_thread);
  CHECK(error_of([&] { h.switch_to(); }) == errc::different_thread);
}

TEST_CASE("81: an unstarted greenlet runs on the thread of its parents, whoever made it") {
  other_thread there;
  const greenlet made_here([] { return std::this_thread::get_id(); });
  made_here.set_parent(there.main);
  std::thread::id ran_on, other_id;
  there.run([&] {
    other_id = std::this_thread::get_id();
    ran_on = made_here.switch_to().get<std::thread::id>();
  });
  CHECK(ran_on == other_id);
  CHECK(made_here.dead());

  there.unstarted.set_parent(current());
  there.run([&] { CHECK(error_of([&] { there.unstarted.switch_to(); }) == errc::different_thread); });
  CHECK(there.unstarted.switch_to().get<std::thread::id>() == std::this_thread::get_id());

  // A whole branch goes with its root.
  const greenlet root([](std::thread::id id) { return id == std::this_thread::get_id(); });
  const greenlet leaf([] { return std::this_thread::get_id(); }, root);
  root.set_parent(there.main);
  CHECK(error_of([&] { leaf.switch_to(); }) == errc::different_thread);
  bool same = false;
  there.run([&] { same = leaf.switch_to().get<bool>(); });
  CHECK(same);
}

TEST_CASE("82: a started greenlet is reparented at any time within its thread") {
  events log;
  const auto waiting = [&log](const char* name) {
    return [&log, name] {
      try {
        const value v = switch_to_parent();
        log.push_back(std::string(name) + " got " + std::to_string(v.get<int>()));
      } catch (const std::runtime_error& e) {
        log.push_back(std::string(name) + " caught " + e.what());
      }
    };
  };
  const greenlet first(waiting("first")), second(waiting("second"));
  first.switch_to();
  second.switch_to();

  // Suspended.
  const greenlet a([&] {
    switch_to_parent();
    return 1;
  });
  a.switch_to();
  a.set_parent(first);
  a.switch_to();
  CHECK(log == events{"first got 1"});

  // Running, by itself.
  const greenlet b([&] {
    current().set_parent(second);
    throw std::runtime_error("b's");
  });
  b.switch_to();
  CHECK(log.back() == "second caught b's");

  // Dead: it changes where a switch to it goes.
  const greenlet third(waiting("third"));
  third.switch_to();
  CHECK(a.switch_to(5).get<int>() == 5);
  a.set_parent(third);
  a.switch_to(6);
  CHECK(log.back() == "third got 6");
}

TEST_CASE("82: whoever waits for a child may be replaced as its parent meanwhile") {
  // `waits` has switched to the child, but the child ends elsewhere.
  const greenlet main = current();
  greenlet child;
  const greenlet waits([&] { return child.switch_to().get<std::string>(); });
  child = greenlet([&] {
    current().set_parent(main);
    return 1;
  }, waits);
  CHECK(waits.switch_to().get<int>() == 1);
  CHECK(waits.state() == greenlet_state::suspended);
  CHECK(waits.switch_to(std::string("at last")).get<std::string>() == "at last");
}

TEST_CASE("82: set_parent drops the old parent, which unwinds it when nothing else holds it") {
  events log;
  const greenlet main = current();
  greenlet parent([&] {
    const auto local = at_end([&] {
      log.push_back("~local");
      greenlet([&] { log.push_back("inner"); }).switch_to();
    });
    switch_to_parent();
  });
  parent.switch_to();
  const greenlet child([] { return 1; }, parent);
  parent = greenlet();
  CHECK(log.empty());
  child.set_parent(main);
  CHECK(log == events{"~local", "inner"});
  CHECK(child.parent() == main);
  CHECK(child.switch_to().get<int>() == 1);
}

TEST_CASE("82: set_parent to the same parent changes nothing") {
  const greenlet main = current();
  greenlet parent([] { switch_to_parent(); });
  parent.switch_to();
  const greenlet child([] {}, parent);
  const weak_greenlet weak(parent);
  parent = greenlet();
  child.set_parent(child.parent());
  CHECK_FALSE(weak.expired());
  CHECK(weak.lock().state() == greenlet_state::suspended);
  weak.lock().set_parent(main);
  child.set_parent(main);
  CHECK(weak.expired());
}

TEST_CASE("83: children keep their parents") {
  greenlet parent([] { return 1; });
  const weak_greenlet weak(parent);
  greenlet child([] {}, parent), other([] {}, parent);
  parent = greenlet();
  CHECK_FALSE(weak.expired());
  CHECK(child.parent() == weak.lock());
  child = greenlet();
  CHECK_FALSE(weak.expired());
  CHECK(other.switch_to().get<int>() == 1);
  CHECK(weak.lock().dead());  // a dead one, too
  other = greenlet();
  CHECK(weak.expired());
}

TEST_CASE("83: dropping a child may unwind its suspended parent, which finds the child gone") {
  events log;
  weak_greenlet weak_child;
  greenlet parent([&] {
    const auto local = at_end([&] { log.push_back(weak_child.expired() ? "child gone" : "child there"); });
    switch_to_parent();
  });
  parent.switch_to();
  greenlet child([] {}, parent);
  weak_child = child;
  const weak_greenlet weak_parent(parent);
  parent = greenlet();
  CHECK(log.empty());
  child = greenlet();
  CHECK(log == events{"child gone"});
  CHECK(weak_parent.expired());
}

TEST_CASE("83: a chain of suspended parents is unwound from the bottom up") {
  events log;
  greenlet last;
  for (int i = 0; i < 5; ++i) {
    const std::string name = std::to_string(i);
    const greenlet main = current();
    greenlet next([&log, name] {
      const noting local{log, name};
      main_greenlet().switch_to();
    }, last);
    next.switch_to();
    last = next;
  }
  CHECK(log.empty());
  last = greenlet();
  CHECK(log == events{"~4", "~3", "~2", "~1", "~0"});
}

TEST_CASE("83: a chain of 100,000 unstarted parents is made, read and dropped") {
  const auto before = counts();
  int destroyed = 0;
  {
    greenlet last;
    for (int i = 0; i < 100000; ++i) last = greenlet([end = at_end([&destroyed] { ++destroyed; })] {}, last);
    CHECK(counts().greenlets == before.greenlets + 100000);
    int depth = 0;
    for (greenlet g = last; !g.is_main(); g = g.parent()) ++depth;
    CHECK(depth == 100000);
    refused(errc::cyclic_parent, "cyclic parent chain", last.parent(), last);
    CHECK(destroyed == 0);
  }
  CHECK(destroyed == 100000);
  CHECK(counts().greenlets == before.greenlets);
}

TEST_CASE("67, 71, 83: an exception consumes a chain of 100,000 unstarted parents, and a switch passes the dead") {
  int destroyed = 0;
  greenlet last;
  for (int i = 0; i < 100000; ++i)
    last = greenlet([end = at_end([&destroyed] { ++destroyed; })] { FAIL("ran"); }, last);
  CHECK_THROWS_WITH_AS(last.throw_in(std::runtime_error("all the way")), "all the way", std::runtime_error);
  CHECK(destroyed == 100000);
  for (greenlet g = last; !g.is_main(); g = g.parent())
    if (!g.dead()) FAIL("one is not dead");
  CHECK(last.switch_to(1).get<int>() == 1);
}

TEST_CASE("68, 83: a result goes through a chain of 100,000 unstarted parents, each run with it") {
  greenlet last;
  for (int i = 0; i < 100000; ++i) last = greenlet([](int n) { return n + 1; }, last);
  CHECK(last.switch_to(0).get<int>() == 100000);
  CHECK(last.dead());
}

TEST_CASE("84: the parent of a main greenlet reads as empty, that of others as the greenlet, always") {
  const greenlet main = current();
  CHECK(main.parent().empty());
  greenlet g;
  g = greenlet([&] {
    CHECK(current().parent() == main);
    switch_to_parent();
  });
  CHECK(g.parent() == main);
  g.switch_to();
  CHECK(g.parent() == main);
  g.switch_to();
  CHECK(g.dead());
  CHECK(g.parent() == main);
}

TEST_CASE("84: it can be read from another thread, also after its own has exited") {
  other_thread there;
  CHECK(there.suspended.parent() == there.main);
  CHECK(there.dead.parent() == there.main);
  CHECK(there.unstarted.parent() == there.main);
  CHECK(there.main.parent().empty());
  there.end();
  CHECK(there.suspended.parent() == there.main);
  CHECK(there.main.parent().empty());

  // ... while it is changed there.
  other_thread changing;
  const greenlet main = changing.main, dead = changing.dead, g = changing.suspended;
  std::atomic<bool> done{false};
  std::thread writer([&] {
    changing.run([&] {
      for (int i = 0; i < 2000; ++i) g.set_parent(i % 2 ? main : dead);
    });
    done = true;
  });
  bool right = true;
  do {
    const greenlet p = g.parent();
    right = right && (p == main || p == dead);
  } while (!done);
  writer.join();
  CHECK(right);
}
