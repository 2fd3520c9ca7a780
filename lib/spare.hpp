// SPDX-License-Identifier: MIT
// What a thread makes greenlets from without asking the process: numbers, and bodies that have been used before.
#ifndef LIB_SPARE_HPP
#define LIB_SPARE_HPP

#include "body.hpp"
#include "fault.hpp"

#include <cstddef>
#include <cstdint>

namespace greenlets::detail {

// Greenlets' numbers, which a thread takes from the process in blocks.
class id_source {
 public:
  // Whether one is at hand, and that.
  bool has() const noexcept { return next_ != end_; }
  std::uint64_t pop() noexcept { return next_++; }
  std::uint64_t next() noexcept {
    if (!has()) take_block();
    return pop();
  }
  // Has the next one be taken where it is seen whether creations are recorded.
  void look_again() noexcept { end_ = next_; }

 private:
  // Of a thread's own; while creations are recorded one by one, so that each is made the slow way.
  void take_block() noexcept;

  static constexpr std::uint64_t block = 256;
  std::uint64_t next_ = 0;
  std::uint64_t end_ = 0;
  std::uint64_t end_of_block_ = 0;
};

// Bodies that wait to be used again, each as new but for its number.
class spare_bodies {
 public:
  spare_bodies() noexcept = default;
  spare_bodies(const spare_bodies&) = delete;
  spare_bodies& operator=(const spare_bodies&) = delete;
  ~spare_bodies() { trim(); }
  // Whether one waits, and that.
  bool has() const noexcept { return first_; }
  body* pop() noexcept {
    body* const b = first_;
    first_ = std::exchange(b->next_active, nullptr);
    --count_;
    return b;
  }
  bool has_room() const noexcept { return count_ != most; }
  void give(body* as_new) noexcept {
    as_new->next_active = first_;
    first_ = as_new;
    ++count_;
  }
  void trim() noexcept;

 private:
  // A sanitizer is to see who uses one that is gone; a test has each allocation fail.
  static constexpr std::size_t most = sanitizer::instrumented || GREENLET_REFUSES_SWITCHES ? 0 : 256;

  body* first_ = nullptr;
  std::size_t count_ = 0;
};

}  // namespace greenlets::detail

#endif
