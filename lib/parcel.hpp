// SPDX-License-Identifier: MIT
// parcel: what one greenlet hands another at a switch: a value, or something to be thrown.
#ifndef LIB_PARCEL_HPP
#define LIB_PARCEL_HPP

#include <greenlet/detail/hot.hpp>
#include <greenlet/detail/switch.hpp>
#include <greenlet/value.hpp>

#include <cxxabi.h>
#include <exception>

namespace greenlets::detail {

// The calling thread's; the address is the same for all of the thread's life.
inline exception_state* exceptions_of_thread() noexcept {
  return reinterpret_cast<exception_state*>(abi::__cxa_get_globals());
}

struct parcel {
  value sent;
  std::exception_ptr thrown;  // when set, this is thrown and `sent` is empty
  // A forced unwind (pthread_exit, pthread_cancel) that has unwound a greenlet and is to go on in
  // the main greenlet, and the exception state that holds it.
  bool forced = false;
  exception_state forced_state;

  parcel() = default;
  bool empty() const noexcept { return !sent.has_value() && !thrown; }
  explicit parcel(value&& v) noexcept : sent(std::move(v)) {}
  explicit parcel(std::exception_ptr&& e) noexcept : thrown(std::move(e)) {}
};

// What inline code has carried.
parcel parcel_of(const machine::cargo& c) noexcept;

// Whether it refers to a greenlet_exit, or to something derived from it.
bool is_exit(const std::exception_ptr& e) noexcept;

// A greenlet_exit that ends a greenlet goes on as a value that holds it.
void exit_to_value(parcel& p) noexcept;

// Throws what the parcel says, or gives its value.
value open(parcel&& p);

}  // namespace greenlets::detail

#endif
