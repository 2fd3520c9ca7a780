// SPDX-License-Identifier: MIT
// Mapping, guarding and pooling of stacks.
#include "stack.hpp"

#include "census.hpp"
#include "fault.hpp"

#include <greenlet/error.hpp>

#include <cerrno>
#include <limits>
#include <new>
#include <stdexcept>
#include <string>
#include <sys/mman.h>
#include <system_error>
#include <unistd.h>

namespace greenlets::detail {
namespace {

std::size_t page_size() noexcept {
  static const auto size = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  return size;
}

[[noreturn]] void throw_system(int code, const char* call, std::size_t bytes) {
  throw std::system_error(code, std::system_category(),
                          std::string(call) + " of a greenlet's stack of " + std::to_string(bytes) + " bytes");
}

stack* map_stack(std::size_t usable, machine::entry call, void* argument, machine::shared& s) {
  const std::size_t page = page_size();
  const std::size_t mapped = usable + 2 * page;  // the guard below, struct stack and the first frame above
  void* const mapping =
      GREENLET_MAY_FAIL(mmap, MAP_FAILED, nullptr, mapped, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
  if (mapping == MAP_FAILED) throw_system(errno, "mmap", usable);
  if (GREENLET_MAY_FAIL(mprotect, -1, mapping, page, PROT_NONE) != 0) {
    const int code = errno;
    munmap(mapping, mapped);
    if (code != ENOMEM) throw_system(code, "mprotect", usable);
    throw error(errc::stack_limit, "the system allows no more guarded stacks",
                "  mprotect: each guard page splits a mapping, and vm.max_map_count bounds their number;\n  " +
                    std::to_string(census.stacks.load(std::memory_order_relaxed)) + " stacks are mapped");
  }
  // A stack on a huge page would cost 2 MiB as soon as it is touched. Advice: it may fail.
  static_cast<void>(GREENLET_MAY_FAIL(madvise, -1, mapping, mapped, MADV_NOHUGEPAGE));

  char* const top = static_cast<char*>(mapping) + mapped - ((sizeof(stack) + 63) & ~std::size_t{63});
  auto* made = ::new (static_cast<void*>(top)) stack{};
  made->mapping = mapping;
  made->mapped = mapped;
  made->usable = usable;
  const auto size = static_cast<std::size_t>(top - made->low());
  sanitizer::created(made->fiber, made->low(), size);
  machine::make(made->place(), made->low(), size, call, argument, s);
  census.stacks.fetch_add(1, std::memory_order_relaxed);
  return made;
}

void unmap_stack(stack* s) noexcept {
  sanitizer::destroyed(s->fiber);
  munmap(s->mapping, s->mapped);
  census.stacks.fetch_sub(1, std::memory_order_relaxed);
}

}  // namespace

char* stack::low() noexcept { return static_cast<char*>(mapping) + page_size(); }

std::size_t round_stack_size(std::size_t bytes) {
  if (bytes == 0) return default_stack_size;
  const std::size_t page = page_size();
  if (bytes < least_stack_size || bytes > std::numeric_limits<std::size_t>::max() / 2)
    throw std::invalid_argument("greenlets::attributes: a stack of " + std::to_string(bytes) +
                                " bytes cannot be; the least is " + std::to_string(least_stack_size));
  return (bytes + page - 1) / page * page;
}

stack* stack_pool::take(std::size_t usable, machine::entry call, void* argument, machine::shared& s) {
  for (stack** link = &first_; *link; link = &(*link)->next)
    if ((*link)->usable == usable) {
      stack* found = *link;
      *link = found->next;
      --count_;
      census.pooled_stacks.fetch_sub(1, std::memory_order_relaxed);
      return found;
    }
  return map_stack(usable, call, argument, s);
}

void stack_pool::give(stack* s) noexcept {
  if (count_ == most_pooled) return unmap_stack(s);
  s->next = first_;
  first_ = s;
  ++count_;
  census.pooled_stacks.fetch_add(1, std::memory_order_relaxed);
}

void stack_pool::discard(stack* s) noexcept { unmap_stack(s); }

void stack_pool::trim() noexcept {
  while (stack* s = first_) {
    first_ = s->next;
    --count_;
    census.pooled_stacks.fetch_sub(1, std::memory_order_relaxed);
    unmap_stack(s);
  }
}

}  // namespace greenlets::detail
