// SPDX-License-Identifier: MIT
// What a garbage collector (<greenlet/gc.hpp>) has to be told by code that is compiled into programs. Without one
// each of these is a test of a flag, and nothing is on the path of a switch.
//
// A handle *pins* its greenlet or is *traced*, by where it lies: on a greenlet's stack or in the collected heap the
// collector finds it by itself; elsewhere it does not look, so that one is counted. An object's address does not
// change its nature while the object is there: so nobody has to remember which it was.
#ifndef GREENLET_DETAIL_COLLECTED_HPP
#define GREENLET_DETAIL_COLLECTED_HPP

#include <greenlet/detail/api.hpp>

#include <cstddef>
#include <memory>
#include <new>
#include <utility>

namespace greenlets {

class greenlet;

namespace detail {

struct body;

// Whether there is a collector: set once, before the first greenlet.
extern GREENLET_API bool collects;

// A counted reference has come from the handle at `from` to the one at `to`; null: from the library.
GREENLET_API void reference_moved(body* b, const void* to, const void* from) noexcept;
inline void moved(body* b, const void* to, const void* from) noexcept {
  if (__builtin_expect(collects, 0) && b) reference_moved(b, to, from);
}

// Memory in which the collector looks for pointers. It is never collected itself.
GREENLET_API void* allocate_seen(std::size_t bytes, std::size_t alignment);
GREENLET_API void free_seen(void* p, std::size_t alignment) noexcept;

inline void* allocate_visible(std::size_t bytes, std::size_t alignment) {
  if (__builtin_expect(collects, 0)) return allocate_seen(bytes, alignment);
  return alignment > __STDCPP_DEFAULT_NEW_ALIGNMENT__ ? ::operator new(bytes, std::align_val_t(alignment))
                                                      : ::operator new(bytes);
}

inline void free_visible(void* p, std::size_t alignment) noexcept {
  if (__builtin_expect(collects, 0)) return free_seen(p, alignment);
  if (alignment > __STDCPP_DEFAULT_NEW_ALIGNMENT__)
    ::operator delete(p, std::align_val_t(alignment));
  else
    ::operator delete(p);
}

template <class T>
struct visible_allocator {
  using value_type = T;
  visible_allocator() noexcept = default;
  template <class U>
  visible_allocator(const visible_allocator<U>&) noexcept {}  // NOLINT: a conversion, as every allocator has
  T* allocate(std::size_t n) { return static_cast<T*>(allocate_visible(n * sizeof(T), alignof(T))); }
  void deallocate(T* p, std::size_t) noexcept { free_visible(p, alignof(T)); }
  template <class U>
  bool operator==(const visible_allocator<U>&) const noexcept {
    return true;
  }
  template <class U>
  bool operator!=(const visible_allocator<U>&) const noexcept {
    return false;
  }
};

template <class T, class... A>
std::shared_ptr<T> make_visible(A&&... arguments) {
  return std::allocate_shared<T>(visible_allocator<T>(), std::forward<A>(arguments)...);
}

// The box of a value that is too large to lie in place: in the collected heap. `pin` belongs to the value, and
// keeps the box while that lies where the collector does not look.
GREENLET_API void* allocate_box(std::size_t bytes, std::size_t alignment);
GREENLET_API void free_box(void* box, std::size_t alignment, void* pin) noexcept;
GREENLET_API void place_box(void* box, void*& pin, const void* at) noexcept;

// What has to be told of an object whose bytes a value has moved.
template <class T>
struct relocation {
  static constexpr bool matters = false;
};
template <>
struct relocation<greenlet> {
  static constexpr bool matters = true;
  static void moved(greenlet& to, greenlet& from) noexcept {
    body* b;
    __builtin_memcpy(&b, static_cast<void*>(&to), sizeof b);  // one pointer wide
    detail::moved(b, &to, &from);
  }
};
template <class T>
void relocate([[maybe_unused]] T& to, [[maybe_unused]] T& from) noexcept {
  if constexpr (relocation<T>::matters) relocation<T>::moved(to, from);
}

}  // namespace detail
}  // namespace greenlets

#endif
