// SPDX-License-Identifier: MIT
// The unraisable handler: where an exception goes that nobody is there to catch.
#ifndef GREENLET_UNRAISABLE_HPP
#define GREENLET_UNRAISABLE_HPP

#include <greenlet/handle.hpp>

#include <exception>
#include <functional>

namespace greenlets {

/// Told of an exception that cannot be thrown anywhere: it left a greenlet that was being unwound
/// (by its last handle, or its thread's exit), or a greenlet refused to end. Called in the
/// greenlet that did the unwinding, on its thread. What the handler throws is ignored. From its call to its
/// return the thread cannot be cancelled (pthread_setcancelstate); when it switches, that is so for whoever
/// runs meanwhile.
using unraisable_handler = std::function<void(const greenlet&, std::exception_ptr)>;

/// Sets the process's handler and returns the one before. Empty: back to the default, which
/// writes a line to standard error.
/// Switches: no. Thread: any. Throws: std::bad_alloc.
GREENLET_API unraisable_handler set_unraisable_handler(unraisable_handler handler);

/// Hands an exception to the handler: for frameworks that run other people's functions in
/// greenlets of their own. `g` may be empty. Switches: only if the handler does. Thread: any.
GREENLET_API void report_unraisable(const greenlet& g, std::exception_ptr e) noexcept;

}  // namespace greenlets

#endif
