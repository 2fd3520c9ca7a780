// SPDX-License-Identifier: MIT
// The public functions.
#include "finding.hpp"
#include "marking.hpp"
#include "memory.hpp"
#include "roots.hpp"
#include "stacks.hpp"

#include "../collector.hpp"

#include <greenlet/error.hpp>
#include <greenlet/unraisable.hpp>

#include <atomic>
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
  GC_allow_register_threads();
  begin_threads();
  attach();
  make_kinds();
  begin_finding();
  watch_stops();
  hook_collections();
}

void check_hooks() {
  static std::atomic<bool> told{false};
  if (!hooks_lost() || told.exchange(true, std::memory_order_relaxed)) return;
  report_unraisable(greenlet(), std::make_exception_ptr(std::runtime_error(
      "a hook of the collector has been replaced by one that does not call it: from now on nothing is found")));
  chosen->unreachable = policy::ignore;
}

}  // namespace
}  // namespace detail

void enable(options with) {
  static std::mutex lock;
  const std::lock_guard guard(lock);
  greenlets::detail::check_install(detail::collector::version);
  detail::begin(std::move(with));
  greenlets::detail::install(detail::hooks);
  detail::on.store(true, std::memory_order_release);
}

bool enabled() noexcept { return detail::on.load(std::memory_order_acquire); }

collection collect() {
  if (!enabled()) throw error(errc::not_running, "the collector has not been enabled");
  greenlets::detail::entered_thread();
  const statistics_t before = statistics();
  GC_clear_stack(nullptr);
  GC_gcollect();
  detail::check_hooks();
  detail::wake_owners();
  greenlets::detail::entered_thread();  // unwinds this thread's own
  const statistics_t after = statistics();
  return {after.found - before.found, after.unwound - before.unwound};
}

statistics_t statistics() noexcept {
  const auto read = [](const auto& n) { return n.load(std::memory_order_relaxed); };
  const detail::totals_t& t = detail::totals;
  return {read(t.collections), read(t.found),   read(t.freed),   read(t.unwound), read(t.refused), read(t.stack_bytes),
          std::chrono::nanoseconds(read(t.last_ns)), std::chrono::nanoseconds(read(t.most_ns))};
}

}  // namespace greenlets::gc
