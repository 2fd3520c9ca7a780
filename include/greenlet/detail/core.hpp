// SPDX-License-Identifier: MIT
// The functions of the library that the templates of the public headers call. Not for users.
#ifndef GREENLET_DETAIL_CORE_HPP
#define GREENLET_DETAIL_CORE_HPP

#include <greenlet/detail/api.hpp>
#include <greenlet/detail/closure.hpp>
#include <greenlet/detail/collected.hpp>

#include <exception>
#include <functional>
#include <tuple>

namespace greenlets {

class greenlet;
class attributes;

namespace detail {

struct body;  // the library's record of one greenlet

// What attributes::on_start() is given, with its type erased.
using start_resolver = std::function<closure(const greenlet&)>;

// Moves from `run`, unless it throws. The parent, when there is none or it is empty, is the current greenlet. `at` is where the handle will be: only the
// address is looked at; to what is const g++ would expect that there is something already.
GREENLET_API body* new_body(closure&& run, const greenlet* parent, void* at);
GREENLET_API body* new_body(closure&& run, const greenlet* parent, const attributes& with, void* at);
GREENLET_API value switch_to(const greenlet& target, value&& sent);
GREENLET_API value throw_in(const greenlet& target, std::exception_ptr thrown);
GREENLET_API value switch_to_parent(value&& sent);
GREENLET_API void set_run(const greenlet& target, closure&& run);

// For the hub library.
//
GREENLET_API greenlet make_greenlet(closure&& run, const greenlet& parent);
// Throws the error that a switch to `target` (not empty) would, if it is not of this thread.
GREENLET_API void check_here(const greenlet& target);
// Has `wake(data)` called, on any thread, when the calling thread should enter the library soon: it
// has greenlets to unwind that were dropped elsewhere. nullptr takes it back; afterwards no call is
// under way.
GREENLET_API void set_waker(void (*wake)(void*), void* data);

// Several objects that are sent lie in place where each of them would.
template <class... T>
inline constexpr bool moves_silently<std::tuple<T...>> = (moves_silently<T> && ...);
template <class... T>
struct relocation<std::tuple<T...>> {
  static constexpr bool matters = (relocation<T>::matters || ...);
  static void moved(std::tuple<T...>& to, std::tuple<T...>& from) noexcept {
    std::apply([&](T&... there) { std::apply([&](T&... here) { (relocate(there, here), ...); }, from); }, to);
  }
};

inline value pack() noexcept { return {}; }
template <class A>
value pack(A&& one) {
  return value(std::forward<A>(one));
}
template <class A, class B, class... C>
value pack(A&& first, B&& second, C&&... more) {
  return value(std::tuple<std::decay_t<A>, std::decay_t<B>, std::decay_t<C>...>(
      std::forward<A>(first), std::forward<B>(second), std::forward<C>(more)...));
}

}  // namespace detail
}  // namespace greenlets

#endif
