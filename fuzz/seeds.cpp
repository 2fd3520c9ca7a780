// SPDX-License-Identifier: MIT
// Writes random programs into a directory, for the fuzzer to begin with: seeds DIRECTORY COUNT
#include "random/program.hpp"

#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <string>

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  const std::uint64_t count = std::strtoull(argv[2], nullptr, 0);
  for (std::uint64_t n = 0; n < count; ++n) {
    const std::vector<std::uint8_t> bytes = programs::random_bytes(1, n);
    std::ofstream file(argv[1] + std::string("/seed-") + std::to_string(n), std::ios::binary);
    file.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    if (!file.flush()) return 1;
  }
}
