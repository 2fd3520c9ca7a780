// SPDX-License-Identifier: MIT
// "threads SCENARIO": threads that go on, or end, while the process does.
#include "program.hpp"

#include <atomic>
#include <climits>
#include <cstdlib>
#include <functional>
#include <future>
#include <map>
#include <mutex>
#include <pthread.h>
#include <sys/syscall.h>
#include <thread>
#include <unistd.h>
#include <utility>

using namespace greenlets;

namespace exiting {
namespace {

// Calls a function when the process ends: later than any atexit handler, earlier than the statics of
// other files may be.
struct at_static_destruction {
  std::function<void()> call;
  ~at_static_destruction() {
    if (call) call();
  }
} at_the_end;

struct telling {
  std::string what;
  ~telling() { say("~" + what); }
};

std::function<void()> waits(const std::string& name) {
  return [name] {
    const telling t{name};
    switch_to_parent();
  };
}

[[noreturn]] void wait_for_ever() {
  for (;;) pause();
}

// -- Threads that outlive main --------------------------------------------------------------------

// Immortal, because threads use it until the very end.
struct exchange_t {
  std::mutex lock;
  std::vector<greenlet> offered;
  std::atomic<unsigned long> turns{0};
};
exchange_t& common() {
  static auto& c = *new exchange_t;
  return c;
}

// Makes, switches, throws, exits and drops greenlets, of other threads too, for ever.
void busy(unsigned seed) {
  for (unsigned n = seed;; ++n) {
    std::vector<greenlet> mine;
    for (int i = 0; i < 8; ++i) {
      mine.emplace_back([](int turn) {
        const auto something = std::make_unique<int>(turn);
        for (;;) turn = switch_to_parent(turn + *something).get<int>();
      });
      mine.back().switch_to(1);
    }
    for (int i = 0; i < 8; ++i) mine[static_cast<std::size_t>(i)].switch_to(i);
    mine[0].throw_in(greenlet_exit());
    try {
      greenlet([] { throw std::runtime_error("to the parent"); }).switch_to();
    } catch (const std::runtime_error&) {
    }
    if (n % 16 == 0) std::thread([] { greenlet(waits("never told")).started(); }).join();
    {
      const std::lock_guard guard(common().lock);
      std::swap(common().offered, mine);
    }  // `mine` are another thread's now, and dropped here
    mine.clear();
    common().turns.fetch_add(1);
  }
}

// The threads must get on while we are here.
void wait_for_turns(const char* where) {
  const unsigned long until = common().turns.load() + 50;
  while (common().turns.load() < until) sched_yield();
  say(where);
}

int busy_threads(const std::string& how) {
  at_the_end.call = [] {
    wait_for_turns("static destructor");
    use_everything("static destructor");
  };
  std::atexit([] {
    wait_for_turns("atexit");
    use_everything("atexit");
  });
  for (unsigned i = 0; i < 4; ++i) std::thread(busy, i).detach();
  wait_for_turns("main");
  if (how == "return") return 3;
  greenlet([&how] { end(how, 3); }).switch_to();
  return 64;
}

// -- Threads that end while the process does ------------------------------------------------------

int ended_in_static_destruction() {
  struct worker {
    std::promise<void> go, ready;
    greenlet kept, dropped;
    std::thread thread;
  };
  static auto& w = *new worker;
  w.thread = std::thread([] {
    w.kept = greenlet(waits("kept"));
    w.kept.switch_to();
    w.dropped = greenlet(waits("dropped"));
    w.dropped.switch_to();
    w.ready.set_value();
    w.go.get_future().wait();
    // What was dropped meanwhile, and what is kept, are unwound by the exit.
  });
  w.ready.get_future().wait();
  at_the_end.call = [] {
    w.dropped = greenlet();
    say("dropped there");
    w.go.set_value();
    w.thread.join();
    say(w.kept.state() == greenlet_state::unwound ? "unwound" : "not unwound");
  };
  return 3;
}

int first_use_in_static_destruction() {
  at_the_end.call = [] {
    std::thread([] {
      static auto& kept = *new greenlet(waits("kept"));
      kept.switch_to();
    }).join();
    say("joined");
  };
  return 3;
}

// The main thread ends; the process goes on until the last thread has.
int last_thread(bool in_greenlet) {
  static auto& main_ones = *new std::vector<greenlet>;
  static const pthread_t first = pthread_self();
  main_ones.emplace_back(waits("main's"));
  main_ones.back().switch_to();
  at_the_end.call = [] { use_everything_here("static destructor"); };
  std::atexit([] { use_everything_here("atexit"); });
  pthread_t other;
  const auto last = [](void*) -> void* {
    pthread_join(first, nullptr);
    say(main_ones.back().state() == greenlet_state::unwound ? "main's is unwound" : "main's is not unwound");
    main_ones.emplace_back(waits("the last thread's"));
    main_ones.back().switch_to();
    return nullptr;
  };
  if (pthread_create(&other, nullptr, last, nullptr) != 0) return 65;
  pthread_detach(other);
  if (in_greenlet)
    greenlet([] { pthread_exit(nullptr); }).switch_to();
  else
    pthread_exit(nullptr);
  return 64;
}

// -- What is dropped on another thread and never reaches its own ----------------------------------

int queue_of_main(bool enter) {
  static auto& kept = *new greenlet(waits("main's"));
  kept.switch_to();
  std::thread([] { kept = greenlet(); }).join();
  if (enter)
    std::atexit([] {
      say("atexit");
      current();
      say("entered");
    });
  return 3;
}

int queue_of_thread() {
  static auto& kept = *new std::vector<greenlet>;
  std::promise<void> ready;
  std::thread([&] {
    for (int i = 0; i < 100; ++i) {
      kept.emplace_back(waits("never"));
      kept.back().switch_to();
    }
    ready.set_value();
    wait_for_ever();
  }).detach();
  ready.get_future().wait();
  at_the_end.call = [] {
    kept.resize(50);
    say("50 in the static destructor");
  };
  std::atexit([] {
    kept.resize(75);
    say("25 in atexit");
    use_everything("atexit");
  });
  return 3;
}

int both_wait() {
  // Two threads, each of which has dropped greenlets of the other's, and one that constructs in an
  // atexit handler, which would unwind what was dropped.
  static auto& mine = *new greenlet(waits("main's"));
  static auto& theirs = *new greenlet;
  mine.switch_to();
  std::promise<void> ready;
  std::thread([&] {
    theirs = greenlet(waits("never"));
    theirs.switch_to();
    mine = greenlet();
    ready.set_value();
    wait_for_ever();
  }).detach();
  ready.get_future().wait();
  theirs = greenlet();
  std::atexit([] {
    const greenlet made([] {});
    say(made.parent() == current() ? "made" : "made with a wrong parent");
  });
  return 3;
}

// -- A thread whose destructors never run ---------------------------------------------------------

int raw_exit() {
  static auto& kept = *new std::vector<greenlet>;
  pthread_t thread;
  const auto ends = [](void*) -> void* {
    for (int i = 0; i < 4; ++i) {
      kept.emplace_back(waits("never"));
      kept.back().switch_to();
    }
    syscall(SYS_exit, 0);
    return nullptr;
  };
  if (pthread_create(&thread, nullptr, ends, nullptr) != 0) return 65;
  pthread_join(thread, nullptr);
  const auto refused = [](const greenlet& g) {
    try {
      g.switch_to();
    } catch (const error& e) {
      return e.code() == errc::different_thread;
    }
    return false;
  };
  for (const greenlet& g : kept)
    if (!refused(g) || g.state() != greenlet_state::suspended) say("not refused");
  kept.resize(2);
  use_everything("main");
  // The C library may give the next threads the same stack and the same thread-local memory.
  for (int i = 0; i < 3; ++i) std::thread([] { use_everything("thread"); }).join();
  kept.clear();
  say("dropped");
  return 3;
}

// The first use of the library after its own destructor has run for the last time.
int last_round() {
  static auto& kept = *new greenlet;
  static pthread_key_t later;
  static int rounds = 0;
  current();  // ours is made now, so it is earlier than the other
  const auto destructor = [](void*) {
    if (++rounds < PTHREAD_DESTRUCTOR_ITERATIONS) {
      pthread_setspecific(later, &rounds);
      return;
    }
    kept = greenlet(waits("never"));
    kept.switch_to();
    say("used");
  };
  if (pthread_key_create(&later, destructor) != 0) return 65;
  std::thread([] { pthread_setspecific(later, &rounds); }).join();
  for (int i = 0; i < 3; ++i) std::thread([] { use_everything_here("thread"); }).join();
  say(kept.state() == greenlet_state::suspended ? "suspended" : "not suspended");
  kept = greenlet();
  use_everything_here("main");
  return 3;
}

// -- The end of the process by std::terminate -----------------------------------------------------

void break_promise() { throw std::runtime_error("broken promise"); }
void may_not_throw() noexcept { break_promise(); }

int terminated(bool nested) {
  greenlet outer([nested] {
    if (!nested) may_not_throw();
    greenlet([] { may_not_throw(); }).switch_to();
  });
  outer.switch_to();
  return 64;
}

int terminated_by_destructor() {
  struct throwing {
    ~throwing() { break_promise(); }
  };
  greenlet([] { const throwing t; }).switch_to();
  return 64;
}

// A terminate handler runs in the greenlet, and may ask which.
int terminate_handler() {
  std::set_terminate([] {
    say(current().name() + " " + (std::current_exception() ? "with" : "without") + " an exception");
    std::_Exit(3);
  });
  greenlet(attributes().name("guilty"), [] { may_not_throw(); }).switch_to();
  return 64;
}

}  // namespace

int threads(const words& arguments) {
  if (arguments.size() != 2) return 64;
  const std::map<std::string, std::function<int()>> scenarios{
      {"busy, return", [] { return busy_threads("return"); }},
      {"busy, exit", [] { return busy_threads("exit"); }},
      {"busy, quick_exit", [] { return busy_threads("quick_exit"); }},
      {"busy, _exit", [] { return busy_threads("_exit"); }},
      {"ended in static destruction", ended_in_static_destruction},
      {"first use in static destruction", first_use_in_static_destruction},
      {"last thread", [] { return last_thread(false); }},
      {"last thread, exit in a greenlet", [] { return last_thread(true); }},
      {"queue of main", [] { return queue_of_main(false); }},
      {"queue of main, entered", [] { return queue_of_main(true); }},
      {"queue of a thread", queue_of_thread},
      {"both wait", both_wait},
      {"raw exit", raw_exit},
      {"last round", last_round},
      {"terminate", [] { return terminated(false); }},
      {"terminate, nested", [] { return terminated(true); }},
      {"terminate by a destructor", terminated_by_destructor},
      {"terminate handler", terminate_handler}};
  const auto found = scenarios.find(arguments[1]);
  return found == scenarios.end() ? 65 : found->second();
}

}  // namespace exiting
