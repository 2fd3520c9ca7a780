// SPDX-License-Identifier: MIT
// Exceptions that nobody is there to catch.
#include <greenlet/unraisable.hpp>

#include "describe.hpp"
#include "immortal.hpp"
#include "thread.hpp"
#include "threads.hpp"

#include <algorithm>
#include <cstdio>
#include <memory>
#include <mutex>
#include <new>
#include <pthread.h>
#include <stdexcept>
#include <unistd.h>

namespace greenlets {
namespace detail {
namespace {

struct handler_slot {
  std::mutex lock;
  std::shared_ptr<const unraisable_handler> handler;
};

immortal<handler_slot> the_slot;

std::shared_ptr<const unraisable_handler> handler_now() noexcept {
  const std::lock_guard lock(the_slot.value.lock);
  return the_slot.value.handler;
}

// How many handlers have begun on this thread and not ended, and the state that the first has found.
__attribute__((tls_model("initial-exec"))) thread_local unsigned handlers = 0;
__attribute__((tls_model("initial-exec"))) thread_local int state_before = 0;

// A write() in a handler is a cancellation point, and nothing may be unwound through us. The state is the
// thread's: handlers that switch need not end in the order in which they began, so the last one puts it back.
class no_cancel {
 public:
  no_cancel() noexcept {
    if (handlers++ == 0) pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state_before);
  }
  no_cancel(const no_cancel&) = delete;
  no_cancel& operator=(const no_cancel&) = delete;
  ~no_cancel() {
    if (--handlers == 0) pthread_setcancelstate(state_before, nullptr);
  }
};

void print(const char* line, std::size_t length) noexcept {
  if (write(STDERR_FILENO, line, length) < 0) {
    // Nobody can be told.
  }
}

// Of what can be said without memory; no more of it than fits.
void print_briefly(const body* b, const std::exception_ptr& e) noexcept {
  char line[400];
  const auto format = [&](const char* what) {
    const int length = std::snprintf(line, sizeof line, "greenlet: exception ignored in greenlet %llu: %.300s\n",
                                     b ? static_cast<unsigned long long>(b->id) : 0ULL, what);
    print(line, std::min(static_cast<std::size_t>(std::max(length, 0)), sizeof line - 1));
  };
  if (!e) return format("no exception");
  try {
    std::rethrow_exception(e);
  } catch (const std::exception& x) {
    format(x.what());
  } catch (...) {
    format("there is no memory to say which");
  }
}

void print(body* b, const std::exception_ptr& e) noexcept {
  try {
    const std::string line = "greenlet: exception ignored in " + describe(b) + ": " + describe(e) + "\n";
    print(line.data(), line.size());
  } catch (...) {
    print_briefly(b, e);
  }
}

// Of report_refusal(), when there is no memory for the greenlet's description.
struct refusal : std::exception {
  const char* what() const noexcept override { return "greenlet_exit did not kill the greenlet"; }
};

}  // namespace

std::mutex& unraisable_lock() noexcept { return the_slot.value.lock; }

void report_unraisable(body* b, std::exception_ptr e) noexcept {
  const no_cancel guard;
  const std::shared_ptr<const unraisable_handler> handler = handler_now();
  if (!handler) return print(b, e);
  const greenlet g = b ? b->self : greenlet();
  try {
    (*handler)(g, e);
  } catch (...) {
    print(b, e);
    print(b, std::current_exception());
  }
}

void report_refusal(body* b) noexcept {
  std::exception_ptr e;
  try {
    e = std::make_exception_ptr(std::runtime_error("greenlet_exit did not kill " + describe(b)));
  } catch (...) {
    e = std::make_exception_ptr(refusal());
  }
  report_unraisable(b, e);
}

}  // namespace detail

void report_unraisable(const greenlet& g, std::exception_ptr e) noexcept {
  detail::report_unraisable(access::body_of(g), std::move(e));
}

unraisable_handler set_unraisable_handler(unraisable_handler handler) {
  auto next = handler ? std::make_shared<const unraisable_handler>(std::move(handler)) : nullptr;
  detail::handler_slot& slot = detail::the_slot.value;
  for (;;) {
    // The old one is copied first, for that may fail; and not under the lock, for it is user code.
    const std::shared_ptr<const unraisable_handler> before = detail::handler_now();
    unraisable_handler old = before ? *before : unraisable_handler();
    const std::lock_guard lock(slot.lock);
    if (slot.handler != before) continue;
    slot.handler.swap(next);
    return old;
  }
}

}  // namespace greenlets
