// SPDX-License-Identifier: MIT
// For a thread that watches the others: whether they switch, and where they are.
#include "watching.hpp"

#include "anchor.hpp"
#include "collector.hpp"
#include "overflow.hpp"
#include "readable.hpp"
#include "sanitizer.hpp"
#include "threads.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <mutex>

namespace greenlets::detail {
namespace {

// libuv's own, which it writes without atomics.
GREENLET_NO_TSAN std::uint64_t read_clock(const std::uint64_t* clock) noexcept {
  return *static_cast<const volatile std::uint64_t*>(clock);
}

// Bodies lie in memory that is never unmapped (cells.hpp), but for those of a collector.
GREENLET_NO_TSAN std::uint64_t read_id(const body* b) noexcept {
  if (collects || !b) return 0;
  const volatile std::uint64_t& id = b->id;
  return id;
}

// Of a loop.
const body* runner_of(const char* hub) noexcept {
  return *reinterpret_cast<const body* const*>(hub + greenlet_anchor_v1.hub.runner);
}

// Under threads_lock, so that the loop stays.
void look_at(thread_record& t, watched_thread_v1& to, bool note) noexcept {
  to = {};
  to.record = &t;
  to.tid = t.tid;
  // Where there is no inline switch a jump lowers it all the same. What runs now is read afterwards: if there is a switch in
  // between, it is told by one or the other, next time.
  if (note) to.has_switched = !(t.attention.fetch_or(attention::watched, std::memory_order_acq_rel) & attention::watched);
  const body* const current = t.current.load(std::memory_order_acquire);
  to.current = current;
  to.id = read_id(current);
  to.is_main = current == t.main;
  if (const char* const hub = t.hub.load(std::memory_order_acquire)) {
    to.has_hub = true;
    to.is_hub = current == runner_of(hub);
    to.waits = to.is_hub && t.in_poll.load(std::memory_order_acquire);
    to.polled_at = read_clock(reinterpret_cast<const std::uint64_t*>(hub + greenlet_anchor_v1.hub.time));
  }
  std::strncpy(to.name, t.name.c_str(), sizeof to.name - 1);
}

// Bytes that belong to the same thread; a sanitizer has not been told of all that is written there.
GREENLET_NO_ASAN GREENLET_NO_TSAN void copy_plainly(char* to, std::uintptr_t from, std::size_t size) noexcept {
  const volatile char* const there = reinterpret_cast<const volatile char*>(from);
  for (std::size_t i = 0; i < size; ++i) to[i] = there[i];
}

constexpr std::size_t page = 4096;

void copy_stack(const thread_record* t, interruption_v1& to) noexcept {
  constexpr std::size_t red_zone = 128;  // System V ABI, AMD64 supplement, 3.2.2; on other machines it does no harm
  const std::uintptr_t sp = to.at.number[machine::sp_number];
  to.low = sp - red_zone;
  std::size_t most = to.room;
  std::size_t known = std::min(page - to.low % page, most);
  for (const stack* s : {t ? t->running()->memory : nullptr, t ? t->left_stack : nullptr}) {
    const auto high = reinterpret_cast<std::uintptr_t>(s);
    if (!s || sp >= high || high - sp > s->usable) continue;
    most = known = std::min(most, high - to.low);
  }
  const std::ptrdiff_t got = copy_readable(to.bytes, to.low, most);
  if (got < 0) copy_plainly(to.bytes, to.low, known);
  to.size = got < 0 ? known : static_cast<std::size_t>(got);
}

// In a switch who is current is another than whose stack it is. Of a thread's own stack nothing tells.
bool is_whole(const body* b, std::uintptr_t sp) noexcept {
  if (b->main) return true;
  const auto high = reinterpret_cast<std::uintptr_t>(b->memory);
  return sp < high && high - sp <= b->memory->usable;
}

void copy_name(body* b, interruption_v1& to) noexcept {
  to.name[0] = '\0';
  if (!b->lock.try_lock()) return;  // this thread may be giving it another one
  if (b->name) {
    const std::size_t length = std::min(b->name->size(), sizeof to.name - 1);
    std::memcpy(to.name, b->name->data(), length);
    to.name[length] = '\0';
  }
  b->lock.unlock();
}

std::atomic<void (*)() noexcept> errand{nullptr};

}  // namespace

std::size_t watch_threads(watched_thread_v1* room, std::size_t most, bool note) noexcept {
  const std::lock_guard lock(threads_lock);
  std::size_t n = 0;
  for (thread_record* t = first_thread(); t; t = t->next_thread, ++n)
    if (n < most) look_at(*t, room[n], note);
  return n;
}

void copy_interrupted(const ucontext_t& here, interruption_v1& to) noexcept {
  const thread_record* const t = this_thread_if_any();
  machine::set(to.at, here);
  body* b = t ? t->running() : nullptr;
  if (b && machine::knows_registers && !is_whole(b, to.at.number[machine::sp_number])) b = nullptr;
  to.greenlet = b ? b->id : 0;
  to.is_main = b && b->main;
  const char* const hub = b ? t->hub.load(std::memory_order_relaxed) : nullptr;
  to.is_hub = hub && b == runner_of(hub);
  to.size = 0;
  to.name[0] = '\0';
  if (b) copy_name(b, to);
  if (machine::knows_registers) copy_stack(t, to);
}

void want_signal_stacks() {
  thread_record* const mine = this_thread_if_any();
  if (mine) give_signal_stack(*mine);
  const std::lock_guard lock(threads_lock);
  give_signal_stacks(mine);
}

void set_errand(void (*call)() noexcept) noexcept {
  errand.store(call, std::memory_order_release);
  if (thread_record* const t = this_thread_if_any()) t->raise(attention::errand);
}

bool has_errand() noexcept { return errand.load(std::memory_order_relaxed) != nullptr; }

void run_errand() noexcept {
  if (auto* const call = errand.exchange(nullptr, std::memory_order_acq_rel)) call();
}

}  // namespace greenlets::detail
