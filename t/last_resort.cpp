// SPDX-License-Identifier: MIT
// What is left to do when nothing can be thrown and nobody waits: a line on standard error, an abort
// that says where, a greenlet given up with its stack.
#include "testing.hpp"

#include <csignal>
#include <cstdint>
#include <cstring>
#include <exception>
#include <functional>
#include <pthread.h>
#include <stdexcept>
#include <string>
#include <thread>
#include <unwind.h>

using namespace greenlets;
using testing::child;
using testing::in_child;
using testing::unraisables;

namespace {

struct derived_exit : greenlet_exit {};
struct no_standard_exception {};

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_CASE("113: by default what cannot be thrown is named by its type, whatever that is") {
  const child c = in_child([] {
    const greenlet g(attributes().name("named"), [] {});
    report_unraisable(g, std::make_exception_ptr(std::out_of_range("the text")));
    report_unraisable(g, std::make_exception_ptr(no_standard_exception()));
    report_unraisable(g, std::make_exception_ptr(derived_exit()));
    report_unraisable({}, std::make_exception_ptr(7));
  });
  CHECK(WIFEXITED(c.status));
  CHECK(WEXITSTATUS(c.status) == 0);
  CHECK(contains(c.output, "\"named\" (unstarted): std::out_of_range: the text\n"));
  CHECK(contains(c.output, "no_standard_exception\n"));
  CHECK(contains(c.output, "derived_exit\n"));
  CHECK(contains(c.output, "greenlet: exception ignored in no greenlet: int\n"));
}

// Nothing of C++ can hold it: there is no std::exception_ptr to it, so it cannot be handed to a parent.
TEST_CASE("an exception of another language that leaves a greenlet ends the process; the message says where") {
  const child c = in_child([&] {
    const greenlet g([] {
      static _Unwind_Exception foreign{};
      std::memcpy(&foreign.exception_class, "other\0\0", 8);  // a number, or on 32-bit Arm characters
      _Unwind_RaiseException(&foreign);
    });
    g.switch_to();
  });
  const std::uint64_t next = greenlet([] {}).id();  // here, and there
  CHECK(WIFSIGNALED(c.status));
  CHECK(WTERMSIG(c.status) == SIGABRT);
  CHECK(contains(c.output, "start.cpp:"));
  CHECK(contains(c.output, ": an exception of another language has left a greenlet (in greenlet " + std::to_string(next) + " of thread "));
}

// The interleaving, on a thread that exits with two greenlets that refuse to end:
//
//   the exiting thread                   another thread
//   tells both, in every round
//   gives the newer up, and reports it
//                                        drops the last handle of the older, which still looks alive
//                                        and is put into the queue
//   gives the older up, and reports it
//   closes the queue: there it is
TEST_CASE("117, 137: dropped elsewhere when its thread has just given up another: reported once, and nothing is lost" *
          doctest::description("leaves the stacks of two greenlets")) {
  unraisables handler;
  greenlet older, newer;
  weak_greenlet dropped;
  const unraisable_handler seen = set_unraisable_handler({});
  set_unraisable_handler([&](const greenlet& g, const std::exception_ptr& e) {
    seen(g, e);
    if (!older.empty()) std::thread([&] { older = greenlet(); }).join();
  });
  std::thread([&] {
    const auto refuses = [] {
      for (;;) try {
          switch_to_parent();
        } catch (const greenlet_exit&) {
        }
    };
    older = greenlet(refuses);
    older.switch_to();
    newer = greenlet(refuses);
    newer.switch_to();
    dropped = older;
  }).join();
  REQUIRE(handler.seen.size() == 2);
  CHECK(handler.seen[0].first == newer);
  CHECK(handler.seen[1].first == dropped.lock());
  CHECK(dropped.lock().state() == greenlet_state::unwound);
  handler.seen.clear();
  CHECK(dropped.expired());
  CHECK(newer.state() == greenlet_state::unwound);
}

// The unwinder finds no way through such a function, and goes from there straight to the thread's end.
#if defined(__x86_64__) && defined(__ELF__) && !defined(T_TSAN) && !defined(T_ASAN)
// Global, because LTO may put the test into another unit than this.
extern "C" void t_exit_without_unwind_information();
asm(R"(
    .text
    .globl t_exit_without_unwind_information
    .hidden t_exit_without_unwind_information
    .type t_exit_without_unwind_information, @function
t_exit_without_unwind_information:
    subq $8, %rsp
    xorl %edi, %edi
    call pthread_exit@PLT
    hlt
    .size t_exit_without_unwind_information, . - t_exit_without_unwind_information
)");

TEST_CASE("139, 167: pthread_exit below code without unwind information: the greenlet is given up, the thread ends well" *
          doctest::description("leaves the stack of that greenlet")) {
  unraisables handler;
  greenlet lost, suspended;
  bool unwound = false;
  // With C++ frames below, which the thread's end skips; so nothing lies in them that must be destroyed.
  std::function<void()> body = [&] {
    suspended = greenlet([&] {
      const auto end = testing::at_end([&] { unwound = true; });
      switch_to_parent();
    });
    suspended.switch_to();
    lost = greenlet([] { t_exit_without_unwind_information(); });
    lost.switch_to();
  };
  pthread_t thread;
  const auto call = [](void* f) -> void* {
    (*static_cast<std::function<void()>*>(f))();
    return nullptr;
  };
  REQUIRE(pthread_create(&thread, nullptr, call, &body) == 0);
  REQUIRE(pthread_join(thread, nullptr) == 0);
  CHECK(unwound);
  CHECK(suspended.dead());
  CHECK(lost.state() == greenlet_state::unwound);
  REQUIRE(handler.seen.size() == 1);
  CHECK(handler.seen[0].first == lost);
  CHECK(testing::error_of([&] { lost.switch_to(); }) == errc::thread_exited);
}
#endif

TEST_CASE("unraisable handlers that switch leave the thread as cancellable as it was, in whatever order they end") {
  // The one that began second put back what it had found, and the thread could not be cancelled any more.
  const auto cancellable = [] {
    int state = 0;
    pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &state);
    pthread_setcancelstate(state, nullptr);
    return state == PTHREAD_CANCEL_ENABLE;
  };
  const unraisable_handler before =
      set_unraisable_handler([](const greenlet&, const std::exception_ptr&) { switch_to_parent(); });
  const auto reports = [] { report_unraisable(greenlet(), std::make_exception_ptr(42)); };
  greenlet first(reports), second(reports);
  first.switch_to();
  second.switch_to();
  CHECK_FALSE(cancellable());
  first.switch_to();
  CHECK_FALSE(cancellable());
  second.switch_to();
  CHECK(cancellable());
  CHECK(first.dead());
  CHECK(second.dead());
  set_unraisable_handler(before);
}
