// SPDX-License-Identifier: MIT
// What a greenlet has of its own besides its stack: what it was to run, its context, and its values
// of locals.
#ifndef LIB_OWN_HPP
#define LIB_OWN_HPP

#include "thread.hpp"

namespace greenlets::detail {

// context.cpp
bool has_context(body* b) noexcept;
// Takes the context away from it. User code.
void drop_context(body* b) noexcept;

// local.cpp
bool has_locals(body* b) noexcept;
// Destroys the values of the running greenlet that were made before this round, the newest first;
// those that are made meanwhile wait for the next. User code.
void destroy_locals(body* b, unsigned round) noexcept;
// Forgets them. They could not be destroyed on their own stack, and stay for ever.
void lose_locals(body* b) noexcept;

// How often a greenlet is told to end by its thread's exit before it is reported and left; how many
// generations of greenlets may start others meanwhile, and of locals make others.
constexpr unsigned most_rounds = 16;

// own.cpp
// Whether the running greenlet still has something that destroy_own() would destroy.
bool has_own(thread_record& t, body* b) noexcept;
// Destroys its locals and, while its thread exits, lets go of its context. User code.
void destroy_own(thread_record& t, body* b, unsigned round) noexcept;
// Reports that some of it has survived all rounds.
void report_own(body* b) noexcept;
// The end of the running greenlet, while it is still current and active: destroys what it was to run, and
// all that. User code, which may switch.
void finish_slowly(thread_record& t, body* b) noexcept;
inline void finish_own(thread_record& t, body* b) noexcept {
  const value_ops* const ops = value_access::ops(b->run.callable);
  // One that is not worn has no locals, no context and nothing of C.
  if (__builtin_expect(!ops || ops->destroy || b->worn.load(std::memory_order_relaxed), 0)) return finish_slowly(t, b);
  value_access::ops(b->run.callable) = nullptr;
  b->run.call = nullptr;
}
// Frees what a body still has when nothing refers to it. User code.
void bury_own(body* b) noexcept;

}  // namespace greenlets::detail

#endif
