// SPDX-License-Identifier: MIT
// From a copy of a stack of another process to the addresses in it.
#ifndef TOOLS_DUMP_UNWINDER_HPP
#define TOOLS_DUMP_UNWINDER_HPP

#include "image.hpp"

#include "backtrace/walk.hpp"
#include "suspension.hpp"

#include <cstddef>
#include <elfutils/libdwfl.h>
#include <vector>

namespace greenlets::outside {

// By the tables in the files of an image, which lives as long.
class unwinder {
 public:
  // Throws failure.
  unwinder(const image& files, pid_t pid);
  unwinder(const unwinder&) = delete;
  unwinder& operator=(const unwinder&) = delete;

  // What walk() of lib/backtrace finds in a stack of its own process. Throws std::bad_alloc.
  std::vector<detail::place_in_code> walk(const detail::suspension_v1& s, std::size_t most);

 private:
  struct found;
  static pid_t next_thread(Dwfl*, void* self, void** thread);
  static bool get_thread(Dwfl*, pid_t, void* self, void** thread);
  static bool read_memory(Dwfl*, Dwarf_Addr address, Dwarf_Word* word, void* self);
  static bool set_registers(Dwfl_Thread* thread, void* self);
  static int take(Dwfl_Frame* frame, void* to);

  const image& files_;
  const detail::suspension_v1* walked_ = nullptr;
};

}  // namespace greenlets::outside

#endif
