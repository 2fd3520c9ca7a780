// SPDX-License-Identifier: MIT
// A hub and other threads: messages, dropped greenlets, and what is refused.
#include "hub_testing.hpp"

#include <atomic>
#include <future>
#include <memory>
#include <stdexcept>
#include <thread>

using namespace greenlets;
using namespace testing;

TEST_CASE("a posted function is called in a greenlet of its own on the hub's thread") {
  hub_guard guard;
  hub::event called;
  std::thread::id where;
  bool waited = false;
  std::thread([&, reach = hub::this_hub()] {
    CHECK(reach.post([&] {
      where = std::this_thread::get_id();
      hub::sleep_for(std::chrono::microseconds(10));  // it may wait
      waited = true;
      called.set();
    }));
  }).join();
  CHECK(called.wait());
  CHECK(where == std::this_thread::get_id());
  CHECK(waited);
}

TEST_CASE("a hub with nothing to do is woken by a message; as long as it can be reached there is no deadlock") {
  hub_guard guard;
  hub::event called;
  std::thread poster;
  {
    poster = std::thread([&, reach = hub::this_hub()] { reach.post([&] { called.set(); }); });
    called.wait();
  }
  poster.join();
  called.reset();
  CHECK_THROWS_AS(called.wait(), hub::would_block_forever);  // the thread's remote has gone
  const hub::remote mine = hub::this_hub();
  CHECK_FALSE(called.wait(milliseconds(1)));
  CHECK(mine.post([&] { called.set(); }));  // from its own thread as well
  CHECK(called.wait());
}

TEST_CASE("messages from many threads all come, each thread's in their order") {
  hub_guard guard;
  constexpr int posters = 6, each = 2000;
  int last[posters] = {}, out_of_order = 0, count = 0;
  hub::event all;
  std::vector<std::thread> threads;
  for (int p = 0; p < posters; ++p)
    threads.emplace_back([&, p, reach = hub::this_hub()] {
      for (int n = 1; n <= each; ++n)
        reach.post([&, p, n] {
          if (last[p] + 1 != n) ++out_of_order;
          last[p] = n;
          if (++count == posters * each) all.set();
        });
    });
  all.wait(hang_guard());
  for (auto& t : threads) t.join();
  CHECK(count == posters * each);
  CHECK(out_of_order == 0);
}

TEST_CASE("what a posted function throws goes to the unraisable handler, and the rest are called") {
  hub_guard guard;
  unraisables reported;
  hub::event called;
  const hub::remote reach = hub::this_hub();
  reach.post([] { throw std::runtime_error("posted"); });
  reach.post({});  // an empty function: std::bad_function_call
  reach.post([&] { called.set(); });
  CHECK(called.wait());
  REQUIRE(reported.seen.size() == 2);
  CHECK_THROWS_WITH(std::rethrow_exception(reported.seen[0].second), "posted");
  CHECK_THROWS_AS(std::rethrow_exception(reported.seen[1].second), std::bad_function_call);
  reported.seen.clear();
}

namespace {

greenlet hub_of_this_thread() {
  greenlet found;
  hub::run([&] { found = current().parent(); });
  return found;
}

// One that throws this into the hub when it is told to end.
greenlet throws_when_dropped(const greenlet& the_hub, const std::exception_ptr& e) {
  greenlet g([&the_hub, e] {
    try {
      switch_to_parent();
    } catch (const greenlet_exit&) {
      the_hub.throw_in(e);
    }
  });
  g.switch_to();
  return g;
}

}  // namespace

TEST_CASE("what is thrown into the hub while it takes messages costs none of them") {
  // It went through libuv's frames, and the rest of the messages had gone. Somebody drops a greenlet that
  // throws into whoever unwinds it; that is the hub, after it has begun its turn.
  hub_guard guard;
  unraisables reported;
  std::exception_ptr stray;
  SUBCASE("what is no std::exception") { stray = std::make_exception_ptr(42); }
  SUBCASE("a std::exception") { stray = std::make_exception_ptr(std::runtime_error("stray")); }
  greenlet the_hub = hub_of_this_thread();
  greenlet dropped = throws_when_dropped(the_hub, stray);
  const weak_greenlet again(dropped);
  events called;
  hub::event all;
  // Between the hub's two looks at what other threads have done, without entering the library.
  hub::spawn([&, reach = hub::this_hub()] {
    std::thread([&] {
      for (const char* name : {"first", "second", "third"}) reach.post([&called, name] { called.push_back(name); });
      reach.post([&] { all.set(); });
      dropped = {};
    }).join();
  });
  all.wait(hang_guard());
  CHECK(called == events{"first", "second", "third"});
  CHECK_FALSE(reported.seen.empty());  // the greenlet has refused to end, for one
  again.lock().switch_to();
  the_hub = {};
  reported.seen.clear();
}

TEST_CASE("an exit that is thrown into the hub while it takes messages ends it, and destroys them uncalled") {
  unraisables reported;
  greenlet the_hub = hub_of_this_thread();
  greenlet dropped = throws_when_dropped(the_hub, std::make_exception_ptr(greenlet_exit()));
  const weak_greenlet again(dropped);
  int called = 0, destroyed = 0;
  hub::spawn([&, reach = hub::this_hub()] {
    std::thread([&] {
      for (int n = 0; n < 3; ++n) reach.post([&called, end = at_end([&] { ++destroyed; })] { ++called; });
      dropped = {};
    }).join();
  });
  hub::sleep_for(milliseconds(1));
  CHECK(the_hub.dead());
  CHECK(called == 0);
  CHECK(destroyed == 3);
  again.lock().switch_to();
  the_hub = {};
  reported.seen.clear();
}

TEST_CASE("a message that the hub does not take any more is destroyed uncalled, there; later ones are refused") {
  const hub::remote reach = hub::this_hub();
  std::atomic<int> called{0}, destroyed{0};
  std::thread::id where;
  std::thread([&] {
    CHECK(reach.post([&, end = at_end([&] {
                           ++destroyed;
                           where = std::this_thread::get_id();
                         })] { ++called; }));
  }).join();
  hub::shutdown();
  CHECK(called == 0);
  CHECK(destroyed == 1);
  CHECK(where == std::this_thread::get_id());
  CHECK_FALSE(reach.post([&] { ++called; }));
  std::thread([&] { CHECK_FALSE(reach.post([&] { ++called; })); }).join();
  hub::yield();  // a second hub does not answer for the first
  CHECK_FALSE(reach.post([&] { ++called; }));
  hub::shutdown();
  CHECK(called == 0);
  CHECK_FALSE(hub::remote().post([] {}));
}

TEST_CASE("of messages to a hub that ends meanwhile each is called, destroyed uncalled, or refused") {
  constexpr int each = 300;
  for (int round = 0; round < 10; ++round) {
    std::promise<hub::remote> made;
    auto reach = made.get_future().share();
    std::atomic<int> called{0}, refused{0}, destroyed{0};
    std::thread serves([&] {
      made.set_value(hub::this_hub());
      hub::event enough;
      hub::spawn([&] {
        while (called < 50) hub::yield();
        enough.set();
      });
      enough.wait();
      if (round % 2) hub::shutdown();
    });
    std::vector<std::thread> posters;
    for (int p = 0; p < 2; ++p)
      posters.emplace_back([&] {
        const hub::remote r = reach.get();
        for (int n = 0; n < each; ++n)
          if (!r.post([&called, end = at_end([&] { ++destroyed; })] { ++called; })) ++refused;
      });
    for (auto& t : posters) t.join();
    serves.join();
    CHECK(destroyed == 2 * each);  // refused ones too
    CHECK(called >= 50);
    CHECK(called + refused <= 2 * each);
  }
}

TEST_CASE("two hubs send each other messages") {
  hub_guard guard;
  constexpr int rounds = 500;
  int returned = 0;
  hub::event done;
  std::promise<hub::remote> made;
  auto other_made = made.get_future();
  hub::event* stop = nullptr;  // the other thread's
  std::thread other([&] {
    hub::event stopped;
    stop = &stopped;
    made.set_value(hub::this_hub());
    const hub::remote stay_reachable = hub::this_hub();
    stopped.wait();
  });
  const hub::remote there = other_made.get(), here = hub::this_hub();
  std::function<void()> send = [&] {
    there.post([&] {
      here.post([&] {
        if (++returned < rounds)
          send();
        else
          done.set();
      });
    });
  };
  send();
  CHECK(done.wait(hang_guard()));
  there.post([&] { stop->set(); });
  other.join();
}

TEST_CASE("a greenlet whose last handle goes on another thread is unwound though its hub is idle") {
  hub_guard guard;
  hub::event unwound;
  std::thread::id where;
  const hub::remote keeps_waiting = hub::this_hub();
  for (int round = 0; round < 20; ++round) {
    unwound.reset();
    greenlet g([&] {
      const auto end = at_end([&] {
        where = std::this_thread::get_id();
        unwound.set();
      });
      switch_to_parent();
    });
    g.switch_to();
    std::promise<greenlet> hand_over;
    std::thread dropper([taken = hand_over.get_future()]() mutable { taken.get(); });
    hand_over.set_value(std::move(g));
    // The promise's own state may be the last to go, here.
    { const auto gone = std::move(hand_over); }
    CHECK(unwound.wait(hang_guard()));
    CHECK(where == std::this_thread::get_id());
    dropper.join();
  }
}

TEST_CASE("a hub on each of many threads: none knows of the others") {
  std::atomic<int> sum{0};
  std::vector<std::thread> threads;
  for (int n = 0; n < 8; ++n)
    threads.emplace_back([&sum, n] {
      hub::event e;
      auto t = hub::spawn([&e, n] {
        e.wait();
        hub::sleep_for(std::chrono::microseconds(n * 10));
        return n;
      });
      hub::yield();
      e.set();
      sum += t.get();
      try {
        hub::event().wait();
      } catch (const hub::would_block_forever&) {
        sum += 100;
      }
    });
  for (auto& t : threads) t.join();
  CHECK(sum == 828);
}

TEST_CASE("a message from another thread cancels a greenlet") {
  hub_guard guard;
  hub::event never;
  auto t = hub::spawn([&] { never.wait(); });
  hub::yield();
  std::thread([&, reach = hub::this_hub(), g = t.handle()]() mutable {
    reach.post([g = std::move(g)] { hub::cancel(g); });
  }).join();
  CHECK_THROWS_AS(t.get(), hub::cancelled);
}

// What is unwound at the beginning of a wait may wait itself; whoever waits there can be found meanwhile.
TEST_CASE("a greenlet that is dropped on another thread may wait while it is unwound, at a wait of somebody else") {
  hub_guard guard;
  unraisables reported;
  struct waits_at_its_end {
    int& times;
    ~waits_at_its_end() {
      hub::yield();
      hub::sleep_for(milliseconds(1));
      ++times;
    }
  };
  int unwound = 0;
  for (const bool yields : {true, false}) {
    hub::event told;
    const auto teller = hub::spawn([&] { told.set(); });
    greenlet g([&] {
      const waits_at_its_end at_its_end{unwound};
      switch_to_parent();
    });
    g.switch_to();
    std::thread([last = std::move(g)]() mutable { last = {}; }).join();
    if (yields)
      hub::yield();
    else
      CHECK(told.wait(hang_guard()));
    teller.join();
    yield_until([&] { return unwound == (yields ? 1 : 2); });
  }
  CHECK(reported.seen.empty());
}
