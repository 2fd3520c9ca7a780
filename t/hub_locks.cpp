// SPDX-License-Identifier: MIT
// mutex, shared_mutex, condition, semaphore, latch: who is next, and what becomes of it when he does not live to have it.
#include "hub_testing.hpp"

#include <memory>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <vector>

using namespace greenlets;
using namespace testing;

namespace {

using hub_lock = std::unique_lock<hub::mutex>;

hub::task<void> locker(hub::mutex& m, events& log, const std::string& name) {
  return hub::spawn([&m, &log, name] {
    const std::lock_guard lock(m);
    log.push_back(name);
    hub::yield();
    log.push_back(name);
  });
}

}  // namespace

// -- mutex ---------------------------------------------------------------------------------------

TEST_CASE("a mutex lets one greenlet in at a time, in the order in which they came") {
  hub_guard guard;
  hub::mutex m;
  events log;
  auto a = locker(m, log, "a"), b = locker(m, log, "b"), c = locker(m, log, "c");
  a.get(), b.get(), c.get();
  CHECK(log == events{"a", "a", "b", "b", "c", "c"});
  CHECK_FALSE(m.locked());
}

TEST_CASE("an unlocked mutex belongs to who waited, before that one runs") {
  hub_guard guard;
  hub::mutex m;
  m.lock();
  bool had = false;
  auto waits = hub::spawn([&] {
    const std::lock_guard lock(m);
    had = true;
  });
  yield_until_waiting(1);
  m.unlock();
  CHECK(m.locked());
  CHECK_FALSE(m.try_lock());
  waits.get();
  CHECK(had);
  CHECK(m.try_lock());
  m.unlock();
}

TEST_CASE("a deadline ends a wait for a mutex, and the next gets it") {
  hub_guard guard;
  hub::mutex m;
  m.lock();
  auto late = hub::spawn([&] { return m.lock(milliseconds(1)); });
  auto patient = hub::spawn([&] {
    const bool got = m.lock(hang_guard());
    m.unlock();
    return got;
  });
  CHECK_FALSE(late.get());
  m.unlock();
  CHECK(patient.get());
  std::unique_lock<hub::mutex> timed(m, std::defer_lock);
  CHECK(timed.try_lock_for(milliseconds(1)));
}

TEST_CASE("a mutex that was given to a greenlet which is cancelled before it runs goes to the next") {
  hub_guard guard;
  hub::mutex m;
  m.lock();
  events log;
  auto doomed = locker(m, log, "doomed"), next = locker(m, log, "next");
  yield_until_waiting(2);
  doomed.cancel();  // first, so that it is thrown before `doomed` goes on with the mutex
  m.unlock();
  next.get();
  CHECK(log == events{"next", "next"});
  CHECK_FALSE(m.locked());
  CHECK_THROWS_AS(doomed.get(), hub::cancelled);
}

TEST_CASE("locking twice, and unlocking what another greenlet has, are errors that name both") {
  hub_guard guard;
  hub::mutex m;
  m.lock();
  CHECK_THROWS_WITH_AS(m.lock(), doctest::Contains("locked this mutex already"), error);
  auto other = hub::spawn([&] { m.unlock(); });
  CHECK_THROWS_WITH_AS(other.get(), doctest::Contains(("greenlet " + std::to_string(current().id()) + " has").c_str()), error);
  CHECK(m.locked());
  m.unlock();
  CHECK_THROWS_WITH_AS(m.unlock(), doctest::Contains("nobody has"), error);
}

TEST_CASE("who waits for a mutex that goes is told, and so is std::lock_guard") {
  hub_guard guard;
  auto m = std::make_unique<hub::mutex>();
  m->lock();
  auto timed = hub::spawn([&] { return m->lock(hang_guard()); });
  auto forever = hub::spawn([&] { const std::lock_guard lock(*m); });
  yield_until_waiting(2);
  m.reset();
  CHECK_FALSE(timed.get());
  CHECK_THROWS_WITH_AS(forever.get(), doctest::Contains("has gone"), error);
}

TEST_CASE("greenlets that wait for each other's mutexes are told that this would block forever") {
  hub_guard guard;
  hub::mutex first, second;
  const std::lock_guard lock(first);
  auto other = hub::spawn([&] {
    const std::lock_guard a(second);
    const std::lock_guard b(first);
  });
  yield_until_waiting(1);
  CHECK_THROWS_AS(second.lock(), hub::would_block_forever);
  other.cancel();
}

// -- shared_mutex --------------------------------------------------------------------------------

TEST_CASE("many share a mutex; who wants it alone waits for them, and they that come after wait for him") {
  hub_guard guard;
  hub::shared_mutex m;
  events log;
  hub::event go;
  std::vector<hub::task<void>> all;
  const auto reader = [&](const std::string& name) {
    all.push_back(hub::spawn([&, name] {
      const std::shared_lock lock(m);
      log.push_back(name);
      go.wait();
      log.push_back(name + " done");
    }));
  };
  reader("r1"), reader("r2");
  yield_until_waiting(2);
  CHECK(log == events{"r1", "r2"});
  all.push_back(hub::spawn([&] {
    const std::lock_guard lock(m);
    log.push_back("writer");
  }));
  reader("r3");
  yield_until_waiting(4);
  CHECK_FALSE(m.try_lock_shared());  // not before the writer
  CHECK_FALSE(m.try_lock());
  go.set();
  for (auto& t : all) t.get();
  CHECK(log == events{"r1", "r2", "r1 done", "r2 done", "writer", "r3", "r3 done"});
  CHECK(m.try_lock());
  m.unlock();
}

TEST_CASE("when a writer gives up, the readers behind him go on") {
  hub_guard guard;
  hub::shared_mutex m;
  m.lock_shared();
  auto writer = hub::spawn([&] { return m.lock(milliseconds(1)); });
  auto reader = hub::spawn([&] {
    const bool got = m.lock_shared(hang_guard());
    m.unlock_shared();
    return got;
  });
  CHECK_FALSE(writer.get());
  CHECK(reader.get());
  auto cancelled = hub::spawn([&] { m.lock(); });
  auto behind = hub::spawn([&] { const std::shared_lock lock(m); });
  yield_until_waiting(2);
  cancelled.cancel();
  behind.get();
  m.unlock_shared();
  CHECK_THROWS_AS(m.unlock_shared(), error);
  CHECK_THROWS_AS(m.unlock(), error);
  CHECK(m.try_lock());
  CHECK_THROWS_AS(m.lock(), error);
  CHECK_THROWS_AS(m.lock_shared(), error);
  m.unlock();
  CHECK(m.try_lock_shared());
  CHECK(m.try_lock_shared());
  m.unlock_shared();
  CHECK_FALSE(m.try_lock());
  m.unlock_shared();
}

TEST_CASE("who waits for a shared mutex that goes is told") {
  hub_guard guard;
  auto m = std::make_unique<hub::shared_mutex>();
  m->lock();
  auto timed = hub::spawn([&] { return m->lock_shared(hang_guard()); });
  yield_until_waiting(1);
  m.reset();
  CHECK_FALSE(timed.get());
}

TEST_CASE("a shared mutex given to a greenlet that is cancelled before it runs goes on, either way of having it") {
  hub_guard guard;
  for (const bool shared : {false, true}) {
    hub::shared_mutex m;
    m.lock();
    auto doomed = hub::spawn([&] { shared ? m.lock_shared() : m.lock(); });
    auto next = hub::spawn([&] { const std::lock_guard lock(m); });
    yield_until_waiting(2);
    doomed.cancel();
    m.unlock();
    next.get();
    CHECK(m.try_lock());
    m.unlock();
  }
}

// -- condition -----------------------------------------------------------------------------------

TEST_CASE("a condition unlocks while it waits, and locks again") {
  hub_guard guard;
  hub::mutex m;
  hub::condition changed;
  int stock = 0;
  auto consumer = hub::spawn([&] {
    hub_lock lock(m);
    const bool so = changed.wait(lock, [&] { return stock == 3; }, hang_guard());
    return so && lock.owns_lock();
  });
  for (int i = 0; i < 3; ++i) {
    yield_until_waiting(1);
    const hub_lock lock(m, std::try_to_lock);
    REQUIRE(lock.owns_lock());
    ++stock;
    changed.notify_one();
  }
  CHECK(consumer.get());
  hub_lock lock(m);
  CHECK_FALSE(changed.wait(lock, milliseconds(1)));
  CHECK(lock.owns_lock());
  CHECK_FALSE(changed.wait(lock, [] { return false; }, milliseconds(1)));
}

TEST_CASE("who is told of a change and cancelled before it runs lets the next be told") {
  hub_guard guard;
  hub::condition changed;
  int told = 0;
  const auto wait = [&] {
    return hub::spawn([&] {
      changed.wait();
      ++told;
    });
  };
  auto doomed = wait(), next = wait(), last = wait();
  yield_until_waiting(3);
  doomed.cancel();
  changed.notify_one();
  next.get();
  CHECK(told == 1);
  CHECK_FALSE(last.ready());
  changed.notify_all();
  last.get();
}

TEST_CASE("a wait for a condition that is cancelled does not hold the lock") {
  hub_guard guard;
  hub::mutex m;
  hub::condition never;
  bool owned = true;
  auto t = hub::spawn([&] {
    hub_lock lock(m);
    try {
      never.wait(lock);
    } catch (const greenlet_exit&) {
      owned = lock.owns_lock();
      throw;
    }
  });
  yield_until_waiting(1);
  t.cancel();
  t.join();
  CHECK_FALSE(owned);
  CHECK_FALSE(m.locked());
}

// -- semaphore, latch -----------------------------------------------------------------------------

TEST_CASE("a semaphore gives in the order in which they came, also to who wants many") {
  hub_guard guard;
  hub::semaphore s(2);
  CHECK(s.try_acquire(2));
  events log;
  auto many = hub::spawn([&] { s.acquire(3), log.push_back("many"); });
  auto few = hub::spawn([&] { s.acquire(1), log.push_back("few"); });
  yield_until_waiting(2);
  s.release(2);
  CHECK(s.free() == 2);
  CHECK_FALSE(s.try_acquire());  // not before the first
  s.release(2);
  many.get(), few.get();
  CHECK(log == events{"many", "few"});
  CHECK(s.free() == 0);
}

TEST_CASE("when the first gives up, or does not live to have it, the others get what there is") {
  hub_guard guard;
  hub::semaphore s(1);
  auto late = hub::spawn([&] { return s.acquire(5, milliseconds(1)); });
  auto next = hub::spawn([&] { return s.acquire(1, hang_guard()); });
  CHECK_FALSE(late.get());
  CHECK(next.get());
  auto doomed = hub::spawn([&] { s.acquire(); });
  auto heir = hub::spawn([&] { return s.acquire(1, hang_guard()); });
  yield_until_waiting(2);
  doomed.cancel();
  s.release();
  CHECK(heir.get());
  CHECK(s.free() == 0);
  auto gone = std::make_unique<hub::semaphore>(0);
  auto waits = hub::spawn([&] { return gone->acquire(); });
  yield_until_waiting(1);
  gone.reset();
  CHECK_FALSE(waits.get());
}

TEST_CASE("a latch opens when it has been counted down, for good") {
  hub_guard guard;
  hub::latch l(3);
  auto a = hub::spawn([&] { return l.arrive_and_wait(hang_guard()); });
  auto b = hub::spawn([&] { return l.wait(hang_guard()); });
  CHECK_FALSE(l.wait(milliseconds(1)));
  CHECK_FALSE(l.is_ready());
  l.count_down(5);
  CHECK(a.get());
  CHECK(b.get());
  CHECK(l.is_ready());
  CHECK(l.wait());
}
