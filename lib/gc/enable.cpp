// SPDX-License-Identifier: MIT
// The public functions.
#include "finding.hpp"
#include "marking.hpp"
#include "memory.hpp"
#include "roots.hpp"
#include "stacks.hpp"

#include "../arch/leftovers.hpp"
#include "../collector.hpp"

#include <greenlet/error.hpp>
#include <greenlet/unraisable.hpp>

#include <atomic>
#include <cstdint>
#include <ctime>
#include <exception>
#include <mutex>
#include <stdexcept>

namespace greenlets::gc {
namespace detail {
namespace {

using greenlets::detail::collector;

constexpr collector hooks = {
    &allocate_body, &made,          &free_body, &is_husk,  &make_husk, &traces, &pin,    &unpin,
    &wanted_again,  &allocate_seen, &allocate_box, &place_box, &owns,   &free_seen, &attach,
    &detach,        &uses,          &mapped,    &unmap,    &collect_now, &next_condemned,
    &unwound,       &refused,
};

std::atomic<bool> on{false};

// Everything that can fail comes before the core is told.
void begin(options&& with) {
  chosen = new options(std::move(with));
  GC_INIT();
  // In this mode libgc frees what it reports, and before it marks what the keeper keeps. So each keeps itself.
  if (GC_get_find_leak()) chosen->unreachable = policy::ignore;
  GC_allow_register_threads();
  begin_threads();
  attach();
  make_kinds();
  begin_finding();
  watch_stops();
  hook_collections();
}

// libgc's lock is not fair: who waits for it is woken when it is given back, and by then a thread that collects
// without pause has it again. To come, make a greenlet and go, a thread needs it some twenty times
// (t/gc_short_threads.cpp). So a collection begins only when who was woken has had the time to take it.
std::atomic<std::uint64_t> last_end{0};

__attribute__((noinline)) void let_others_in() noexcept {
  constexpr std::uint64_t wake_ns = 50000;
  if (attached.load(std::memory_order_relaxed) < 2) return;
  const std::uint64_t ago = now_ns() - last_end.load(std::memory_order_relaxed);
  if (ago >= wake_ns) return;
  const timespec rest = {0, static_cast<long>(wake_ns - ago)};
  nanosleep(&rest, nullptr);
}

void check_hooks() {
  static std::atomic<bool> told{false};
  if (!hooks_lost() || told.exchange(true, std::memory_order_relaxed)) return;
  report_unraisable(greenlet(), std::make_exception_ptr(std::runtime_error(
      "a hook of the collector has been replaced by one that does not call it: from now on nothing is found")));
  chosen->unreachable = policy::ignore;
}

[[noreturn]] __attribute__((noinline)) void not_enabled() {
  throw error(errc::not_running, "the collector has not been enabled");
}

// With so few words that hardly one of its frame is not written.
__attribute__((noinline)) collection collect_here() {
  const auto found = [] { return totals.found.load(std::memory_order_relaxed); };
  const auto unwound = [] { return totals.unwound.load(std::memory_order_relaxed); };
  const collection before = {found(), unwound()};
  GC_clear_stack(nullptr);
  GC_gcollect();
  last_end.store(now_ns(), std::memory_order_relaxed);
  check_hooks();
  wake_owners();
  greenlets::detail::entered_thread();  // unwinds this thread's own
  return {found() - before.found, unwound() - before.unwound};
}

}  // namespace
}  // namespace detail

void enable(options with) {
  static std::mutex lock;
  const std::lock_guard guard(lock);
  greenlets::detail::check_install(detail::collector::version);
  detail::begin(std::move(with));
  greenlets::detail::set_registry(detail::registry_layout());
  greenlets::detail::install(detail::hooks);
  detail::on.store(true, std::memory_order_release);
}

bool enabled() noexcept { return detail::on.load(std::memory_order_acquire); }

collection collect() {
  if (!enabled()) detail::not_enabled();
  greenlets::detail::entered_thread();
  detail::let_others_in();
  // The frame of what collects is scanned, and where it has not written yet is what was on the stack before.
  greenlets::detail::machine::forget_frames();
  return detail::collect_here();
}

statistics_t statistics() noexcept {
  const auto read = [](const auto& n) { return n.load(std::memory_order_relaxed); };
  const detail::totals_t& t = detail::totals;
  return {read(t.collections), read(t.found),   read(t.freed),   read(t.unwound), read(t.refused), read(t.stack_bytes),
          std::chrono::nanoseconds(read(t.last_ns)), std::chrono::nanoseconds(read(t.most_ns))};
}

}  // namespace greenlets::gc
