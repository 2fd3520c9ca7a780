// SPDX-License-Identifier: MIT
// impossible(): what cannot happen has happened; says where, and aborts. In release builds too.
#ifndef LIB_IMPOSSIBLE_HPP
#define LIB_IMPOSSIBLE_HPP

namespace greenlets::detail {

[[noreturn]] void impossible_at(const char* what, const char* file, int line) noexcept;

}  // namespace greenlets::detail

#define impossible(what) ::greenlets::detail::impossible_at(what, __FILE__, __LINE__)

#endif
