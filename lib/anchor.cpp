// SPDX-License-Identifier: MIT
// The anchor of this build.
#include "anchor.hpp"

#include "cells.hpp"
#include "creation.hpp"
#include "threads.hpp"

#include <greenlet/version.hpp>

#include <cstddef>
#include <mutex>
#include <string>

// What it is for; and GCC and Clang give the right answer for what has bases, too.
#pragma GCC diagnostic ignored "-Winvalid-offsetof"

namespace greenlets::detail {
namespace {

// A std::shared_ptr begins with the pointer, an atomic is its value, and a std::string as the Itanium C++ ABI's
// implementation has it; all of this is read back by t/snapshot.cpp.
constexpr string_layout strings() {
#if _GLIBCXX_USE_CXX11_ABI
  return {0, sizeof(void*)};
#else
  return {no_offset, no_offset};
#endif
}

constexpr registers_kind kind_of_registers() {
#if defined(__x86_64__) && defined(__LP64__)
  return registers_kind::x86_64;
#elif defined(__aarch64__) && defined(__LP64__)
  return registers_kind::aarch64;
#else
  return registers_kind::none;
#endif
}

}  // namespace

std::atomic<bool>* set_hub(const void* loop, const hub_layout& layout) {
  // Who reads it sees 0 in `loop`, or all.
  [[maybe_unused]] static const bool told = [&] {
    hub_layout rest = layout;
    rest.loop = 0;
    greenlet_anchor_v1.hub = rest;
    __atomic_store_n(&greenlet_anchor_v1.hub.loop, layout.loop, __ATOMIC_RELEASE);
    return true;
  }();
  thread_record* const t = loop ? &this_thread() : this_thread_if_any();  // which may have ended before its hub
  if (!t) return nullptr;
  const std::lock_guard lock(threads_lock);
  t->hub.store(static_cast<const char*>(loop), std::memory_order_release);
  t->in_poll.store(false, std::memory_order_relaxed);
  return &t->in_poll;
}

void set_registry(const registry_layout& layout) noexcept { greenlet_anchor_v1.entries = layout; }
void set_registry_chunk(void* first) noexcept { greenlet_anchor_v1.registry.store(first, std::memory_order_release); }

}  // namespace greenlets::detail

extern "C" {

using namespace greenlets::detail;

// By constants only: there before anything runs.
anchor greenlet_anchor_v1 = {
    "greenlet anchor",
    1,
    sizeof(anchor),
    sizeof(void*),
    kind_of_registers(),
    GREENLET_VERSION_STRING,
    {nullptr},
    {nullptr},
    {nullptr},
    {
        sizeof(body),
        offsetof(body, id),
        offsetof(body, state),
        offsetof(body, main),
        offsetof(body, owner),
        offsetof(body, parent),
        offsetof(body, shared),
        offsetof(body, where.sp),
        offsetof(body, where.fp),
        offsetof(body, where.pc),
        offsetof(body, where.base),
        offsetof(body, memory),
        offsetof(body, stack_size),
        offsetof(body, name),
        offsetof(body, created),
        offsetof(body, switches),
    },
    {offsetof(cell_chunk, next), cell_chunk::first, cell_chunk::stride, cell_chunk::cells},
    strings(),
    {
        sizeof(thread_record),
        offsetof(thread_record, next_thread),
        offsetof(thread_record, tid),
        offsetof(thread_record, name),
        offsetof(thread_record, current),
        offsetof(thread_record, main),
        offsetof(thread_record, exited),
        offsetof(thread_record, hub),
    },
    {offsetof(creation, made), offsetof(creation, count), sizeof(creation)},
    {},
    {},
};

}
