// SPDX-License-Identifier: MIT
// What is called on libuv's pool of threads while greenlets wait.
#include "hub_pool.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <csignal>
#include <functional>
#include <new>
#include <numeric>
#include <pthread.h>
#include <stdexcept>
#include <thread>
#include <type_traits>
#include <vector>

using namespace greenlets;
using namespace testing;

namespace {

// The second thing for which this thread asks memory, and all after it, it does not get; and hears so when `ready`.
struct refusal {
  std::function<bool()> ready = {};
  std::atomic<unsigned> asked{0};
};
thread_local refusal* refused = nullptr;

void* memory(std::size_t size, std::size_t alignment = alignof(std::max_align_t)) {
  if (refusal* const r = refused; r && r->asked++ > 0) {
    while (!r->ready()) std::this_thread::yield();
    throw std::bad_alloc();
  }
  if (void* const p = std::aligned_alloc(alignment, (size / alignment + 1) * alignment)) return p;
  throw std::bad_alloc();
}

}  // namespace

void* operator new(std::size_t size) { return memory(size); }
void* operator new(std::size_t size, std::align_val_t a) { return memory(size, static_cast<std::size_t>(a)); }
void operator delete(void* p) noexcept { std::free(p); }
void operator delete(void* p, std::size_t) noexcept { std::free(p); }
void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete(void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }

TEST_CASE("offload gives what the function gives: a value, nothing, what can only be moved, a copy of what is referred to") {
  const hub_guard end;
  CHECK(hub::offload([] { return 42; }) == 42);
  int called = 0;
  auto gives_nothing = [&] { ++called; };
  static_assert(std::is_void_v<decltype(hub::offload(gives_nothing))>);
  hub::offload(gives_nothing);
  CHECK(called == 1);
  CHECK(*hub::offload([] { return std::make_unique<std::string>("moved"); }) == "moved");
  std::string text = "text";
  auto refers = [&]() -> std::string& { return text; };
  static_assert(std::is_same_v<decltype(hub::offload(refers)), std::string>);
  CHECK(hub::offload(refers) == "text");
  struct counts {
    int calls = 0;
    int operator()() { return ++calls; }
  } object;
  CHECK(hub::offload(object) == 1);
  CHECK(object.calls == 1);  // it was called where it stands, and not a copy
  CHECK(hub::offload(+[] { return 'f'; }) == 'f');
}

TEST_CASE("offload throws what the function throws, and only there") {
  const hub_guard end;
  CHECK_THROWS_WITH_AS(hub::offload([] { throw std::runtime_error("from the pool"); }), "from the pool", std::runtime_error);
  CHECK_THROWS_AS(hub::offload([]() -> int { throw 7; }), int);
  auto t = hub::spawn([] { return hub::offload([]() -> int { throw std::out_of_range("in a task"); }); });
  CHECK_THROWS_AS(t.get(), std::out_of_range);
  auto exits = hub::spawn([] { hub::offload([] { throw greenlet_exit(); }); });
  CHECK_THROWS_AS(exits.get(), hub::cancelled);
}

TEST_CASE("the function runs on another thread, on which it has a tree of its own, while the hub's greenlets go on") {
  const hub_guard end;
  gate g;
  const auto here = std::this_thread::get_id();
  auto waits = hub::spawn([&] {
    return hub::offload([&] {
      g.pass();
      return std::this_thread::get_id() != here;
    });
  });
  int others = 0;
  while (g.begun() == 0) hub::yield();
  for (int n = 0; n < 10; ++n) hub::run([&] { ++others; });
  CHECK(others == 10);
  CHECK_FALSE(waits.ready());
  g.open();
  CHECK(waits.get());
}

TEST_CASE("waiting for the pool is no deadlock, and the hub sleeps meanwhile") {
  const hub_guard end;
  const auto turns = hub::statistics().turns;
  hub::offload([] { std::this_thread::sleep_for(milliseconds(30)); });
  CHECK(hub::statistics().turns - turns < 10);
}

TEST_CASE("from the pool a message can be posted to the hub that waits") {
  const hub_guard end;
  std::string got;
  const hub::remote home = hub::this_hub();
  hub::offload([&] { REQUIRE(home.post([&] { got = "posted"; })); });
  yield_until([&] { return !got.empty(); });
  CHECK(got == "posted");
}

TEST_CASE("what is cancelled before it has begun goes at once, and is never called") {
  const hub_guard end;
  pool_taken taken;
  bool called = false;
  events log;
  auto t = hub::spawn([&] {
    noting n{log, "left"};
    hub::offload([&] { called = true; });
  });
  yield_until_waiting(1);
  t.cancel();
  CHECK(t.join(hang_guard()));
  CHECK(log == events{"~left"});
  CHECK_THROWS_AS(t.get(), hub::cancelled);

  CHECK_FALSE(hub::with_timeout(milliseconds(1), [&] { hub::offload([&] { called = true; }); }));
  taken.release();
  hub::offload([] {});
  CHECK_FALSE(called);
}

TEST_CASE("what is cancelled after it has begun goes when it has ended: it may use the greenlet's stack") {
  const hub_guard end;
  gate g;
  events log;
  std::array<char, 4096> seen{};
  auto t = hub::spawn([&] {
    noting n{log, "left"};
    std::array<char, 4096> mine{};
    const auto look = at_end([&] { seen = mine; });
    hub::offload([&] {
      g.pass();
      std::fill(mine.begin(), mine.end(), 'x');
    });
    log.push_back("went on");
  });
  while (g.begun() == 0) hub::yield();
  t.cancel();
  for (int n = 0; n < 100; ++n) hub::yield();
  CHECK_FALSE(t.ready());
  t.cancel();  // which is not thrown into one that is being unwound
  auto direct = hub::spawn([&] { t.handle().throw_in(std::runtime_error("thrown in by hand")); });
  hub::yield();
  CHECK_FALSE(t.ready());
  g.open();
  CHECK(t.join(hang_guard()));
  CHECK_THROWS_AS(t.get(), hub::cancelled);
  CHECK(log == events{"~left"});
  CHECK(std::count(seen.begin(), seen.end(), 'x') == 4096);
}

TEST_CASE("a timeout bounds a wait for the pool when the function has ended") {
  const hub_guard end;
  gate g;
  std::atomic<bool> begun{false};
  bool ended = false;
  auto opens = hub::spawn([&] {
    while (g.begun() == 0) hub::yield();
    hub::sleep_for(milliseconds(5));
    CHECK_FALSE(ended);
    g.open();
  });
  // Until it has begun in time: a timeout before that leaves at once.
  do CHECK_FALSE(hub::with_timeout(milliseconds(2), [&] {
      hub::offload([&] {
        begun = true;
        g.pass();
        ended = true;
      });
    }));
  while (!begun);
  CHECK(ended);
  opens.get();
}

TEST_CASE("shutdown waits for what has begun, and takes back what has not") {
  gate g;
  std::atomic<unsigned> begun{0}, ended{0}, gone{0};
  const unsigned many = 3 * pool_size;
  for (unsigned n = 0; n < many; ++n)
    hub::spawn([&] {
      const auto left = at_end([&] { ++gone; });
      hub::offload([&] {
        ++begun;
        g.pass();
        ++ended;
      });
    });
  while (g.begun() < pool_size) hub::yield();
  yield_until_waiting(many);
  std::thread opens([&] {
    while (gone < many - pool_size) std::this_thread::yield();
    g.open();
  });
  hub::shutdown();
  opens.join();
  CHECK(begun == pool_size);
  CHECK(ended == pool_size);
  CHECK(gone == many);
}

// A thread that leaves, by `leave`, while a greenlet of its has a call that has begun.
template <class F>
void check_left_after_the_call(F leave) {
  gate g;
  std::atomic<bool> ended{false}, unwound_after{false};
  std::thread opens([&] {
    while (g.begun() == 0) std::this_thread::yield();
    std::this_thread::sleep_for(milliseconds(10));  // nothing tells when a thread waits in its exit
    g.open();
  });
  std::thread([&] {
    hub::spawn([&] {
      const auto look = at_end([&] { unwound_after = ended.load(); });
      hub::offload([&] {
        g.pass();
        ended = true;
      });
    });
    while (g.begun() == 0) hub::yield();
    leave();
  }).join();
  CHECK(ended);
  CHECK(unwound_after);
  opens.join();
}

TEST_CASE("a thread's exit waits for what has begun") {
  check_left_after_the_call([] {});
}

TEST_CASE("pthread_exit in the main greenlet waits for what other greenlets have begun") {
  check_left_after_the_call([] { pthread_exit(nullptr); });
}

// ThreadSanitizer sees none of a thread's locks any more that was cancelled in epoll_pwait, without greenlets too; and
// AddressSanitizer takes the frames that a forced unwind has passed for ones that are there.
#if !defined(T_TSAN) && !defined(T_ASAN)
TEST_CASE("a thread that is cancelled by pthread_cancel while it waits for the pool leaves when the function has ended") {
  gate g;
  std::atomic<bool> ended{false}, unwound_after{false};
  std::thread t([&] {
    const auto look = at_end([&] { unwound_after = ended.load(); });
    hub::offload([&] {
      g.pass();
      ended = true;
    });
  });
  while (g.begun() == 0) std::this_thread::yield();
  REQUIRE(pthread_cancel(t.native_handle()) == 0);
  std::this_thread::sleep_for(milliseconds(10));
  CHECK_FALSE(unwound_after);
  g.open();
  t.join();
  CHECK(unwound_after);
}
#endif

TEST_CASE("one that refuses to go holds the hub's end up until the function has ended") {
  gate g;
  std::atomic<bool> ends{false};
  bool ended = false;
  int refusals = 0;
  auto witness = hub::spawn([&] {
    const auto sees = at_end([&] { ends = true; });
    hub::sleep_for(hours(1));
  });
  auto stubborn = hub::spawn([&] {
    while (!ended) {
      try {
        hub::offload([&] {
          g.pass();
          ended = true;
        });
      } catch (const greenlet_exit&) {
        ++refusals;
      }
    }
  });
  while (g.begun() == 0) hub::yield();
  std::thread opens([&] {
    while (!ends) std::this_thread::yield();
    g.open();
  });
  hub::shutdown();
  CHECK(ended);
  CHECK(refusals > 0);
  CHECK(stubborn.ready());
  opens.join();
}

TEST_CASE("a function that ends its thread ends the process, and says so") {
  if (freed_memory_is_kept()) return;  // sanitizers have their own way with such threads
  const child c = in_child([] { hub::offload([] { pthread_exit(nullptr); }); });
  INFO(c.output);
  CHECK(WIFSIGNALED(c.status));
  CHECK(WTERMSIG(c.status) == SIGABRT);
  CHECK(c.output.find("exception not rethrown") != std::string::npos);
}

TEST_CASE("the hub itself cannot wait for the pool, and says so before anything has begun") {
  const hub_guard end;
  errc found{};
  int called = 0;
  auto t = hub::spawn([end = at_end([&] {  // destroyed unstarted, by the hub
                         found = error_of([&] { hub::offload([&] { ++called; }); });
                       })] {});
  t.cancel();
  t.join();
  CHECK(found == errc::not_running);
  CHECK(hub::statistics().waiting == 0);
  hub::offload([&] { called += 10; });
  CHECK(called == 10);
}

TEST_CASE("without memory to wait the thread itself waits for what has begun, and std::bad_alloc is told") {
  refusal probe;
  refused = &probe;
  ::operator delete(::operator new(1));
  refused = nullptr;
  if (probe.asked == 0) return;  // valgrind gives memory in the program's place
  const hub_guard end;
  hub::shutdown();
  hub::this_hub();  // a new one has no place to wait in yet
  gate g;
  bool ended = false;
  refusal r{[&] { return g.begun() > 0; }, {}};
  std::thread opens([&] {
    while (r.asked < 3) std::this_thread::yield();  // for the call, to wait for it, and to wait for its end
    g.open();
  });
  bool told = false;
  const auto call = [&] {
    g.pass();
    ended = true;
  };
  refused = &r;
  try {
    hub::offload(call);
  } catch (const std::bad_alloc&) {
    told = true;
  }
  refused = nullptr;
  opens.join();
  CHECK(told);
  CHECK(ended);
}

TEST_CASE("a thousand calls of a thousand greenlets, and several threads at once: each has its own result") {
  const hub_guard end;
  const unsigned calls = times(1000);
  const auto storm = [calls] {
    std::vector<hub::task<unsigned>> all;
    for (unsigned n = 0; n < calls; ++n)
      all.push_back(hub::spawn([n] {
        unsigned on_my_stack = 0;
        hub::offload([&] { on_my_stack = n; });
        return hub::offload([&] { return on_my_stack + 1; });
      }));
    unsigned right = 0;
    for (unsigned n = 0; n < calls; ++n) right += all[n].get() == n + 1;
    return right;
  };
  std::atomic<unsigned> right{0};
  std::vector<std::thread> threads;
  for (int n = 0; n < 3; ++n) threads.emplace_back([&] { right += storm(); });
  right += storm();
  for (auto& t : threads) t.join();
  CHECK(right == 4 * calls);
}

TEST_CASE("calls are cancelled at any moment: none is called twice, none is used after its greenlet has gone") {
  const hub_guard end;
  const unsigned calls = times(1000);
  std::atomic<unsigned> called{0};
  unsigned returned = 0;
  std::vector<hub::task<void>> all;
  for (unsigned n = 0; n < calls; ++n)
    all.push_back(hub::spawn([&, n] {
      std::vector<unsigned> mine(64, n);
      const unsigned sum = hub::offload([&] {
        ++called;
        std::iota(mine.begin(), mine.end(), 0u);
        return std::accumulate(mine.begin(), mine.end(), 0u);
      });
      if (sum == 64 * 63 / 2) ++returned;
    }));
  for (unsigned n = 0; n < calls; ++n) {
    if (n % 3 == 0) all[n].cancel();
    if (n % 50 == 0) hub::yield();
  }
  for (auto& t : all) t.join();
  CHECK(called >= returned);
  CHECK(called <= calls);
  CHECK(returned >= calls - calls / 3 - 1);
}

TEST_CASE("a child of a process with a pool has one of its own, with a hub of its own, and exits") {
#ifdef T_TSAN
  return;  // its runtime starts no threads in such a child
#endif
  hub::run([] { hub::offload([] {}); });
  hub::shutdown();
  const child c = in_child([] {
    if (hub::offload([] { return getpid(); }) != getpid()) _exit(2);
    hub::shutdown();
  });
  INFO(c.output);
  CHECK(c.status == 0);
  // exit(), for which libuv joins its threads: also those of the parent's, which are not there.
  for (const bool uses : {true, false}) {
    const child exits = in_child([uses] {
      if (uses) hub::offload([] {});
      hub::shutdown();
      alarm(30);
      std::exit(0);
    });
    INFO(exits.output);
    CHECK(exits.status == 0);
  }
}
