// SPDX-License-Identifier: MIT
// offload: what blocks, or computes for long, on a thread of libuv's pool, while the greenlet waits.
//
//   std::string page = hub::offload([&] { return render(document); });   // the hub's other greenlets go on
#ifndef GREENLET_HUB_OFFLOAD_HPP
#define GREENLET_HUB_OFFLOAD_HPP

#include <greenlet/detail/api.hpp>

#include <exception>
#include <optional>
#include <type_traits>
#include <utility>
#include <variant>

namespace greenlets::hub {

namespace detail {

// Returns when call(what) has. When something is thrown into the caller, that comes out when call(what) has
// returned, or will never be called.
GREENLET_API void call_on_pool(void (*call)(void*) noexcept, void* what);

template <class F, class T>
struct offloaded {
  using stored = std::conditional_t<std::is_void_v<T>, std::monostate, T>;

  F& f;
  std::optional<stored> result;
  std::exception_ptr thrown;

  static void call(void* self) noexcept {
    auto& o = *static_cast<offloaded*>(self);
    try {
      if constexpr (std::is_void_v<T>)
        o.f();
      else
        o.result.emplace(o.f());
    } catch (...) {
      // A forced unwind too: the pool cannot lose a thread, and the C library ends the process for it.
      o.thrown = std::current_exception();
    }
  }
};

}  // namespace detail

/// Calls `f()` on a thread of libuv's pool, waits, and gives its result. All hubs of the process share the pool; it
/// has as many threads as the environment variable UV_THREADPOOL_SIZE said at its first use, 4 by default and at most
/// 1,024; what finds none free stands in line.
///
/// `f` may refer to the caller's stack. So when something is thrown into the caller meanwhile (by cancel(), a timeout,
/// the hub's end, the thread's exit) that comes out when `f` has ended, and what `f` gave or threw is lost; or at once
/// when `f` has not begun, and then it never will. Nothing interrupts an `f` that has begun.
///
/// On its thread `f` is in a tree of greenlets, and would be in a hub, of that thread's own; not in the caller's, of
/// which it may use nothing but remote::post(). It must not end its thread: that ends the process.
///
/// Switches: to the hub. Thread: any, in its own hub. Throws: what `f` throws; std::bad_alloc; what making the hub
/// throws (std::system_error); error(not_running) in the hub's own greenlet; what is thrown into the caller meanwhile.
template <class F, class R = std::invoke_result_t<F&>>
std::decay_t<R> offload(F&& f) {
  detail::offloaded<std::remove_reference_t<F>, std::decay_t<R>> o{f, {}, nullptr};
  detail::call_on_pool(o.call, &o);
  if (o.thrown) std::rethrow_exception(std::move(o.thrown));
  if constexpr (!std::is_void_v<R>) return std::move(*o.result);
}

}  // namespace greenlets::hub

#endif
