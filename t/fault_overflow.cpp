// SPDX-License-Identifier: MIT
// What the system refuses to those who want overflows reported.
#include "faults.hpp"

#include <csignal>
#include <thread>

using namespace greenlets;
using faults::kind;

// ASan has given each thread its own alternate stack.
#ifndef T_ASAN

namespace {

bool has_signal_stack() {
  stack_t now = {};
  sigaltstack(nullptr, &now);
  return !(now.ss_flags & SS_DISABLE);
}

void disable_signal_stack() {
  stack_t none = {};
  none.ss_flags = SS_DISABLE;
  sigaltstack(&none, nullptr);
}

void (*segv_handler())(int) {
  struct sigaction now = {};
  sigaction(SIGSEGV, nullptr, &now);
  return now.sa_handler;
}

// Whether it throws what is documented when the nth call of a kind is refused.
bool throws_of(const faults::plan& p, std::size_t nth) {
  std::exception_ptr e;
  faults::arm(p, nth);
  {
    const faults::counted here;
    try {
      report_stack_overflows();
    } catch (...) {
      e = std::current_exception();
    }
  }
  return faults::disarm().refused ? e && faults::documented(p, e) : !e;
}

}  // namespace

TEST_CASE("214: reporting overflows that the system refuses has changed nothing, and works when it is tried again") {
  std::thread([] {
    current();
    REQUIRE(!has_signal_stack());
    const auto handler = segv_handler();
    struct refusal {
      faults::plan p;
      std::size_t nth;
    };
    for (const refusal& r : {refusal{{kind::mmap, ENOMEM}, 1}, refusal{{kind::mprotect, EACCES}, 1},
                             refusal{{kind::sigaltstack, ENOMEM}, 1}, refusal{{kind::sigaction, EINVAL}, 1},
                             refusal{{kind::sigaction, EINVAL}, 2}}) {
      INFO(faults::text("reporting overflows", r.p, r.nth));
      CHECK(throws_of(r.p, r.nth));
      CHECK(!has_signal_stack());
      CHECK((segv_handler() == handler));
    }
    report_stack_overflows();
    CHECK(has_signal_stack());
    CHECK((segv_handler() != handler));

    disable_signal_stack();
    CHECK(throws_of({kind::sigaltstack, ENOMEM}, 1));
    CHECK(!has_signal_stack());
    CHECK(throws_of({kind::sigaction, EINVAL}, 1));  // which is not called again
    CHECK(has_signal_stack());
  }).join();
}

TEST_CASE("a thread that is refused an alternate stack uses greenlets without") {
  report_stack_overflows();
  for (const kind k : {kind::mmap, kind::mprotect, kind::sigaltstack}) {
    std::thread([k] {
      faults::arm({k, ENOMEM}, 1);
      {
        const faults::counted here;
        errno = ERANGE;
        current();
        CHECK(errno == ERANGE);
      }
      CHECK(faults::disarm().refused);
      CHECK(!has_signal_stack());
      CHECK(greenlet([] { return 5; }).switch_to().get<int>() == 5);
    }).join();
  }
}

#endif
