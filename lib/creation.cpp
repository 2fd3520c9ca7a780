// SPDX-License-Identifier: MIT
// Recording where greenlets are made.
#include "creation.hpp"

#include "thread.hpp"

#include <greenlet/creation.hpp>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <unwind.h>

namespace greenlets {
namespace detail {

std::atomic<bool> records_creation{false};

namespace {

std::atomic<std::size_t> most{0};
constexpr std::size_t most_ever = 128;

struct addresses {
  void* found[most_ever];
  std::size_t count = 0;
  std::size_t wanted = 0;
};

_Unwind_Reason_Code add(_Unwind_Context* at, void* to) {
  addresses& t = *static_cast<addresses*>(to);
  if (t.count == t.wanted) return _URC_END_OF_STACK;
  const auto address = static_cast<std::uintptr_t>(_Unwind_GetIP(at));
  if (address == 0) return _URC_END_OF_STACK;
  t.found[t.count++] = reinterpret_cast<void*>(address);
  return _URC_NO_REASON;
}

}  // namespace

void note_creation(body* made) noexcept {
  addresses t;
  t.wanted = most.load(std::memory_order_relaxed);
  if (t.wanted) _Unwind_Backtrace(add, &t);
  timespec now = {};
  clock_gettime(CLOCK_MONOTONIC, &now);
  auto* const kept = static_cast<creation*>(std::malloc(sizeof(creation) + t.count * sizeof(void*)));
  if (!kept) return;
  kept->made = static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<std::uint64_t>(now.tv_nsec);
  kept->count = t.count;
  std::memcpy(kept->addresses(), t.found, t.count * sizeof(void*));
  made->wear();
  made->created = kept;
}

}  // namespace detail

void record_creation(bool on, std::size_t most_frames) noexcept {
  detail::most.store(std::min(most_frames, detail::most_ever), std::memory_order_relaxed);
  detail::records_creation.store(on, std::memory_order_relaxed);
  if (detail::thread_record* const t = detail::this_thread_if_any()) t->ids.look_again();
}

}  // namespace greenlets
