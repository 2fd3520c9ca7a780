// SPDX-License-Identifier: MIT
// Reading the memory of processes.
#include "memory.hpp"

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdio>
#include <ctime>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

namespace greenlets::detail {

memory::~memory() = default;

bool memory::pages(std::uintptr_t, std::size_t, unsigned char*) noexcept { return false; }

std::optional<std::uint64_t> memory::now() const noexcept {
  timespec t = {};
  if (clock_gettime(CLOCK_MONOTONIC, &t) != 0) return std::nullopt;
  return static_cast<std::uint64_t>(t.tv_sec) * 1'000'000'000 + static_cast<std::uint64_t>(t.tv_nsec);
}

process_memory::process_memory(pid_t pid) noexcept : pid_(pid), own_(pid == getpid()) {}

process_memory::~process_memory() {
  for (const int fd : {pipe_[0], pipe_[1], pagemap_})
    if (fd >= 0) close(fd);
}

void process_memory::read(part* parts, std::size_t n) noexcept {
  if (!refused_ && read_by_call(parts, n)) return;
  if (!own_) return;
  for (std::size_t i = 0; i < n; ++i) read_by_pipe(parts[i]);
}

// Without a gap a call reads many; where one is, it ends, and the next begins behind that. Each page of a part is a
// piece of its own, because of one that reaches into a gap the system may give nothing at all.
// False: the system does not do that.
bool process_memory::read_by_call(part* parts, std::size_t n) noexcept {
  constexpr std::size_t page = 4096;
  constexpr std::size_t at_once = 256;
  struct piece {
    part* of;
    std::size_t bytes;
  };
  iovec from[at_once], to[at_once];
  piece pieces[at_once];
  for (std::size_t i = 0; i < n; ++i) parts[i].done = 0;
  std::size_t at = 0;      // the part that is next
  std::size_t begun = 0;   // and how much of it is in pieces already
  while (at < n) {
    std::size_t count = 0;
    std::size_t asked = 0;
    while (count < at_once && at < n) {
      part& p = parts[at];
      if (begun >= p.bytes) {
        ++at;
        begun = 0;
        continue;
      }
      const std::uintptr_t address = p.from + begun;
      const std::size_t bytes = std::min(page - address % page, p.bytes - begun);
      from[count] = {reinterpret_cast<void*>(address), bytes};
      to[count] = {static_cast<char*>(p.to) + begun, bytes};
      pieces[count++] = {&p, bytes};
      begun += bytes;
      asked += bytes;
    }
    if (count == 0) break;
    const ssize_t result = process_vm_readv(pid_, to, count, from, count, 0);
    if (result < 0 && errno != EFAULT) {
      if (errno != ENOSYS && errno != EPERM) return !own_;
      refused_ = true;
      return false;
    }
    std::size_t got = result > 0 ? static_cast<std::size_t>(result) : 0;
    const bool whole = got == asked;
    std::size_t i = 0;
    for (; i < count && got >= pieces[i].bytes; ++i) {
      pieces[i].of->done += pieces[i].bytes;
      got -= pieces[i].bytes;
    }
    if (whole) continue;
    if (i < count) pieces[i].of->done += got;
    // That part ends here; go on with the one behind it.
    at = static_cast<std::size_t>((i < count ? pieces[i].of : parts + at) - parts) + 1;
    begun = 0;
  }
  return true;
}

bool process_memory::opens_pipe() noexcept { return pipe_[0] >= 0 || pipe2(pipe_, O_CLOEXEC | O_NONBLOCK) == 0; }

void process_memory::read_by_pipe(part& p) noexcept {
  p.done = 0;
  if (!opens_pipe()) return;
  while (p.done < p.bytes) {
    const std::uintptr_t address = p.from + p.done;
    const std::size_t bytes = std::min<std::size_t>(PIPE_BUF - address % PIPE_BUF, p.bytes - p.done);
    // Not write(2), where a sanitizer would look whether the program may read that.
    const ssize_t written = syscall(SYS_write, pipe_[1], address, bytes);
    if (written <= 0) return;
    const ssize_t got = ::read(pipe_[0], static_cast<char*>(p.to) + p.done, static_cast<std::size_t>(written));
    if (got > 0) p.done += static_cast<std::size_t>(got);
    if (got != written || static_cast<std::size_t>(written) != bytes) return;
  }
}

bool process_memory::opens_pagemap() noexcept {
  if (pagemap_ >= 0 || no_pagemap_) return pagemap_ >= 0;
  char path[32];
  std::snprintf(path, sizeof path, "/proc/%d/pagemap", static_cast<int>(pid_));
  pagemap_ = open(path, O_RDONLY | O_CLOEXEC);
  no_pagemap_ = pagemap_ < 0;
  return !no_pagemap_;
}

bool process_memory::pages(std::uintptr_t low, std::size_t n, unsigned char* to) noexcept {
  const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  if (own_) return mincore(reinterpret_cast<void*>(low), n * page, to) == 0;
  if (!opens_pagemap()) return false;
  constexpr std::size_t at_once = 512;
  std::uint64_t entries[at_once];
  for (std::size_t done = 0; done < n;) {
    const std::size_t bytes = std::min(at_once, n - done) * sizeof(std::uint64_t);
    const auto place = static_cast<off_t>((low / page + done) * sizeof(std::uint64_t));
    if (pread(pagemap_, entries, bytes, place) != static_cast<ssize_t>(bytes)) return false;
    // Bit 63: present; 62: swapped (Documentation/admin-guide/mm/pagemap.rst).
    for (std::size_t i = 0; i < bytes / sizeof(std::uint64_t); ++i) to[done++] = entries[i] >> 62 != 0;
  }
  return true;
}

}  // namespace greenlets::detail
