// SPDX-License-Identifier: MIT
// What code leaves behind when it has been left: words that a conservative scan takes for references, so that what is
// dead stays, and what that refers to.
#ifndef LIB_ARCH_LEFTOVERS_HPP
#define LIB_ARCH_LEFTOVERS_HPP

#include "sanitizer.hpp"

namespace greenlets::detail::machine {

// Below the caller's frame, in 2 KiB: the frames that come next do not use each word.
__attribute__((noinline)) GREENLET_NO_ASAN inline void forget_frames() noexcept {
  void* volatile dead[256];
  for (void* volatile& word : dead) word = nullptr;
}

// In the registers that calls preserve: whoever is called next saves them in his frame.
__attribute__((always_inline)) inline void forget_registers() noexcept {
#if defined __x86_64__
  __asm__ volatile("xorl %%ebx, %%ebx\n\txorl %%r12d, %%r12d\n\txorl %%r13d, %%r13d\n\txorl %%r14d, %%r14d\n\t"
                   "xorl %%r15d, %%r15d"
                   :
                   :
                   : "rbx", "r12", "r13", "r14", "r15", "cc");
#elif defined __aarch64__
  __asm__ volatile("mov x19, xzr\n\tmov x20, xzr\n\tmov x21, xzr\n\tmov x22, xzr\n\tmov x23, xzr\n\tmov x24, xzr\n\t"
                   "mov x25, xzr\n\tmov x26, xzr\n\tmov x27, xzr\n\tmov x28, xzr"
                   :
                   :
                   : "x19", "x20", "x21", "x22", "x23", "x24", "x25", "x26", "x27", "x28");
#endif
}

// In the vector registers, which are the callee's to change. A collection copies its mark stack by the widest there are,
// and what is left of that stays for as long as nobody else uses them: in a thread that only waits, for ever; a new
// thread begins with a copy. Each stop saves them where libgc looks.
#if defined __x86_64__

// System V ABI for x86-64, 3.2.1.
inline void forget_vectors() noexcept {
  if (!__builtin_cpu_supports("avx")) return;
  __asm__ volatile("vzeroall"
                   :
                   :
                   : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11",
                     "xmm12", "xmm13", "xmm14", "xmm15");
  if (!__builtin_cpu_supports("avx512f")) return;
#define GREENLET_CLEAR(n) "vpxord %%zmm" #n ", %%zmm" #n ", %%zmm" #n "\n\t"
#define GREENLET_CLEAR_4(a, b, c, d) GREENLET_CLEAR(a) GREENLET_CLEAR(b) GREENLET_CLEAR(c) GREENLET_CLEAR(d)
  __asm__ volatile(GREENLET_CLEAR_4(16, 17, 18, 19) GREENLET_CLEAR_4(20, 21, 22, 23) GREENLET_CLEAR_4(24, 25, 26, 27)
                       GREENLET_CLEAR_4(28, 29, 30, 31)
                   :
                   :
#ifdef __AVX512F__
                   : "xmm16", "xmm17", "xmm18", "xmm19", "xmm20", "xmm21", "xmm22", "xmm23", "xmm24", "xmm25", "xmm26",
                     "xmm27", "xmm28", "xmm29", "xmm30", "xmm31"
#endif
  );
#undef GREENLET_CLEAR_4
#undef GREENLET_CLEAR
}

#elif defined __aarch64__

// v8 to v15 are the caller's (Procedure Call Standard for the Arm 64-bit Architecture, 6.1.2), and no wide copy's.
inline void forget_vectors() noexcept {
#define GREENLET_CLEAR(n) "movi v" #n ".2d, #0\n\t"
  __asm__ volatile(GREENLET_CLEAR(0) GREENLET_CLEAR(1) GREENLET_CLEAR(2) GREENLET_CLEAR(3) GREENLET_CLEAR(4)
                       GREENLET_CLEAR(5) GREENLET_CLEAR(6) GREENLET_CLEAR(7) GREENLET_CLEAR(16) GREENLET_CLEAR(17)
                           GREENLET_CLEAR(18) GREENLET_CLEAR(19)
                   :
                   :
                   : "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v16", "v17", "v18", "v19");
#undef GREENLET_CLEAR
}

#else

inline void forget_vectors() noexcept {}

#endif

}  // namespace greenlets::detail::machine

#endif
