// SPDX-License-Identifier: MIT
// How much of a stack is used: the words between its beginning and the stack pointer, and resident pages.
#include "thread.hpp"

#include <algorithm>
#include <cstdint>
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

namespace greenlets {
namespace {

std::size_t resident(const char* low, const char* high) noexcept {
  const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  auto* at = reinterpret_cast<char*>(reinterpret_cast<std::uintptr_t>(low) / page * page);
  std::size_t pages = 0;
  while (at < high) {
    unsigned char in_core[256];
    const std::size_t bytes = std::min(static_cast<std::size_t>(high - at), sizeof in_core * page);
    if (mincore(at, bytes, in_core) != 0) return pages * page;
    const std::size_t asked = (bytes + page - 1) / page;
    for (std::size_t i = 0; i < asked; ++i) pages += in_core[i] & 1U;
    at += asked * page;
  }
  return pages * page;
}

}  // namespace

bool detail::native_bounds(char*& low, char*& high) noexcept {
  pthread_attr_t attributes;
  if (pthread_getattr_np(pthread_self(), &attributes) != 0) return false;
  void* address = nullptr;
  std::size_t size = 0;
  const bool known = pthread_attr_getstack(&attributes, &address, &size) == 0;
  pthread_attr_destroy(&attributes);
  low = static_cast<char*>(address);
  high = low + size;
  return known;
}

stack_usage greenlet::stack() const noexcept {
  detail::body* const b = body_;
  if (!b || !b->is(detail::life::active) || b->dead()) return {};
  detail::thread_record* const t = detail::this_thread_if_any();
  if (b->thread() != t) return {0, 0, b->main ? 0 : b->stack_size};
  char* low = nullptr;
  char* high = nullptr;
  if (!b->main) {
    low = b->memory->low();
    high = reinterpret_cast<char*>(b->memory);
  } else if (!detail::native_bounds(low, high)) {
    return {};
  }
  const char* const sp = static_cast<char*>(t->running() == b ? __builtin_frame_address(0) : b->where.sp);
  if (sp < low || sp > high) return {};  // the thread was given another stack
  // The native stack of a process's first thread is only as large as it has been, and has no pages below.
  return {static_cast<std::size_t>(high - sp), resident(b->main ? sp : low, high),
          b->main ? static_cast<std::size_t>(high - low) : b->stack_size};
}

}  // namespace greenlets
