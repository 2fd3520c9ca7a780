// SPDX-License-Identifier: MIT
// libgreenlet: greenlets for C++ and Unix. This header brings the whole core.
//
//   #include <greenlet/greenlet.hpp>
//   #include <cstdio>
//
//   int main() {
//     greenlets::greenlet doubler([](int n) {
//       for (;;) n = greenlets::switch_to_parent(2 * n).get<int>();
//     });
//     for (int n : {1, 2, 3}) std::printf("%d\n", doubler.switch_to(n).get<int>());
//   }  // the last handle goes: the greenlet is unwound, its destructors run
//
// A greenlet is a function with a stack of its own that can be left in the middle and gone back to.
// Every greenlet has a parent; when it finishes, its result (or exception) goes there. Each thread
// has a main greenlet and a tree of its own below it, and greenlets never change thread.
//
// Caveats: what belongs to the thread, and so is shared by all its greenlets.
// - Variables that are not on a stack: static and thread_local ones. A function that keeps anything
//   there is not re-entrant, and two greenlets may be in it at once, as soon as one switches in it. Do
//   not switch in what initialises a function's static variable: who comes there next waits for ever.
// - Locks. A std::mutex that is held over a switch is owned by the thread: another greenlet of it that
//   locks it waits for itself, and a std::recursive_mutex keeps none of them out. Let go of it before
//   you switch.
// - errno, the locale, the signal mask; the floating-point environment, but see attributes.
// - The signal that is being handled. Do not switch in a signal handler: it may have interrupted the
//   library; and it stays pending, and its signal blocked, until somebody switches back. The library
//   does not notice. Write to a pipe there, or use the hub's signals.
// Whatever takes or drops a handle may run other greenlets: the headers say "Switches:" where.
#ifndef GREENLET_GREENLET_HPP
#define GREENLET_GREENLET_HPP

#include <greenlet/attributes.hpp>
#include <greenlet/context.hpp>
#include <greenlet/counts.hpp>
#include <greenlet/creation.hpp>
#include <greenlet/error.hpp>
#include <greenlet/exit.hpp>
#include <greenlet/generator.hpp>
#include <greenlet/handle.hpp>
#include <greenlet/local.hpp>
#include <greenlet/overflow.hpp>
#include <greenlet/thread.hpp>
#include <greenlet/trace.hpp>
#include <greenlet/unraisable.hpp>
#include <greenlet/value.hpp>
#include <greenlet/weak.hpp>

#endif
