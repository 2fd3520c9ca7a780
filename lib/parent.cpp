// SPDX-License-Identifier: MIT
// The tree: reading and changing a greenlet's parent.
#include "thread.hpp"

#include <mutex>

namespace greenlets {
namespace detail {

greenlet parent_of(body* b) noexcept {
  // Under the lock, else the parent could be replaced and freed before it is counted.
  const std::lock_guard lock(b->lock);
  body* p = b->parent.load(std::memory_order_relaxed);
  if (p) ref(p);
  return p ? access::adopt(p) : greenlet();
}

body* exchange_parent(body* b, body* p) noexcept {
  const std::lock_guard lock(b->lock);
  return b->parent.exchange(p, std::memory_order_relaxed);
}

}  // namespace detail

greenlet greenlet::parent() const {
  if (!body_) throw error(errc::empty_handle, "the handle refers to no greenlet");
  return detail::parent_of(body_);
}

void greenlet::set_parent(const greenlet& p) const {
  detail::thread_record& t = detail::this_thread();
  const greenlet child(*this), parent(p);  // user code runs in enter(), and when the old parent is dropped
  detail::enter(t);
  detail::body* const b = child.body_;
  if (!b || !parent.body_) throw error(errc::empty_handle, "the handle refers to no greenlet");
  const auto details = [&] { return "  greenlet:   " + detail::describe(b) + "\n  new parent: " + detail::describe(parent.body_); };
  if (b->main) throw error(errc::main_parent, "cannot set the parent of a main greenlet", details());
  detail::thread_record* root = nullptr;
  for (greenlet ancestor = parent; ancestor.body_; ancestor = detail::parent_of(ancestor.body_)) {
    if (ancestor == child) throw error(errc::cyclic_parent, "cyclic parent chain", details());
    root = ancestor.body_->thread();
    if (root && ancestor.body_->main) break;
  }
  if (detail::thread_record* owner = b->thread()) {
    if (owner != root) throw error(errc::parent_thread, "parent cannot be on a different thread", details());
    if (owner != &t)
      throw error(owner->exited ? errc::thread_exited : errc::different_thread,
                  "cannot set the parent of a greenlet of a different thread", details());
  }
  detail::ref(parent.body_);
  detail::unref(detail::exchange_parent(b, parent.body_));
}

}  // namespace greenlets
