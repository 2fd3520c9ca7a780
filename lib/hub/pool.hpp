// SPDX-License-Identifier: MIT
// What has to be done about libuv's pool of threads, beside using it.
#ifndef LIB_HUB_POOL_HPP
#define LIB_HUB_POOL_HPP

namespace greenlets::hub::detail {

// Before each request to the pool: a child of this process can then exit(), see offload.cpp.
void pool_is_used() noexcept;

}  // namespace greenlets::hub::detail

#endif
