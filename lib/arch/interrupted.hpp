// SPDX-License-Identifier: MIT
// Where a signal has interrupted its thread.
#ifndef LIB_ARCH_INTERRUPTED_HPP
#define LIB_ARCH_INTERRUPTED_HPP

#include <csignal>
#include <cstdint>
#include <ucontext.h>

namespace greenlets::detail::machine {

struct interrupted {
  bool known = false;     // else the rest is 0
  std::uintptr_t sp = 0;
  std::uintptr_t pc = 0;
};

#if defined(__linux__) && (defined(__x86_64__) || defined(__aarch64__) || defined(__i386__) || defined(__arm__) || \
                           defined(__riscv) || defined(__powerpc64__) || defined(__s390x__))
constexpr bool knows_interrupted = true;
#else
constexpr bool knows_interrupted = false;
#endif

// Of the third argument of a handler.
inline interrupted interrupted_at(const void* context) noexcept {
  [[maybe_unused]] const mcontext_t& m = static_cast<const ucontext_t*>(context)->uc_mcontext;
#if defined(__linux__) && defined(__x86_64__)
  return {true, static_cast<std::uintptr_t>(m.gregs[REG_RSP]), static_cast<std::uintptr_t>(m.gregs[REG_RIP])};
#elif defined(__linux__) && defined(__aarch64__)
  return {true, static_cast<std::uintptr_t>(m.sp), static_cast<std::uintptr_t>(m.pc)};
#elif defined(__linux__) && defined(__i386__)
  return {true, static_cast<std::uintptr_t>(m.gregs[REG_ESP]), static_cast<std::uintptr_t>(m.gregs[REG_EIP])};
#elif defined(__linux__) && defined(__arm__)
  return {true, static_cast<std::uintptr_t>(m.arm_sp), static_cast<std::uintptr_t>(m.arm_pc)};
#elif defined(__linux__) && defined(__riscv)
  return {true, static_cast<std::uintptr_t>(m.__gregs[REG_SP]), static_cast<std::uintptr_t>(m.__gregs[REG_PC])};
#elif defined(__linux__) && defined(__powerpc64__)
  constexpr int stack_pointer = 1, next_instruction = 32;  // of the kernel's struct pt_regs
  return {true, static_cast<std::uintptr_t>(m.gp_regs[stack_pointer]), static_cast<std::uintptr_t>(m.gp_regs[next_instruction])};
#elif defined(__linux__) && defined(__s390x__)
  constexpr int stack_pointer = 15;  // of the ABI
  return {true, static_cast<std::uintptr_t>(m.gregs[stack_pointer]), static_cast<std::uintptr_t>(m.psw.addr)};
#else
  return {};
#endif
}

// Whether a signal comes from the system itself, and of no address: Linux sends SIGSEGV so when it cannot write another
// signal's frame on the stack; and for what x86 calls a general protection fault, which has a number.
inline bool is_of_no_address(const siginfo_t& info, const void* context) noexcept {
#ifdef SI_KERNEL
  if (info.si_code != SI_KERNEL || info.si_addr) return false;
#if defined(__linux__) && (defined(__x86_64__) || defined(__i386__))
  constexpr int general_protection = 13;
  return static_cast<const ucontext_t*>(context)->uc_mcontext.gregs[REG_TRAPNO] != general_protection;
#else
  static_cast<void>(context);
  return true;
#endif
#else
  return static_cast<void>(info), static_cast<void>(context), false;
#endif
}

}  // namespace greenlets::detail::machine

#endif
