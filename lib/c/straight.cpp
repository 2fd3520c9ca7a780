// SPDX-License-Identifier: MIT
// greenlet_switch() and greenlet_switch_to_parent(). C cannot inline the straight path of a switch, and a
// function that is gone back to by a switch must not end with `ret` (see machine.hpp): on x86-64 they are a few
// instructions that do what <greenlet/detail/switch.hpp> does, and leave by a jump. Whatever is not straight
// is sending.cpp's.
#include "record.hpp"

#include <cstddef>

using namespace greenlets::detail;

#if defined(GREENLET_HAS_GO) && defined(__x86_64__) && !defined(GREENLET_SWITCH_UCONTEXT) && \
    defined(GREENLET_INLINE_SWITCH)

extern "C" {

// For the assembly below, which no compiler sees.
#define GREENLET_FOR_ASSEMBLY __attribute__((used, visibility("hidden")))

extern __attribute__((visibility("hidden"))) const value_ops* const greenlet_c_pointer_ops;
__attribute__((used)) const value_ops* const greenlet_c_pointer_ops = &value_ops_of<void*>::ops;

GREENLET_FOR_ASSEMBLY int greenlet_c_switch(greenlet_t* g, void* payload, void** result) {
  return switch_slowly(g, payload, result);
}

GREENLET_FOR_ASSEMBLY int greenlet_c_switch_to_parent(void* payload, void** result) {
  return switch_to_parent_slowly(payload, result);
}

// Something else than a pointer has come, or more is to be done.
GREENLET_FOR_ASSEMBLY int greenlet_c_land(void* kind, void* word, body* self, void** result) {
  return land(machine::cargo{kind, word}, self, result);
}

}  // extern "C"

static_assert(offsetof(hot_thread, attention) == 0 && offsetof(hot_thread, current) == 8 &&
              offsetof(hot_thread, exceptions) == 16 && offsetof(hot_body, active_on) == 32 &&
              offsetof(hot_body, parent) == 40 && offsetof(hot_body, exceptions) == 48 &&
              offsetof(exception_state, uncaught) == 8);

#define PUSH(REGISTER) "pushq %" REGISTER "\n .cfi_adjust_cfa_offset 8\n .cfi_rel_offset " REGISTER ", 0\n"
#define POP(REGISTER) "popq %" REGISTER "\n .cfi_adjust_cfa_offset -8\n .cfi_restore " REGISTER "\n"

// rax: the thread; r8, r9: who leaves, and whither; r10: the payload; r11: where the result goes.
#define FUNCTION(NAME, ARGUMENTS, SLOWLY)                                                              \
  ".balign 32\n"                                                                                       \
  ".globl " NAME "\n"                                                                                  \
  ".type " NAME ", @function\n" NAME ":\n"                                                             \
  " .cfi_startproc\n"                                                                                  \
  " endbr64\n"                                                                                         \
  " movq _ZN9greenlets6detail13hot_thread_v1E@gottpoff(%rip), %rax\n"                                  \
  " movq %fs:(%rax), %rax\n"                                                                           \
  " movq 8(%rax), %r8\n" ARGUMENTS                                                                     \
  " testq %r9, %r9\n je 9f\n"                                                                          \
  " cmpq %r9, %r8\n je 9f\n"                                                                           \
  " cmpq 32(%r9), %rax\n jne 9f\n"                                                                     \
  " cmpl $0, (%rax)\n jne 9f\n"                                                                        \
  " movq 16(%rax), %rcx\n" /* exceptions: there are none */                                            \
  " movq (%rcx), %rdx\n orq 48(%r9), %rdx\n jne 9f\n"                                                  \
  " movl 8(%rcx), %edx\n orl 56(%r9), %edx\n jne 9f\n"                                                 \
  " leaq greenlet_c_nothing(%rip), %rcx\n"                                                             \
  " cmpq %rcx, %r10\n je 9f\n"                                                                         \
  PUSH("rbp") PUSH("rbx") PUSH("r12") PUSH("r13") PUSH("r14") PUSH("r15")                              \
  " pushq %r11\n .cfi_adjust_cfa_offset 8\n"                                                           \
  " movq %r9, 8(%rax)\n" /* current */                                                                 \
  " movq greenlet_c_pointer_ops(%rip), %rax\n movq %r10, %rdx\n"                                       \
  " movq %r8, %rdi\n movq %r9, %rsi\n"                                                                 \
  " leaq 1f(%rip), %rcx\n"                                                                             \
  " movq %rsp, 0(%rdi)\n movq %rbp, 8(%rdi)\n movq %rcx, 16(%rdi)\n movq %rbx, 24(%rdi)\n"             \
  " movq 0(%rsi), %rsp\n movq 8(%rsi), %rbp\n movq 24(%rsi), %rbx\n jmpq *16(%rsi)\n"                  \
  "1: endbr64\n"                                                                                       \
  " popq %r8\n .cfi_adjust_cfa_offset -8\n"                                                            \
  POP("r15") POP("r14") POP("r13") POP("r12") POP("rbx") POP("rbp")                                    \
  " cmpq greenlet_c_pointer_ops(%rip), %rax\n jne 8f\n"                                                \
  " testq %r8, %r8\n je 2f\n"                                                                          \
  " movq %rdx, (%r8)\n"                                                                                \
  "2: xorl %eax, %eax\n"                                                                               \
  " .cfi_remember_state\n"                                                                             \
  " popq %rcx\n .cfi_adjust_cfa_offset -8\n .cfi_register rip, rcx\n"                                  \
  " jmpq *%rcx\n"                                                                                      \
  " .cfi_restore_state\n"                                                                              \
  "8: movq %rax, %rdi\n movq %rdx, %rax\n movq %rsi, %rdx\n movq %rax, %rsi\n movq %r8, %rcx\n"        \
  " jmp greenlet_c_land\n"                                                                             \
  "9: jmp " SLOWLY "\n"                                                                                \
  " .cfi_endproc\n"                                                                                    \
  ".size " NAME ", . - " NAME "\n"

__asm__(".pushsection .text\n"
        FUNCTION("greenlet_switch", " movq %rdi, %r9\n movq %rsi, %r10\n movq %rdx, %r11\n", "greenlet_c_switch")
        FUNCTION("greenlet_switch_to_parent",
                 " movq %rdi, %r10\n movq %rsi, %r11\n xorl %r9d, %r9d\n testq %r8, %r8\n je 3f\n movq 40(%r8), %r9\n3:\n",
                 "greenlet_c_switch_to_parent")
        ".popsection\n");

#else

int greenlet_switch(greenlet_t* g, void* payload, void** result) { return switch_slowly(g, payload, result); }

int greenlet_switch_to_parent(void* payload, void** result) { return switch_to_parent_slowly(payload, result); }

#endif
