// SPDX-License-Identifier: MIT
// The files that are loaded in a process, and what they tell: symbols, debugging information, how frames are undone.
#ifndef TOOLS_DUMP_IMAGE_HPP
#define TOOLS_DUMP_IMAGE_HPP

#include "backtrace/memory.hpp"

#include <cstddef>
#include <cstdint>
#include <elfutils/libdwfl.h>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace greenlets::outside {

// Where a part of a file is.
struct mapping {
  std::uintptr_t start = 0;
  std::uintptr_t end = 0;
  std::uint64_t offset = 0;
  std::string path;  // as the process names it
};

class descriptor {
 public:
  explicit descriptor(int fd = -1) noexcept : fd_(fd) {}
  descriptor(descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  descriptor& operator=(descriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~descriptor();
  int get() const noexcept { return fd_; }
  explicit operator bool() const noexcept { return fd_ >= 0; }

 private:
  int fd_;
};

// Gives the files that may be what is mapped there, the best first: until one is the right one, or there is none (-1).
using file_source = std::function<descriptor(const mapping& first, unsigned attempt)>;

struct symbol {
  std::string name;
  std::uintptr_t address = 0;
  std::string object;  // the file that has it
};

struct writable_part {
  std::uintptr_t start;
  std::size_t bytes;
  std::string object;
};

class image {
 public:
  // Both live as long as this.
  image(detail::memory& of, file_source files);
  ~image();
  image(const image&) = delete;
  image& operator=(const image&) = delete;

  // What is loaded now, in the order of the addresses; `vdso`: the kernel's own code in the process, or 0. Those that
  // stay are not read again.
  void report(const std::vector<mapping>& all, std::uintptr_t vdso);

  // The first symbol whose name begins so, of the library if that is loaded, else of any file.
  bool find_symbol(const std::string& prefix, symbol& found) const;
  // As far as a file has it that is mapped there and not written to: how many bytes.
  std::size_t read_file(std::uintptr_t from, void* to, std::size_t size) const;
  // The names of those without a file that could be read.
  const std::vector<std::string>& missing() const noexcept { return missing_; }
  // The file that is loaded at that address, and where it begins; null: there is none.
  const mapping* file_at(std::uintptr_t address) const noexcept;
  // The first whose name has that in it, or "".
  std::string find_object(const std::string& part_of_name) const;
  std::size_t count_objects(const std::string& part_of_name) const;
  // What of the files was loaded to be written to.
  std::vector<writable_part> writable() const;
  // Whether the file is what is loaded there, as far as can be known.
  bool is_loaded(const descriptor& file, const mapping& first);

  Dwfl* dwfl() const noexcept { return dwfl_; }

 private:
  static int find_elf(Dwfl_Module*, void** self, const char* name, Dwarf_Addr base, char** path, Elf** elf);
  static int find_debug_file(Dwfl_Module*, void**, const char* name, Dwarf_Addr base, const char* file, const char* link,
                             GElf_Word checksum, char** path);
  Elf* open(const mapping& first);
  std::optional<std::string> loaded_id(const mapping& first);
  Elf* from_memory(std::uintptr_t base);
  Elf* copy_from_memory(std::uintptr_t base);
  bool find_in(Dwfl_Module* module, const std::string& prefix, symbol& found) const;

  detail::memory& of_;
  file_source files_;
  Dwfl* dwfl_;
  std::vector<mapping> loaded_;  // the first mapping of each
  std::vector<std::unique_ptr<char, void (*)(void*)>> copies_;
  std::vector<std::string> missing_;
  bool opening_ = false;
};

}  // namespace greenlets::outside

#endif
