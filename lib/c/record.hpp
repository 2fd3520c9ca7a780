// SPDX-License-Identifier: MIT
// What the functions of the C interface share: statuses instead of exceptions, and payloads.
#ifndef LIB_C_RECORD_HPP
#define LIB_C_RECORD_HPP

#include "body.hpp"
#include "describe.hpp"
#include "parcel.hpp"
#include "thread.hpp"

#include <greenlet/c.hpp>

#include <atomic>
#include <exception>
#include <memory>
#include <string>
#include <utility>

// What C knows as an exception. The texts are made with it, so that reading them cannot fail.
struct greenlet_exception {
  std::atomic<std::size_t> references{1};
  const std::exception_ptr thrown;
  const std::string type, message;

  explicit greenlet_exception(const std::exception_ptr& e);
};

namespace greenlets::detail {

// What the C functions remember for one greenlet. Used by it alone, while it runs.
struct c_record {
  int code = GREENLET_OK;        // the last error, and what belongs to it
  int number = 0;
  std::exception_ptr last;
  std::string message;           // made when it is asked for
  bool has_message = false;
  std::exception_ptr thrown;     // the last that was thrown in and is no exit; a function may still end by it
  std::exception_ptr exit;       // the last exit; the same
  std::exception_ptr received;   // the exit that the last switch received as a value
};

// The running greenlet's; null when nothing has gone wrong there.
c_record* c_record_if_any() noexcept;
// The same, made at need; null when there is no memory for it.
c_record* c_record_here() noexcept;

// An object for C, dropped at the end of its scope.
struct unref_exception {
  void operator()(greenlet_exception_t* e) const { greenlet_exception_unref(e); }
};
using exception_for_c = std::unique_ptr<greenlet_exception_t, unref_exception>;
// The same, for C to drop; null where there is no memory.
greenlet_exception_t* to_c_if_possible(const std::exception_ptr& e) noexcept;

// sending.cpp, for straight.cpp: the two switches by all that the library does for one; and what is left to do
// when `self` has been gone back to with `c`.
int switch_slowly(greenlet_t* g, void* payload, void** result);
int switch_to_parent_slowly(void* payload, void** result);
int land(const machine::cargo& c, body* self, void** result);
// Counts the greenlets of a thread that have received an exit (attention::received).
void count_received(thread_record& t, bool one_more) noexcept;

// Notes that a call has failed, and returns its status; found by the type of the exception in the first case.
int fail(std::exception_ptr e) noexcept;
int fail(std::exception_ptr e, int status) noexcept;
// In a handler: the same with what was caught; throws it on when it is a forced unwind.
int fail_with_current();
// Whether the last error was this one, and there was no memory to keep what belongs to it.
bool could_not_keep(int status) noexcept;
// Forgets the last error and everything that was thrown in. User code: destructors of exceptions.
void clear_errors() noexcept;

// what() where there is one.
std::string message_of(const std::exception_ptr& e);

// Calls `f`; whatever it throws becomes the running greenlet's last error. But for forced unwinding,
// which is not an error, and has to pass.
template <class F>
int guarded(F&& f) {
  try {
    f();
    return GREENLET_OK;
  } catch (...) {
    return fail_with_current();
  }
}

inline body* body_of(const greenlet_t* g) noexcept {
  return reinterpret_cast<body*>(const_cast<greenlet_t*>(g));
}
inline greenlet_t* c_pointer(body* b) noexcept { return reinterpret_cast<greenlet_t*>(b); }

// The handle of the body itself, which is not counted: none lies on the stack of who waits in a call.
inline const greenlet& handle_of(const greenlet_t* g) {
  if (!g) throw error(errc::empty_handle, "the handle refers to no greenlet", "  the pointer is NULL" + describe_here());
  return body_of(g)->self;
}

// What a C function is to a greenlet: a callable. Owns `data`, from its construction on.
struct c_callable {
  greenlet_function* run;
  void* data;
  void (*release)(void*);

  c_callable(greenlet_function* f, void* d, void (*r)(void*)) noexcept : run(f), data(d), release(r) {}
  c_callable(c_callable&& other) noexcept
      : run(other.run), data(other.data), release(std::exchange(other.release, nullptr)) {}
  c_callable& operator=(c_callable&&) = delete;
  ~c_callable() {
    if (release) release(data);
  }
};

// A closure that runs it; an empty one, and `data` is released, when there is no function.
closure make_closure_of(c_callable&& callable);
// What asks a C function for one.
start_resolver make_resolver_of(greenlet_resolver* f, void* data);

}  // namespace greenlets::detail

#endif
