// SPDX-License-Identifier: MIT
// What a callable's erased call may throw.
#include <greenlet/detail/closure.hpp>

#include "describe.hpp"

#include <greenlet/error.hpp>

namespace greenlets::detail {

void throw_wrong_arguments(std::initializer_list<const std::type_info*> wanted, const value& sent) {
  std::string list;
  for (const std::type_info* type : wanted) list += (list.empty() ? "" : ", ") + demangled(*type);
  throw error(errc::wrong_arguments, "what was sent does not fit the callable's parameters",
              "  the callable takes (" + list + "); " +
                  (sent.has_value() ? "sent was " + demangled(sent.type()) : "nothing was sent") + describe_here());
}

void throw_null_callable() { throw std::bad_function_call(); }

}  // namespace greenlets::detail
