// SPDX-License-Identifier: MIT
// attributes: how a greenlet is to be made. The setters chain:
//
//   greenlets::greenlet g(greenlets::attributes().stack_size(64 * 1024).name("client 7"), run);
#ifndef GREENLET_ATTRIBUTES_HPP
#define GREENLET_ATTRIBUTES_HPP

#include <greenlet/handle.hpp>

#include <cstddef>
#include <string>
#include <type_traits>
#include <utility>

namespace greenlets {

class attributes {
 public:
  /// Bytes of stack the greenlet may use, rounded up to pages; 0 (the default) takes the
  /// process's default, 256 KiB. Only pages that are touched cost memory. At least 16 KiB.
  attributes& stack_size(std::size_t bytes) noexcept {
    stack_size_ = bytes;
    return *this;
  }
  /// The name that errors and dumps show.
  attributes& name(std::string n) {
    name_ = std::move(n);
    return *this;
  }
  /// The parent; by default, or when empty, the greenlet that creates it.
  attributes& parent(const greenlet& p) noexcept {
    parent_ = p;
    return *this;
  }
  /// Whether the floating-point environment (rounding, exception masks; C11 7.6) belongs to the
  /// greenlet and is saved and restored around its switches. By default it is the thread's, as
  /// the signal mask, errno and the locale are.
  attributes& preserve_fp_env(bool on = true) noexcept {
    preserve_fp_env_ = on;
    return *this;
  }

  /// Has `resolver` called at the greenlet's first start, to give what it is to run: a callable, as
  /// the constructor of a greenlet takes one. Called as resolver() or resolver(g), where `g` is the
  /// greenlet; it may also return nothing, and the greenlet then runs what it has (set_run()).
  ///
  /// When: on the stack of the greenlet that starts it (by switching or throwing there, or by
  /// finishing as its child), after the first check that this is allowed, and before a second one.
  /// The resolver may do what it likes, for the greenlet counts as unstarted meanwhile. If it starts
  /// the greenlet itself, what was sent first goes to the greenlet as an ordinary switch; if that has
  /// ended it, to its parent. If it throws, the one who switches gets the exception (the parent, when
  /// a child's end picked this greenlet), and the greenlet stays unstarted and can be tried again. A
  /// throw into the unstarted greenlet also asks it, and destroys what it gives.
  ///
  /// What it returns takes the place of a callable that was given before, which is destroyed as the
  /// first thing on the greenlet's own stack. `resolver` is copied with the attributes.
  template <class F>
  attributes& on_start(F resolver) {
    on_start_ = [f = std::move(resolver)](const greenlet& g) mutable -> detail::closure {
      if constexpr (std::is_invocable_v<F&, const greenlet&>)
        return resolved([&]() -> decltype(auto) { return f(g); });
      else
        return resolved([&]() -> decltype(auto) { return f(); });
    };
    return *this;
  }
  /// Has `leave(data)` called when the greenlet is left, on its stack, as the last thing before the
  /// switch; and `enter(data)` when it is entered, before anything else runs there, tracers too. So
  /// also at its start and at its end; not for a greenlet that dies without having run. Either may
  /// be null. `data` is yours, and must live as long as the greenlet.
  ///
  /// The hooks must not switch: what would is error(in_hook). A suspended greenlet whose last handle
  /// goes in a hook is unwound later, at the thread's next entry into the library. What a hook throws goes
  /// to the unraisable handler. Greenlets without hooks pay nothing.
  attributes& on_switch(switch_hook leave, switch_hook enter, void* data) noexcept {
    leave_ = leave;
    enter_ = enter;
    data_ = data;
    return *this;
  }

  std::size_t stack_size() const noexcept { return stack_size_; }
  const std::string& name() const noexcept { return name_; }
  const greenlet& parent() const noexcept { return parent_; }
  bool preserve_fp_env() const noexcept { return preserve_fp_env_; }

 private:
  friend struct access;
  friend detail::body* detail::new_body(detail::closure&&, const greenlet*, const attributes&, void*);

  template <class F>
  static detail::closure resolved(F&& f) {
    if constexpr (std::is_void_v<std::invoke_result_t<F>>) {
      f();
      return {};
    } else {
      static_assert(detail::is_runnable<std::invoke_result_t<F>>, "a resolver returns what a greenlet can run, or nothing");
      return detail::make_closure(f());
    }
  }

  std::size_t stack_size_ = 0;
  std::string name_;
  greenlet parent_;
  bool preserve_fp_env_ = false;
  detail::start_resolver on_start_;
  switch_hook leave_ = nullptr;
  switch_hook enter_ = nullptr;
  void* data_ = nullptr;
};

}  // namespace greenlets

#endif
