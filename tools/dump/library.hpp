// SPDX-License-Identifier: MIT
// Where libgreenlet is in a process.
#ifndef TOOLS_DUMP_LIBRARY_HPP
#define TOOLS_DUMP_LIBRARY_HPP

#include "image.hpp"
#include "target.hpp"

#include <cstdint>
#include <string>

namespace greenlets::outside {

struct library {
  std::uintptr_t anchor = 0;  // lib/anchor.hpp
  std::string version;        // of libgreenlet, for people
  std::string object;         // the file that it is in
  bool by_symbol = true;      // else by what stands there: the program was linked statically, and stripped
};

// Throws failure when it is not there, or cannot be read by this program.
library find_library(target& of, const image& files);

}  // namespace greenlets::outside

#endif
