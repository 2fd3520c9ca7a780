// SPDX-License-Identifier: MIT
// Random programs on the library and on a model of it (t/random), which must agree after each step.
//
// GREENLET_SEED and GREENLET_PROGRAMS, from the environment, set one seed and how many programs it
// gives; without them there are four seeds that are always the same and a fresh one.
#include "random/minimise.hpp"
#include "random/print.hpp"
#include "testing.hpp"

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>

namespace {

#if defined(T_TSAN)
constexpr std::uint64_t of_a_seed = 100;
#elif defined(T_ASAN)
constexpr std::uint64_t of_a_seed = 400;
#else
constexpr std::uint64_t of_a_seed = 2000;
#endif
constexpr std::uint64_t of_a_seed_in_valgrind = 10;

std::uint64_t programs_of_a_seed() {
  if (const char* n = std::getenv("GREENLET_PROGRAMS")) return std::strtoull(n, nullptr, 0);
  const char* const preloaded = std::getenv("LD_PRELOAD");
  return preloaded && std::strstr(preloaded, "vgpreload") ? of_a_seed_in_valgrind : of_a_seed;
}

int step_of(const std::string& report) {
  int step = 0;
  return std::sscanf(report.c_str(), "step %d", &step) == 1 ? step : 0;
}

void explain(std::uint64_t seed, std::uint64_t n, const std::string& report) {
  std::printf("\nProgram %llu of seed %llu fails (GREENLET_SEED=%llu GREENLET_PROGRAMS=%llu):\n%s\n",
              static_cast<unsigned long long>(n), static_cast<unsigned long long>(seed),
              static_cast<unsigned long long>(seed), static_cast<unsigned long long>(n) + 1, report.c_str());
  const std::vector<std::uint8_t> bytes = programs::random_bytes(seed, n);
  const programs::program least = programs::minimise(programs::decode(bytes.data(), bytes.size()), std::chrono::seconds(120));
  const programs::outcome again = programs::try_out(least);
  std::printf("Minimised, %zu operations:\n", least.ops.size());
  for (const programs::op& o : least.ops) std::printf("  %s\n", programs::to_string(o).c_str());
  std::printf("%s\nAs C++:\n\n%s\n", again.report.c_str(), programs::as_cpp(least, step_of(again.report)).c_str());
}

void run_seed(std::uint64_t seed) {
  const std::uint64_t count = programs_of_a_seed();
  std::uint64_t failed_at = 0;
  const programs::outcome result = programs::try_out(seed, 0, count, failed_at);
  CHECK_FALSE(result.failed);
  if (result.failed) explain(seed, failed_at, result.report);
}

}  // namespace

TEST_CASE("the library does what the model says, in every program of four seeds") {
  if (std::getenv("GREENLET_SEED")) return;
  for (const std::uint64_t seed : {1, 2, 3, 4}) run_seed(seed);
}

TEST_CASE("... and of a fresh one") {
  std::uint64_t seed = std::random_device()();
  if (const char* given = std::getenv("GREENLET_SEED")) seed = std::strtoull(given, nullptr, 0);
  std::printf("seed %llu, %llu programs\n", static_cast<unsigned long long>(seed),
              static_cast<unsigned long long>(programs_of_a_seed()));
  run_seed(seed);
}
