// SPDX-License-Identifier: MIT
// What crosses the library's border: the mark of a symbol that it exports.
#ifndef GREENLET_DETAIL_API_HPP
#define GREENLET_DETAIL_API_HPP

#ifdef __cplusplus  // C, too, takes GREENLET_API from here
#include <cstddef>  // tells which standard library this is

#if __cplusplus < 201703L
#error "libgreenlet needs C++17: compile with -std=c++17 or later"
#endif
#ifndef __cpp_exceptions
#error "libgreenlet needs exceptions, by which greenlets are unwound: compile without -fno-exceptions"
#endif
#ifndef __cpp_rtti
#error "libgreenlet needs type information, by which values are told apart: compile without -fno-rtti"
#endif
#ifdef _LIBCPP_VERSION
#error "libgreenlet needs libstdc++, through which pthread_exit can unwind: compile without -stdlib=libc++"
#endif
#endif

// Everything is compiled with hidden visibility; a class that is thrown or compared by its type
// must be visible in the user's objects too, else the two sides have different type_infos.
#define GREENLET_API __attribute__((visibility("default")))

#endif
