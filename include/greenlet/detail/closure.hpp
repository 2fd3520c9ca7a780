// SPDX-License-Identifier: MIT
// What a greenlet runs, with its type erased, and how what was sent becomes its arguments.
#ifndef GREENLET_DETAIL_CLOSURE_HPP
#define GREENLET_DETAIL_CLOSURE_HPP

#include <greenlet/value.hpp>

#include <functional>
#include <tuple>
#include <type_traits>
#include <utility>

namespace greenlets::detail {

// The callable, and the function that knows its type. Moving it moves the callable.
struct closure {
  value callable;
  value (*call)(value& callable, value&& sent) = nullptr;

  explicit operator bool() const noexcept { return call != nullptr; }
};

template <class...>
struct types {};

// The parameters of F, where F has one signature: a function, or one operator().
template <class F, class = void>
struct signature {
  static constexpr bool known = false;
};
template <class P>
struct known_signature {
  static constexpr bool known = true;
  using parameters = P;
};
template <class R, class... P>
struct signature<R (*)(P...)> : known_signature<types<P...>> {};
template <class R, class... P>
struct signature<R (*)(P...) noexcept> : known_signature<types<P...>> {};
template <class R, class... P>
struct signature<R(P...)> : known_signature<types<P...>> {};  // behind a std::reference_wrapper
template <class R, class... P>
struct signature<R(P...) noexcept> : known_signature<types<P...>> {};

template <class M>
struct member_parameters;
#define GREENLET_MEMBER(qualifiers)                  \
  template <class C, class R, class... P>            \
  struct member_parameters<R (C::*)(P...) qualifiers> { \
    using type = types<P...>;                        \
  };
GREENLET_MEMBER()
GREENLET_MEMBER(const)
GREENLET_MEMBER(&)
GREENLET_MEMBER(const&)
GREENLET_MEMBER(noexcept)
GREENLET_MEMBER(const noexcept)
GREENLET_MEMBER(& noexcept)
GREENLET_MEMBER(const& noexcept)
#undef GREENLET_MEMBER

template <class F>
struct signature<F, std::void_t<typename member_parameters<decltype(&F::operator())>::type>>
    : known_signature<typename member_parameters<decltype(&F::operator())>::type> {};
template <class F>
struct signature<std::reference_wrapper<F>, std::enable_if_t<signature<F>::known>> : signature<F> {};

template <class F>
inline constexpr bool is_callable = signature<F>::known || std::is_invocable_v<F&, value> || std::is_invocable_v<F&>;

// Whether an F can be kept as a greenlet's callable; not so an abstract one, which can only be called.
template <class F, class D = std::decay_t<F>>
inline constexpr bool is_runnable =
    std::conjunction_v<std::bool_constant<is_callable<D>>, std::is_move_constructible<D>, std::is_constructible<D, F>>;

[[noreturn]] GREENLET_API void throw_wrong_arguments(std::initializer_list<const std::type_info*> wanted,
                                                     const value& sent);
[[noreturn]] GREENLET_API void throw_null_callable();

template <class P>
P&& argument(std::decay_t<P>& object) noexcept {
  // By value and by && the parameter may take the object away: nobody else sees it again.
  return static_cast<P&&>(object);
}

template <class F, class... A>
value call_with(F& f, A&&... arguments) {
  if constexpr (std::is_void_v<std::invoke_result_t<F&, A...>>) {
    std::invoke(f, std::forward<A>(arguments)...);
    return {};
  } else {
    return value(std::invoke(f, std::forward<A>(arguments)...));
  }
}

template <class F>
value spread(F& f, value& sent, types<>) {
  if (sent.has_value()) throw_wrong_arguments({}, sent);
  return call_with(f);
}
template <class F, class P>
value spread(F& f, value& sent, types<P>) {
  using D = std::decay_t<P>;
  if constexpr (std::is_same_v<D, value>) {
    return call_with(f, argument<P>(sent));
  } else {
    D* object = sent.get_if<D>();
    if (!object) throw_wrong_arguments({&typeid(D)}, sent);
    return call_with(f, argument<P>(*object));
  }
}
template <class F, class... P>
value spread(F& f, value& sent, types<P...>) {
  auto* objects = sent.get_if<std::tuple<std::decay_t<P>...>>();
  if (!objects) throw_wrong_arguments({&typeid(std::decay_t<P>)...}, sent);
  return std::apply([&f](std::decay_t<P>&... each) { return call_with(f, argument<P>(each)...); }, *objects);
}

template <class F>
value call_erased(value& callable, value&& sent_to_us) {
  F& f = *value_ops_of<F>::object(value_access::storage(callable));
  value sent(std::move(sent_to_us));  // dies with this call, before the callable does
  if constexpr (std::is_pointer_v<F>)
    if (!f) throw_null_callable();
  if constexpr (signature<F>::known)
    return spread(f, sent, typename signature<F>::parameters());
  else if constexpr (std::is_invocable_v<F&, value>)
    return call_with(f, std::move(sent));
  else
    return spread(f, sent, types<>());
}

template <class F>
closure make_closure(F&& f) {
  static_assert(is_runnable<F>, "a greenlet runs something that can be called and moved");
  return {value(std::forward<F>(f)), &call_erased<std::decay_t<F>>};
}

// The callable on its way: where it has been moved from there is nothing to destroy, and the compiler need not look.
template <class F>
body* new_body_of(F&& f, const greenlet* parent, void* at) {
  struct room {
    union {
      closure run;
    };
    bool moved = false;
    explicit room(F&& g) : run(make_closure(std::forward<F>(g))) {}
    ~room() {
      if (!moved) run.~closure();
    }
  } given(std::forward<F>(f));
  body* const made = new_body(std::move(given.run), parent, at);
  given.moved = true;
  return made;
}

}  // namespace greenlets::detail

#endif
