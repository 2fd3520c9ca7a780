// SPDX-License-Identifier: MIT
// local: a variable of which every greenlet has its own, as every thread has of a thread_local.
//
//   static greenlets::local<std::vector<char>> buffer([] { return std::vector<char>(4096); });
//
//   void serve(connection& c) {
//     while (c.read(*buffer)) c.write(*buffer);  // nobody else's, however often this switches
//   }
//
// Nothing is done for it at a switch. A context_var is the other kind: its values are inherited,
// shared and set back; a local's belongs to one greenlet and dies with it.
#ifndef GREENLET_LOCAL_HPP
#define GREENLET_LOCAL_HPP

#include <greenlet/detail/api.hpp>
#include <greenlet/detail/collected.hpp>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <new>
#include <type_traits>
#include <utility>

namespace greenlets {

namespace detail {

// One greenlet's value of one local. The library keeps it and calls `destroy`.
struct local_value {
  void (*const destroy)(local_value*) noexcept;
  local_value* older = nullptr;  // in its greenlet's list
  std::uint64_t key = 0;
  unsigned round = 0;            // of its greenlet's end, in which it was made; 0 before

  explicit local_value(void (*d)(local_value*) noexcept) noexcept : destroy(d) {}

  static void* operator new(std::size_t n) { return allocate_visible(n, alignof(std::max_align_t)); }
  static void* operator new(std::size_t n, std::align_val_t a) { return allocate_visible(n, static_cast<std::size_t>(a)); }
  static void operator delete(void* p) noexcept { free_visible(p, alignof(std::max_align_t)); }
  static void operator delete(void* p, std::align_val_t a) noexcept { free_visible(p, static_cast<std::size_t>(a)); }
};

GREENLET_API std::uint64_t new_key() noexcept;
// The running greenlet's; null when it has none.
GREENLET_API local_value* find_local(std::uint64_t key) noexcept;
// Gives it to the running greenlet, which has none. Throws: std::bad_alloc, std::system_error.
GREENLET_API void keep_local(std::uint64_t key, local_value* v);
// Takes it away from the running greenlet, null if it has none.
GREENLET_API local_value* take_local(std::uint64_t key) noexcept;

}  // namespace detail

/// A greenlet-local variable. The object is the same for all greenlets of all threads, usually a static
/// one; what it refers to is the running greenlet's, made by the first use there.
///
/// Values are destroyed when their greenlet ends: on its own stack, while it is still current, after
/// its function and what that held, the newest value first. That is so however it ends: by return,
/// exception, kill or its thread's exit; a main greenlet's are destroyed by its thread's exit, after the
/// thread's other greenlets have been told to end. (The process's exit unwinds nothing.) Values that
/// such a destructor makes anew are destroyed in another round, after 16 rounds they are reported to the
/// unraisable handler and left, never to be destroyed. So are those of a greenlet that is given up
/// because it refuses to end, with the rest of its stack; and those made later still, while what it
/// returned is on its way to a parent that takes no more.
///
/// A local that is destroyed before its greenlets leaves them their values, which end as above; no
/// other local ever finds them.
///
/// Destroying a value may switch, use other locals, and throw within itself; what leaves it ends the
/// process, as with every destructor. Thread: any, each in its own greenlets.
template <class T>
class local {
 public:
  /// Values are value-initialised: T().
  template <class U = T, class = std::enable_if_t<std::is_default_constructible_v<U>>>
  local() : make_([] { return T(); }) {}
  /// Values are what `make()` returns. It is called in the greenlet that needs one, by several
  /// threads at once if so used, and may switch; what it throws comes out of that use, and the next use
  /// calls it again. When it uses the variable itself, the value that was first finished is kept.
  template <class F, class = std::enable_if_t<!std::is_same_v<std::decay_t<F>, local> &&
                                              std::is_invocable_r_v<T, const std::decay_t<F>&>>>
  explicit local(F make) : make_(std::move(make)) {}
  local(const local&) = delete;
  local& operator=(const local&) = delete;

  /// The running greenlet's value, made if there is none. The reference is good until that greenlet
  /// ends or resets it.
  /// Switches: only if making it does. Throws: what making it throws, std::bad_alloc, std::system_error at the
  /// thread's first use.
  T& get() const {
    if (detail::local_value* v = detail::find_local(key_)) return object(v);
    return keep(std::make_unique<held>(make_));
  }
  T& operator*() const { return get(); }
  T* operator->() const { return &get(); }

  /// Assigns to the running greenlet's value; makes it from `x` when there is none.
  /// Switches: only if that does. Throws: what it throws, std::bad_alloc.
  template <class U, class = std::enable_if_t<!std::is_same_v<std::decay_t<U>, local>>>
  const local& operator=(U&& x) const {  // NOLINT: what is assigned to is elsewhere
    if (detail::local_value* v = detail::find_local(key_))
      object(v) = std::forward<U>(x);
    else
      keep(std::make_unique<held>([&x]() -> T { return T(std::forward<U>(x)); }));
    return *this;
  }

  /// The running greenlet's value; null when it has none: none is made. Switches: no.
  T* get_if() const noexcept {
    detail::local_value* v = detail::find_local(key_);
    return v ? &object(v) : nullptr;
  }

  /// Destroys the running greenlet's value, if there is one. Switches: only if its destructor does.
  void reset() const noexcept {
    if (detail::local_value* v = detail::take_local(key_)) v->destroy(v);
  }

 private:
  struct held : detail::local_value {
    T object;
    template <class F>
    explicit held(const F& make)
        : local_value([](local_value* v) noexcept { delete static_cast<held*>(v); }), object(make()) {}
  };

  static T& object(detail::local_value* v) noexcept { return static_cast<held*>(v)->object; }

  T& keep(std::unique_ptr<held> made) const {
    if (detail::local_value* first = detail::find_local(key_)) return object(first);
    detail::keep_local(key_, made.get());
    return made.release()->object;
  }

  const std::uint64_t key_ = detail::new_key();
  const std::function<T()> make_;
};

}  // namespace greenlets

#endif
