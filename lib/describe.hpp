// SPDX-License-Identifier: MIT
// Texts for people: types, exceptions.
#ifndef LIB_DESCRIBE_HPP
#define LIB_DESCRIBE_HPP

#include <greenlet/detail/api.hpp>

#include <exception>
#include <string>
#include <typeinfo>

namespace greenlets::detail {

GREENLET_API std::string demangled(const char* symbol);  // as it is, when it is none of C++'s
inline std::string demangled(const std::type_info& type) { return demangled(type.name()); }
// "std::runtime_error: disk full"
std::string describe(const std::exception_ptr& e);

// "\n  in greenlet 7 (running) of thread 4242", the last line of an error's details; nothing where no
// greenlet was ever used.
std::string describe_here();

}  // namespace greenlets::detail

#endif
