// SPDX-License-Identifier: MIT
// A libFuzzer target: every input is a random program (t/random), on which the library and its model must
// agree. `make fuzz` runs it, under AddressSanitizer.
//
// With GREENLET_PRINT in the environment it first prints each program as C++: for a crash, as in
//   GREENLET_PRINT=1 fuzz/programs fuzz/found/crash-...
#include "random/print.hpp"
#include "random/run.hpp"

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  const programs::program p = programs::decode(bytes, size);
  static const bool print = std::getenv("GREENLET_PRINT") != nullptr;
  if (print) std::puts(programs::as_cpp(p, 0).c_str());
  std::fflush(stdout);
  programs::run(p, [&p](const std::string& report) {
    int step = 0;
    if (std::sscanf(report.c_str(), "step %d", &step) != 1) step = 0;
    std::fprintf(stderr, "The library and the model disagree in %s\nAs C++:\n\n%s\n", report.c_str(),
                 programs::as_cpp(p, step).c_str());
    std::abort();
  });
  return 0;
}
