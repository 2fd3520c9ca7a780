// SPDX-License-Identifier: MIT
// What threads need so that an overflow of a greenlet's stack can be reported.
#ifndef LIB_OVERFLOW_HPP
#define LIB_OVERFLOW_HPP

namespace greenlets::detail {

struct thread_record;

// signal_stack.cpp: whether every thread is to have one.
bool gives_signal_stacks() noexcept;
// From now on that is so: under threads_lock. Those of other threads than `mine` have it at their next entry.
void give_signal_stacks(const thread_record* mine) noexcept;

// signal_stack.cpp: an alternate stack of the calling thread, unless it has one already, ours or another.
// Throws std::system_error (mmap, mprotect, sigaltstack).
void give_signal_stack(thread_record& t);
// The same for a thread that goes without when the system refuses.
void try_signal_stack(thread_record& t) noexcept;
// Takes ours away again, if it has one.
void drop_signal_stack(thread_record& t) noexcept;

// Enough for a report, and for the handler that comes after it.
constexpr unsigned long signal_stack_size = 64 * 1024;

}  // namespace greenlets::detail

#endif
