// SPDX-License-Identifier: MIT
// Copying the stack of a greenlet, which may be another thread's, and gone while it is copied.
#include "suspension.hpp"

#include "readable.hpp"
#include "sanitizer.hpp"
#include "thread.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>

namespace greenlets::detail {
namespace {

// Of a thread's own stack, whose end is not known, so much.
constexpr std::size_t most_native = 256 * 1024;

// How much there is from an address on the calling thread's stack to that stack's end; 0: it is on another.
std::size_t left_of_own(std::uintptr_t from) noexcept {
  char* low = nullptr;
  char* high = nullptr;
  auto* const at = reinterpret_cast<char*>(from);
  return native_bounds(low, high) && at >= low && at < high ? static_cast<std::size_t>(high - at) : 0;
}

// Copies from `from`, as far as there is memory, at most `most` bytes. `memory` is the stack there; null: it is a thread's
// own; `ours`: the calling one's.
std::size_t copy(std::vector<char>& to, std::uintptr_t from, std::size_t most, const stack* memory, bool ours) {
  to.resize(most);
  std::ptrdiff_t got = copy_readable(to.data(), from, most);
  if (got < 0 && ours) {
    got = static_cast<std::ptrdiff_t>(memory ? most : std::min(most, left_of_own(from)));
    std::memcpy(to.data(), reinterpret_cast<const void*>(from), static_cast<std::size_t>(got));
  }
  to.resize(static_cast<std::size_t>(std::max<std::ptrdiff_t>(got, 0)));
  return to.size();
}

// What can be read of it without a lock, while its thread may be changing it: hence read twice.
struct glimpse {
  machine::context where;
  stack* memory;
  bool suspended;

  bool operator==(const glimpse& other) const noexcept {
    return where.sp == other.where.sp && where.pc == other.where.pc && where.fp == other.where.fp &&
           where.base == other.where.base && memory == other.memory && suspended == other.suspended;
  }
};

GREENLET_NO_TSAN glimpse glance(const body* b, const thread_record* t) noexcept {
  std::atomic_thread_fence(std::memory_order_acquire);
  const volatile auto& where = b->where;
  const volatile auto& memory = b->memory;
  glimpse g = {};
  g.where.sp = where.sp;
  g.where.fp = where.fp;
  g.where.pc = where.pc;
  g.where.base = where.base;
  g.memory = memory;
  g.suspended = b->is(life::active) && !b->dead() && t->current.load(std::memory_order_acquire) != b && g.where.sp;
  std::atomic_thread_fence(std::memory_order_acquire);
  return g;
}

// Where a stack ends that begins at `sp`: as far as is known.
std::size_t size_from(std::uintptr_t sp, const stack* memory) noexcept {
  const auto high = reinterpret_cast<std::uintptr_t>(memory);
  return memory && sp < high && high - sp <= memory->usable ? high - sp : most_native;
}

bool copy_running(body* b, const ucontext_t& here, suspension_v1& to) {
  machine::set(to.at, here);
  to.running = true;
  to.low = to.at.number[machine::sp_number];
  const std::size_t size = size_from(to.low, b->memory);
  return copy(to.bytes, to.low, size, size == most_native ? nullptr : b->memory, true) > 0;
}

bool copy_once(const body* b, const thread_record* t, const glimpse& seen, suspension_v1& to) {
  const std::size_t red_zone = seen.where.pc ? 128 : 0;
  const auto sp = reinterpret_cast<std::uintptr_t>(seen.where.sp);
  to.low = sp - red_zone;
  if (copy(to.bytes, to.low, size_from(sp, seen.memory) + red_zone, seen.memory, t == record) < red_zone) return false;
  if (seen.where.pc) {
    machine::set(to.at, seen.where);
  } else {
    ucontext_t registers;  // swapcontext has left them where `sp` points
    if (to.bytes.size() < sizeof registers) return false;
    std::memcpy(&registers, to.bytes.data(), sizeof registers);
    machine::set(to.at, registers);
  }
  return glance(b, t) == seen;
}

std::atomic<const frames_source_v1*> source{nullptr};

}  // namespace

bool copy_suspended(const greenlet& g, const ucontext_t& here, suspension_v1& to) {
  body* const b = access::body_of(g);
  if (!machine::knows_registers || !b) return false;
  const thread_record* const t = b->thread();
  if (!t) return false;
  if (t == record && record->running() == b) return copy_running(b, here, to);
  // Its thread may go on with it at any time: then what was copied is not of one moment.
  for (int tries = 0; tries < 3; ++tries) {
    const glimpse seen = glance(b, t);
    if (!seen.suspended) return false;
    if (copy_once(b, t, seen, to)) return true;
  }
  return false;
}

void set_frames_source(const frames_source_v1* s) noexcept { source.store(s, std::memory_order_release); }
const frames_source_v1* frames_source() noexcept { return source.load(std::memory_order_acquire); }

}  // namespace greenlets::detail
