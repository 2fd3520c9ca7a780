// SPDX-License-Identifier: MIT
// report_stack_overflows: who needed more stack than it had is named before the process dies.
//
//   #include <greenlet/greenlet.hpp>
//   #include <csignal>
//   #include <cstdio>
//   #include <unistd.h>
//
//   static int deeper(int n) {
//     volatile char room[1024];
//     room[0] = static_cast<char>(n);
//     return n < 0 ? 0 : deeper(n + 1) + room[0];
//   }
//
//   int main() {
//     std::signal(SIGSEGV, [](int) {  // who was there before is called afterwards
//       static const char text[] = "that was it\n";
//       if (write(STDOUT_FILENO, text, sizeof text - 1) > 0) _exit(0);
//     });
//     greenlets::report_stack_overflows();
//     greenlets::greenlet(greenlets::attributes().name("client 7"), [] { return deeper(0); }).switch_to();
//   }
//
// prints on standard error what is below, and on standard output "that was it".
//
//   greenlet: stack overflow in greenlet 2 "client 7" of thread 4242 "server": all of its 262144 bytes are used
//     0x55d0c1c7e2b5 /usr/bin/server+0x22b5
//     0x55d0c1c7e2d9 /usr/bin/server+0x22d9
//     ...
#ifndef GREENLET_OVERFLOW_HPP
#define GREENLET_OVERFLOW_HPP

#include <greenlet/detail/api.hpp>

namespace greenlets {

/// From now on an overflow of a greenlet's stack is reported on standard error: the greenlet, its thread, the
/// size of its stack, and its frames as object+offset, for addr2line. Then the handler of SIGSEGV that was
/// there before the first call is called, whatever it was; by default the process dies of SIGSEGV, as it would
/// have. (SIGBUS, too, where a guard page gives that.) Every other fault goes to that handler alone. A
/// handler that is installed later takes the place of ours, and may call it. What the handler uses is safe in a
/// signal handler.
///
/// An overflow is a fault in the guard page of the stack that the thread is on, or within 64 MiB below it, when the
/// stack pointer has come there too; or a signal for which there is no room on what is left of the stack: how much that
/// is, is said then. Not reported: a function whose frame is larger than a page, when it is compiled without
/// -fstack-clash-protection and reaches over the guard page into other memory, where there is no fault; and the stacks
/// that threads came with, main greenlets' included.
///
/// The calling thread gets an alternate signal stack (sigaltstack()) of 64 KiB, unless it has one, which is used
/// as it is; without frames, if it is small. So does each thread that uses greenlets: at its first use of the
/// library, and those that use it already at their next entry into it. It goes at the thread's end. A thread
/// for which the system refuses one dies of an overflow without a report. Handlers that were there before run on the
/// alternate stack, and must not switch.
///
/// Once is enough: a second call only sees to the calling thread's alternate stack.
/// Switches: no. Thread: any; it is done for all threads.
/// Throws: std::system_error (mmap, mprotect, sigaltstack, sigaction), std::bad_alloc. Then nothing has changed.
GREENLET_API void report_stack_overflows();

}  // namespace greenlets

#endif
