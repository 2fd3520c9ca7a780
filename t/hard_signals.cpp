// SPDX-License-Identifier: MIT
// Signal handlers that switch.
//
// A handler runs on the stack of whoever it interrupts, so a switch there suspends both, and the
// handler returns when that greenlet is switched to again. This works where the interrupted code is
// not the library's or the allocator's. The signal mask belongs to the thread: until the handler
// returns, what it blocks stays blocked for every greenlet. On an alternate stack (sigaltstack) the
// next signal would begin at the top of that stack again, over the handler that is suspended there.
#include "testing.hpp"

#include <csignal>
#include <ctime>
#include <exception>
#include <initializer_list>
#include <pthread.h>
#include <stdexcept>
#include <string>
#include <vector>

using namespace greenlets;
using testing::child;
using testing::events;

namespace {

void (*in_handler)() = nullptr;

void handler(int) { in_handler(); }

void catch_signal(int number, int flags, std::initializer_list<int> blocked = {}) {
  struct sigaction action = {};
  action.sa_handler = handler;
  action.sa_flags = flags;
  sigemptyset(&action.sa_mask);
  for (const int each : blocked) sigaddset(&action.sa_mask, each);
  if (sigaction(number, &action, nullptr) != 0) _exit(90);
}

[[maybe_unused]] bool blocked(int number) {
  sigset_t now;
  pthread_sigmask(SIG_SETMASK, nullptr, &now);
  return sigismember(&now, number) == 1;
}

// In a child: exits with the line at which it fails, and with 7 when it does not.
#define HOLDS(condition) ((condition) ? void() : _exit(__LINE__ % 200 + 8))

void check_child(const child& c) {
  CAPTURE(c.output);
  CHECK(WIFEXITED(c.status));
  CHECK(WEXITSTATUS(c.status) == 7);  // else, after 8, a line
}

}  // namespace

// ThreadSanitizer keeps account of handlers by thread, and is lost when one is left by a switch.
#ifndef T_TSAN

TEST_CASE("218, B42: a handler that switches suspends whom it interrupts, and returns when that one goes on") {
  check_child(testing::in_child([] {
    alarm(60);
    catch_signal(SIGUSR1, 0);
    static int handled = 0, turns = 0;
    in_handler = [] {
      ++handled;
      switch_to_parent(handled);
      --handled;
    };
    greenlet g([] {
      for (;;) {
        raise(SIGUSR1);
        HOLDS(handled == 0);
        ++turns;
      }
    });
    for (int i = 0; i < 100; ++i) {
      HOLDS(g.switch_to().get<int>() == 1);
      HOLDS(turns == i);
      HOLDS(g.state() == greenlet_state::suspended);
      // Others run meanwhile, and what the handler blocks is blocked for them.
      HOLDS(blocked(SIGUSR1));
      HOLDS(greenlet([] { return blocked(SIGUSR1); }).switch_to().get<bool>());
    }
    // It is unwound out of the handler, and the signal stays blocked: nobody has returned from it.
    g = greenlet();
    HOLDS(blocked(SIGUSR1));
    _exit(7);
  }));
}

TEST_CASE("B42: ... in the main greenlet too, and with several greenlets in handlers of different signals at once") {
  check_child(testing::in_child([] {
    alarm(60);
    for (const int number : {SIGUSR1, SIGUSR2, SIGRTMIN, SIGRTMIN + 1}) catch_signal(number, 0);
    static std::vector<greenlet> all;
    static std::vector<int> order;
    in_handler = [] { switch_to_parent(); };
    for (const int number : {SIGUSR1, SIGUSR2, SIGRTMIN, SIGRTMIN + 1}) {
      all.emplace_back([number] {
        raise(number);
        order.push_back(number);
      });
      all.back().switch_to();
    }
    // Each goes back with the mask that it was interrupted with: the thread's, of that moment.
    HOLDS(blocked(SIGUSR1) && blocked(SIGRTMIN + 1));
    for (const std::size_t i : {2, 0, 3, 1}) all[i].switch_to();
    HOLDS((order == std::vector<int>{SIGRTMIN, SIGUSR1, SIGRTMIN + 1, SIGUSR2}));
    for (const greenlet& g : all) HOLDS(g.dead());

    static const greenlet main = current();
    static int in_main = 0;
    in_handler = [] {
      greenlet visitor([] { ++in_main; });
      visitor.switch_to();
    };
    sigset_t none;
    sigemptyset(&none);
    pthread_sigmask(SIG_SETMASK, &none, nullptr);
    for (int i = 0; i < 10; ++i) raise(SIGUSR1);
    HOLDS(in_main == 10);
    HOLDS(current() == main);
    _exit(7);
  }));
}

TEST_CASE("B42: on an alternate stack one handler may be suspended, as long as no other signal comes there") {
  check_child(testing::in_child([] {
    alarm(60);
    static std::vector<char> memory(256 * 1024);
    stack_t alternate = {};
    alternate.ss_sp = memory.data();
    alternate.ss_size = memory.size();
    HOLDS(sigaltstack(&alternate, nullptr) == 0);
    catch_signal(SIGUSR1, SA_ONSTACK, {SIGUSR2});
    static int handled = 0, others = 0;
    in_handler = [] {
      char here;
      HOLDS(&here >= memory.data() && &here < memory.data() + memory.size());
      try {
        throw std::runtime_error("in a handler");  // and its exceptions are the greenlet's
      } catch (const std::runtime_error&) {
        switch_to_parent();
        HOLDS(std::current_exception() != nullptr);
      }
      ++handled;
    };
    greenlet g([] { raise(SIGUSR1); });
    g.switch_to();
    HOLDS(std::current_exception() == nullptr);
    for (int i = 0; i < 20; ++i) {
      greenlet other([] {
        ++others;
        switch_to_parent();
      });
      other.switch_to();
    }
    HOLDS(handled == 0 && others == 20);
    g.switch_to();
    HOLDS(handled == 1 && g.dead());
    _exit(7);
  }));
}

#endif

TEST_CASE("B42: signals that come all the time, and whose handlers do not switch, disturb no switch") {
  check_child(testing::in_child([] {
    alarm(60);
    static volatile std::sig_atomic_t seen = 0;
    in_handler = [] { seen = seen + 1; };
    catch_signal(SIGVTALRM, SA_RESTART);
    struct itimerspec often = {};
    often.it_interval.tv_nsec = often.it_value.tv_nsec = 50'000;
    struct sigevent event = {};
    event.sigev_notify = SIGEV_SIGNAL;
    event.sigev_signo = SIGVTALRM;
    timer_t timer;
    HOLDS(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0);
    HOLDS(timer_settime(timer, 0, &often, nullptr) == 0);
    // Until so many have come, wherever they hit.
    while (seen < 2000) {
      greenlet g([](int n) {
        for (;;) n = switch_to_parent(n + 1).get<int>();
      });
      for (int i = 0; i < 20; ++i) HOLDS(g.switch_to(i).get<int>() == i + 1);
      try {
        greenlet([] { throw std::runtime_error("through"); }).switch_to();
        _exit(91);
      } catch (const std::runtime_error&) {
      }
    }
    _exit(7);
  }));
}
