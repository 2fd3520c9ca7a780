// SPDX-License-Identifier: MIT
// Memory that the collector looks at: bodies, boxes of values, what else holds user data.
#ifndef LIB_GC_MEMORY_HPP
#define LIB_GC_MEMORY_HPP

#include "registry.hpp"

#include <cstddef>

namespace greenlets::gc::detail {

// Memory that stacks take is unknown to libgc, so that its own rules, when to collect, do not see it.
void collect_now() noexcept;

void* allocate_body();
void made(body* b) noexcept;
void free_body(void* b) noexcept;

bool traces(const void* at) noexcept;
void pin(body* b) noexcept;
void unpin(body* b) noexcept;

void* allocate_seen(std::size_t bytes, std::size_t alignment);
void* allocate_box(std::size_t bytes, std::size_t alignment);
void place_box(void* box, void*& pin, const void* at) noexcept;
bool owns(const void* p) noexcept;
void free_seen(void* p) noexcept;

}  // namespace greenlets::gc::detail

#endif
