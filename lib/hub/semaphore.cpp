// SPDX-License-Identifier: MIT
// Counting up and down.
#include <greenlet/hub/semaphore.hpp>

#include <algorithm>

namespace greenlets::hub {

void semaphore::serve() noexcept {
  for (detail::place* next; (next = waiting_.first()) && next->amount <= free_;) {
    free_ -= next->amount;
    next->give();
  }
  if (is_ready()) watchers_.give_all();
}

bool semaphore::try_acquire(std::size_t n) noexcept {
  if (n > free_ || !waiting_.empty()) return false;
  free_ -= n;
  return true;
}

bool semaphore::acquire(std::size_t n, deadline until) {
  if (try_acquire(n)) return true;
  detail::place mine(waiting_);
  mine.amount = n;
  detail::unless_done lost([&] {
    if (mine.given())
      free_ += n;
    else if (mine.stands())
      mine.leave();
    else
      return;  // the semaphore has gone
    serve();   // who stood behind us may go on
  });
  return lost.done = mine.wait(until);
}

void semaphore::release(std::size_t n) noexcept {
  free_ += n;
  serve();
}

void latch::count_down(std::size_t n) noexcept {
  count_ -= std::min(n, count_);
  if (count_ == 0) watchers_.give_all();
}

bool latch::wait(deadline until) {
  if (count_ == 0) return true;
  return detail::place(watchers_).wait(until);
}

}  // namespace greenlets::hub
