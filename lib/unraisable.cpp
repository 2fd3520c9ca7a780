// SPDX-License-Identifier: MIT
// Exceptions that nobody is there to catch.
#include <greenlet/unraisable.hpp>

#include "describe.hpp"
#include "thread.hpp"

#include <memory>
#include <mutex>
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

// Never destroyed: threads may end after main() has returned. Nor made at the first use, for an
// operator new of the user's might use the library in the middle of that.
union immortal {
  handler_slot slot;
  constexpr immortal() : slot() {}
  ~immortal() {}
};
immortal the_only;

handler_slot& the_slot() noexcept { return the_only.slot; }

// A write() in a handler is a cancellation point, and nothing may be unwound through us.
class no_cancel {
 public:
  no_cancel() noexcept { pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before_); }
  no_cancel(const no_cancel&) = delete;
  no_cancel& operator=(const no_cancel&) = delete;
  ~no_cancel() { pthread_setcancelstate(before_, nullptr); }

 private:
  int before_ = 0;
};

void print(body* b, const std::exception_ptr& e) {
  const std::string line = "greenlet: exception ignored in " + describe(b) + ": " + describe(e) + "\n";
  if (write(STDERR_FILENO, line.data(), line.size()) < 0) {
    // Nobody can be told.
  }
}

}  // namespace

void report_unraisable(body* b, std::exception_ptr e) noexcept {
  const no_cancel guard;
  try {
    std::shared_ptr<const unraisable_handler> handler;
    {
      const std::lock_guard lock(the_slot().lock);
      handler = the_slot().handler;
    }
    if (!handler) return print(b, e);
    const greenlet g = b ? b->self : greenlet();
    try {
      (*handler)(g, e);
    } catch (...) {
      print(b, e);
      print(b, std::current_exception());
    }
  } catch (...) {
    // No memory even for the message.
  }
}

void report_refusal(body* b) noexcept {
  std::exception_ptr e;
  try {
    e = std::make_exception_ptr(std::runtime_error("greenlet_exit did not kill " + describe(b)));
  } catch (...) {
    e = std::current_exception();
  }
  report_unraisable(b, e);
}

}  // namespace detail

void report_unraisable(const greenlet& g, std::exception_ptr e) noexcept {
  detail::report_unraisable(access::body_of(g), std::move(e));
}

unraisable_handler set_unraisable_handler(unraisable_handler handler) {
  auto next = handler ? std::make_shared<const unraisable_handler>(std::move(handler)) : nullptr;
  detail::handler_slot& slot = detail::the_slot();
  {
    const std::lock_guard lock(slot.lock);
    slot.handler.swap(next);
  }
  return next ? *next : unraisable_handler();
}

}  // namespace greenlets
