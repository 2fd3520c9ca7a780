// SPDX-License-Identifier: MIT
// By a system call, which tells where there is no memory.
#include "readable.hpp"

#include <algorithm>
#include <cerrno>
#include <sys/uio.h>
#include <unistd.h>

namespace greenlets::detail {

std::ptrdiff_t copy_readable(char* to, std::uintptr_t from, std::size_t most) noexcept {
  constexpr std::size_t page = 4096;
  constexpr int at_once = 16;
  std::size_t done = 0;
  while (done < most) {
    // Each page is a piece of its own: of one that reaches into a gap the system may give nothing at all.
    iovec parts[at_once];
    unsigned long n = 0;
    std::size_t asked = 0;
    for (; n < at_once && done + asked < most; ++n) {
      const std::uintptr_t at = from + done + asked;
      const std::size_t length = std::min(page - at % page, most - done - asked);
      parts[n] = {reinterpret_cast<void*>(at), length};
      asked += length;
    }
    const iovec into = {to + done, asked};
    const ssize_t got = process_vm_readv(getpid(), &into, 1, parts, n, 0);
    if (got < 0 && errno != EFAULT) return -1;
    if (got <= 0) break;
    done += static_cast<std::size_t>(got);
    if (static_cast<std::size_t>(got) < asked) break;
  }
  return static_cast<std::ptrdiff_t>(done);
}

}  // namespace greenlets::detail
