// SPDX-License-Identifier: MIT
// What processes and core files have in common.
#include "target.hpp"

namespace greenlets::outside {

void check_machine(const unsigned char* ident, unsigned machine, const std::string& what) {
  const std::string ours = name_of_machine(this_machine);
  if (ident[EI_CLASS] != ELFCLASS64 || machine != this_machine)
    throw failure(status::unreadable, what + " is of " + (ident[EI_CLASS] == ELFCLASS32 ? "a 32-bit program (" : "another machine (") +
                                          name_of_machine(machine) + "), and this greenlet-dump reads " + ours);
}

}  // namespace greenlets::outside
