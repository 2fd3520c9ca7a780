// SPDX-License-Identifier: MIT
// weak_greenlet: refers to a greenlet without keeping it.
#ifndef GREENLET_WEAK_HPP
#define GREENLET_WEAK_HPP

#include <greenlet/handle.hpp>

#include <utility>

namespace greenlets {

/// Refers to a greenlet without keeping it. Still resolves while the greenlet is being unwound
/// because its last handle has gone; expires when it is really gone.
/// Thread: any, but one object is not synchronised. Nothing here switches or throws.
class GREENLET_API weak_greenlet {
 public:
  weak_greenlet() noexcept = default;
  weak_greenlet(const greenlet& g) noexcept;  // NOLINT: a conversion, as std::weak_ptr's
  weak_greenlet(const weak_greenlet& other) noexcept;
  weak_greenlet(weak_greenlet&& other) noexcept : body_(std::exchange(other.body_, nullptr)) {}
  weak_greenlet& operator=(weak_greenlet other) noexcept {
    std::swap(body_, other.body_);
    return *this;
  }
  ~weak_greenlet();

  /// A handle to it, or an empty one when it is gone.
  greenlet lock() const noexcept;
  bool expired() const noexcept;

 private:
  detail::body* body_ = nullptr;  // hidden from a collector, when there is one
};

}  // namespace greenlets

#endif
