// SPDX-License-Identifier: MIT
// The life of a body: made, counted, and buried when nothing refers to it.
#include "body.hpp"

#include "census.hpp"
#include "own.hpp"
#include "thread.hpp"

#include <greenlet/attributes.hpp>
#include <greenlet/weak.hpp>

#include <new>

namespace greenlets {
namespace detail {

census_t census;

body::body(bool is_main) : main(is_main), id(new_id()), self(access::adopt(this)) {
  census.greenlets.fetch_add(1, std::memory_order_relaxed);
  if (main) census.main_greenlets.fetch_add(1, std::memory_order_relaxed);
}

body::~body() {
  ::new (static_cast<void*>(&self)) greenlet();  // it was not counted, so it must not drop
}

bool body::dead() const noexcept {
  const life l = state.load(std::memory_order_acquire);
  return l == life::finished || l == life::unwound || (l == life::active && thread()->exited.load(std::memory_order_acquire));
}

namespace {

// Frees what a body holds, whose last strong reference has gone. Returns its parent, whose
// reference the caller is to drop: a loop there, and not recursion, because a chain of unstarted
// greenlets may be long.
body* bury(body* b) noexcept {
  b->run = {};  // user code
  b->unused_run = {};
  b->slot = {};
  b->held = nullptr;
  bury_own(b);
  b->special.reset();
  if (b->delete_user_data) b->delete_user_data(b->user_data.load(std::memory_order_relaxed));
  b->name.reset();
  if (thread_record* t = b->thread()) unref(*t);
  body* parent = b->parent.exchange(nullptr, std::memory_order_relaxed);
  census.greenlets.fetch_sub(1, std::memory_order_relaxed);
  if (b->main) census.main_greenlets.fetch_sub(1, std::memory_order_relaxed);
  weak_unref(b);
  return parent;
}

// The last reference to an active greenlet is being dropped. Returns true when the caller still
// holds it and is to look again, false when it has been given away.
bool let_go(body* b) noexcept {
  thread_record* const owner = b->thread();
  thread_record* const here = this_thread_if_any();
  if (owner != here) {
    // Once pushed, `b` may be gone at any moment, and its owner may exit: the record must stay for us.
    ref(*owner);
    const bool pushed = owner->dropped.push(b);
    if (pushed) {
      owner->raise(attention::dropped);
      owner->wake();
    }
    unref(*owner);
    return !pushed;  // if not, the owner has exited: it is dead by now
  }
  if (here->running() == b) {
    b->orphan = true;
    here->raise(attention::orphan);
    return false;
  }
  if (here->wants(attention::in_hook)) {  // nobody can be switched to: as if another thread had dropped it
    if (!here->dropped.push(b)) return true;
    here->raise(attention::dropped);
    return false;
  }
  const pinned pin(*here);
  unwind_one(*here, b, greenlet_exit::reason::last_handle);
  if (b->dead() || b->strong.load(std::memory_order_acquire) > 1) return true;
  // It has swallowed its exit and switched away, and nobody has kept it. Trying again might go on
  // for ever; freeing its stack would free objects that were never destroyed.
  b->abandoned = true;
  report_refusal(b);
  return false;
}

}  // namespace

void ref(body* b) noexcept { b->strong.fetch_add(1, std::memory_order_relaxed); }

void unref(body* b) noexcept {
  while (b) {
    std::size_t count = b->strong.load(std::memory_order_acquire);
    if (count == 1 && b->is(life::active) && !b->dead()) {
      // Kept until we know: a weak handle must resolve while the greenlet is being unwound.
      if (!let_go(b)) return;
      continue;
    }
    if (!b->strong.compare_exchange_weak(count, count - 1, std::memory_order_acq_rel)) continue;
    if (count > 1) return;
    b = bury(b);
  }
}

bool ref_if_any(body* b) noexcept {
  std::size_t count = b->strong.load(std::memory_order_relaxed);
  while (count != 0)
    if (b->strong.compare_exchange_weak(count, count + 1, std::memory_order_acq_rel)) return true;
  return false;
}

void weak_unref(body* b) noexcept {
  if (b->weak.fetch_sub(1, std::memory_order_acq_rel) == 1) delete b;
}

body* new_body(closure&& run, const greenlet* parent, const attributes* with) {
  if (with && !with->parent().empty()) parent = &with->parent();
  const std::size_t stack_size = round_stack_size(with ? with->stack_size() : 0);
  std::shared_ptr<const std::string> name;
  if (with && !with->name().empty()) name = std::make_shared<const std::string>(with->name());

  std::unique_ptr<specials> special;
  if (with && (with->on_start_ || with->leave_ || with->enter_))
    special.reset(new specials{with->on_start_, with->leave_, with->enter_, with->data_});

  thread_record& t = entered();  // after the copy of the resolver, which is user code, and may end a record
  auto* const made = new body(false);  // counted from here on, so nothing below may throw
  made->special = std::move(special);
  made->stack_size = stack_size;
  made->own_fp_env = with && with->preserve_fp_env();
  made->name = std::move(name);
  made->run = std::move(run);
  body* p = parent && !parent->empty() ? access::body_of(*parent) : t.running();
  ref(p);
  made->parent.store(p, std::memory_order_relaxed);
  return made;
}

greenlet make_greenlet(closure&& run, const greenlet& parent) {
  return access::adopt(new_body(std::move(run), &parent, nullptr));
}

}  // namespace detail

weak_greenlet::weak_greenlet(const greenlet& g) noexcept : body_(g.body_) {
  if (body_) body_->weak.fetch_add(1, std::memory_order_relaxed);
}

weak_greenlet::weak_greenlet(const weak_greenlet& other) noexcept : body_(other.body_) {
  if (body_) body_->weak.fetch_add(1, std::memory_order_relaxed);
}

weak_greenlet::~weak_greenlet() {
  if (body_) detail::weak_unref(body_);
}

greenlet weak_greenlet::lock() const noexcept {
  return body_ && detail::ref_if_any(body_) ? access::adopt(body_) : greenlet();
}

bool weak_greenlet::expired() const noexcept {
  return !body_ || body_->strong.load(std::memory_order_acquire) == 0;
}

}  // namespace greenlets
