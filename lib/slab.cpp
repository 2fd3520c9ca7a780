// SPDX-License-Identifier: MIT
// Mapping and guarding.
#include "slab.hpp"

#include "census.hpp"
#include "collector.hpp"
#include "fault.hpp"

#include <greenlet/error.hpp>

#include <cerrno>
#include <limits>
#include <new>
#include <string>
#include <sys/mman.h>
#include <system_error>
#include <unistd.h>

namespace greenlets::detail {
namespace {

[[noreturn]] void throw_system(int code, const char* call, std::size_t bytes) {
  throw std::system_error(code, std::system_category(),
                          std::string(call) + " of a greenlet's stack of " + std::to_string(bytes) + " bytes");
}

// Linux 6.13, and not yet in the C library's headers.
int install_guard(void* page, std::size_t bytes) noexcept { return madvise(page, bytes, 102 /* MADV_GUARD_INSTALL */); }

bool advise_guards(char* base, std::size_t stride, unsigned slots) noexcept {
  const int error = errno;  // a start that goes well leaves it alone
  // An emulator of user programs says yes to every advice and follows none: it would to one that does not exist.
  static const bool means_it = madvise(base, page_size(), -1) != 0;
  unsigned done = 0;
  while (means_it && done < slots && GREENLET_MAY_FAIL(install_guard, -1, base + done * stride, page_size()) == 0) ++done;
  errno = error;
  return done == slots;
}

void* map(std::size_t bytes) noexcept {
  const std::size_t more = collects ? collector::alignment : 0;
  void* const mapping = GREENLET_MAY_FAIL(mmap, MAP_FAILED, nullptr, bytes + more, PROT_READ | PROT_WRITE,
                                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
  if (more == 0 || mapping == MAP_FAILED) return mapping;
  char* const low = static_cast<char*>(mapping);
  const std::size_t before = -reinterpret_cast<std::uintptr_t>(low) % more;
  if (before != 0) munmap(low, before);
  munmap(low + before + bytes, more - before);
  return low + before;
}

void protect_guard(char* base, std::size_t mapped, std::size_t usable) {
  if (GREENLET_MAY_FAIL(mprotect, -1, base, page_size(), PROT_NONE) == 0) return;
  const int code = errno;
  munmap(base, mapped);
  if (code != ENOMEM) throw_system(code, "mprotect", usable);
  throw error(errc::stack_limit, "the system allows no more guarded stacks",
              "  mprotect: each guard page splits a mapping, and vm.max_map_count bounds their number;\n  " +
                  std::to_string(census.stacks.load(std::memory_order_relaxed)) + " stacks are mapped");
}

}  // namespace

std::size_t page_size() noexcept {
  static const auto size = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  return size;
}

slab* map_slab(std::size_t usable, unsigned slots, bool& advised) {
  const std::size_t page = page_size();
  const std::size_t stride = usable + 2 * page;  // the guard below; above, what the library keeps there
  if (!advised) slots = 1;
  while (slots > 1 && stride > std::numeric_limits<std::size_t>::max() / 2 / slots) slots /= 2;
  void* mapping;
  for (;; slots /= 2) {
    mapping = map(slots * stride);
    if (mapping != MAP_FAILED) break;
    if (slots == 1) throw_system(errno, "mmap", usable);
  }
  char* const base = static_cast<char*>(mapping);
  // A stack on a huge page would cost 2 MiB as soon as it is touched. Advice: it may fail.
  static_cast<void>(GREENLET_MAY_FAIL(madvise, -1, mapping, slots * stride, MADV_NOHUGEPAGE));
  advised = advised && advise_guards(base, stride, slots);
  if (!advised) {
    // The pages that the advice has made guards of already may stay so; but of several stacks only one is kept.
    if (slots > 1) {
      munmap(base, slots * stride);
      return map_slab(usable, 1, advised);
    }
    protect_guard(base, stride, usable);
  }
  census.stack_places.fetch_add(slots, std::memory_order_relaxed);
  if (!advised) census.stack_protected.fetch_add(slots, std::memory_order_relaxed);
  add(census.stack_bytes, census.most_stack_bytes, slots * stride);
  auto* const made = ::new (static_cast<void*>(base + slots * stride - slab::room_for_slab()))
      slab{base, stride, usable, slots, advised, ~std::uint64_t{0} >> (slab::most - slots), nullptr, nullptr};
  if (collects) the_collector->mapped(made);
  return made;
}

void unmap_slab(slab* s) noexcept {
  census.stack_places.fetch_sub(s->slots, std::memory_order_relaxed);
  if (!s->advised) census.stack_protected.fetch_sub(s->slots, std::memory_order_relaxed);
  census.stack_bytes.fetch_sub(s->slots * s->stride, std::memory_order_relaxed);
  if (collects) return the_collector->unmap(s);
  munmap(s->base, s->slots * s->stride);
}

void give_pages_back(slab& s, unsigned slot) noexcept {
  char* const low = s.guard(slot) + page_size();
  std::size_t bytes = s.stride - page_size();
  if (slot == s.slots - 1) bytes -= page_size();  // where the slab itself is
  static_cast<void>(GREENLET_MAY_FAIL(madvise, -1, low, bytes, MADV_DONTNEED));
}

void give_pages_back(slab& s, unsigned slot, const void* lowest) noexcept {
  char* const low = s.guard(slot) + page_size();
  const std::size_t bytes = static_cast<std::size_t>(static_cast<const char*>(lowest) - low) / page_size() * page_size();
  static_cast<void>(GREENLET_MAY_FAIL(madvise, -1, low, bytes, MADV_DONTNEED));
}

}  // namespace greenlets::detail
