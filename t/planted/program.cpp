// SPDX-License-Identifier: MIT
// What t/sanitized.sh builds with a sanitizer, and the library without one: a program that is right, and one planted
// mistake for each word that it is given.
#include <greenlet/greenlet.hpp>
#ifdef T_BACKTRACE
#include <greenlet/monitor.hpp>
#endif

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <pthread.h>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

using namespace greenlets;

namespace {

int shared_word = 0;
std::atomic<int> arrived{0};

// Orders nothing: what is seen by both is seen because it is written down as such.
void wait_for_both(int until) {
  arrived.fetch_add(1, std::memory_order_relaxed);
  while (arrived.load(std::memory_order_relaxed) < until) std::this_thread::yield();
}

}  // namespace

__attribute__((noinline)) int* planted_frame_that_returns() {
  volatile int local[4] = {1, 2, 3, 4};
  int* volatile address = const_cast<int*>(&local[1]);
  return address;
}

__attribute__((noinline)) int planted_use_after_return() {
  int* const address = planted_frame_that_returns();
  switch_to_parent();
  return *address;
}

__attribute__((noinline)) int planted_use_after_scope() {
  volatile int* volatile address = nullptr;
  {
    volatile int inner[8] = {7};
    address = &inner[0];
  }
  switch_to_parent();
  return *address;
}

__attribute__((noinline)) void planted_write() { shared_word = shared_word + 1; }

__attribute__((noinline)) void planted_side() {
  const greenlet g([] {
    for (;;) {
      switch_to_parent();
      planted_write();
    }
  });
  g.switch_to();
  wait_for_both(2);
  g.switch_to();
  wait_for_both(4);
}

__attribute__((noinline)) void planted_leak() {
  std::string* volatile lost = new std::string(100, 'x');
  lost = nullptr;
  switch_to_parent();
}

namespace {

void race() {
  std::thread a(planted_side);
  std::thread b(planted_side);
  a.join();
  b.join();
}

void twice(int (*f)()) {
  const greenlet g([f] { std::printf("%d\n", f()); });
  g.switch_to();
  g.switch_to();
}

long deep(int depth, long sum) { return depth > 0 ? deep(depth - 1, sum + 1) + 1 : sum + switch_to_parent().get<long>(); }

// Starts, values, throws, ends, stacks used again, and objects that only a greenlet's stack refers to.
long work() {
  long sum = 0;
  for (int round = 0; round < 20; ++round) {
    std::vector<greenlet> all;
    for (int i = 0; i < 20; ++i)
      all.emplace_back([i](long first) {
        const std::vector<long> own(10, first);
        try {
          return deep(i, own[3]);
        } catch (const std::runtime_error&) {
          return own[4];
        }
      });
    for (const greenlet& g : all) g.switch_to(1L);
    for (std::size_t i = 0; i < all.size(); i += 2) sum += all[i].throw_in(std::runtime_error("thrown")).get<long>();
    for (std::size_t i = 1; i < all.size(); i += 4) sum += all[i].switch_to(2L).get<long>();
  }  // ... and the rest are unwound
  return sum;
}

// Dropped on another thread, unwound on its own.
void drop_elsewhere() {
  auto* const data = new std::vector<int>(1000, 3);
  greenlet g([data] {
    const std::unique_ptr<std::vector<int>> owner(data);
    switch_to_parent();
  });
  g.switch_to();
  std::thread([h = std::move(g), data]() mutable {
    (*data)[7] = 4;
    h = greenlet();
  }).join();
  current();
}

// Made on one thread, started on another, and left to its exit.
void start_elsewhere() {
  greenlet g([] {
    const std::string own(100, 'y');
    switch_to_parent();
  });
  std::thread([h = std::move(g)]() mutable {
    h.set_parent(current());
    h.switch_to();
  }).join();
}

// Forced unwinding, in a greenlet; ThreadSanitizer's pthread_exit() insists on the stack that the thread came with.
void exit_thread_inside() {
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
  return;
#endif
#endif
#ifdef __SANITIZE_THREAD__
  return;
#endif
  std::thread([] {
    const greenlet g([] {
      const std::string own(100, 'z');
      pthread_exit(nullptr);
    });
    g.switch_to();
  }).join();
}

// What only a suspended greenlet's stack refers to is no leak, nor what that of the main one does.
void end_with_one_suspended() {
  static greenlet* const kept = new greenlet([] {
    int* volatile own = new int(1);
    switch_to_parent();
    std::exit(*own - 1);
  });
  int* volatile own = new int(2);
  kept->switch_to();
  kept->switch_to();
  std::printf("%d\n", *own);
}

#ifdef T_BACKTRACE
// Who computes is asked by a signal where it is. ThreadSanitizer lets it answer in calls that it knows: for the time, say.
void interrupted() {
  std::atomic<int> told{0};
  std::atomic<bool> frames{false};
  monitor_options with;
  with.limit = std::chrono::milliseconds(5);
  with.report = [&](const long_run& run) {
    frames = frames || !run.frames.empty();
    ++told;
  };
  const monitor m(with);
  const greenlet g([&] {
    for (int n = 1; !frames; n = told + 1) {
      while (told < n) std::chrono::steady_clock::now();
      switch_to_parent();
    }
  });
  while (!g.dead()) g.switch_to();
  std::puts("told where");
}
#endif

void everything() {
  long a = 0, b = 0;
  std::thread one([&] { a = work(); });
  std::thread two([&] { b = work(); });
  const long c = work();
  one.join();
  two.join();
  drop_elsewhere();
  start_elsewhere();
  exit_thread_inside();
  std::printf("%s\n", a == b && b == c ? "right" : "wrong");
}

}  // namespace

int main(int argc, char** argv) {
  const std::string what = argc > 1 ? argv[1] : "";
  if (what == "return")
    twice(planted_use_after_return);
  else if (what == "scope")
    twice(planted_use_after_scope);
  else if (what == "race")
    race();
  else if (what == "leak")
    twice([] { return planted_leak(), 0; });
  else if (what == "kept")
    end_with_one_suspended();
#ifdef T_BACKTRACE
  else if (what == "interrupted")
    interrupted();
#endif
  else
    everything();
}
