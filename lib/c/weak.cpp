// SPDX-License-Identifier: MIT
// Weak references in C: the body, counted weakly.
#include "record.hpp"

#include <greenlet/weak.hpp>

using namespace greenlets::detail;

static body* body_of(const greenlet_weak_t* w) noexcept {
  return reinterpret_cast<body*>(const_cast<greenlet_weak_t*>(w));
}

greenlet_weak_t* greenlet_weak_new(greenlet_t* g) {
  if (guarded([&] { handle_of(g); }) != GREENLET_OK) return nullptr;
  body_of(g)->weak.fetch_add(1, std::memory_order_relaxed);
  return reinterpret_cast<greenlet_weak_t*>(g);
}

greenlet_t* greenlet_weak_lock(greenlet_weak_t* w) {
  return w && ref_if_any(body_of(w)) ? c_pointer(body_of(w)) : nullptr;
}

int greenlet_weak_expired(const greenlet_weak_t* w) {
  return !w || body_of(w)->shared.load(std::memory_order_acquire) == 0;
}

void greenlet_weak_free(greenlet_weak_t* w) {
  if (w) weak_unref(body_of(w));
}
