// SPDX-License-Identifier: MIT
// Names from what the dynamic linker knows; and with libdw, names of all functions, files, lines and what was inlined.
#include "symbols.hpp"

#include "config.h"
#include "debug_information.hpp"
#include "forks.hpp"
#include "reader.hpp"

#include "../describe.hpp"

#include <dlfcn.h>
#include <unistd.h>
#include <utility>

namespace greenlets::detail {

namespace {

constexpr std::size_t most_text = 16 * 1024;  // templates have long names

std::size_t distance(const void* from, const void* to) noexcept {
  return static_cast<std::size_t>(static_cast<const char*>(to) - static_cast<const char*>(from));
}

frame by_dynamic_linker(void* address, const void* inside) {
  frame f;
  f.address = address;
  Dl_info info = {};
  if (!dladdr(inside, &info)) return f;
  // Another thread may unload that object now, and these texts with it.
  process_memory memory(getpid());
  const auto text = [&](const char* at) { return text_at(memory, reinterpret_cast<std::uintptr_t>(at), most_text); };
  if (info.dli_fname) f.object = text(info.dli_fname);
  if (info.dli_sname) f.function = demangled(text(info.dli_sname).c_str());
  f.offset = distance(info.dli_sname ? info.dli_saddr : info.dli_fbase, address);
  return f;
}

}  // namespace

void describe(std::vector<frame>& to, const place_in_code& p) {
  // After a call that does not return there may be another function.
  const void* const inside = static_cast<char*>(p.address) - (p.interrupted ? 0 : 1);
  frame f = by_dynamic_linker(p.address, inside);
#ifdef HAVE_LIBDW
  const out_of_forks guard;
  if (debug_information::describe(to, f, inside)) return;
#endif
  to.push_back(std::move(f));
}

}  // namespace greenlets::detail
