// SPDX-License-Identifier: MIT
// What a greenlet has of its own besides its stack: what it was to run, and its context.
#ifndef LIB_OWN_HPP
#define LIB_OWN_HPP

#include "body.hpp"

namespace greenlets::detail {

// context.cpp
bool has_context(body* b) noexcept;
// Takes the context away from it. User code.
void drop_context(body* b) noexcept;

// How often a greenlet is told to end by its thread's exit before it is reported and left; how many
// generations of greenlets may start others meanwhile, and how often it sets its context anew.
constexpr unsigned most_rounds = 16;

// own.cpp
// Whether the running greenlet still has something that destroy_own() would destroy.
bool has_own(thread_record& t, body* b) noexcept;
// While its thread exits, lets go of its context. User code.
void destroy_own(thread_record& t, body* b) noexcept;
// Reports that some of it has survived all rounds.
void report_own(body* b) noexcept;
// The end of the running greenlet, while it is still current and active: destroys what it was to run, and
// all that. User code, which may switch.
void finish_own(thread_record& t, body* b) noexcept;
// Frees what a body still has when nothing refers to it. User code.
void bury_own(body* b) noexcept;

}  // namespace greenlets::detail

#endif
