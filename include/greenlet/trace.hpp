// SPDX-License-Identifier: MIT
// Tracing: a function that is told of every switch.
//
//   greenlets::settrace([](greenlets::trace_event event, const greenlets::greenlet& origin,
//                          const greenlets::greenlet& target) {
//     if (event == greenlets::trace_event::thrown) log("exception", origin.id(), target.id());
//   });
#ifndef GREENLET_TRACE_HPP
#define GREENLET_TRACE_HPP

#include <greenlet/handle.hpp>

#include <exception>
#include <functional>
#include <typeinfo>

namespace greenlets {

/// What has happened. Compare it with the constants, or switch () over it; a tracer must let pass
/// what it does not know, for more may come.
class trace_event {
 public:
  enum kind {
    switched,  ///< control came with a value: a switch, or a greenlet that has returned (or ended by greenlet_exit)
    thrown,    ///< control came with an exception: a throw, or one that has ended a greenlet
  };

  operator kind() const noexcept { return kind_; }  // NOLINT: so that it compares with the constants
  /// What is thrown; null with `switched`, and when a thread's forced unwinding (pthread_exit,
  /// pthread_cancel) passes from a greenlet to the main greenlet. Valid while the tracer runs.
  const std::exception_ptr& exception() const noexcept { return *exception_; }
  /// The type of the callable that the target is about to begin with; null when it goes on.
  const std::type_info* starts() const noexcept { return starts_; }

  // For the library.
  trace_event(kind k, const std::exception_ptr& e, const std::type_info* starts) noexcept
      : kind_(k), exception_(&e), starts_(starts) {}

 private:
  kind kind_;
  const std::exception_ptr* exception_;
  const std::type_info* starts_;
};

/// Called after the switch, in the target: current() is the target. `origin` is the one that was left;
/// the same greenlet twice when it has switched to itself. Also called at a start (before what the
/// greenlet runs is called), at an end, and for the switches by which a greenlet is unwound.
///
/// A tracer may switch, and is then told of those switches as well. When it throws, tracing ends for
/// this thread, and its exception is thrown in the target in place of what was sent; a greenlet that
/// was about to start then dies without running. In a greenlet that is unwinding another, nothing can be
/// thrown: there the exception goes to the unraisable handler.
using tracer = std::function<void(trace_event, const greenlet& origin, const greenlet& target)>;

/// Sets the calling thread's tracer and returns the one before; an empty one ends tracing. A thread
/// begins with none. It is kept as it is given, so that gettrace().target<T>() finds it.
/// Switches: no. Thread: any. Throws: std::bad_alloc, std::system_error at the thread's first use,
/// what copying a tracer throws.
GREENLET_API tracer settrace(tracer t);
/// The calling thread's tracer, empty if it has none. As settrace().
GREENLET_API tracer gettrace();

/// Sets a tracer for every thread of the process, those that exist and those that come; it is called
/// before a thread's own, and on many threads at once. Returns the one before. When it throws, it is not
/// called any more on the thread where it did, until another is set. A thread that is in the middle of a
/// switch may call the old one once more.
/// Switches: no. Thread: any. Throws: std::bad_alloc, what copying a tracer throws.
GREENLET_API tracer settrace_all_threads(tracer t);
/// The tracer for every thread, empty if there is none. As settrace_all_threads().
GREENLET_API tracer gettrace_all_threads();

}  // namespace greenlets

#endif
