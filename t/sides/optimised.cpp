// SPDX-License-Identifier: MIT
// The sides of t/stepping.cpp as a release has them: optimised, and without frame pointers.
#define T_SIDES optimised
#include "sides.hpp"
