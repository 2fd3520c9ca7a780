// SPDX-License-Identifier: MIT
// attributes: how a greenlet is to be made. The setters chain:
//
//   greenlets::greenlet g(greenlets::attributes().stack_size(64 * 1024).name("client 7"), run);
#ifndef GREENLET_ATTRIBUTES_HPP
#define GREENLET_ATTRIBUTES_HPP

#include <greenlet/handle.hpp>

#include <cstddef>
#include <string>
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

  std::size_t stack_size() const noexcept { return stack_size_; }
  const std::string& name() const noexcept { return name_; }
  const greenlet& parent() const noexcept { return parent_; }
  bool preserve_fp_env() const noexcept { return preserve_fp_env_; }

 private:
  std::size_t stack_size_ = 0;
  std::string name_;
  greenlet parent_;
  bool preserve_fp_env_ = false;
};

}  // namespace greenlets

#endif
