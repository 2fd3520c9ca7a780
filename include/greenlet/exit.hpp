// SPDX-License-Identifier: MIT
// greenlet_exit: what is thrown into a greenlet to make it end.
#ifndef GREENLET_EXIT_HPP
#define GREENLET_EXIT_HPP

#include <greenlet/detail/api.hpp>

namespace greenlets {

/// Ends the greenlet that lets it pass. It is not an error: when it leaves a greenlet's first
/// function, the greenlet's parent receives the thrown object as an ordinary value
/// (`is<greenlet_exit>()`), and nothing is reported.
///
/// It is deliberately not a std::exception, so that `catch (const std::exception&)` in a loop of
/// a daemon does not swallow it. Whoever writes `catch (...)` must rethrow: this, and
/// `abi::__forced_unwind` (pthread_exit, pthread_cancel), pass through there.
///
/// May be derived from: an object of a derived class is treated as greenlet_exit everywhere, and
/// reaches the parent whole.
struct GREENLET_API greenlet_exit {
  /// Why the greenlet was told to end.
  enum class reason {
    thrown,       ///< by somebody's throw_in() or throw statement
    last_handle,  ///< the last handle to the suspended greenlet has gone
    thread_exit,  ///< its thread is exiting
    collected,    ///< a garbage collector found that nothing can reach it
    cancelled,    ///< a hub cancelled it
  };

  reason why = reason::thrown;

  greenlet_exit() noexcept = default;
  explicit greenlet_exit(reason r) noexcept : why(r) {}
  greenlet_exit(const greenlet_exit&) = default;
  greenlet_exit& operator=(const greenlet_exit&) = default;
  virtual ~greenlet_exit();
};

}  // namespace greenlets

#endif
