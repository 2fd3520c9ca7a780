// SPDX-License-Identifier: MIT
// impossible(): what cannot happen has happened; says where, and aborts. In release builds too.
#ifndef LIB_IMPOSSIBLE_HPP
#define LIB_IMPOSSIBLE_HPP

#include <greenlet/detail/api.hpp>

namespace greenlets::detail {

[[noreturn]] GREENLET_API void impossible_at(const char* what, const char* file, int line) noexcept;

}  // namespace greenlets::detail

#define impossible(what) ::greenlets::detail::impossible_at(what, __FILE__, __LINE__)

#endif
