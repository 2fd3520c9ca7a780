// SPDX-License-Identifier: MIT
// The end of a thread's greenlets: on request, and who is told before it.
#ifndef GREENLET_THREAD_HPP
#define GREENLET_THREAD_HPP

#include <greenlet/detail/api.hpp>

#include <functional>

namespace greenlets {

/// Does for the calling thread now what its exit would do: unwinds every suspended greenlet of it (with
/// greenlet_exit, reason thread_exit), forgets its tracer, and makes its main greenlet dead. For
/// main() before it returns, and for threads of a pool between two jobs. Nothing happens in a thread that has
/// not used greenlets, in one whose greenlets are being unwound just now, and at the thread's exit
/// after it.
///
/// May be called anywhere on the thread, in a destructor too. What the thread does afterwards with the
/// library begins anew, with another main greenlet. In a greenlet that is not the main one: that greenlet
/// itself counts as unwound from here on, and goes on to the end of its function as the thread's code
/// outside any greenlet; its result then goes to where the main greenlet waits.
///
/// Greenlets that are unwound by it should not call pthread_exit(), nor be cancelled: called in the main
/// greenlet it drops that, and the thread goes on; called in another one, that one's stack is lost.
///
/// Not in a hook of attributes::on_switch(): error(in_hook).
/// Switches: yes, into each greenlet that is unwound, and back. Thread: any.
GREENLET_API void unwind_thread();

/// Has `f` called when the calling thread's greenlets are about to be unwound, by the thread's exit or by
/// unwind_thread(), while all of them are still there. Once; the last one given is called first; those
/// given meanwhile, or while greenlets are unwound, are called as well. What it throws goes to the unraisable
/// handler.
/// Switches: no; `f` may. Thread: any. Throws: std::bad_alloc, std::system_error at the first use.
GREENLET_API void at_thread_unwind(std::function<void()> f);

}  // namespace greenlets

#endif
