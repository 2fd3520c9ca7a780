// SPDX-License-Identifier: MIT
// What crosses the library's border: the mark of a symbol that it exports.
#ifndef GREENLET_DETAIL_API_HPP
#define GREENLET_DETAIL_API_HPP

// Everything is compiled with hidden visibility; a class that is thrown or compared by its type
// must be visible in the user's objects too, else the two sides have different type_infos.
#define GREENLET_API __attribute__((visibility("default")))

#endif
