// SPDX-License-Identifier: MIT
// steps: how each place in code is stepped out of, found out once; for many stacks that wait in the same few places.
//
// libunwind reads a function's description anew at each step, which takes microseconds, and a snapshot has a million. So
// one step out of each place is made with registers and memory that are symbols: what comes out says what was made of
// what. Nearly always a frame ends a constant above one of three registers, and the others were saved at constants from
// there. Where it is otherwise, libunwind walks that stack.
#ifndef LIB_BACKTRACE_STEPS_HPP
#define LIB_BACKTRACE_STEPS_HPP

#include "walk.hpp"

#include <cstddef>
#include <cstdint>
#include <unordered_map>
#include <vector>

namespace greenlets::detail {

// One step, of three registers: the stack's and the frame's pointer, and that which addresses locals (machine::context).
struct step {
  static constexpr unsigned registers = 3;
  static constexpr std::int32_t kept = INT32_MIN;  // a register that the step leaves as it is

  enum class kind : std::uint8_t { known, end, unknown };
  kind what = kind::unknown;
  std::uint8_t from = 0;           // the register above which the frame ends
  std::int32_t distance = 0;       // ... by so much
  std::int32_t pc = 0;             // where the caller's are, from the frame's end
  std::int32_t saved[registers] = {kept, kept, kept};  // 0 is not used: the stack's pointer is the frame's end
};

// Not for several threads. Known as long as no object is unloaded: so for one snapshot.
class steps {
 public:
  // As walk(). Throws std::bad_alloc.
  std::vector<place_in_code> walk(const suspension_v1& s, std::uintptr_t beyond, std::size_t most);
  const step& out_of(std::uintptr_t pc, bool interrupted);

 private:
  bool walk_quickly(std::vector<place_in_code>& found, const suspension_v1& s, std::uintptr_t beyond, std::size_t most);

  std::unordered_map<std::uintptr_t, step> known_[2];
};

// In walk.cpp: asks libunwind.
step find_step(std::uintptr_t pc, bool interrupted);

}  // namespace greenlets::detail

#endif
