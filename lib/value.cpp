// SPDX-License-Identifier: MIT
// value: what is not a template of it.
#include <greenlet/value.hpp>

#include "describe.hpp"

#include <greenlet/error.hpp>

namespace greenlets {
namespace detail {
namespace {

// A type of our own, so that a user's exception_ptr that was sent is not taken for a thrown one.
struct thrown_exit {
  std::exception_ptr exception;
};

}  // namespace

template <>
inline constexpr bool moves_silently<thrown_exit> = true;
static_assert(fits_in_place<thrown_exit>, "an exit becomes a value where nothing may be allocated");

value from_thrown(std::exception_ptr thrown) { return thrown_exit{std::move(thrown)}; }

const std::type_info& thrown_type(const std::exception_ptr& thrown) noexcept {
  try {
    std::rethrow_exception(thrown);
  } catch (const greenlet_exit& e) {
    return typeid(e);
  } catch (...) {
    return typeid(void);
  }
}

void throw_wrong_type(const std::type_info* held, const std::type_info& asked) {
  const std::string is = held ? "it holds " + demangled(*held) : "it holds nothing";
  throw error(errc::wrong_type, "wrong type asked of a value", "  asked for " + demangled(asked) + "; " + is + describe_here());
}

}  // namespace detail

bool value::is_thrown() const noexcept { return ops_ == &detail::value_ops_of<detail::thrown_exit>::ops; }

std::exception_ptr value::thrown() const noexcept {
  if (!is_thrown()) return nullptr;
  return detail::value_ops_of<detail::thrown_exit>::object(storage_)->exception;
}

const std::type_info& value::type() const noexcept {
  if (!ops_) return typeid(void);
  return is_thrown() ? detail::thrown_type(thrown()) : *ops_->type;
}

}  // namespace greenlets
