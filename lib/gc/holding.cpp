// SPDX-License-Identifier: MIT
// From a condemned greenlet through all objects that are not marked. libgc's own mark bits are left alone: an object that
// has one is not looked into again, and what lies behind it would be freed.
#include "holding.hpp"

#include "marking.hpp"

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <sys/mman.h>
#include <system_error>

namespace greenlets::gc::detail {
namespace {

constexpr int without_pointers = 0;  // libgc's number of that kind
// Those that are counted in one collection, which takes a few milliseconds.
constexpr std::size_t most_counted = std::size_t{1} << 15;
constexpr std::size_t places = 2 * most_counted;

// In memory that libgc does not look at, and that is there before threads are stopped.
struct counted {
  std::uintptr_t in_order[most_counted];
  std::uintptr_t table[places];  // by address; 0: free
  std::size_t number;
};
counted* all = nullptr;

bool is_new(std::uintptr_t object) noexcept {
  std::size_t at = (object >> 4) * 0x9e3779b97f4a7c15U >> 48 & (places - 1);
  for (; all->table[at]; at = (at + 1) & (places - 1))
    if (all->table[at] == object) return false;
  all->table[at] = object;
  return true;
}

// Whether it looks like one that is free, to which an old word on a stack may still point: it is linked to the next of its
// size in its block, and the rest is zero. Nobody says so, and through it all that are free would be counted.
GREENLET_NO_ASAN bool seems_free(const void* object, std::size_t bytes) noexcept {
  constexpr std::size_t largest = 2048;  // larger ones are whole blocks
  constexpr std::uintptr_t block = 4096;
  const auto* const words = static_cast<const std::uintptr_t*>(object);
  if (bytes > largest || words[0] / block != reinterpret_cast<std::uintptr_t>(object) / block) return false;
  if (words[0] % sizeof(void*) != 0 || GC_base(reinterpret_cast<void*>(words[0])) != reinterpret_cast<void*>(words[0])) return false;
  return std::all_of(words + 1, words + bytes / sizeof *words, [](std::uintptr_t word) { return word == 0; });
}

// The object's bytes when it is to be counted, else 0.
GREENLET_NO_ASAN std::size_t note(const void* word) noexcept {
  void* const object = GC_base(const_cast<void*>(word));
  if (!object || GC_is_marked(object) || all->number == most_counted) return 0;
  std::size_t bytes = 0;
  const int kind = GC_get_kind_and_size(object, &bytes);
  if (kind == body_kind || kind == keeper_kind || (kind != without_pointers && seems_free(object, bytes)) || !is_new(reinterpret_cast<std::uintptr_t>(object))) return 0;
  all->in_order[all->number++] = reinterpret_cast<std::uintptr_t>(object);
  return bytes;
}

template <class F>
GREENLET_NO_ASAN void each_word_in(const char* low, const char* high, F&& f) {
  for (const char* at = low; at + sizeof(void*) <= high; at += sizeof(void*)) f(*reinterpret_cast<void* const*>(at));
}

template <class F>
GREENLET_NO_ASAN void each_reference(const body* b, F&& f) {
  each_reference_beside_stack(b, [](void* data, void* word) { (*static_cast<F*>(data))(word); }, &f);
  const range live = live_part(b);
  if (!live.low) return;
  f(b->where.fp);
  f(b->where.base);
  each_word_in(live.low, live.high, f);
}

}  // namespace

void begin_holding() {
  void* const memory = mmap(nullptr, sizeof(counted), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::system_error(errno, std::system_category(), "mmap");
  all = static_cast<counted*>(memory);
}

void begin_counting() noexcept {
  if (all->number == 0) return;
  std::fill_n(all->table, places, 0);
  all->number = 0;
}

void count_held(entry& e, body* b) noexcept {
  std::size_t bytes = 0;
  const std::size_t first = all->number;
  each_reference(b, [&bytes](void* word) { bytes += note(word); });
  for (std::size_t i = first; i < all->number; ++i) {
    const char* const object = reinterpret_cast<const char*>(all->in_order[i]);
    std::size_t size = 0;
    if (GC_get_kind_and_size(object, &size) == without_pointers) continue;
    each_word_in(object, object + size, [&bytes](void* word) { bytes += note(word); });
  }
  e.held_objects = static_cast<std::uint32_t>(all->number - first);
  e.held_granules = static_cast<std::uint32_t>(std::min<std::size_t>(bytes / entry::granule, UINT32_MAX));
}

std::vector<std::uint64_t> held_greenlets(body* b) {
  std::vector<std::uint64_t> ids;
  const void* const parent = b->parent.load(std::memory_order_relaxed);
  each_reference(b, [&](void* word) {
    void* const object = GC_base(word);
    if (!object || object == b || object == parent || GC_get_kind_and_size(object, nullptr) != body_kind) return;
    const entry* const e = entry_of(object);
    if (!e || e->get() != object) return;
    const std::uint64_t id = static_cast<const body*>(object)->id;
    if (std::find(ids.begin(), ids.end(), id) == ids.end()) ids.push_back(id);
  });
  return ids;
}

}  // namespace greenlets::gc::detail
