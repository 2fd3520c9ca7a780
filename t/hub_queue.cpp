// SPDX-License-Identifier: MIT
// queue, channel, result, wait_any: handing objects on, and waiting for the first of several things.
#include "hub_testing.hpp"

#include <algorithm>
#include <memory>
#include <numeric>
#include <stdexcept>
#include <vector>

using namespace greenlets;
using namespace testing;

namespace {

using boxed = std::unique_ptr<int>;
boxed box(int n) { return std::make_unique<int>(n); }

}  // namespace

// -- queue ---------------------------------------------------------------------------------------

TEST_CASE("a queue gives first what came first, to who came first") {
  hub_guard guard;
  hub::queue<int> q;
  std::vector<int> got(3);
  std::vector<hub::task<void>> takers;
  for (int& each : got) takers.push_back(hub::spawn([&q, &each] { each = *q.pop(); }));
  yield_until_waiting(3);
  for (int i = 1; i <= 4; ++i) q.push(i);
  for (auto& t : takers) t.get();
  CHECK(got == std::vector<int>{1, 2, 3});
  CHECK(q.size() == 1);
  CHECK(q.pop() == 4);
  CHECK(q.empty());
  CHECK_FALSE(q.try_pop());
}

TEST_CASE("a queue that is full makes who pushes wait, in order, and his object stays his until then") {
  hub_guard guard;
  hub::queue<boxed> q(2);
  CHECK(q.push(box(1)));
  CHECK(q.push(box(2)));
  boxed third = box(3);
  CHECK_FALSE(q.push(std::move(third), milliseconds(1)));
  REQUIRE(third);
  CHECK(*third == 3);
  CHECK_FALSE(q.try_push(std::move(third)));
  auto a = hub::spawn([&] { return q.push(std::move(third), hang_guard()); });
  auto b = hub::spawn([&] { return q.push(box(4), hang_guard()); });
  yield_until_waiting(2);
  std::vector<int> got;
  for (int i = 0; i < 4; ++i) got.push_back(**q.pop(hang_guard()));
  CHECK(got == std::vector<int>{1, 2, 3, 4});
  CHECK(a.get());
  CHECK(b.get());
  CHECK_FALSE(q.pop(milliseconds(1)));
}

TEST_CASE("producers and consumers: nothing is lost, nothing comes twice, however small the queue") {
  hub_guard guard;
  for (const std::size_t capacity : {std::size_t{0}, std::size_t{1}, std::size_t{7}, hub::queue<int>::unlimited}) {
    CAPTURE(capacity);
    hub::queue<int> q(capacity);
    constexpr int each = 500, producers = 5, consumers = 3;
    std::vector<int> seen(each * producers);
    hub::group all;
    hub::latch left(producers);
    for (int p = 0; p < producers; ++p)
      all.spawn([&, p] {
        for (int i = 0; i < each; ++i) {
          q.push(p * each + i);
          if (i % 17 == p) hub::yield();
        }
        left.count_down();
      });
    for (int c = 0; c < consumers; ++c)
      all.spawn([&, c] {
        for (int n = 0; auto got = q.pop(); ++n) {
          ++seen[static_cast<std::size_t>(*got)];
          if (n % 13 == c) hub::yield();
        }
      });
    left.wait();
    q.close();
    all.wait();
    CHECK(std::accumulate(seen.begin(), seen.end(), 0) == each * producers);
    CHECK(*std::max_element(seen.begin(), seen.end()) == 1);
  }
}

TEST_CASE("what was given to a greenlet that is cancelled before it runs goes to the next, or back to the front") {
  hub_guard guard;
  hub::queue<boxed> q;
  auto doomed = hub::spawn([&] { q.pop(); });
  auto heir = hub::spawn([&] { return **q.pop(); });
  yield_until_waiting(2);
  doomed.cancel();
  q.push(box(1));
  CHECK(heir.get() == 1);

  auto alone = hub::spawn([&] { q.pop(); });
  yield_until_waiting(1);
  alone.cancel();
  q.push(box(2));
  q.push(box(3));
  alone.join();
  CHECK(**q.pop() == 2);
  CHECK(**q.pop() == 3);
}

TEST_CASE("a closed queue takes nothing, gives what it has, and tells all that wait") {
  hub_guard guard;
  hub::queue<int> q(1);
  q.push(1);
  auto pushes = hub::spawn([&] { return q.push(2); });
  yield_until_waiting(1);
  q.close();
  CHECK_FALSE(pushes.get());
  CHECK_FALSE(q.push(3));
  CHECK_FALSE(q.try_push(3));
  CHECK(q.pop() == 1);
  CHECK_FALSE(q.pop());
  CHECK(q.closed());

  hub::queue<int> other;
  auto pops = hub::spawn([&] { return other.pop().has_value(); });
  yield_until_waiting(1);
  other.close();
  CHECK_FALSE(pops.get());
}

TEST_CASE("who waits at a queue that goes is told that there is nothing") {
  hub_guard guard;
  auto q = std::make_unique<hub::queue<int>>(0);
  auto pops = hub::spawn([&] { return q->pop().has_value(); });
  yield_until_waiting(1);
  q.reset();
  CHECK_FALSE(pops.get());
}

TEST_CASE("a queue that nobody can push to any more is a wait forever") {
  hub_guard guard;
  hub::queue<int> q;
  CHECK_THROWS_AS(q.pop(), hub::would_block_forever);
  CHECK_FALSE(q.pop(milliseconds(1)));  // a deadline is something that can happen
}

// -- channel -------------------------------------------------------------------------------------

TEST_CASE("who sends into a channel waits until somebody receives") {
  hub_guard guard;
  hub::channel<boxed> c;
  events log;
  auto sends = hub::spawn([&] {
    c.send(box(1));
    log.push_back("sent");
  });
  yield_until_waiting(1);
  CHECK(log.empty());
  CHECK(**c.receive() == 1);
  sends.get();
  CHECK(log == events{"sent"});
  boxed mine = box(2);
  CHECK_FALSE(c.send(std::move(mine), milliseconds(1)));
  CHECK(*mine == 2);
  CHECK_FALSE(c.try_receive());
  c.close();
  CHECK(c.closed());
  CHECK_FALSE(c.send(std::move(mine)));
  CHECK_FALSE(c.receive());
}

// -- result --------------------------------------------------------------------------------------

TEST_CASE("a result is set once, and there for all from then on") {
  hub_guard guard;
  hub::result<std::string> r;
  CHECK_FALSE(r.wait(milliseconds(1)));
  auto a = hub::spawn([&] { return r.get(); }), b = hub::spawn([&] { return r.get(); });
  yield_until_waiting(2);
  r.set("yes");
  CHECK(a.get() == "yes");
  CHECK(b.get() == "yes");
  CHECK(r.get() == "yes");
  CHECK_THROWS_AS(r.set("no"), error);
  CHECK(r.get() == "yes");

  hub::result<int> failed;
  failed.set_exception(std::make_exception_ptr(std::runtime_error("no luck")));
  CHECK(failed.is_ready());
  CHECK_THROWS_WITH_AS(failed.get(), "no luck", std::runtime_error);
}

// -- wait_any ------------------------------------------------------------------------------------

TEST_CASE("wait_any wakes for the first of whatever it waits for") {
  hub_guard guard;
  hub::event e;
  hub::result<int> r;
  hub::queue<int> q;
  hub::channel<int> c;
  hub::semaphore s(0);
  hub::latch l(1);
  hub::event stop;
  auto t = hub::spawn([&] { stop.wait(); });
  CHECK_FALSE(hub::wait_any_until(milliseconds(1), e, r, q, c, s, l, t));

  const auto wakes = [&](auto&& f) {
    auto waits = hub::spawn([&] { return hub::wait_any(e, r, q, c, s, l, t); });
    yield_until_waiting(hub::statistics().waiting + 1);
    f();
    return waits.get();
  };
  CHECK(wakes([&] { e.set(); }) == 0);
  e.reset();
  CHECK(wakes([&] { q.push(1); }) == 2);
  CHECK(q.try_pop() == 1);
  auto sends = hub::spawn([&] { c.send(1); });
  CHECK(hub::wait_any(e, r, q, c, s, l, t) == 3);
  CHECK(c.try_receive() == 1);
  sends.get();
  CHECK(wakes([&] { s.release(); }) == 4);
  CHECK(s.try_acquire());
  CHECK(wakes([&] { stop.set(); }) == 6);
  auto opens = hub::spawn([&] { return hub::wait_any(e, l); });
  yield_until_waiting(1);
  l.count_down();
  CHECK(opens.get() == 1);
  CHECK(hub::wait_any(l, e) == 0);
  r.set(1);
  CHECK(hub::wait_any(e, r, l) == 1);  // of several the first
}

TEST_CASE("wait_any leaves every line when it is cancelled") {
  hub_guard guard;
  hub::event e;
  hub::queue<int> q;
  auto t = hub::spawn([&] { hub::wait_any(e, q); });
  yield_until_waiting(1);
  t.cancel();
  t.join();
  e.set();
  q.push(1);
  CHECK(q.pop() == 1);
}
