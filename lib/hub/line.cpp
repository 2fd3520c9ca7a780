// SPDX-License-Identifier: MIT
// Standing in line, and leaving it.
#include <greenlet/hub/line.hpp>

namespace greenlets::hub::detail {

place::place(line& l, wait_list* gate) noexcept
    : own_(l.kind_, l.object_), gate_(gate ? gate : &own_), in_(&l), previous_(l.last_) {
  (l.last_ ? l.last_->next_ : l.first_) = this;
  l.last_ = this;
}

void place::leave() noexcept {
  if (!in_) return;
  (previous_ ? previous_->next_ : in_->first_) = next_;
  (next_ ? next_->previous_ : in_->last_) = previous_;
  in_ = nullptr;
  next_ = previous_ = nullptr;
}

void place::give() noexcept {
  leave();
  given_ = true;
  gate_->wake_one();
}

void line::give_all() noexcept {
  while (first_) first_->give();
}

void line::send_away() noexcept {
  while (place* const p = first_) {
    p->leave();
    p->gate_->wake_one();
  }
}

}  // namespace greenlets::hub::detail
