// SPDX-License-Identifier: MIT
// Two levels of a table, by the address's higher bits. Slabs begin at multiples of 64 KiB, so an entry has one slab.
#include "stacks.hpp"

#include "../impossible.hpp"
#include "libgc.hpp"

#include <atomic>
#include <cstdint>
#include <new>
#include <sys/mman.h>
#include <unistd.h>

namespace greenlets::gc::detail {
namespace {

constexpr unsigned granule_bits = 16;
constexpr unsigned leaf_bits = 15;
constexpr unsigned address_bits = 48;
static_assert(greenlets::detail::collector::alignment == std::size_t{1} << granule_bits);

struct leaf {
  std::atomic<slab*> slabs[std::size_t{1} << leaf_bits];
};

std::atomic<leaf*> leaves[std::size_t{1} << (address_bits - granule_bits - leaf_bits)];
std::atomic<std::size_t> bytes{0};

leaf& leaf_for(std::uintptr_t granule) noexcept {
  std::atomic<leaf*>& place = leaves[granule >> leaf_bits];
  leaf* now = place.load(std::memory_order_acquire);
  if (now) return *now;
  void* const memory = mmap(nullptr, sizeof(leaf), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) impossible("no memory for the table of stacks");
  auto* const made = static_cast<leaf*>(memory);  // all zero, which is all null
  if (place.compare_exchange_strong(now, made, std::memory_order_acq_rel)) return *made;
  munmap(memory, sizeof(leaf));
  return *now;
}

void enter(slab* s, slab* what) noexcept {
  const auto low = reinterpret_cast<std::uintptr_t>(s->base) >> granule_bits;
  const auto high = (reinterpret_cast<std::uintptr_t>(s->base) + s->slots * s->stride - 1) >> granule_bits;
  for (std::uintptr_t g = low; g <= high; ++g)
    leaf_for(g).slabs[g & ((std::uintptr_t{1} << leaf_bits) - 1)].store(what, std::memory_order_release);
}

}  // namespace

slab* slab_at(const void* address) noexcept {
  const auto a = reinterpret_cast<std::uintptr_t>(address);
  if (a >> address_bits) return nullptr;
  const std::uintptr_t granule = a >> granule_bits;
  leaf* const l = leaves[granule >> leaf_bits].load(std::memory_order_acquire);
  slab* const s = l ? l->slabs[granule & ((std::uintptr_t{1} << leaf_bits) - 1)].load(std::memory_order_acquire) : nullptr;
  return s && address < s->base + s->slots * s->stride ? s : nullptr;
}

stack* stack_at(const void* address) noexcept {
  slab* const s = slab_at(address);
  if (!s) return nullptr;
  const auto slot = static_cast<unsigned>(static_cast<std::size_t>(static_cast<const char*>(address) - s->base) / s->stride);
  if (s->free >> slot & 1) return nullptr;
  stack* const there = greenlets::detail::stack_of(*s, slot);
  return address < static_cast<void*>(there) ? there : nullptr;
}

char* low_of(const stack& s) noexcept {
  static const long page = sysconf(_SC_PAGESIZE);
  return s.home->guard(s.slot) + page;
}

void mapped(slab* s) noexcept {
  enter(s, s);
  bytes.fetch_add(s->slots * s->stride, std::memory_order_relaxed);
}

// A marker may be reading a stack: under the lock there is none.
void unmap(slab* s) noexcept {
  with_lock([s] {
    bytes.fetch_sub(s->slots * s->stride, std::memory_order_relaxed);
    enter(s, nullptr);
    munmap(s->base, s->slots * s->stride);
  });
}

std::size_t mapped_bytes() noexcept { return bytes.load(std::memory_order_relaxed); }

}  // namespace greenlets::gc::detail
