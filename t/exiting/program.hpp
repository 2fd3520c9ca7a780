// SPDX-License-Identifier: MIT
// What the parts of t/exiting/program share: it ends in many ways, and says what it does meanwhile.
#ifndef T_EXITING_PROGRAM_HPP
#define T_EXITING_PROGRAM_HPP

#include <greenlet/greenlet.hpp>

#include <string>
#include <vector>

namespace exiting {

using words = std::vector<std::string>;

// A line on standard output, at once: what follows may be _exit().
void say(const std::string& line);

// What the program was told to do; known before main, in static constructors.
const words& told();

// Uses the whole interface, each part for itself, beginning with part `first` (they go round), and
// says "PLACE: all well" or what was not. Never throws.
void use_everything(const std::string& place, unsigned first = 0);
// The same without making a thread. When the process ends because its last thread has, glibc takes
// any thread that is made afterwards for the last one, too, and ends the process with it.
void use_everything_here(const std::string& place);

// Ends the process as `how` says. Returns only for "return".
void end(const std::string& how, int status);

// The scenarios; their result is that of main.
int everywhere(const words& arguments);
int suspended(const words& arguments);
int threads(const words& arguments);

}  // namespace exiting

#endif
