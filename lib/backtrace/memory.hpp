// SPDX-License-Identifier: MIT
// memory: that of a process, which may be this one, read without a fault whatever is there.
#ifndef LIB_BACKTRACE_MEMORY_HPP
#define LIB_BACKTRACE_MEMORY_HPP

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <sys/types.h>
#include <vector>

namespace greenlets::detail {

class memory {
 public:
  // Something that is to be read, and how much of it was: its first bytes, as far as they could be.
  struct part {
    std::uintptr_t from;
    void* to;
    std::size_t bytes;
    std::size_t done = 0;
  };

  memory() noexcept = default;
  memory(const memory&) = delete;
  memory& operator=(const memory&) = delete;
  virtual ~memory();

  // Reads each part, in this order.
  virtual void read(part* parts, std::size_t n) noexcept = 0;
  // For each page from `low` on, of the reader's page size, whether it is in memory or swapped out (bit 0). Returns false
  // when that is not known.
  virtual bool pages(std::uintptr_t low, std::size_t n, unsigned char* to) noexcept;
  // What CLOCK_MONOTONIC shows there; of what has ended, nothing. Nanoseconds.
  virtual std::optional<std::uint64_t> now() const noexcept;

  std::size_t read(std::uintptr_t from, void* to, std::size_t bytes) noexcept {
    part p{from, to, bytes};
    read(&p, 1);
    return p.done;
  }
  // Of the type, or nothing.
  template <class T>
  std::optional<T> get(std::uintptr_t from) noexcept {
    T t;
    if (read(from, &t, sizeof t) != sizeof t) return std::nullopt;
    return t;
  }
};

// Of a running process, of this one too, by process_vm_readv(2). Where the system has no such call or forbids it, this
// process's own is written to a pipe, which says as well when there is none.
class process_memory : public memory {
 public:
  explicit process_memory(pid_t pid) noexcept;
  ~process_memory() override;

  using memory::read;
  void read(part* parts, std::size_t n) noexcept override;
  bool pages(std::uintptr_t low, std::size_t n, unsigned char* to) noexcept override;

 private:
  bool read_by_call(part* parts, std::size_t n) noexcept;
  void read_by_pipe(part& p) noexcept;
  bool opens_pipe() noexcept;
  bool opens_pagemap() noexcept;

  pid_t pid_;
  bool own_;
  bool refused_ = false;  // the call has been
  int pipe_[2] = {-1, -1};
  int pagemap_ = -1;
  bool no_pagemap_ = false;
};

}  // namespace greenlets::detail

#endif
