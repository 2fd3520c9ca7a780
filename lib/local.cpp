// SPDX-License-Identifier: MIT
// Locals: the values that a greenlet has.
#include <greenlet/local.hpp>

#include "own.hpp"
#include "thread.hpp"

#include <algorithm>
#include <atomic>
#include <vector>

namespace greenlets::detail {

// Only its own greenlet touches it, so there is no lock.
struct local_table {
  struct entry {
    std::uint64_t key;
    local_value* value;
  };

  std::vector<entry> by_key;
  local_value* newest = nullptr;
  unsigned round = 0;  // the round of destroy_locals() that has begun

  auto place_of(std::uint64_t key) noexcept {
    return std::lower_bound(by_key.begin(), by_key.end(), key,
                            [](const entry& e, std::uint64_t wanted) { return e.key < wanted; });
  }

  local_value* find(std::uint64_t key) noexcept {
    const auto at = place_of(key);
    return at != by_key.end() && at->key == key ? at->value : nullptr;
  }

  local_value* take(local_value** at) noexcept {
    local_value* const v = *at;
    *at = std::exchange(v->older, nullptr);
    by_key.erase(place_of(v->key));
    return v;
  }
};

namespace {

// Values that nobody destroys: kept where a leak checker sees that they are not forgotten, and so is
// whatever they hold.
std::atomic<local_value*> lost{nullptr};

local_table* table() noexcept {
  thread_record* const t = this_thread_if_any();
  return t ? t->running()->locals : nullptr;
}

}  // namespace

local_value* find_local(std::uint64_t key) noexcept {
  local_table* const l = table();
  return l ? l->find(key) : nullptr;
}

void keep_local(std::uint64_t key, local_value* v) {
  body* const b = this_thread().running();
  b->wear();
  if (!b->locals) b->locals = new local_table;
  local_table& l = *b->locals;
  l.by_key.insert(l.place_of(key), {key, v});
  v->key = key;
  v->round = l.round;
  v->older = std::exchange(l.newest, v);
}

local_value* take_local(std::uint64_t key) noexcept {
  local_table* const l = table();
  local_value* const v = l ? l->find(key) : nullptr;
  if (!v) return nullptr;
  local_value** at = &l->newest;
  while (*at != v) at = &(*at)->older;
  return l->take(at);
}

bool has_locals(body* b) noexcept { return b->locals && b->locals->newest; }

void destroy_locals(body* b, unsigned round) noexcept {
  if (!b->locals) return;
  local_table& l = *b->locals;
  l.round = round;
  for (;;) {
    // From the beginning each time: a destructor may have made and reset others.
    local_value** at = &l.newest;
    while (*at && (*at)->round >= round) at = &(*at)->older;
    if (!*at) return;
    local_value* const v = l.take(at);
    v->destroy(v);
  }
}

void lose_locals(body* b) noexcept {
  local_table* const l = std::exchange(b->locals, nullptr);
  if (!l) return;
  while (local_value* v = l->newest) {
    l->newest = v->older;
    v->older = lost.load(std::memory_order_relaxed);
    while (!lost.compare_exchange_weak(v->older, v, std::memory_order_release, std::memory_order_relaxed)) {
    }
  }
  delete l;
}

}  // namespace greenlets::detail
