// SPDX-License-Identifier: MIT
// Weak references in C: the body, counted weakly.
#include "collector.hpp"
#include "record.hpp"

#include <greenlet/weak.hpp>

using namespace greenlets::detail;

// As it is in C++: a collector must not see it.
static body* body_of(const greenlet_weak_t* w) noexcept {
  return hidden(reinterpret_cast<body*>(const_cast<greenlet_weak_t*>(w)));
}

greenlet_weak_t* greenlet_weak_new(greenlet_t* g) {
  if (guarded([&] { handle_of(g); }) != GREENLET_OK) return nullptr;
  body_of(g)->weak.fetch_add(1, std::memory_order_relaxed);
  return reinterpret_cast<greenlet_weak_t*>(hidden(body_of(g)));
}

greenlet_t* greenlet_weak_lock(greenlet_weak_t* w) {
  if (!w || !ref_if_any(body_of(w))) return nullptr;
  moved(body_of(w), of_c, nullptr);
  return c_pointer(body_of(w));
}

int greenlet_weak_expired(const greenlet_weak_t* w) {
  return !w || is_gone(body_of(w));
}

void greenlet_weak_free(greenlet_weak_t* w) {
  if (w) weak_unref(body_of(w));
}
