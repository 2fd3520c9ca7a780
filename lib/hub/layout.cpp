// SPDX-License-Identifier: MIT
// Where everything is in a hub, for who reads records: lib/anchor.hpp.
#include "poller.hpp"

#include <cstddef>

#pragma GCC diagnostic ignored "-Winvalid-offsetof"

namespace greenlets::hub::detail {

greenlets::detail::hub_layout loop::layout() noexcept {
  return {
      sizeof(loop),
      offsetof(loop, runner_),
      offsetof(loop, ready_),
      static_cast<greenlets::detail::offset>(offsetof(loop, uv_) + offsetof(uv_loop_t, time)),
      static_cast<greenlets::detail::offset>(offsetof(loop, pool_) + waiter_pool::offset_of_chunks()),
      {offsetof(waiter_chunk, next), offsetof(waiter_chunk, all), sizeof(waiter), waiter_chunk::count},
      offsetof(waiter, what),
      offsetof(waiter, why),
      offsetof(waiter, timed),
      offsetof(waiter, who),
      offsetof(waiter, home),
      offsetof(waiter, slot),
      offsetof(waiter, in),
      offsetof(waiter, when),
      alignof(poller),
      offsetof(poller, reader),
      offsetof(poller, writer),
      offsetof(poller, fd),
      static_cast<greenlets::detail::offset>(waiter::kind_in_list()),
      static_cast<greenlets::detail::offset>(waiter::object_in_list()),
  };
}

}  // namespace greenlets::hub::detail
