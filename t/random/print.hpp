// SPDX-License-Identifier: MIT
// A random program as C++: what the model says each greenlet does, as plain functions.
#ifndef T_RANDOM_PRINT_HPP
#define T_RANDOM_PRINT_HPP

#include "program.hpp"

#include <string>

namespace programs {

// A whole source file, which needs nothing but the library. It exits with 0 when all that happens is
// what the model expects. `failed` is the number of the step after which it did not, or 0: there the
// states of all greenlets are compared too.
std::string as_cpp(const program& p, int failed);

}  // namespace programs

#endif
