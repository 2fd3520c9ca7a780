// SPDX-License-Identifier: MIT
// immortal: a global that is there before any constructor runs and after every destructor has.
#ifndef LIB_IMMORTAL_HPP
#define LIB_IMMORTAL_HPP

namespace greenlets::detail {

// Threads may use the library after main() has returned. T must have a constexpr constructor.
template <class T>
union immortal {
  T value;

  constexpr immortal() noexcept : value() {}
  ~immortal() {}
  immortal(const immortal&) = delete;
  immortal& operator=(const immortal&) = delete;
};

}  // namespace greenlets::detail

#endif
