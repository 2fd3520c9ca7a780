// SPDX-License-Identifier: MIT
// Runs a program on the library, beside the model: after each step both must have seen the same
// events, and every greenlet must be as the model says.
#ifndef T_RANDOM_RUN_HPP
#define T_RANDOM_RUN_HPP

#include "program.hpp"

#include <functional>
#include <string>

namespace programs {

// Told when the library and the model disagree; must not return, for nothing can go on then.
using disagreement = std::function<void(const std::string& report)>;

// Runs it to its end and returns when all its threads have been joined and nothing of it is left.
void run(const program& p, const disagreement& disagrees);

}  // namespace programs

#endif
