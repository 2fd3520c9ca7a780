// SPDX-License-Identifier: MIT
// The switch itself, inline: three words are stored, three are loaded, and one jump is taken.
//
// Every register but these is declared lost, so the compiler saves what it needs and nothing else. A
// call would cost more than all the rest: the processor predicts where a `ret` goes from the calls
// before it, and after a switch that is wrong every time.
//
// Nothing is pushed, for a leaf function may have live values below the stack pointer: the red zone, 128
// bytes on x86-64 (System V ABI, AMD64 supplement, 3.2.2). They are live while it is suspended, too.
#ifndef GREENLET_DETAIL_MACHINE_HPP
#define GREENLET_DETAIL_MACHINE_HPP

#if defined(__x86_64__) && defined(__LP64__) && !defined(__APX_F__)
#define GREENLET_HAS_GO 1
#elif defined(__aarch64__) && defined(__LP64__)
#define GREENLET_HAS_GO 1
#endif

namespace greenlets::detail::machine {

// A suspended stack. Frozen: see hot.hpp.
struct context {
  void* sp = nullptr;
  void* fp = nullptr;
  void* pc = nullptr;
  void* base = nullptr;  // rbx, x19: compilers address locals by it where the stack was realigned
};

// Two words that a switch takes along in registers; what they mean, the two sides know.
struct cargo {
  void* kind = nullptr;
  void* word = nullptr;
};

// From the load of the stack pointer to the jump, which are two moments for whoever looks (a debugger that steps, a
// profiler's signal), the function stands on another's stack, and what its compiler says of its frame is wrong there. So
// for these instructions it is told to have been called by the greenlet that is gone to: what that goes on with are the
// four words of its context (DWARF 5, 6.4.2). All other registers are lost. Where the caller's address is asked
// for, the look-up is one byte before it, for a call's sake: hence the address is told to be one instruction further.
// A program whose assembler has no frames (clang++ -fno-asynchronous-unwind-tables) defines GREENLET_NO_CFI.
#if defined(__GCC_HAVE_DWARF2_CFI_ASM) && !defined(GREENLET_NO_CFI)
#define GREENLET_CFI(directives) directives
#else
#define GREENLET_CFI(directives)
#endif

#if defined(GREENLET_HAS_GO) && defined(__x86_64__)

// The context is where rsi points. rbp and rbx: DW_CFA_expression, at 8 and at 24 of it. rip: DW_CFA_val_expression,
// the word at 16, and one. From 12 to 15: DW_CFA_undefined.
#define GREENLET_CFI_GOING              \
  GREENLET_CFI(                         \
      ".cfi_remember_state\n\t"         \
      ".cfi_def_cfa rsp, 0\n\t"         \
      ".cfi_escape 0x10, 6, 2, 0x74, 8\n\t"   \
      ".cfi_escape 0x10, 3, 2, 0x74, 24\n\t"  \
      ".cfi_escape 0x16, 16, 5, 0x74, 16, 0x06, 0x23, 1\n\t" \
      ".cfi_undefined r12\n\t.cfi_undefined r13\n\t.cfi_undefined r14\n\t.cfi_undefined r15\n\t")
#define GREENLET_CFI_GONE GREENLET_CFI(".cfi_restore_state\n")

// With indirect branch tracking (-fcf-protection) a jump must land on this.
#if defined(__CET__) && (__CET__ & 1)
#define GREENLET_LANDING "endbr64\n\t"
#else
#define GREENLET_LANDING
#endif

// GCC refuses the names of registers that the target has not. A function with a target attribute of
// its own that has them must not inline this: GREENLET_NO_INLINE_SWITCH.
#if defined(__clang__) || defined(__AVX512F__)
#define GREENLET_CLOBBERS_AVX512                                                                                 \
  , "xmm16", "xmm17", "xmm18", "xmm19", "xmm20", "xmm21", "xmm22", "xmm23", "xmm24", "xmm25", "xmm26", "xmm27",  \
      "xmm28", "xmm29", "xmm30", "xmm31", "k0", "k1", "k2", "k3", "k4", "k5", "k6", "k7"
#else
#define GREENLET_CLOBBERS_AVX512
#endif

// Leaves `from` and goes on in `to`, which finds the cargo. When somebody comes back, returns his, and
// sets `self` to the context that he has gone to: ours.
// The contexts are where a function finds its first two arguments: so a first frame is a plain function.
__attribute__((always_inline)) inline cargo go(context& from, context& to, cargo c, context*& self) noexcept {
  context* f = &from;
  context* t = &to;
  __asm__ volatile(
      "leaq 1f(%%rip), %%rcx\n\t"
      "movq %%rsp, 0(%[f])\n\t"
      "movq %%rbp, 8(%[f])\n\t"
      "movq %%rcx, 16(%[f])\n\t"
      "movq %%rbx, 24(%[f])\n\t"
      "movq 0(%[t]), %%rsp\n\t" GREENLET_CFI_GOING
      "movq 8(%[t]), %%rbp\n\t"
      "movq 24(%[t]), %%rbx\n\t"
      "jmpq *16(%[t])\n" GREENLET_CFI_GONE
      "1:\n\t" GREENLET_LANDING
      : "+a"(c.kind), "+d"(c.word), [f] "+D"(f), [t] "+S"(t)
      :
      : "cc", "memory", "rcx", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "xmm0", "xmm1", "xmm2",
        "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15",
        "st", "st(1)", "st(2)", "st(3)", "st(4)", "st(5)", "st(6)", "st(7)" GREENLET_CLOBBERS_AVX512);
  self = t;
  return c;
}

#elif defined(GREENLET_HAS_GO)

// The context is where x1 points: the stack pointer at 0, x29 at 8, x19 at 24, and pc, which is that of x30's column, at 16,
// and four. Others are lost. DWARF for the Arm 64-bit Architecture, 4.1.
#define GREENLET_CFI_GOING                                         \
  GREENLET_CFI(                                                    \
      ".cfi_remember_state\n\t"                                    \
      ".cfi_escape 0x0f, 3, 0x71, 0, 0x06\n\t"                     \
      ".cfi_escape 0x10, 29, 2, 0x71, 8\n\t"                       \
      ".cfi_escape 0x10, 19, 2, 0x71, 24\n\t"                      \
      ".cfi_escape 0x16, 30, 5, 0x71, 16, 0x06, 0x23, 4\n\t"       \
      ".cfi_undefined x20\n\t.cfi_undefined x21\n\t.cfi_undefined x22\n\t.cfi_undefined x23\n\t"   \
      ".cfi_undefined x24\n\t.cfi_undefined x25\n\t.cfi_undefined x26\n\t.cfi_undefined x27\n\t"   \
      ".cfi_undefined x28\n\t")
#define GREENLET_CFI_GONE GREENLET_CFI(".cfi_restore_state\n")

// With branch target identification (-mbranch-protection) a jump must land on hint 36, `bti j`, which does
// nothing elsewhere; or, coming from x17, on a function.
__attribute__((always_inline)) inline cargo go(context& from, context& to, cargo c, context*& self) noexcept {
  register context* f __asm__("x0") = &from;
  register context* t __asm__("x1") = &to;
  register void* kind __asm__("x2") = c.kind;
  register void* word __asm__("x3") = c.word;
  __asm__ volatile(
      "adr x17, 1f\n\t"
      "mov x4, sp\n\t"
      "stp x4, x29, [%[f]]\n\t"
      "stp x17, x19, [%[f], #16]\n\t"
      "ldp x4, x29, [%[t]]\n\t" GREENLET_CFI_GOING
      "ldp x17, x19, [%[t], #16]\n\t"
      "mov x30, xzr\n\t"  // a first frame is called by nobody
      "mov sp, x4\n\t"
      "br x17\n" GREENLET_CFI_GONE
      "1:\n\t"
      "hint #36\n\t"
      : "+r"(kind), "+r"(word), [f] "+r"(f), [t] "+r"(t)
      :
      : "cc", "memory", "x4", "x5", "x6", "x7", "x8", "x9", "x10", "x11", "x12", "x13", "x14", "x15", "x16", "x17",
        "x20", "x21", "x22", "x23", "x24", "x25", "x26", "x27", "x28", "x30", "v0", "v1", "v2", "v3", "v4", "v5", "v6",
        "v7", "v8", "v9", "v10", "v11", "v12", "v13", "v14", "v15", "v16", "v17", "v18", "v19", "v20", "v21", "v22",
        "v23", "v24", "v25", "v26", "v27", "v28", "v29", "v30", "v31"
#ifdef __ARM_FEATURE_SVE
        , "p0", "p1", "p2", "p3", "p4", "p5", "p6", "p7", "p8", "p9", "p10", "p11", "p12", "p13", "p14", "p15"
#endif
  );
  self = t;
  return {kind, word};
}

#endif

}  // namespace greenlets::detail::machine

#endif
