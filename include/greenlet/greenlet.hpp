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
#ifndef GREENLET_GREENLET_HPP
#define GREENLET_GREENLET_HPP

#include <greenlet/attributes.hpp>
#include <greenlet/context.hpp>
#include <greenlet/counts.hpp>
#include <greenlet/error.hpp>
#include <greenlet/exit.hpp>
#include <greenlet/generator.hpp>
#include <greenlet/handle.hpp>
#include <greenlet/local.hpp>
#include <greenlet/thread.hpp>
#include <greenlet/trace.hpp>
#include <greenlet/unraisable.hpp>
#include <greenlet/value.hpp>
#include <greenlet/weak.hpp>

#endif
