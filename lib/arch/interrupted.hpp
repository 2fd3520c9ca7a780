// SPDX-License-Identifier: MIT
// Where a signal has interrupted its thread.
#ifndef LIB_ARCH_INTERRUPTED_HPP
#define LIB_ARCH_INTERRUPTED_HPP

#include <cstdint>
#include <ucontext.h>

namespace greenlets::detail::machine {

struct interrupted {
  bool known = false;     // else the rest is 0
  std::uintptr_t sp = 0;
  std::uintptr_t pc = 0;
};

// Of the third argument of a handler.
inline interrupted interrupted_at(const void* context) noexcept {
  [[maybe_unused]] const mcontext_t& m = static_cast<const ucontext_t*>(context)->uc_mcontext;
#if defined(__linux__) && defined(__x86_64__)
  return {true, static_cast<std::uintptr_t>(m.gregs[REG_RSP]), static_cast<std::uintptr_t>(m.gregs[REG_RIP])};
#elif defined(__linux__) && defined(__aarch64__)
  return {true, static_cast<std::uintptr_t>(m.sp), static_cast<std::uintptr_t>(m.pc)};
#else
  return {};
#endif
}

}  // namespace greenlets::detail::machine

#endif
