// SPDX-License-Identifier: MIT
// value: what one greenlet sends to another; holds one object of any movable type, or nothing.
//
//   greenlets::value v = g.switch_to(20, 22);   // whatever somebody sends back
//   if (v.is<int>()) sum = v.get<int>();
#ifndef GREENLET_VALUE_HPP
#define GREENLET_VALUE_HPP

#include <greenlet/detail/api.hpp>
#include <greenlet/detail/collected.hpp>
#include <greenlet/exit.hpp>

#include <cstddef>
#include <cstring>
#include <exception>
#include <memory>
#include <new>
#include <string>
#include <type_traits>
#include <typeinfo>
#include <utility>

namespace greenlets {

class value;
class greenlet;
class weak_greenlet;

namespace detail {

// Room for three words in place; what is larger lives in a box.
union value_storage {
  struct {
    void* box;
    void* pin;  // what keeps it where a collector does not look; null without one
  } boxed;
  alignas(void*) unsigned char bytes[3 * sizeof(void*)];

  // Copied word by word as it was written: a processor waits when it is to load more than one store has stored.
  void copy(const value_storage& from, std::size_t words) noexcept {
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // the words that are not in use are not copied
#endif
    __builtin_memcpy(bytes, from.bytes, sizeof(void*));
    if (words > 1) __builtin_memcpy(bytes + sizeof(void*), from.bytes + sizeof(void*), 2 * sizeof(void*));
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif
  }
};

// Whether moving a T, and destroying what is left, runs no code of the user's, and comes to a copy of its
// bytes after which the old ones are forgotten. The library moves values in the middle of a switch and
// under locks, where such code could switch, or wait for ever (t/moving.cpp). Whatever else there is lives
// in a box, which moves without it.
template <class T>
inline constexpr bool moves_silently = std::is_trivially_copyable_v<T>;
template <>
inline constexpr bool moves_silently<greenlet> = true;
template <>
inline constexpr bool moves_silently<weak_greenlet> = true;
template <>
inline constexpr bool moves_silently<std::exception_ptr> = true;
template <class T>
inline constexpr bool moves_silently<std::unique_ptr<T>> = true;
template <class T>
inline constexpr bool moves_silently<std::shared_ptr<T>> = true;
template <class T>
inline constexpr bool moves_silently<std::weak_ptr<T>> = true;

template <class T>
inline constexpr bool fits_in_place =
    sizeof(T) <= sizeof(value_storage) && alignof(T) <= alignof(value_storage) && moves_silently<T>;

struct value_access;

struct alignas(8) value_ops {
  const std::type_info* type;
  bool in_place;
  unsigned char words;                       // of the storage that it uses
  void (*destroy)(value_storage&) noexcept;  // null where that does nothing
  // With a collector, when it has been moved; null where that is nothing. Then `words` is more than 1.
  void (*moved)(value_storage& to, value_storage& from) noexcept;
};

template <class T>
struct value_ops_of {
  static T* object(value_storage& s) noexcept {
    if constexpr (fits_in_place<T>)
      return std::launder(reinterpret_cast<T*>(s.bytes));
    else
      return static_cast<T*>(s.boxed.box);
  }
  // Puts an object there.
  template <class U>
  static void make(value_storage& s, U&& from) {
    if constexpr (!fits_in_place<T>) {
      s.boxed.pin = nullptr;
      if (__builtin_expect(!collects, 1))
        s.boxed.box = new T(std::forward<U>(from));
      else
        make_box(s, std::forward<U>(from));
    } else if constexpr (sizeof(T) < sizeof(void*) && std::is_trivially_copyable_v<T>) {
      // A whole word, for it will be loaded as one.
      const T object(std::forward<U>(from));
      std::size_t word = 0;
      std::memcpy(&word, &object, sizeof object);
      std::memcpy(s.bytes, &word, sizeof word);
    } else {
      // Whole words are copied, which an object need not fill; the compiler is to take them for written.
      if constexpr (words > 1) __asm__("" : "=m"(s.bytes));
      ::new (static_cast<void*>(s.bytes)) T(std::forward<U>(from));
    }
  }
  static void destroy(value_storage& s) noexcept {
    if constexpr (fits_in_place<T>) {
      object(s)->~T();
    } else if (__builtin_expect(!collects, 1)) {
      delete object(s);
    } else {
      object(s)->~T();
      free_box(s.boxed.box, alignof(T), s.boxed.pin);
    }
  }
  template <class U>
  static void make_box(value_storage& s, U&& from) {
    void* const room = allocate_box(sizeof(T), alignof(T));
    try {
      s.boxed.box = ::new (room) T(std::forward<U>(from));
    } catch (...) {
      free_box(room, alignof(T), nullptr);
      throw;
    }
    place_box(s.boxed.box, s.boxed.pin, &s);
  }
  static void moved(value_storage& to, value_storage& from) noexcept {
    if constexpr (fits_in_place<T>)
      relocate(*object(to), *object(from));
    else
      place_box(to.boxed.box, to.boxed.pin, &to);
  }
  static constexpr bool move_matters = !fits_in_place<T> || relocation<T>::matters;
  static constexpr std::size_t words_in_place = (sizeof(T) + sizeof(void*) - 1) / sizeof(void*);
  static constexpr unsigned char words = !move_matters                            ? static_cast<unsigned char>(words_in_place)
                                         : fits_in_place<T> && words_in_place == 3 ? 3
                                                                                   : 2;
  static constexpr value_ops ops{&typeid(T), fits_in_place<T>, words,
                                 fits_in_place<T> && std::is_trivially_destructible_v<T> ? nullptr : &destroy,
                                 move_matters ? &moved : nullptr};
};

// A thrown greenlet_exit that became a value: the exception object itself is kept.
GREENLET_API value from_thrown(std::exception_ptr thrown);
GREENLET_API const std::type_info& thrown_type(const std::exception_ptr& thrown) noexcept;
[[noreturn]] GREENLET_API void throw_wrong_type(const std::type_info* held, const std::type_info& asked);

template <class T>
T* thrown_as(const std::exception_ptr& thrown) noexcept {
  try {
    std::rethrow_exception(thrown);
  } catch (T& object) {
    return &object;  // lives as long as `thrown`
  } catch (...) {
    return nullptr;
  }
}

}  // namespace detail

/// Holds one object of any movable type, or nothing. Move-only. Small objects live in place if they are
/// trivially copyable, handles to greenlets, or smart pointers; others are allocated, and not moved again.
/// The accessors name the exact (decayed) type that was sent: nothing is converted.
/// Thread: not synchronised; as any object.
class GREENLET_API value {
 public:
  value() noexcept {}  // NOLINT: if defaulted, value() would clear the storage too

  /// Holds `std::forward<T>(object)`. Throws: what constructing it throws, std::bad_alloc.
  template <class T, class D = std::decay_t<T>, class = std::enable_if_t<!std::is_same_v<D, value>>>
  value(T&& object) {  // NOLINT: a conversion, as in std::any
    static_assert(std::is_move_constructible_v<D>, "a value holds objects that can be moved");
    detail::value_ops_of<D>::make(storage_, std::forward<T>(object));
    ops_ = &detail::value_ops_of<D>::ops;
  }

  value(value&& other) noexcept {
    __asm__("" : "=m"(storage_.bytes));  // to be taken for written, though words that are not in use are not
    take_from(other);
  }
  value& operator=(value&& other) noexcept {
    if (this != &other) {
      value old(std::move(*this));  // destroyed last: its destructor may look at us
      take_from(other);
    }
    return *this;
  }
  value(const value&) = delete;
  value& operator=(const value&) = delete;
  ~value() { reset(); }

  bool has_value() const noexcept { return ops_ != nullptr; }

  /// Destroys what is held; holds nothing afterwards.
  void reset() noexcept {
    const detail::value_ops* const ops = std::exchange(ops_, nullptr);
    if (ops && ops->destroy) ops->destroy(storage_);
  }

  /// The type of what is held, typeid(void) when nothing is.
  /// For a greenlet_exit that ended a greenlet: the class that was thrown.
  const std::type_info& type() const noexcept;

  /// Whether it holds a T; for a greenlet_exit that ended a greenlet, also whether the thrown
  /// object is derived from T.
  template <class T>
  bool is() const noexcept {
    return find<T>() != nullptr;
  }

  /// Points at the T that is held; nullptr when it holds something else.
  template <class T>
  T* get_if() noexcept {
    return find<T>();
  }
  template <class T>
  const T* get_if() const noexcept {
    return find<T>();
  }

  /// Gives the T that is held. Throws: error(wrong_type), which names both types.
  template <class T>
  T& get() & {
    return require<T>();
  }
  template <class T>
  const T& get() const& {
    return require<T>();
  }
  template <class T>
  T&& get() && {
    return std::move(require<T>());
  }

  /// Moves the T out and holds nothing afterwards. Throws: error(wrong_type).
  template <class T>
  T take() {
    T object(std::move(require<T>()));
    reset();
    return object;
  }

  /// The exception object when this is a greenlet_exit that ended a greenlet, else null.
  std::exception_ptr thrown() const noexcept;

 private:
  friend value detail::from_thrown(std::exception_ptr);
  friend struct detail::value_access;

  void take_from(value& other) noexcept {
    ops_ = std::exchange(other.ops_, nullptr);
    if (!ops_) return;
    storage_.copy(other.storage_, ops_->words);
    if (__builtin_expect(detail::collects, 0) && ops_->moved) ops_->moved(storage_, other.storage_);
  }

  bool is_thrown() const noexcept;

  template <class T>
  T* find() const noexcept {
    static_assert(std::is_same_v<T, std::decay_t<T>>, "values hold decayed types: no references, arrays or const");
    if (!ops_) return nullptr;
    if constexpr (std::is_base_of_v<greenlet_exit, T>)
      if (is_thrown()) return detail::thrown_as<T>(thrown());
    // By type_info and not by the address of ops_: another shared object has its own ops.
    if (ops_ == &detail::value_ops_of<T>::ops) return detail::value_ops_of<T>::object(storage_);
    if (*ops_->type == typeid(T))
      return ops_->in_place ? std::launder(reinterpret_cast<T*>(storage_.bytes)) : static_cast<T*>(storage_.boxed.box);
    return nullptr;
  }

  template <class T>
  T& require() const {
    if (T* object = find<T>()) return *object;
    detail::throw_wrong_type(ops_ ? &type() : nullptr, typeid(T));
  }

  const detail::value_ops* ops_ = nullptr;
  mutable detail::value_storage storage_;
};

namespace detail {

// What is in a value, for who knows what it is.
struct value_access {
  static const value_ops*& ops(value& v) noexcept { return v.ops_; }
  static value_storage& storage(value& v) noexcept { return v.storage_; }
};

}  // namespace detail
}  // namespace greenlets

#endif
