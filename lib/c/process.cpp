// SPDX-License-Identifier: MIT
// What is the process's: the unraisable handler, counts, the version.
#include "record.hpp"

#include <greenlet/counts.hpp>
#include <greenlet/overflow.hpp>
#include <greenlet/unraisable.hpp>

using namespace greenlets::detail;

int greenlet_set_unraisable_handler(greenlet_unraisable_handler* handler, void* data) {
  return guarded([&] {
    greenlets::unraisable_handler calls;
    if (handler)
      calls = [handler, data](const greenlets::greenlet& g, const std::exception_ptr& e) {
        const exception_for_c for_c(greenlets::to_c(e));
        handler(greenlets::c_pointer(g), for_c.get(), data);
      };
    greenlets::set_unraisable_handler(std::move(calls));
  });
}

int greenlet_report_unraisable(greenlet_t* g, greenlet_exception_t* e) {
  return guarded([&] {
    if (!e) throw greenlets::error(greenlets::errc::empty_handle, "there is no exception to report");
    report_unraisable(body_of(g), e->thrown);
  });
}

greenlet_counts_t greenlet_counts() {
  const greenlets::process_counts n = greenlets::counts();
  return {n.greenlets, n.main_greenlets, n.stacks, n.pooled_stacks, n.threads};
}

greenlet_process_stacks_t greenlet_stack_statistics() {
  const greenlets::process_stacks n = greenlets::stack_statistics();
  return {n.mapped, n.mapped_bytes, n.guarded,    n.guarded_by_mprotect,
          n.in_use, n.pooled,       n.high_water, n.high_water_bytes};
}

void greenlet_trim_stacks() { greenlets::trim_stacks(); }

int greenlet_report_stack_overflows() { return guarded(greenlets::report_stack_overflows); }

const char* greenlet_version() { return GREENLET_VERSION_STRING; }
