// SPDX-License-Identifier: MIT
// What is looked at: a process, or the core file of one.
#ifndef TOOLS_DUMP_TARGET_HPP
#define TOOLS_DUMP_TARGET_HPP

#include "failure.hpp"
#include "image.hpp"
#include "registers.hpp"

#include "backtrace/memory.hpp"

#include <cstdint>
#include <string>
#include <sys/types.h>
#include <vector>

namespace greenlets::outside {

class target : public detail::memory {
 public:
  virtual pid_t pid() const noexcept = 0;
  virtual std::string title() const = 0;  // "process 4242"
  // What is to be said when its memory is not there.
  virtual failure unread() const = 0;
  virtual std::vector<mapping> mappings() const = 0;
  virtual descriptor open(const mapping& first, unsigned attempt) const = 0;
  // Of the kernel's table for the program (getauxval(3)); 0: it is not there.
  virtual std::uintptr_t auxiliary(unsigned long type) const = 0;
  virtual const std::vector<thread_state>& threads() const noexcept = 0;
};

// Those of an ELF header, or why it cannot be read here.
void check_machine(const unsigned char* ident, unsigned machine, const std::string& what);

}  // namespace greenlets::outside

#endif
