// SPDX-License-Identifier: MIT
// Programs in child processes, so that a crash, an abort or a hang is a result; and making a program
// that fails as short as it gets.
#ifndef T_RANDOM_MINIMISE_HPP
#define T_RANDOM_MINIMISE_HPP

#include "program.hpp"

#include <chrono>
#include <cstdint>
#include <string>

namespace programs {

struct outcome {
  bool failed = false;
  std::string report;  // why
};

// Runs one program in a child process.
outcome try_out(const program& p);

// Runs the programs `from` up to `to` of a seed in one child process; `failed_at` is told which failed.
outcome try_out(std::uint64_t seed, std::uint64_t from, std::uint64_t to, std::uint64_t& failed_at);

// Leaves out and simplifies what it can of a program that fails, as long as it fails.
program minimise(program p, std::chrono::seconds at_most);

}  // namespace programs

#endif
