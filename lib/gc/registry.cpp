// SPDX-License-Identifier: MIT
// The registry's memory.
#include "registry.hpp"

#include <cstdlib>
#include <new>
#include <sys/mman.h>
#include <utility>

namespace greenlets::gc::detail {

std::atomic<chunk*> first_chunk{nullptr};
std::atomic<std::size_t> registered{0};

namespace {

entry* first_free = nullptr;

entry* pop() noexcept {
  entry* const e = first_free;
  if (e) first_free = e->next;
  return e;
}

}  // namespace

entry* take_entry() {
  entry* e = nullptr;
  with_lock([&] { e = pop(); });
  if (!e) {
    // Not malloc: a program may have put the collector's in its place.
    void* const memory = mmap(nullptr, sizeof(chunk), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    auto* const made = ::new (memory) chunk;
    greenlets::detail::sanitizer::refers(made, sizeof(chunk));
    with_lock([&] {
      for (entry& each : made->all) {
        each.next = first_free;
        first_free = &each;
      }
      made->next = first_chunk.load(std::memory_order_relaxed);
      first_chunk.store(made, std::memory_order_release);
      greenlets::detail::set_registry_chunk(made);
      e = pop();
    });
  }
  e->pins.store(0, std::memory_order_relaxed);
  e->what.store(fate::none, std::memory_order_relaxed);
  e->tries = 0;
  std::free(std::exchange(e->made_at, nullptr));  // of one that was retired where nothing may be freed
  e->suspended = false;
  e->next = nullptr;
  return e;
}

void give_entry(entry* e) noexcept {
  if (e->get()) registered.fetch_sub(1, std::memory_order_relaxed);
  e->hidden.store(0, std::memory_order_release);
  if (e->what.load(std::memory_order_relaxed) == fate::condemned) return;
  e->next = first_free;
  first_free = e;
}

greenlets::detail::registry_layout registry_layout() noexcept {
  return {{offsetof(chunk, next), offsetof(chunk, all), sizeof(entry), chunk::entries},
          offsetof(entry, hidden),
          offsetof(entry, made),
          offsetof(entry, made_at)};
}

}  // namespace greenlets::gc::detail
