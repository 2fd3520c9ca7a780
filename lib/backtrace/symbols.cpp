// SPDX-License-Identifier: MIT
// Names from what the dynamic linker knows; and with libdw, names of all functions, files, lines and what was inlined.
#include "symbols.hpp"

#include "config.h"
#include "debug_information.hpp"
#include "forks.hpp"

#include "../describe.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <dlfcn.h>
#include <string>
#include <sys/uio.h>
#include <unistd.h>
#include <utility>

namespace greenlets::detail {

namespace {

// Another thread may unload the object that has the text: the system reads it, where it does that.
std::string copied(const char* text) {
  constexpr std::size_t most = 16 * 1024;  // templates have long names
  constexpr std::size_t page = 4096;
  std::string all;
  char part[256];
  while (all.size() < most) {
    const char* const from = text + all.size();
    const iovec to = {part, std::min(sizeof part, page - reinterpret_cast<std::uintptr_t>(from) % page)};
    const iovec there = {const_cast<char*>(from), to.iov_len};
    const ssize_t got = process_vm_readv(getpid(), &to, 1, &there, 1, 0);
    if (got < 0 && errno != EFAULT) return all + from;
    const std::size_t length = got < 0 ? 0 : strnlen(part, static_cast<std::size_t>(got));
    all.append(part, length);
    if (length < to.iov_len) break;
  }
  return all;
}

std::size_t distance(const void* from, const void* to) noexcept {
  return static_cast<std::size_t>(static_cast<const char*>(to) - static_cast<const char*>(from));
}

void add_by_dynamic_linker(frame& f, const void* inside) {
  Dl_info info = {};
  if (!dladdr(inside, &info)) return;
  if (info.dli_fname && f.object.empty()) f.object = copied(info.dli_fname);
  if (!f.function.empty()) return;
  if (info.dli_sname) f.function = demangled(copied(info.dli_sname).c_str());
  f.offset = distance(info.dli_sname ? info.dli_saddr : info.dli_fbase, f.address);
}

}  // namespace

// The linker is asked for what the other does not know.
void describe(std::vector<frame>& to, const place_in_code& p) {
  // After a call that does not return there may be another function.
  const void* const inside = static_cast<char*>(p.address) - (p.interrupted ? 0 : 1);
  frame f;
  f.address = p.address;
#ifdef HAVE_LIBDW
  {
    const out_of_forks guard;
    if (debug_information::describe(to, f, inside)) {
      if (!to.back().function.empty() && !to.back().object.empty()) return;
      f = std::move(to.back());
      to.pop_back();
    }
  }
#endif
  add_by_dynamic_linker(f, inside);
  to.push_back(std::move(f));
}

}  // namespace greenlets::detail
