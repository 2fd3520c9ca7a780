// SPDX-License-Identifier: MIT
// Many threads, many greenlets, handles dropped everywhere: every destructor runs once, on the
// owner's thread, and the memory does not grow.
#include "testing.hpp"

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <mutex>
#include <pthread.h>
#include <thread>

using namespace greenlets;

namespace {

// The sanitizers make each thread some twenty times as dear; the paths are the same.
#if defined(T_TSAN)
const unsigned threads = 400;
#elif defined(T_ASAN)
const unsigned threads = 2000;
#else
const unsigned threads = testing::times(10000);
#endif
constexpr unsigned greenlets_each = 10;
constexpr unsigned runners = 16;  // how many threads are alive at once

struct tally {
  std::atomic<std::uint64_t> made{0}, destroyed{0}, elsewhere{0}, wrong_reason{0};
};

// Lives on a greenlet's stack.
struct resident {
  tally& all;
  pthread_t owner = pthread_self();
  explicit resident(tally& t) : all(t) { ++all.made; }
  resident(const resident&) = delete;
  resident& operator=(const resident&) = delete;
  ~resident() {
    ++all.destroyed;
    if (!pthread_equal(owner, pthread_self())) ++all.elsewhere;
  }
};

// Where threads leave handles for others to drop.
struct exchange {
  std::mutex lock;
  std::vector<greenlet> left;

  void leave(greenlet g) {
    const std::lock_guard guard(lock);
    left.push_back(std::move(g));
  }
  std::vector<greenlet> take() {
    const std::lock_guard guard(lock);
    return std::exchange(left, {});
  }
};

// One thread's life: ten suspended greenlets; some dropped here, some left for other threads to drop
// before or after this thread's end, some kept until its end.
void one_thread(tally& all, exchange& shop, unsigned seed) {
  std::vector<greenlet> mine;
  for (unsigned n = 0; n < greenlets_each; ++n) {
    greenlet g([&all] {
      const resident first(all);
      try {
        const resident second(all);
        switch_to_parent();
      } catch (const greenlet_exit& e) {
        if (e.why != greenlet_exit::reason::last_handle && e.why != greenlet_exit::reason::thread_exit)
          ++all.wrong_reason;
        throw;
      }
    });
    g.switch_to();
    switch ((seed + n) % 5) {
      case 0: break;                                // dropped here, at once
      case 1: shop.leave(std::move(g)); break;      // its last handle goes elsewhere
      case 2: shop.leave(g); [[fallthrough]];       // one handle here, one elsewhere
      default: mine.push_back(std::move(g));
    }
    if (seed % 3 == 0) shop.take();  // drops other threads' greenlets, alive or gone
  }
  if (seed % 2 == 0) mine.clear();
  current();  // unwinds what others have dropped meanwhile
}

void run_threads(unsigned count, tally& all, exchange& shop) {
  std::atomic<unsigned> next{0};
  std::vector<std::thread> pool;
  for (unsigned n = 0; n < runners; ++n)
    pool.emplace_back([&] {
      for (unsigned seed; (seed = next++) < count;) std::thread(one_thread, std::ref(all), std::ref(shop), seed).join();
    });
  for (std::thread& t : pool) t.join();
  shop.take();
}

}  // namespace

TEST_CASE("131, 132, 133, 150, B23, B24: ten thousand threads with ten suspended greenlets each: all is destroyed once, at home") {
  tally all;
  exchange shop;
  run_threads(threads / 10, all, shop);
  const std::size_t early = testing::resident_pages();
  run_threads(threads - threads / 10, all, shop);
  const std::size_t late = testing::resident_pages();

  CHECK(all.made == std::uint64_t{2} * threads * greenlets_each);
  CHECK(all.destroyed == all.made);
  CHECK(all.elsewhere == 0);
  CHECK(all.wrong_reason == 0);
  MESSAGE(threads << " threads; resident pages after a tenth of them: " << early << ", after all: " << late);
  // Nine times as many threads must not cost as much again; the allocator's arenas make it uneven.
  if (!testing::freed_memory_is_kept()) CHECK(late < early + early / 4 + 512);
}

TEST_CASE("150: one thread with 20,000 unfinished greenlets leaves the memory as it was, dropped there or after its exit") {
#if defined(T_ASAN) || defined(T_TSAN)
  constexpr std::size_t many = 1000;  // each of which costs the sanitizers much
#else
  constexpr std::size_t many = 20000;
#endif
  trim_stacks();
  const auto before = counts();
  std::atomic<std::size_t> destroyed{0};
  const auto crowd = [&] {
    std::vector<greenlet> all;
    all.reserve(many);
    for (std::size_t i = 0; i < many; ++i) {
      all.emplace_back(attributes().stack_size(16 * 1024), [&destroyed] {
        const auto note = testing::at_end([&destroyed] { ++destroyed; });
        switch_to_parent();
      });
      all.back().switch_to();
    }
    return all;
  };
  const auto dropped_in_thread = [&] { std::thread([&] { crowd().clear(); }).join(); };
  const auto dropped_after_exit = [&] {
    std::vector<greenlet> all;
    std::thread([&] { all = crowd(); }).join();
    CHECK(destroyed == many);  // by the exit, and not by our drop
    CHECK(counts().stacks == before.stacks);
    CHECK(all.front().state() == greenlet_state::unwound);
  };
  std::size_t early = 0;
  for (int round = 0; round < 3; ++round) {
    for (const std::function<void()>& each : {std::function<void()>(dropped_in_thread), std::function<void()>(dropped_after_exit)}) {
      destroyed = 0;
      each();
      CHECK(destroyed == many);
      const auto after = counts();
      CHECK(after.greenlets == before.greenlets);
      CHECK(after.stacks == before.stacks);
      CHECK(after.threads == before.threads);
    }
    if (round == 0) early = testing::resident_pages();
  }
  const std::size_t late = testing::resident_pages();
  if (!testing::freed_memory_is_kept()) CHECK(late < early + 512);
}

TEST_CASE("108, B15: threads that exit while others drop, switch at and ask about their greenlets") {
  exchange shop;
  std::atomic<bool> over{false};
  std::atomic<std::uint64_t> refused{0};
  tally all;
  std::vector<std::thread> meddlers;
  for (int n = 0; n < 4; ++n)
    meddlers.emplace_back([&] {
      std::vector<greenlet> kept;
      while (!over) {
        for (greenlet& g : shop.take()) {
          CHECK(g.id() != 0);
          (void)g.dead();
          (void)g.state();
          (void)g.parent();
          try {
            g.switch_to();
            FAIL_CHECK("a switch to another thread's greenlet went through");
          } catch (const error& e) {
            const errc code = e.code();
            const bool expected = code == errc::different_thread || code == errc::thread_exited;
            CHECK(expected);
            ++refused;
          }
          kept.push_back(std::move(g));
        }
        if (kept.size() > 50) kept.clear();
      }
    });
  run_threads(threads / 20, all, shop);
  over = true;
  for (std::thread& t : meddlers) t.join();
  CHECK(all.destroyed == all.made);
  CHECK(all.elsewhere == 0);
  CHECK(refused > 0);
}
