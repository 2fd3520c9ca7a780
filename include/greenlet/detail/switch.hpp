// SPDX-License-Identifier: MIT
// The straight path of a switch, inline: the target is suspended, of this thread, and nothing else is due.
#ifndef GREENLET_DETAIL_SWITCH_HPP
#define GREENLET_DETAIL_SWITCH_HPP

#include <greenlet/detail/core.hpp>
#include <greenlet/detail/hot.hpp>
#include <greenlet/value.hpp>

#include <cstdint>
#include <cstring>
#include <cxxabi.h>
#include <exception>
#include <typeinfo>
#include <utility>

namespace greenlets::detail {

// What is in a value as a switch carries it, and the other way round.

GREENLET_ALWAYS_INLINE machine::cargo loaded(value& v) noexcept {
  const value_ops* const ops = value_access::ops(v);
  machine::cargo c;
  if (!ops) return c;
  if (ops->words > 1) {
    c.kind = reinterpret_cast<void*>(reinterpret_cast<std::uintptr_t>(&v) | in_memory);
    return c;
  }
  value_access::ops(v) = nullptr;
  c.kind = const_cast<value_ops*>(ops);
  std::memcpy(&c.word, value_access::storage(v).bytes, sizeof c.word);
  return c;
}

// Whether an A is sent in a register: its value is never in memory, where the compiler would have to look
// for it again after the switch.
template <class A, class D = std::decay_t<A>>
inline constexpr bool goes_in_register = !std::is_same_v<D, value> && value_ops_of<D>::words == 1;

template <class A>
GREENLET_ALWAYS_INLINE machine::cargo loaded_one(A&& object) {
  using ops_of = value_ops_of<std::decay_t<A>>;
  value_storage storage;
  ops_of::make(storage, std::forward<A>(object));
  machine::cargo c;
  c.kind = const_cast<value_ops*>(&ops_of::ops);
  std::memcpy(&c.word, storage.bytes, sizeof c.word);
  return c;
}

GREENLET_ALWAYS_INLINE value in_register(const machine::cargo& c) noexcept {
  value v;
  value_access::ops(v) = static_cast<const value_ops*>(c.kind);
  std::memcpy(value_access::storage(v).bytes, &c.word, sizeof c.word);
  return v;
}

GREENLET_ALWAYS_INLINE value unloaded(const machine::cargo& c) noexcept {
  const auto kind = reinterpret_cast<std::uintptr_t>(c.kind);
  return __builtin_expect(kind & in_memory, 0) ? std::move(*reinterpret_cast<value*>(kind - in_memory)) : in_register(c);
}

// What `self`, which is running again, finds in the slot. Throws what was thrown there.
GREENLET_API value arrive(body* self);
// Puts the floating-point environment of who runs away, and that of `to` in its place.
GREENLET_API void carry_fp_env(body* to) noexcept;
// Starts `b`, when it is unstarted and nothing else is due: from here on a switch to it is straight, and it begins
// with what that carries. Returns where the first one is to go, or null, and has done nothing, when that is not so. `t`
// is the calling thread's.
GREENLET_API machine::context* start_straight(hot_thread* t, body* b) noexcept;

// An exception that nobody else refers to, and that was never thrown, crosses as the object itself: thrown by the
// one who arrives, in his own frame, it costs what a throw costs. Rethrowing costs another exception object, and
// the unwinding of whoever does it.
struct alignas(8) throw_ops {
  const std::type_info* type;
  void (*destroy)(void*);
};

template <class E>
struct throw_ops_of {
  static void destroy(void* object) noexcept { static_cast<E*>(object)->~E(); }
  static constexpr throw_ops ops{&typeid(E), &destroy};
};

// An exception_ptr is one counted pointer to the object.
static_assert(sizeof(std::exception_ptr) == sizeof(void*));

GREENLET_ALWAYS_INLINE machine::cargo loaded(std::exception_ptr&& thrown, const throw_ops& how) noexcept {
  machine::cargo c;
  c.kind = reinterpret_cast<void*>(reinterpret_cast<std::uintptr_t>(&how) | to_be_thrown);
  std::memcpy(&c.word, static_cast<void*>(&thrown), sizeof c.word);
  void* const nothing = nullptr;
  std::memcpy(static_cast<void*>(&thrown), &nothing, sizeof nothing);
  return c;
}

inline std::exception_ptr thrown_by(const machine::cargo& c) noexcept {
  std::exception_ptr e;
  std::memcpy(static_cast<void*>(&e), &c.word, sizeof c.word);
  return e;
}

#ifdef GREENLET_INLINE_SWITCH

[[noreturn]] GREENLET_ALWAYS_INLINE void throw_now(const machine::cargo& c) {
  const auto& how = *reinterpret_cast<const throw_ops*>(reinterpret_cast<std::uintptr_t>(c.kind) - to_be_thrown);
  abi::__cxa_throw(c.word, const_cast<std::type_info*>(how.type), how.destroy);
}

// `t` is the calling thread's. One that is unstarted, dead or of another thread is not active on it.
GREENLET_ALWAYS_INLINE bool is_straight(hot_thread* t, hot_body* to) noexcept {
  if (__builtin_expect(!to || to->active_on.load(std::memory_order_relaxed) != t, 0)) return false;
  const std::uint32_t attention = t->attention.load(std::memory_order_relaxed);
  if (__builtin_expect(attention != 0, 0)) {
    if (attention != attention_fp_env) return false;
    carry_fp_env(reinterpret_cast<body*>(to));
  }
  return true;
}

GREENLET_ALWAYS_INLINE value landed(const machine::cargo& c, body* self) {
  if (__builtin_expect(reinterpret_cast<std::uintptr_t>(c.kind) & 3, 0)) {
    if (is_in_slot(c)) return arrive(self);
    if (is_thrown(c)) throw_now(c);
    return unloaded(c);
  }
  return in_register(c);
}

GREENLET_ALWAYS_INLINE value go_straight(hot_thread* t, hot_body* from, hot_body* to, machine::context& there,
                                         const machine::cargo& c) {
  exchange_exceptions(t, from, to);
  t->current.store(reinterpret_cast<body*>(to), std::memory_order_relaxed);
  machine::context* self;  // in a register anyway; `from` would have to be kept
  const machine::cargo got = machine::go(from->where, there, c, self);
  return landed(got, reinterpret_cast<body*>(self));
}

GREENLET_ALWAYS_INLINE value switch_to(const greenlet& target, body* b, const machine::cargo& c) {
  hot_thread* const t = hot_thread_v1;
  hot_body* const to = reinterpret_cast<hot_body*>(b);
  hot_body* const from = reinterpret_cast<hot_body*>(t->current.load(std::memory_order_relaxed));
  machine::context* there = &to->where;
  if (__builtin_expect(to == from || !is_straight(t, to), 0)) {
    there = start_straight(t, b);
    if (!there) return switch_to(target, unloaded(c));
  }
  return go_straight(t, from, to, *there, c);
}

GREENLET_ALWAYS_INLINE value throw_in(const greenlet& target, body* b, std::exception_ptr&& thrown, const throw_ops& how) {
  hot_thread* const t = hot_thread_v1;
  hot_body* const to = reinterpret_cast<hot_body*>(b);
  hot_body* const from = reinterpret_cast<hot_body*>(t->current.load(std::memory_order_relaxed));
  if (to != from && is_straight(t, to)) return go_straight(t, from, to, to->where, loaded(std::move(thrown), how));
  return throw_in(target, std::move(thrown));
}

GREENLET_ALWAYS_INLINE value switch_to_parent(const machine::cargo& c) {
  hot_thread* const t = hot_thread_v1;
  hot_body* const from = reinterpret_cast<hot_body*>(t->current.load(std::memory_order_relaxed));
  if (__builtin_expect(from != nullptr, 1)) {
    hot_body* const to = reinterpret_cast<hot_body*>(from->parent.load(std::memory_order_relaxed));
    if (__builtin_expect(is_straight(t, to), 1)) return go_straight(t, from, to, to->where, c);
  }
  return switch_to_parent(unloaded(c));
}

#else

inline value throw_in(const greenlet& target, body*, std::exception_ptr&& thrown, const throw_ops&) {
  return throw_in(target, std::move(thrown));
}
inline value switch_to(const greenlet& target, body*, const machine::cargo& c) { return switch_to(target, unloaded(c)); }
inline value switch_to_parent(const machine::cargo& c) { return switch_to_parent(unloaded(c)); }

#endif

}  // namespace greenlets::detail

#endif
