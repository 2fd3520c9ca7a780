// SPDX-License-Identifier: MIT
// The operations of a handle that neither switch nor touch the tree.
#include <greenlet/handle.hpp>

#include "describe.hpp"
#include "thread.hpp"

#include <mutex>

namespace greenlets {
namespace {

detail::body* required(detail::body* b) {
  if (!b) throw error(errc::empty_handle, "the handle refers to no greenlet");
  return b;
}

}  // namespace

bool greenlet::dead() const noexcept { return body_ && body_->dead(); }

bool greenlet::started() const noexcept { return body_ && !body_->is(detail::life::unstarted); }

bool greenlet::is_main() const noexcept { return body_ && body_->main; }

greenlet::operator bool() const noexcept { return body_ && body_->is(detail::life::active) && !body_->dead(); }

greenlet_state greenlet::state() const noexcept {
  if (!body_) return greenlet_state::finished;
  switch (body_->state.load(std::memory_order_acquire)) {
    case detail::life::unstarted: return greenlet_state::unstarted;
    case detail::life::finished: return greenlet_state::finished;
    case detail::life::unwound: return greenlet_state::unwound;
    case detail::life::active: break;
  }
  if (body_->dead()) return body_->is(detail::life::finished) ? greenlet_state::finished : greenlet_state::unwound;
  return body_->thread()->running() == body_ ? greenlet_state::current : greenlet_state::suspended;
}

std::string greenlet::name() const {
  if (!body_) return {};
  std::shared_ptr<const std::string> copy;
  {
    const std::lock_guard lock(body_->lock);
    copy = body_->name;
  }
  return copy ? *copy : std::string();
}

void greenlet::set_name(std::string n) const {
  detail::body* b = required(body_);
  auto changed = std::make_shared<const std::string>(std::move(n));
  const std::lock_guard lock(b->lock);
  b->wear();
  b->name.swap(changed);
}

std::uint64_t greenlet::id() const noexcept { return body_ ? body_->id : 0; }

bool greenlet::has_run() const {
  detail::body* b = required(body_);
  const std::lock_guard lock(b->lock);
  return b->is(detail::life::unstarted) && b->run;
}

void* greenlet::user_data() const noexcept { return body_ ? body_->user_data.load(std::memory_order_acquire) : nullptr; }

void greenlet::set_user_data(void* data, void (*deleter)(void*)) const {
  detail::body* const b = required(body_);
  const greenlet keep(*this);  // the old deleter may drop the handle
  {
    const std::lock_guard lock(b->lock);
    b->wear();
    data = b->user_data.exchange(data, std::memory_order_acq_rel);
    std::swap(b->delete_user_data, deleter);
  }
  // As at the record's end, which is noexcept too: what it throws must not look like a refusal of this call.
  [&]() noexcept {
    if (deleter) deleter(data);
  }();
}

void detail::check_here(const greenlet& target) { check_thread(this_thread(), access::body_of(target)); }

void detail::set_run(const greenlet& target, closure&& run) {
  body* b = required(access::body_of(target));
  const greenlet keep(target);  // the old callable's destructor may drop the handle
  closure given = std::move(run);
  closure old;
  {
    const std::lock_guard lock(b->lock);
    if (b->is(life::unstarted)) {
      old = take_run(b);
      b->run = std::move(given);
      return;  // `old` goes after the lock
    }
  }
  throw error(errc::already_started,
              b->main ? "main greenlets do not have a run" : "run cannot be set after the start of the greenlet",
              "  " + describe(b));
}

}  // namespace greenlets
