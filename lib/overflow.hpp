// SPDX-License-Identifier: MIT
// What threads need so that an overflow of a greenlet's stack can be reported.
#ifndef LIB_OVERFLOW_HPP
#define LIB_OVERFLOW_HPP

namespace greenlets::detail {

struct thread_record;

// overflow.cpp: whether they are to be reported. Set under threads_lock.
bool reports_overflows() noexcept;

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
