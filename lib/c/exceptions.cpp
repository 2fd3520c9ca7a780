// SPDX-License-Identifier: MIT
// Exceptions as C sees them: made, counted, read.
#include "record.hpp"

#include <cxxabi.h>
#include <memory>
#include <new>
#include <typeinfo>

namespace greenlets {
namespace detail {
namespace {

std::string type_of(const std::exception_ptr& e) {
  try {
    std::rethrow_exception(e);
  } catch (...) {
    const std::type_info* type = abi::__cxa_current_exception_type();
    return type ? demangled(*type) : std::string();
  }
}

// Calls `f` with the exception as a T, if it is one.
template <class T, class F>
bool as(const greenlet_exception_t* e, F&& f) {
  if (!e) return false;
  try {
    std::rethrow_exception(e->thrown);
  } catch (const T& x) {
    f(x);
    return true;
  } catch (...) {
    return false;
  }
}

void no_release(void*) {}

std::shared_ptr<void> owned(void* payload, void (*release)(void*)) {
  return {payload, release ? release : &no_release};
}

// Makes one of what `make` makes, for C.
template <class F>
greenlet_exception_t* made_for_c(F&& make) {
  greenlet_exception_t* result = nullptr;
  guarded([&] { result = to_c(make()); });
  return result;
}

}  // namespace

greenlet_exception_t* to_c_if_possible(const std::exception_ptr& e) noexcept {
  try {
    return to_c(e);
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}

}  // namespace detail

std::exception_ptr from_c(const greenlet_exception_t* e) noexcept { return e ? e->thrown : nullptr; }

greenlet_exception_t* to_c(const std::exception_ptr& e) { return e ? new greenlet_exception(e) : nullptr; }

c_error::~c_error() = default;

c_exit::~c_exit() = default;

unreadable_value::unreadable_value(value&& sent)
    : error(errc::wrong_type, "what was sent is not a void pointer",
            "  C asked for a void*; sent was " + detail::demangled(sent.type()) + detail::describe_here()),
      sent_(std::make_shared<value>(std::move(sent))) {}

unreadable_value::~unreadable_value() = default;

}  // namespace greenlets

using namespace greenlets::detail;

greenlet_exception::greenlet_exception(const std::exception_ptr& e)
    : thrown(e), type(type_of(e)), message(message_of(e)) {}

greenlet_exception_t* greenlet_exception_new(int code, const char* message, void* payload, void (*release)(void*)) {
  return made_for_c([&] {
    const std::shared_ptr<void> kept = owned(payload, release);
    return std::make_exception_ptr(greenlets::c_error(code, message ? message : "", kept));
  });
}

greenlet_exception_t* greenlet_exception_new_exit(void* payload, void (*release)(void*)) {
  return made_for_c([&] { return std::make_exception_ptr(greenlets::c_exit(owned(payload, release))); });
}

greenlet_exception_t* greenlet_exception_ref(greenlet_exception_t* e) {
  if (e) e->references.fetch_add(1, std::memory_order_relaxed);
  return e;
}

void greenlet_exception_unref(greenlet_exception_t* e) {
  if (e && e->references.fetch_sub(1, std::memory_order_acq_rel) == 1) delete e;
}

int greenlet_exception_is_exit(const greenlet_exception_t* e) { return e && is_exit(e->thrown); }

greenlet_reason_t greenlet_exception_reason(const greenlet_exception_t* e) {
  using reason = greenlets::greenlet_exit::reason;
  static_assert(GREENLET_REASON_THROWN == static_cast<int>(reason::thrown) &&
                GREENLET_REASON_LAST_HANDLE == static_cast<int>(reason::last_handle) &&
                GREENLET_REASON_THREAD_EXIT == static_cast<int>(reason::thread_exit) &&
                GREENLET_REASON_COLLECTED == static_cast<int>(reason::collected) &&
                GREENLET_REASON_CANCELLED == static_cast<int>(reason::cancelled));
  greenlet_reason_t result = GREENLET_REASON_THROWN;
  as<greenlets::greenlet_exit>(e, [&](const auto& x) { result = static_cast<greenlet_reason_t>(x.why); });
  return result;
}

int greenlet_exception_code(const greenlet_exception_t* e) {
  if (!e) return GREENLET_OK;
  int code = GREENLET_THROWN;
  if (greenlet_exception_is_exit(e)) return GREENLET_EXIT;
  as<greenlets::c_error>(e, [&](const auto& x) { code = x.code(); }) ||
      as<greenlets::error>(e, [&](const auto& x) { code = static_cast<int>(x.code()); });
  return code;
}

void* greenlet_exception_payload(const greenlet_exception_t* e) {
  void* payload = nullptr;
  as<greenlets::c_error>(e, [&](const auto& x) { payload = x.payload(); }) ||
      as<greenlets::c_exit>(e, [&](const auto& x) { payload = x.payload.get(); });
  return payload;
}

const char* greenlet_exception_type(const greenlet_exception_t* e) { return e ? e->type.c_str() : ""; }

const char* greenlet_exception_message(const greenlet_exception_t* e) { return e ? e->message.c_str() : ""; }
