// SPDX-License-Identifier: MIT
// Stacks, made, used again, and given back.
#include "stack.hpp"

#include "census.hpp"
#include "collector.hpp"
#include "fault.hpp"

#include <limits>
#include <new>
#include <stdexcept>
#include <string>

namespace greenlets::detail {
namespace {

stack* make_stack(slab& home, machine::entry call, void* argument, machine::shared& s) noexcept {
  const auto slot = static_cast<unsigned>(__builtin_ctzll(home.free));
  home.free &= ~(std::uint64_t{1} << slot);
  auto* const made = ::new (static_cast<void*>(stack_of(home, slot))) stack{};
  char* const at = reinterpret_cast<char*>(made);
  made->home = &home;
  made->slot = slot;
  made->usable = home.usable;
  const auto size = static_cast<std::size_t>(at - made->low());
  sanitizer::created(made->fiber, made->low(), size);
  machine::make(made->place(), made->low(), size, call, argument, s);
  add(census.stacks, census.most_stacks, 1);
  return made;
}

}  // namespace

char* stack::low() noexcept { return home->guard(slot) + page_size(); }

std::size_t round_stack_size(std::size_t bytes) {
  if (bytes == 0) return default_stack_size;
  const std::size_t page = page_size();
  if (bytes < least_stack_size || bytes > std::numeric_limits<std::size_t>::max() / 2)
    throw std::invalid_argument("greenlets::attributes: a stack of " + std::to_string(bytes) +
                                " bytes cannot be; the least is " + std::to_string(least_stack_size));
  if (collects && bytes < collector::least_stack_size) bytes = collector::least_stack_size;
  return (bytes + page - 1) / page * page;
}

stack* stack_pool::take(std::size_t usable, machine::entry call, void* argument, machine::shared& s) {
  if (has(usable)) return pop();
  for (stack** link = &first_; *link; link = &(*link)->next)
    if ((*link)->usable == usable) {
      stack* found = *link;
      *link = found->next;
      pooled(-1);
      return found;
    }
  slab* const home = with_room(usable);
  stack* const made = make_stack(*home, call, argument, s);
  given_up_ = 0;
  if (limit_ < most_pooled) ++limit_;
  if (home->free == 0) unlink(home);
  return made;
}

// Each slab is twice as large as the one before, so that few greenlets cost little, and many few mappings.
slab* stack_pool::with_room(std::size_t usable) {
  for (slab* s = open_; s; s = s->next)
    if (s->usable == usable) return s;
  constexpr std::size_t most_bytes = std::size_t{64} << 20;
  unsigned slots = grown_;
  while (slots > 1 && usable > most_bytes / slots) slots /= 2;
  slab* const made = map_slab(usable, slots, advised_);
  // Where each start is to be refused, each has to ask.
  if (grown_ < slab::most && !GREENLET_REFUSES_SWITCHES) grown_ *= 2;
  link(made);
  return made;
}

void stack_pool::link(slab* s) noexcept {
  s->previous = nullptr;
  s->next = open_;
  if (open_) open_->previous = s;
  open_ = s;
}

void stack_pool::unlink(slab* s) noexcept {
  (s->previous ? s->previous->next : open_) = s->next;
  if (s->next) s->next->previous = s->previous;
}

// As many again as are kept were too many, and none was wanted meanwhile: half of them will do, and none of their
// pages but where they are parked. Each one that has to be made raises the limit, so a load that comes and goes loses
// little, and one that stays within the limit nothing.
void stack_pool::give_up(stack* s) noexcept {
  discard(s);
  if (++given_up_ < limit_ || limit_ == least_pooled) return;
  given_up_ = 0;
  limit_ /= 2;
  shrink(limit_);
  for (stack* kept = first_; kept; kept = kept->next)
    give_pages_back(*kept->home, kept->slot, machine::lowest_live(kept->parked));
}

void stack_pool::shrink(std::size_t n) noexcept {
  stack** link = &first_;
  for (; n > 0 && *link; --n) link = &(*link)->next;
  while (stack* s = *link) {
    *link = s->next;
    pooled(-1);
    discard(s);
  }
}

void stack_pool::discard(stack* s) noexcept {
  slab* const home = s->home;
  const unsigned slot = s->slot;
  sanitizer::destroyed(s->fiber);
  census.stacks.fetch_sub(1, std::memory_order_relaxed);
  if (home->free == 0) link(home);
  home->free |= std::uint64_t{1} << slot;
  if (home->free == home->all()) {
    unlink(home);
    unmap_slab(home);
  } else {
    give_pages_back(*home, slot);
  }
}

void stack_pool::trim() noexcept {
  shrink(0);
  if (!open_) {
    grown_ = 1;
    advised_ = true;
  }
}

}  // namespace greenlets::detail
