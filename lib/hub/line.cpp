// SPDX-License-Identifier: MIT
// Standing in line, and leaving it.
#include <greenlet/hub/line.hpp>

namespace greenlets::hub::detail {

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
