// SPDX-License-Identifier: MIT
// The registers with which a stack goes on, for who walks it: by DWARF's numbers (System V ABI, AMD64 supplement,
// 3.6.2; DWARF for the Arm 64-bit Architecture, 4.1).
#ifndef LIB_ARCH_REGISTERS_HPP
#define LIB_ARCH_REGISTERS_HPP

#include <greenlet/detail/machine.hpp>

#include <cstdint>
#include <ucontext.h>

namespace greenlets::detail::machine {

struct registers {
  static constexpr unsigned count = 33;
  std::uintptr_t number[count] = {};
};

#if defined(__linux__) && defined(__x86_64__)
constexpr bool knows_registers = true;
constexpr unsigned sp_number = 7, pc_number = 16;

// Of a stack left by go(): all others were lost, and who called has them on the stack.
inline void set(registers& r, const context& c) noexcept {
  r.number[3] = reinterpret_cast<std::uintptr_t>(c.base);
  r.number[6] = reinterpret_cast<std::uintptr_t>(c.fp);
  r.number[7] = reinterpret_cast<std::uintptr_t>(c.sp);
  r.number[16] = reinterpret_cast<std::uintptr_t>(c.pc);
}

inline void set(registers& r, const ucontext_t& u) noexcept {
  constexpr int of[17] = {REG_RAX, REG_RDX, REG_RCX, REG_RBX, REG_RSI, REG_RDI, REG_RBP, REG_RSP, REG_R8,
                          REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15, REG_RIP};
  for (unsigned i = 0; i < 17; ++i) r.number[i] = static_cast<std::uintptr_t>(u.uc_mcontext.gregs[of[i]]);
}
#elif defined(__linux__) && defined(__aarch64__)
constexpr bool knows_registers = true;
constexpr unsigned sp_number = 31, pc_number = 32;

inline void set(registers& r, const context& c) noexcept {
  r.number[19] = reinterpret_cast<std::uintptr_t>(c.base);
  r.number[29] = reinterpret_cast<std::uintptr_t>(c.fp);
  r.number[31] = reinterpret_cast<std::uintptr_t>(c.sp);
  r.number[32] = reinterpret_cast<std::uintptr_t>(c.pc);
}

inline void set(registers& r, const ucontext_t& u) noexcept {
  for (unsigned i = 0; i < 31; ++i) r.number[i] = static_cast<std::uintptr_t>(u.uc_mcontext.regs[i]);
  r.number[31] = static_cast<std::uintptr_t>(u.uc_mcontext.sp);
  r.number[32] = static_cast<std::uintptr_t>(u.uc_mcontext.pc);
}
#else
constexpr bool knows_registers = false;
constexpr unsigned sp_number = 0, pc_number = 0;
inline void set(registers&, const context&) noexcept {}
inline void set(registers&, const ucontext_t&) noexcept {}
#endif

}  // namespace greenlets::detail::machine

#endif
