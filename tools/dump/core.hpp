// SPDX-License-Identifier: MIT
// The core file of a process on Linux: core(5).
#ifndef TOOLS_DUMP_CORE_HPP
#define TOOLS_DUMP_CORE_HPP

#include "target.hpp"

#include <elf.h>
#include <optional>
#include <string>
#include <vector>

namespace greenlets::outside {

class core : public target {
 public:
  explicit core(const std::string& file);  // throws failure
  ~core() override;
  core(const core&) = delete;
  core& operator=(const core&) = delete;

  using detail::memory::read;
  void read(part* parts, std::size_t n) noexcept override;
  std::optional<std::uint64_t> now() const noexcept override { return std::nullopt; }
  pid_t pid() const noexcept override { return pid_; }
  std::string title() const override { return "core file " + file_; }
  failure unread() const override { return {status::unreadable, title() + " does not have the memory that is needed"}; }
  std::vector<mapping> mappings() const override { return mappings_; }
  descriptor open(const mapping& first, unsigned attempt) const override;
  std::uintptr_t auxiliary(unsigned long type) const override;
  const std::vector<thread_state>& threads() const noexcept override { return threads_; }

  // Where the pages are taken from that were not written to the core file, for they are in files.
  void set_files(const image* files) noexcept { files_ = files; }
  bool is_truncated() const noexcept { return truncated_; }

 private:
  struct segment {
    std::uintptr_t start;
    std::size_t size;
    const char* data;
  };

  void map();
  void read_headers();
  void read_notes(const char* notes, std::size_t size);
  void read_note(unsigned type, const char* data, std::size_t size);
  void read_files(const char* data, std::size_t size);
  [[noreturn]] void damaged(const std::string& how) const;
  // The bytes of the file there. Throws failure when there are not so many.
  const char* at(std::uint64_t offset, std::uint64_t size) const;
  std::size_t read_segment(std::uintptr_t from, char* to, std::size_t size) const;

  std::string file_;
  const char* bytes_ = nullptr;
  std::size_t size_ = 0;
  bool truncated_ = false;
  pid_t pid_ = 0;
  std::vector<segment> segments_;  // by address
  std::vector<mapping> mappings_;
  std::vector<thread_state> threads_;
  std::vector<Elf64_auxv_t> auxiliary_;
  const image* files_ = nullptr;
};

}  // namespace greenlets::outside

#endif
