// SPDX-License-Identifier: MIT
// The snapshot of this process.
#include <greenlet/snapshot.hpp>

#include "reader.hpp"
#include "steps.hpp"
#include "symbols.hpp"

#include <ucontext.h>
#include <unistd.h>
#include <utility>

namespace greenlets {
namespace {

// The calling thread's own greenlet goes on here.
bool copy_own(detail::memory& from, const ucontext_t& here, std::uintptr_t high, detail::suspension_v1& to) {
  constexpr std::size_t most_native = 256 * 1024;
  detail::machine::set(to.at, here);
  to.running = true;
  to.low = to.at.number[detail::machine::sp_number];
  to.bytes.resize(high > to.low ? high - to.low : most_native);
  to.bytes.resize(from.read(to.low, to.bytes.data(), to.bytes.size()));
  return !to.bytes.empty();
}

}  // namespace

process_snapshot snapshot(const snapshot_options& with) {
  ucontext_t here;
  getcontext(&here);
  const auto beyond = reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0));
  detail::process_memory from(getpid());
  detail::anchor where;
  process_snapshot empty;
  if (!detail::anchor_at(from, reinterpret_cast<std::uintptr_t>(&greenlet_anchor_v1), where)) return empty;
  const pid_t me = gettid();
  detail::steps steps;
  process_snapshot s = detail::read_process(
      {from, where, with,
       [&](const detail::suspension_v1& stack) { return steps.walk(stack, stack.running ? beyond : 0, with.most_frames); },
       [&](pid_t tid, std::uintptr_t high, detail::suspension_v1& to) {
         return detail::machine::knows_registers && tid == me && copy_own(from, here, high, to);
       },
       [](std::vector<frame>& to, const detail::place_in_code& p) { detail::describe(to, p); }});
  s.pid = getpid();
  return s;
}

}  // namespace greenlets
