// SPDX-License-Identifier: MIT
// A stopped or dumped thread's registers, as the kernel writes them (NT_PRSTATUS).
#ifndef TOOLS_DUMP_REGISTERS_HPP
#define TOOLS_DUMP_REGISTERS_HPP

#include "arch/registers.hpp"

#include <elf.h>
#include <string>
#include <sys/types.h>
#include <sys/user.h>

namespace greenlets::outside {

namespace machine = greenlets::detail::machine;

// `tid` is the thread's number where greenlet-dump runs, `own` that which it has for itself, in its container.
struct thread_state {
  pid_t tid = 0;
  pid_t own = 0;
  bool has_registers = false;
  machine::registers at;
};

#ifdef __x86_64__
constexpr unsigned this_machine = EM_X86_64;

inline void set(machine::registers& r, const user_regs_struct& u) noexcept {
  const unsigned long long of[17] = {u.rax, u.rdx, u.rcx, u.rbx, u.rsi, u.rdi, u.rbp, u.rsp, u.r8,
                                     u.r9,  u.r10, u.r11, u.r12, u.r13, u.r14, u.r15, u.rip};
  for (unsigned i = 0; i < 17; ++i) r.number[i] = of[i];
}
#else
constexpr unsigned this_machine = EM_AARCH64;

inline void set(machine::registers& r, const user_regs_struct& u) noexcept {
  for (unsigned i = 0; i < 31; ++i) r.number[i] = u.regs[i];
  r.number[31] = u.sp;
  r.number[32] = u.pc;
}
#endif

inline std::string name_of_machine(unsigned number) {
  switch (number) {
    case EM_386: return "i386";
    case EM_X86_64: return "x86-64";
    case EM_ARM: return "32-bit ARM";
    case EM_AARCH64: return "aarch64";
    case EM_RISCV: return "RISC-V";
    case EM_PPC64: return "64-bit PowerPC";
    case EM_S390: return "S/390";
    default: return "machine " + std::to_string(number) + " of ELF";
  }
}

}  // namespace greenlets::outside

#endif
