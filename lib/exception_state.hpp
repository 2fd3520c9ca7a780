// SPDX-License-Identifier: MIT
// The C++ exceptions being handled and thrown, which belong to a greenlet and not to its thread.
//
// Itanium C++ ABI, Exception Handling, section 2.2.2: each thread has a __cxa_eh_globals with the
// stack of caught exceptions and the number of uncaught ones. Every switch saves the one's and
// loads the other's, so that `throw;`, std::current_exception() and std::uncaught_exceptions() mean
// the running greenlet's.
#ifndef LIB_EXCEPTION_STATE_HPP
#define LIB_EXCEPTION_STATE_HPP

#include <cxxabi.h>

namespace greenlets::detail {

struct exception_state {
  void* caught = nullptr;
  unsigned int uncaught = 0;
#ifdef __ARM_EABI_UNWINDER__
  void* propagating = nullptr;
#endif

  // The calling thread's; the address is the same for all of the thread's life.
  static exception_state* of_thread() noexcept { return reinterpret_cast<exception_state*>(abi::__cxa_get_globals()); }
};

}  // namespace greenlets::detail

#endif
