// SPDX-License-Identifier: MIT
// The first switch: what a greenlet begins with, and to whom it belongs from then on.
#include "testing.hpp"

#include <exception>
#include <functional>
#include <future>
#include <memory>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <unwind.h>

using greenlets::attributes;
using greenlets::counts;
using greenlets::current;
using greenlets::errc;
using greenlets::greenlet;
using greenlets::greenlet_state;
using greenlets::switch_to_parent;
using testing::at_end;
using testing::error_from;
using testing::error_of;
using testing::events;
using testing::names;

namespace {

_Unwind_Reason_Code count_frame(_Unwind_Context*, void* count) {
  // A walk that has lost its way is stopped.
  return ++*static_cast<int*>(count) < 1000 ? _URC_NO_REASON : _URC_END_OF_STACK;
}

int frames_here() {
  int count = 0;
  _Unwind_Backtrace(count_frame, &count);
  return count;
}

template <class F>
__attribute__((noinline)) void deeper(int depth, F&& f) {
  if (depth == 0)
    f();
  else
    deeper(depth - 1, f);
  asm volatile("");  // no tail call
}

// Waits on another thread until it is told to end, so that the thread is alive meanwhile.
class running_thread {
 public:
  explicit running_thread(std::function<void()> first) {
    std::promise<void> done;
    std::future<void> first_done = done.get_future();
    thread_ = std::thread([this, first = std::move(first), done = std::move(done)]() mutable {
      first();
      done.set_value();
      end_.get_future().wait();
    });
    first_done.wait();
  }
  ~running_thread() {
    end_.set_value();
    thread_.join();
  }

 private:
  std::promise<void> end_;
  std::thread thread_;
};

}  // namespace

TEST_CASE("54: what is thrown into an unstarted greenlet survives exceptions that its callable's destructor handles") {
  events log;
  greenlet g([end = at_end([&] {
               try {
                 throw std::logic_error("the destructor's own");
               } catch (const std::logic_error& e) {
                 log.push_back(e.what());
               }
               greenlet other([] { throw std::runtime_error("another greenlet's"); });
               try {
                 other.switch_to();
               } catch (const std::runtime_error& e) {
                 log.push_back(e.what());
               }
             })] {});
  CHECK_THROWS_WITH_AS(g.throw_in(std::out_of_range("thrown")), "thrown", std::out_of_range);
  CHECK(log == events{"the destructor's own", "another greenlet's"});
  CHECK(g.dead());
}

// main           thrower            g (unstarted)
//  |------------->| throw_in(g): ~callable
//  |<-------------|
//  |------------->| goes on; g is dead; its parent, main, gets the exception
TEST_CASE("54: ... or that switches away while it is pending") {
  events log;
  const greenlet g([end = at_end([&] {
                     log.push_back("~callable");
                     switch_to_parent(1);
                     log.push_back("goes on");
                   })] { FAIL("it was started"); });
  greenlet thrower([&] { g.throw_in(std::out_of_range("thrown")); });
  CHECK(thrower.switch_to().get<int>() == 1);
  CHECK(log == events{"~callable"});
  CHECK_FALSE(g.dead());
  CHECK_THROWS_WITH_AS(thrower.switch_to(), "thrown", std::out_of_range);
  CHECK(log == events{"~callable", "goes on"});
  CHECK(g.dead());
  CHECK(thrower.state() == greenlet_state::suspended);  // the exception went to g's parent
}

TEST_CASE("54, B4: ... or that starts the greenlet with something else to run") {
  events log;
  greenlet g;
  g = greenlet([&, end = at_end([&] {
                     g.set_run([&] {
                       try {
                         switch_to_parent();
                       } catch (const std::out_of_range& e) {
                         log.push_back(e.what());
                       }
                     });
                     g.switch_to();
                   })] {});
  g.throw_in(std::out_of_range("thrown"));
  CHECK(log == events{"thrown"});  // it had started, so it was thrown out of its pending switch
  CHECK(g.dead());
}

TEST_CASE("54: ... or that drops all that refers to the greenlet") {
  auto parent = std::make_unique<greenlet>(attributes());
  auto g = std::make_unique<greenlet>([] {}, *parent);
  parent->set_run([end = at_end([&] {
                    parent.reset();
                    g.reset();
                    // Somebody else arrives while it is under way, and cleans up.
                    greenlet([] { greenlet([] {}).switch_to(); }).switch_to();
                  })] {});
  // No weak handles here: they would keep the memory, and hide that it is used.
  const auto before = counts();
  greenlet& handle = *g;
  CHECK_THROWS_WITH_AS(handle.throw_in(std::out_of_range("thrown")), "thrown", std::out_of_range);
  CHECK(counts().greenlets == before.greenlets - 2);
}

TEST_CASE("56: a greenlet belongs for ever to the thread that started it") {
  greenlet suspended, dead;
  const running_thread other([&] {
    suspended = greenlet(attributes().name("theirs"), [] { switch_to_parent(); });
    suspended.switch_to();
    dead = greenlet([] {});
    dead.switch_to();
  });
  const greenlets::error e = error_from([&] { suspended.switch_to(1); });
  CHECK(e.code() == errc::different_thread);
  CHECK(e.summary() == "cannot switch to a different thread");
  CHECK(names(e, suspended));
  CHECK(names(e, current()));
  CHECK(std::string(e.what()).find("thread " + std::to_string(gettid())) != std::string::npos);
  CHECK(error_of([&] { suspended.throw_in(1); }) == errc::different_thread);
  CHECK(suspended.state() == greenlet_state::suspended);
  CHECK(error_of([&] { dead.switch_to(); }) == errc::different_thread);
  // Not by way of a parent here either.
  CHECK(error_of([&] { suspended.set_parent(current()); }) == errc::parent_thread);
  CHECK(error_of([&] { dead.set_parent(current()); }) == errc::parent_thread);
}

TEST_CASE("56: which thread made it does not matter") {
  greenlet g;
  std::thread::id ran_on;
  std::thread([&] {
    g = greenlet([&] {
      ran_on = std::this_thread::get_id();
      switch_to_parent();
    });
  }).join();
  g.set_parent(current());
  g.switch_to();
  CHECK(ran_on == std::this_thread::get_id());
  std::thread([&] {
    CHECK(error_of([&] { g.switch_to(); }) == errc::different_thread);
    CHECK(error_of([&] { g.set_parent(current()); }) == errc::parent_thread);
  }).join();
  g.switch_to();
  CHECK(g.dead());
}

TEST_CASE("56: one that dies without having run belongs to the thread that threw into it") {
  const greenlet g([] {});
  CHECK_THROWS_AS(g.throw_in(1), int);
  std::thread([&] { CHECK(error_of([&] { g.switch_to(); }) == errc::different_thread); }).join();
}

TEST_CASE("57: a new greenlet begins with no exception being handled") {
  greenlet g([] {
    CHECK(std::current_exception() == nullptr);
    CHECK(std::uncaught_exceptions() == 0);
    switch_to_parent();
    CHECK(std::current_exception() == nullptr);
    CHECK(std::uncaught_exceptions() == 0);
  });
  try {
    throw std::runtime_error("the starter's");
  } catch (...) {
    g.switch_to();
    CHECK(std::current_exception() != nullptr);
    try {
      throw;
    } catch (const std::runtime_error& e) {
      CHECK(e.what() == std::string("the starter's"));
    }
    g.switch_to();
  }
  CHECK(g.dead());
  CHECK(std::current_exception() == nullptr);
}

TEST_CASE("57: ... and with none in flight, though a destructor of an unwinding starter starts it") {
  int in_starter = -1, in_greenlet = -1;
  try {
    const auto local = at_end([&] {
      in_starter = std::uncaught_exceptions();
      greenlet([&] {
        in_greenlet = std::uncaught_exceptions();
        try {
          throw 1;  // an exception of its own does not meet the starter's
        } catch (int) {
        }
      }).switch_to();
      CHECK(std::uncaught_exceptions() == 1);
    });
    throw std::runtime_error("unwinding");
  } catch (const std::runtime_error&) {
    CHECK(std::uncaught_exceptions() == 0);
  }
  CHECK(in_starter == 1);
  CHECK(in_greenlet == 0);
}

TEST_CASE("57: ... and again so on a stack that was used before") {
  for (int i = 0; i < 5; ++i) {
    greenlet g([] {
      CHECK(std::current_exception() == nullptr);
      try {
        throw std::runtime_error("left while it is handled");
      } catch (...) {
        switch_to_parent();
      }
    });
    g.switch_to();
    CHECK(std::current_exception() == nullptr);
    if (i % 2) g.switch_to();
  }
}

TEST_CASE("57, B36: its frames end at its first one, and are none of the starter's") {
  int shallow = 0, deep = 0, starter = 0;
  const greenlet a([&] { shallow = frames_here(); }), b([&] { deep = frames_here(); });
  a.switch_to();
  deeper(200, [&] {
    starter = frames_here();
    b.switch_to();
  });
  CHECK(starter > 200);
  CHECK(starter < 1000);
  CHECK(shallow > 0);
  CHECK(shallow < 100);
  CHECK(deep == shallow);
}

TEST_CASE("57, B36: an exception is never caught by a frame of the starter that is not the parent") {
  bool caught_by_starter = false;
  greenlet thrower;
  greenlet starter([&] {
    try {
      thrower.switch_to();
    } catch (const std::runtime_error&) {
      caught_by_starter = true;
    }
  });
  thrower = greenlet([]() -> void { throw std::runtime_error("for the parent"); });
  CHECK_THROWS_AS(starter.switch_to(), std::runtime_error);
  CHECK_FALSE(caught_by_starter);
  CHECK(starter.state() == greenlet_state::suspended);
}

TEST_CASE("58: when a stack cannot be had, the starter is told and the greenlet can be tried again") {
  const auto before = counts();
  const greenlet g(attributes().stack_size(testing::too_large()), [] {});
  for (int twice = 0; twice < 2; ++twice) {
    try {
      g.switch_to();
      FAIL("it has started");
    } catch (const std::system_error& e) {
      CHECK(e.code() == std::errc::not_enough_memory);
      CHECK(std::string(e.what()).find("mmap") != std::string::npos);
    }
    CHECK(g.state() == greenlet_state::unstarted);
    CHECK(g.has_run());
  }
  // As the ancestor of a dead greenlet, whom a switch comes to in its place.
  const greenlet dead([] {});
  dead.switch_to();
  dead.set_parent(g);
  CHECK_THROWS_AS(dead.switch_to(), std::system_error);
  CHECK(g.dead());  // nobody has named it, and it would be picked again and again
  greenlets::trim_stacks();
  CHECK(counts().stacks == before.stacks);
  const greenlet h(attributes().stack_size(testing::too_large()), [] {});
  CHECK_THROWS_WITH_AS(h.throw_in(std::runtime_error("needs no stack")), "needs no stack", std::runtime_error);
  CHECK(h.dead());
}
