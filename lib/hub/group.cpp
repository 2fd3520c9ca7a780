// SPDX-License-Identifier: MIT
// group: its members' ends, and its own.
#include <greenlet/hub/group.hpp>

#include <utility>

namespace greenlets::hub {
namespace detail {

members::~members() {
  if (first_ && !asked_) report_unraisable({}, first_);
}

void members::leave(seat at) noexcept {
  const greenlet last = std::move(*at);  // goes when it is no longer in the list: its end may be user code
  all_.erase(at);
  if (all_.empty()) waiting_.give_all();
}

void members::failed(std::exception_ptr e) noexcept {
  try {
    if (first_) return report_unraisable(current(), std::move(e));
    first_ = std::move(e);
    cancel();
  } catch (...) {
    // No memory to tell the others: they go on, and wait() for them.
  }
}

void members::cancel() {
  const greenlet& self = current();
  for (const greenlet& each : all_)
    if (!each.empty() && each != self) hub::cancel(each);
}

bool members::wait(deadline until) { return all_.empty() || detail::place(waiting_).wait(until); }

void members::check() {
  asked_ = true;
  if (first_) std::rethrow_exception(first_);
}

}  // namespace detail

group::~group() {
  std::exception_ptr meanwhile;
  while (members_->size() > 0) {
    try {
      members_->cancel();
      if (!members_->wait({})) break;  // the hub has gone, and they with it
    } catch (...) {
      meanwhile = std::current_exception();
    }
  }
  if (meanwhile) hub::cancel(current(), std::move(meanwhile));
}

}  // namespace greenlets::hub
