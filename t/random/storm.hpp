// SPDX-License-Identifier: MIT
// Threads that run the operations of random programs at the same time, each its own, on one table of
// handles. Nobody can say what happens then; but nothing may be lost, destroyed twice or on the wrong thread.
#ifndef T_RANDOM_STORM_HPP
#define T_RANDOM_STORM_HPP

#include "program.hpp"

#include <string>

namespace programs {

// Deals the program's operations out to four threads, runs them, and returns what was wrong: nothing, it is to be hoped.
std::string storm(const program& p);

}  // namespace programs

#endif
