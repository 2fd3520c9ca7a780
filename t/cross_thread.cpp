// SPDX-License-Identifier: MIT
// Greenlets of other threads that are alive: what is refused, what is allowed, and that a refusal
// changes nothing, also when many threads try at once.
#include "testing.hpp"

#include <atomic>
#include <condition_variable>
#include <exception>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <pthread.h>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

using namespace greenlets;
using testing::error_from;
using testing::names;

namespace {

constexpr const char* different = "cannot switch to a different thread";
constexpr const char* exited = "cannot switch to a different thread (which happens to have exited)";
constexpr const char* collected = "cannot switch to a garbage collected greenlet";

// A thread that does what it is asked, between questions waiting outside of the library.
class helper {
 public:
  helper() : thread_([this] {
    for (;;) {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return work_ || ending_; });
      if (!work_) return;
      work_();
      work_ = nullptr;
      changed_.notify_all();
    }
  }) {}
  helper(const helper&) = delete;
  helper& operator=(const helper&) = delete;
  ~helper() { join(); }
  // Runs `f` there and waits until it has.
  void run(std::function<void()> f) {
    std::unique_lock lock(mutex_);
    work_ = std::move(f);
    changed_.notify_all();
    changed_.wait(lock, [this] { return !work_; });
  }
  void join() {
    if (!thread_.joinable()) return;
    {
      const std::lock_guard lock(mutex_);
      ending_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::function<void()> work_;
  bool ending_ = false;
  std::thread thread_;
};

// Lets `waiting` threads through together. Every use is for one crowd.
class gate {
 public:
  explicit gate(int n) : missing_(n) {}
  void pass() {
    std::unique_lock lock(mutex_);
    if (--missing_ == 0) return open_.notify_all();
    open_.wait(lock, [this] { return missing_ == 0; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable open_;
  int missing_;
};

}  // namespace

TEST_CASE("102, B11: switch and throw at any greenlet of another thread are refused") {
  helper other;
  greenlet main, running, suspended, dead, unstarted, grandchild;
  std::string resumed;
  std::promise<void> all_there, go_on;
  std::thread owner([&] {
    main = current();
    suspended = greenlet(attributes().name("suspended"), [&](int first) {
      resumed += std::to_string(first);
      resumed += switch_to_parent().get<std::string>();
    });
    suspended.switch_to(1);
    dead = greenlet(attributes().name("dead"), [] {});
    dead.switch_to();
    unstarted = greenlet(attributes().name("unstarted"), [&] { resumed += "never"; });
    grandchild = greenlet([&] { resumed += "never"; }, unstarted);
    running = greenlet(attributes().name("running"), [&] {
      all_there.set_value();
      go_on.get_future().wait();
    });
    running.switch_to();
    suspended.switch_to(std::string(" goes on"));
  });
  all_there.get_future().wait();
  const auto before = counts();
  const auto try_all = [&] {
    for (const greenlet* g : {&main, &running, &suspended, &dead, &unstarted, &grandchild}) {
      const greenlet_state state = g->state();
      for (const error& e : {error_from([&] { g->switch_to(2); }), error_from([&] { g->throw_in(); }),
                             error_from([&] { g->throw_in(std::runtime_error("lost")); })}) {
        CHECK(e.code() == errc::different_thread);
        CHECK(e.summary() == different);
        CHECK(names(e, current()));
        CHECK(names(e, *g));
        CHECK(std::string(e.what()).find(" of thread ") != std::string::npos);
      }
      CHECK(g->state() == state);
      CHECK(current().state() == greenlet_state::current);
    }
  };
  try_all();
  greenlet(try_all).switch_to();
  other.run(try_all);
  CHECK(counts().stacks == before.stacks + 1);  // the one that this thread keeps from its greenlet
  go_on.set_value();
  owner.join();
  CHECK(resumed == "1 goes on");
}

TEST_CASE("102: the error names both threads") {
  greenlet theirs;
  helper other;
  std::string name, tid;
  other.run([&] {
    pthread_setname_np(pthread_self(), "the owner");
    tid = std::to_string(gettid());
    theirs = greenlet([] { switch_to_parent(); });
    theirs.switch_to();
  });
  const std::string what = error_from([&] { theirs.switch_to(); }).what();
  CHECK(what.find("thread " + tid + " \"the owner\"") != std::string::npos);
  CHECK(what.find("thread " + std::to_string(gettid())) != std::string::npos);
  CHECK(what.find("(exited)") == std::string::npos);
  other.join();
  CHECK(std::string(error_from([&] { theirs.switch_to(); }).what()).find("thread " + tid + " \"the owner\" (exited)") !=
        std::string::npos);
}

TEST_CASE("103, B10: an unstarted greenlet belongs to the root of its ancestors at the moment of the switch") {
  helper other;
  greenlet g([] { return std::this_thread::get_id(); });
  greenlet between([](const value& v) { return v.get<std::thread::id>(); });
  const greenlet here = current();
  greenlet there;
  other.run([&] {
    there = current();
    CHECK(error_from([&] { g.switch_to(); }).code() == errc::different_thread);
    g.set_parent(between);
    CHECK(error_from([&] { g.switch_to(); }).code() == errc::different_thread);
  });
  between.set_parent(there);  // and all that is below it
  CHECK(error_from([&] { g.switch_to(); }).code() == errc::different_thread);
  CHECK(g.state() == greenlet_state::unstarted);
  other.run([&] {
    CHECK(g.switch_to().get<std::thread::id>() == std::this_thread::get_id());
    CHECK(g.dead());
    CHECK(between.dead());
  });
}

TEST_CASE("56, 103: once started it belongs to that thread for ever") {
  helper other;
  greenlet g([] { switch_to_parent(); });
  other.run([&] {
    g.set_parent(current());
    g.switch_to();
  });
  const error e = error_from([&] { g.set_parent(current()); });
  CHECK(e.code() == errc::parent_thread);
  CHECK(error_from([&] { g.switch_to(); }).code() == errc::different_thread);
  // Not even its own thread's tree can be changed from here.
  CHECK(error_from([&] { g.set_parent(g.parent()); }).code() == errc::different_thread);
  other.run([&] { g.switch_to(); });
  CHECK(g.dead());
  CHECK(error_from([&] { g.set_parent(current()); }).code() == errc::parent_thread);
}

TEST_CASE("104: a lineage that ends in an exited thread; the sentence for the main greenlet itself") {
  greenlet main, unstarted;
  helper other;
  other.run([&] {
    main = current();
    unstarted = greenlet([] {});
  });
  other.join();
  const error at_main = error_from([&] { main.switch_to(); });
  CHECK(at_main.code() == errc::collected);
  CHECK(at_main.summary() == collected);
  const error below = error_from([&] { unstarted.switch_to(); });
  CHECK(below.code() == errc::thread_exited);
  CHECK(below.summary() == exited);
}

TEST_CASE("105: a refused switch changes nothing, and what was sent is destroyed here") {
  helper other;
  greenlet theirs;
  other.run([&] {
    theirs = greenlet([] { return switch_to_parent().get<int>(); });
    theirs.switch_to();
  });
  std::weak_ptr<int> sent;
  const auto send = [&] {
    auto object = std::make_shared<int>(5);
    sent = object;
    theirs.switch_to(std::move(object));
  };
  CHECK(error_from(send).code() == errc::different_thread);
  CHECK(sent.expired());
  const auto thrown = std::make_shared<int>();
  CHECK(error_from([&] { theirs.throw_in(thrown); }).code() == errc::different_thread);
  CHECK(thrown.use_count() == 1);
  // In a handler, too, and while unwinding.
  try {
    throw 7;
  } catch (int n) {
    CHECK(error_from(send).code() == errc::different_thread);
    CHECK(n == 7);
    CHECK(std::uncaught_exceptions() == 0);
  }
  other.run([&] { CHECK(theirs.switch_to(6).get<int>() == 6); });
  CHECK(sent.expired());
}

TEST_CASE("106, B12: refused values never reach a greenlet that its own thread is switching to") {
  constexpr int turns = 2000, intruders = 4;
  greenlet adder([](int n) {
    for (;;) n = switch_to_parent(n + 1).get<int>();
  });
  adder.switch_to(0);
  gate all(intruders + 1);
  std::atomic<bool> done{false};
  std::atomic<int> refused{0}, other_errors{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < intruders; ++i)
    threads.emplace_back([&] {
      all.pass();
      do {
        for (int kind = 0; kind < 3; ++kind) try {
            if (kind == 0) adder.switch_to(std::string("wrong"));
            if (kind == 1) adder.throw_in(-1);
            if (kind == 2) adder.parent().switch_to(-1);
          } catch (const error& e) {
            (e.code() == errc::different_thread ? refused : other_errors)++;
          }
      } while (!done);
    });
  all.pass();
  bool right = true;
  for (int n = 0; n < turns; ++n) right = right && adder.switch_to(n).get<int>() == n + 1;
  done = true;
  for (std::thread& t : threads) t.join();
  CHECK(right);
  CHECK(refused >= intruders * 3);
  CHECK(other_errors == 0);
}

TEST_CASE("107: what is allowed from another thread, at any time") {
  helper other;
  const greenlet main = current();
  greenlet unstarted([] { return 1; }), suspended(attributes().name("s"), [] { switch_to_parent(); }), dead([] {});
  suspended.switch_to();
  dead.switch_to();
  other.run([&] {
    CHECK(suspended.parent() == main);
    CHECK(dead.parent() == main);
    CHECK(main.parent().empty());
    CHECK(unstarted.has_run());
    CHECK_FALSE(suspended.has_run());
    CHECK_FALSE(suspended.dead());
    CHECK(bool(suspended));
    CHECK(suspended.state() == greenlet_state::suspended);
    CHECK(suspended.name() == "s");
    suspended.set_name("renamed");
    CHECK(suspended.id() != unstarted.id());
    unstarted.set_run([] { return 2; });
    unstarted.set_parent(suspended);
    CHECK(unstarted.parent() == suspended);
    unstarted.set_parent(current());
    unstarted.set_parent(main);
    greenlet copy = suspended;
    copy = greenlet();
    const weak_greenlet weak = suspended;
    CHECK(weak.lock() == suspended);
    CHECK(error_from([&] { suspended.set_run([] {}); }).code() == errc::already_started);
  });
  CHECK(suspended.state() == greenlet_state::suspended);
  CHECK(suspended.name() == "renamed");
  CHECK(unstarted.switch_to().get<int>() == 2);
}

TEST_CASE("56, 103, B10, B14: of two threads that start one greenlet at once, one does and the other is refused") {
  for (int round = 0; round < 300; ++round) {
    std::atomic<int> ran{0}, started{0}, refused{0}, wrong{0};
    const greenlet g([&ran] {
      ++ran;
      switch_to_parent(5);
    });
    gate both(2), after(2);
    const auto race = [&] {
      const greenlet own = current();
      both.pass();
      try {
        g.set_parent(own);
        // It may be the other's by now, started or not; or have been started by us with the other's
        // parent set in between.
        (g.switch_to().get<int>() == 5 ? started : wrong)++;
      } catch (const error& e) {
        const bool expected = e.code() == errc::different_thread || e.code() == errc::parent_thread;
        (expected ? refused : wrong)++;
      }
      after.pass();  // both are alive until the race is over
    };
    std::thread a(race), b(race);
    a.join();
    b.join();
    CHECK(ran == started);
    CHECK(started + refused == 2);
    CHECK(started <= 1);
    CHECK(wrong == 0);
  }
}

TEST_CASE("108, B14, B15: sixteen threads make greenlets and exit while sixteen others try to switch to them") {
  constexpr int makers = 16, tryers = 16, each = 12;
  std::mutex mutex;
  std::vector<greenlet> published;
  std::atomic<int> living{makers}, refused{0}, gone{0}, wrong{0};
  std::atomic<int> made_objects{0}, destroyed_objects{0}, destroyed_elsewhere{0};
  gate all(makers + tryers);

  const auto make = [&] {
    struct object {
      std::atomic<int>&made, &destroyed, &elsewhere;
      std::thread::id owner = std::this_thread::get_id();
      object(std::atomic<int>& m, std::atomic<int>& d, std::atomic<int>& e) : made(m), destroyed(d), elsewhere(e) { ++made; }
      object(const object&) = delete;
      ~object() {
        ++destroyed;
        if (std::this_thread::get_id() != owner) ++elsewhere;
      }
    };
    all.pass();
    std::vector<greenlet> own;
    for (int n = 0; n < each; ++n) {
      greenlet g([&](int first) {
        const object o(made_objects, destroyed_objects, destroyed_elsewhere);
        for (int sum = first;;) {
          const value v = switch_to_parent(sum);
          if (!v.is<int>()) {
            ++wrong;
            return;
          }
          sum += v.get<int>();
        }
      });
      // Some unstarted, some suspended, some ended, some main greenlets.
      if (n % 4 == 1 || n % 4 == 2) g.switch_to(n);
      if (n % 4 == 2) try {
          g.throw_in(1);
        } catch (int) {
        }
      if (n % 4 == 3) own.push_back(current());
      own.push_back(g);
      {
        const std::lock_guard lock(mutex);
        published.insert(published.end(), own.end() - (n % 4 == 3 ? 2 : 1), own.end());
      }
      for (const greenlet& mine : own)
        if (mine.state() == greenlet_state::suspended)
          if (!mine.switch_to(1).is<int>()) ++wrong;
    }
    --living;  // some are still tried while this thread exits
  };
  const auto attempt = [&] {
    all.pass();
    for (std::size_t next = 0; living > 0 || next < makers * each; ++next) {
      greenlet g;
      {
        const std::lock_guard lock(mutex);
        if (published.empty()) continue;
        g = published[next % published.size()];
      }
      try {
        if (next % 2)
          g.switch_to(100);
        else
          g.throw_in();
        ++wrong;  // never ours
      } catch (const error& e) {
        if (e.code() == errc::different_thread && e.summary() == different)
          ++refused;
        else if ((e.code() == errc::thread_exited && e.summary() == exited) ||
                 (e.code() == errc::collected && e.summary() == collected && g.is_main()))
          ++gone;
        else
          ++wrong;
      } catch (...) {
        ++wrong;
      }
    }
  };
  std::vector<std::thread> threads;
  for (int i = 0; i < makers; ++i) threads.emplace_back(make);
  for (int i = 0; i < tryers; ++i) threads.emplace_back(attempt);
  for (std::thread& t : threads) t.join();
  CHECK(wrong == 0);
  CHECK(refused + gone > 0);
  CHECK(made_objects > 0);
  CHECK(made_objects == destroyed_objects);
  CHECK(destroyed_elsewhere == 0);
}
