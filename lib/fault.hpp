// SPDX-License-Identifier: MIT
// The seam at which a test makes a call of ours fail: before each call to the system that can, and
// where a switch can still be refused.
//
// The tests have a copy of the core of their own, compiled with GREENLET_FAULTS, which asks them before
// each such call. In every other build the macros below are the call itself, or nothing.
#ifndef LIB_FAULT_HPP
#define LIB_FAULT_HPP

#ifdef GREENLET_FAULTS

#include <cerrno>
#include <new>
#include <system_error>

namespace greenlets::detail::fault {

enum class call : unsigned char {
  mmap,
  mprotect,
  madvise,
  install_guard,
  body_memory,   // refused as by operator new
  pthread_key_create,
  pthread_atfork,
  pthread_setspecific,
  sigaltstack,
  sigaction,
  first_switch,  // into an unstarted greenlet: refused while nothing has changed
  next_switch,   // into a suspended one: the same
  getcontext,    // the machine's; these two may not fail, for it is too late
  swapcontext,
};

// The error with which this call is to fail, or 0 when it is to be made. Defined by the tests.
int of(call c) noexcept;

inline bool refused(call c) noexcept {
  const int code = of(c);
  if (code != 0) errno = code;
  return code != 0;
}

inline void may_throw(call c, const char* name) {
  if (const int code = of(c)) throw std::system_error(code, std::system_category(), name);
}

inline void may_lack(call c) {
  if (of(c) != 0) throw std::bad_alloc();
}

}  // namespace greenlets::detail::fault

// Whether it has to be asked before every switch.
#define GREENLET_REFUSES_SWITCHES true
// CALL, a function's name, or what it is when it fails; errno says why.
#define GREENLET_MAY_FAIL(CALL, FAILED, ...) \
  (::greenlets::detail::fault::refused(::greenlets::detail::fault::call::CALL) ? (FAILED) : CALL(__VA_ARGS__))
// Throws std::system_error, which names it, when the switch is to fail.
#define GREENLET_MAY_REFUSE(CALL) ::greenlets::detail::fault::may_throw(::greenlets::detail::fault::call::CALL, #CALL)
// Throws std::bad_alloc when there is to be none.
#define GREENLET_MAY_LACK(WHAT) ::greenlets::detail::fault::may_lack(::greenlets::detail::fault::call::WHAT)

#else

#define GREENLET_REFUSES_SWITCHES false
#define GREENLET_MAY_FAIL(CALL, FAILED, ...) CALL(__VA_ARGS__)
#define GREENLET_MAY_REFUSE(CALL) static_cast<void>(0)
#define GREENLET_MAY_LACK(WHAT) static_cast<void>(0)

#endif

#endif
