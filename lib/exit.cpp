// SPDX-License-Identifier: MIT
// greenlet_exit's destructor, here so that its type_info has one home.
#include <greenlet/exit.hpp>

namespace greenlets {

greenlet_exit::~greenlet_exit() = default;

}  // namespace greenlets
