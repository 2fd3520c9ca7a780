// SPDX-License-Identifier: MIT
// Between the C interface and C++: handles, exceptions and values that cross over.
//
//   greenlets::greenlet g(run);
//   register_client(greenlets::c_pointer(g));      // a C function that takes a greenlet_t*
//   greenlets::greenlet same = greenlets::from_c(greenlet_current());
#ifndef GREENLET_C_HPP
#define GREENLET_C_HPP

#include <greenlet/error.hpp>
#include <greenlet/exit.hpp>
#include <greenlet/greenlet.h>
#include <greenlet/handle.hpp>
#include <greenlet/value.hpp>

#include <exception>
#include <memory>
#include <stdexcept>
#include <string>

namespace greenlets {

/// The greenlet as C knows it; nothing is counted. NULL for an empty handle. Switches: no.
GREENLET_API greenlet_t* c_pointer(const greenlet& g) noexcept;
/// Gives the handle's reference to C, which is to call greenlet_unref(). Switches: no.
GREENLET_API greenlet_t* to_c(greenlet&& g) noexcept;
/// A handle to what C knows, with a reference of its own. Switches: no.
GREENLET_API greenlet from_c(greenlet_t* g) noexcept;
/// A handle that takes over a reference of C's. Switches: no.
GREENLET_API greenlet adopt_from_c(greenlet_t* g) noexcept;

/// The exception that C has an object for; null for NULL. Switches: no.
GREENLET_API std::exception_ptr from_c(const greenlet_exception_t* e) noexcept;
/// An object for C, which is to call greenlet_exception_unref(); NULL for null.
/// Switches: no. Throws: std::bad_alloc.
GREENLET_API greenlet_exception_t* to_c(const std::exception_ptr& e);

/// An error made by C: by greenlet_exception_new(), or by a function that returned a status of its own.
class GREENLET_API c_error : public std::runtime_error {
 public:
  c_error(int code, const std::string& message, std::shared_ptr<void> payload = nullptr)
      : std::runtime_error(message), code_(code), payload_(std::move(payload)) {}
  ~c_error() override;
  c_error(const c_error&) = default;
  c_error& operator=(const c_error&) = default;

  int code() const noexcept { return code_; }
  void* payload() const noexcept { return payload_.get(); }

 private:
  int code_;
  std::shared_ptr<void> payload_;
};

/// An exit made by C, with a payload.
struct GREENLET_API c_exit : greenlet_exit {
  std::shared_ptr<void> payload;

  explicit c_exit(std::shared_ptr<void> p) noexcept : payload(std::move(p)) {}
  ~c_exit() override;
};

/// C++ has sent to C what is not a void*. error(wrong_type) that keeps what was sent.
class GREENLET_API unreadable_value : public error {
 public:
  explicit unreadable_value(value&& sent);
  ~unreadable_value() override;
  unreadable_value(const unreadable_value&) = default;
  unreadable_value& operator=(const unreadable_value&) = default;

  value& sent() const noexcept { return *sent_; }

 private:
  std::shared_ptr<value> sent_;
};

}  // namespace greenlets

#endif
