// SPDX-License-Identifier: MIT
// The tree: reading and changing a greenlet's parent.
#include "thread.hpp"
#include "threads.hpp"

#include <atomic>
#include <cstdint>
#include <mutex>

namespace greenlets {
namespace detail {
namespace {

// Counts the changes that may move an unstarted greenlet, and all unstarted ones below it, to
// another thread's tree. What a body knows of its lineage holds until the next.
std::atomic<std::uint64_t> lineage_changes{1};
spinlock lineage_lock;  // over a change and its count; taken before a body's

// Puts `p` in the parent's place and returns the old one, counted; or null when `b` has been started
// since `owner` was read, or any lineage has changed since `as_of`: what was checked holds no longer.
// Two threads could else make a cycle, or move a greenlet that has just been started.
body* change_parent(body* b, const thread_record* owner, std::uint64_t as_of, body* p) noexcept {
  const std::lock_guard change(lineage_lock);
  const std::lock_guard lock(b->lock);
  if (b->thread() != owner || lineage_now() != as_of) return nullptr;
  ref(p);
  body* const old = b->parent.exchange(p, std::memory_order_relaxed);
  // After the change: what somebody found meanwhile by the old parent is then out of date as well.
  lineage_changes.fetch_add(1, std::memory_order_acq_rel);
  return old;
}

// Notes in an unstarted body that it descends from the main greenlet `main`; false if it was known.
bool note_lineage(body* b, std::uint64_t main, std::uint64_t as_of) noexcept {
  const std::lock_guard lock(b->lock);
  if (b->lineage_of == main && b->lineage_at == as_of) return false;
  b->wear();
  b->lineage_of = main;
  b->lineage_at = as_of;
  return true;
}

bool lineage_noted(body* b, std::uint64_t main, std::uint64_t as_of) noexcept {
  const std::lock_guard lock(b->lock);
  return b->lineage_of == main && b->lineage_at == as_of;
}

}  // namespace

void lock_lineage() noexcept { lineage_lock.lock(); }
void unlock_lineage() noexcept { lineage_lock.unlock(); }

std::uint64_t lineage_now() noexcept { return lineage_changes.load(std::memory_order_acquire); }
void lineage_has_changed() noexcept { lineage_changes.fetch_add(1, std::memory_order_acq_rel); }

bool belongs_to(thread_record& t, body* b) noexcept {
  if (const thread_record* owner = b->thread()) return owner == &t;
  // An unstarted greenlet belongs to the thread of its first started ancestor. A long chain of
  // unstarted parents, each started by its child's end, would be walked once for each of them: so
  // what was found is noted on the way.
  const std::uint64_t as_of = lineage_now();
  const std::uint64_t main = t.main->id;
  bool ours = false;
  std::size_t steps = 0;
  for (greenlet each = b->self; !each.empty() && !ours; each = parent_of(access::body_of(each)), ++steps) {
    body* const ancestor = access::body_of(each);
    if (const thread_record* owner = ancestor->thread()) {
      ours = owner == &t;
      break;
    }
    ours = lineage_noted(ancestor, main, as_of);
  }
  if (ours && steps > 1)
    for (greenlet each = b->self; !access::body_of(each)->thread() && note_lineage(access::body_of(each), main, as_of);)
      each = parent_of(access::body_of(each));
  return ours;
}

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

void restore_parent(body* b, body* parent) noexcept {
  for (;;) {
    const std::uint64_t as_of = lineage_now();
    // While it was unwound, its parent could be made its descendant. It then keeps the parent that it has.
    // But nobody is below one that nobody else refers to, and lineages may be long.
    bool below = false;
    if (references(b) > 1)
      for (greenlet ancestor = parent->self; !ancestor.empty() && !below; ancestor = parent_of(access::body_of(ancestor)))
        below = access::body_of(ancestor) == b;
    if (below) return unref(parent);
    if (body* const old = change_parent(b, b->thread(), as_of, parent)) {
      unref(parent);
      return unref(old);
    }
  }
}

}  // namespace detail

greenlet greenlet::parent() const {
  if (!body_) throw error(errc::empty_handle, "the handle refers to no greenlet");
  return detail::parent_of(body_);
}

void greenlet::set_parent(const greenlet& p) const {
  const greenlet child(*this), parent(p);  // user code runs in entered(), and when the old parent is dropped
  detail::thread_record& t = detail::entered();
  detail::body* const b = child.body_;
  if (!b || !parent.body_) throw error(errc::empty_handle, "the handle refers to no greenlet");
  const auto details = [&] { return "  greenlet:   " + detail::describe(b) + "\n  new parent: " + detail::describe(parent.body_); };
  if (b->main) throw error(errc::main_parent, "cannot set the parent of a main greenlet", details());
  for (;;) {
    const std::uint64_t as_of = detail::lineage_now();
    const detail::thread_record* root = nullptr;
    for (greenlet ancestor = parent; ancestor.body_; ancestor = detail::parent_of(ancestor.body_)) {
      if (ancestor == child) throw error(errc::cyclic_parent, "cyclic parent chain", details());
      root = ancestor.body_->thread();
      if (root && ancestor.body_->main) break;
    }
    const detail::thread_record* const owner = b->thread();
    if (owner && owner != root) throw error(errc::parent_thread, "parent cannot be on a different thread", details());
    if (owner && owner != &t)
      throw error(owner->exited ? errc::thread_exited : errc::different_thread,
                  "cannot set the parent of a greenlet of a different thread", details());
    if (detail::body* const old = detail::change_parent(b, owner, as_of, parent.body_)) return detail::unref(old);
  }
}

}  // namespace greenlets
