// SPDX-License-Identifier: MIT
// How bodies and suspended stacks are marked.
#ifndef LIB_GC_MARKING_HPP
#define LIB_GC_MARKING_HPP

#include "registry.hpp"
#include "stacks.hpp"

namespace greenlets::gc::detail {

// The kinds of memory that libgc has of ours. Set once.
extern int body_kind;
extern int keeper_kind;
void make_kinds();

// While threads are stopped: the stacks that they stand on, which libgc scans itself.
void stands_on(stack* s) noexcept;
void nobody_stands() noexcept;

// The live part of a suspended stack: from below what was saved, to its beginning.
struct range {
  char* low;
  char* high;
};
range live_part(const body* b) noexcept;
// What a body refers to beside its stack and the registers that are saved with it.
void each_reference_beside_stack(const body* b, void (*f)(void*, void*), void* data);
// The same of a context whose stack ends there.
char* live_from(const greenlets::detail::machine::context& c) noexcept;

// In the hook that pushes roots: the body, and a stack at once.
void push(const void* object) noexcept;
void push_value(const value& v) noexcept;
void push_range(char* low, char* high) noexcept;
// A suspended stack and the registers that are saved with it.
void push_context(const greenlets::detail::machine::context& c, char* high) noexcept;

// The whole of a suspended greenlet, though its body is marked already.
void push_again(const body* b) noexcept;

}  // namespace greenlets::gc::detail

#endif
