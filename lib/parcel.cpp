// SPDX-License-Identifier: MIT
// Opening a parcel: the value, the exception, or the rest of a forced unwind.
#include "parcel.hpp"

#include <cxxabi.h>

namespace greenlets::detail {
namespace {

// A forced unwind has unwound a greenlet to its first frame and was caught there. It cannot walk
// from that stack to this one, but it can begin again here: `throw;` of a foreign exception calls
// _Unwind_Resume_or_Rethrow (Itanium C++ ABI, Exception Handling, sections 1.3 and 2.5.5), which
// goes on with the forced unwind from the frame it is called in. It takes the exception from the
// globals, so these must be the finished greenlet's for a moment.
[[noreturn]] void go_on_with(const exception_state& forced) {
  struct restore {
    exception_state mine;
    ~restore() {
      exception_state& now = *exceptions_of_thread();
#ifdef __ARM_EABI__
      mine.propagating = now.propagating;  // the forced unwind itself, until the end of this destructor
#endif
      now = mine;
    }
  } first_to_be_unwound{*exceptions_of_thread()};
  *exceptions_of_thread() = forced;
  throw;
}

}  // namespace

parcel parcel_of(const machine::cargo& c) noexcept {
  return is_thrown(c) ? parcel(thrown_by(c)) : parcel(unloaded(c));
}

bool is_exit(const std::exception_ptr& e) noexcept {
  try {
    std::rethrow_exception(e);
  } catch (const greenlet_exit&) {
    return true;
  } catch (...) {
    return false;
  }
}

void exit_to_value(parcel& p) noexcept {
  if (p.thrown && is_exit(p.thrown)) {
    p.sent = from_thrown(std::move(p.thrown));
    p.thrown = nullptr;
  }
}

value open(parcel&& p) {
  if (p.forced) go_on_with(p.forced_state);
  if (p.thrown) std::rethrow_exception(std::move(p.thrown));
  return std::move(p.sent);
}

}  // namespace greenlets::detail
