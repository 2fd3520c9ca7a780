// SPDX-License-Identifier: MIT
// timeout: something that the loop's heap of deadlines throws.
#include <greenlet/hub/timeout.hpp>

#include "loop.hpp"

namespace greenlets::hub {

timed_out::timed_out(std::uint64_t by) : std::runtime_error("a timeout has expired"), by_(by) {}
timed_out::~timed_out() = default;

timeout::timeout(deadline until) {
  static thread_local std::uint64_t made = 0;
  number_ = ++made;
  cancelled_ = until.never();
  if (cancelled_) return;
  const greenlet& self = current();
  std::exception_ptr e = std::make_exception_ptr(timed_out(number_));
  detail::loop& l = detail::loop::mine();
  armed_ = l.raise_at(self, std::move(e), until.at(), &armed_);
}

void timeout::cancel() noexcept {
  cancelled_ = cancelled_ || armed_;
  if (armed_) detail::loop::forget(armed_);
}

}  // namespace greenlets::hub
