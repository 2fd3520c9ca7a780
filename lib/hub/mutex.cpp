// SPDX-License-Identifier: MIT
// Who has a lock, and who is next.
#include <greenlet/hub/mutex.hpp>

#include <greenlet/greenlet.hpp>

#include <string>
#include <utility>

namespace greenlets::hub {
namespace {

std::string who(std::uint64_t id) { return "greenlet " + std::to_string(id); }

[[noreturn]] void throw_already_locked(std::uint64_t id) {
  throw error(errc::already_locked, "the greenlet has locked this mutex already", "  it is " + who(id));
}

[[noreturn]] void throw_not_locked(std::uint64_t id, std::uint64_t owner) {
  throw error(errc::not_locked, "the greenlet has not locked this mutex",
              "  it is " + who(id) + "; " + (owner ? who(owner) + " has" : "nobody has"));
}

// A lock without a deadline that was not got: std::lock_guard would believe that it was.
bool got(bool it, const deadline& until) {
  if (!it && until.never()) throw error(errc::not_running, "the mutex, or the hub, has gone while a greenlet waited", {});
  return it;
}

}  // namespace

// -- mutex ---------------------------------------------------------------------------------------

bool mutex::try_lock() {
  const std::uint64_t me = current().id();
  if (owner_ != 0) return false;
  owner_ = me;
  return true;
}

bool mutex::lock(deadline until) {
  const std::uint64_t me = current().id();
  if (owner_ == 0) {
    owner_ = me;
    return true;
  }
  if (owner_ == me) throw_already_locked(me);
  detail::place mine(waiting_);
  mine.amount = me;
  detail::unless_done lost([&] {
    if (mine.given()) pass_on();
  });
  return got(lost.done = mine.wait(until), until);
}

void mutex::unlock() {
  if (const std::uint64_t me = current().id(); owner_ != me) throw_not_locked(me, owner_);
  pass_on();
}

void mutex::pass_on() noexcept {
  detail::place* const next = waiting_.first();
  owner_ = next ? next->amount : 0;
  if (next) next->give();
}

// -- shared_mutex: `amount` of a place is who wants to change, or 0 ---------------------------------

void shared_mutex::serve() noexcept {
  while (detail::place* const next = waiting_.first()) {
    if (owner_ != 0 || (next->amount != 0 && readers_ != 0)) return;
    if (next->amount != 0)
      owner_ = next->amount;
    else
      ++readers_;
    next->give();
  }
}

bool shared_mutex::stand(std::uint64_t me, deadline until) {
  detail::place mine(waiting_);
  mine.amount = me;
  serve();
  detail::unless_done lost([&] {
    if (mine.given())
      me ? owner_ = 0 : --readers_;
    else if (!mine.stands())
      return;  // the mutex has gone
    else
      mine.leave();
    serve();  // who stood behind us may go on
  });
  return got(lost.done = mine.wait(until), until);
}

bool shared_mutex::lock(deadline until) {
  const std::uint64_t me = current().id();
  if (owner_ == me) throw_already_locked(me);
  return stand(me, until);
}

bool shared_mutex::try_lock() {
  const std::uint64_t me = current().id();
  if (owner_ != 0 || readers_ != 0) return false;
  owner_ = me;
  return true;
}

void shared_mutex::unlock() {
  if (const std::uint64_t me = current().id(); owner_ != me) throw_not_locked(me, owner_);
  owner_ = 0;
  serve();
}

bool shared_mutex::lock_shared(deadline until) {
  if (const std::uint64_t me = current().id(); owner_ == me) throw_already_locked(me);
  return stand(0, until);
}

bool shared_mutex::try_lock_shared() noexcept {
  if (owner_ != 0 || !waiting_.empty()) return false;
  ++readers_;
  return true;
}

void shared_mutex::unlock_shared() {
  if (readers_ == 0) throw error(errc::not_locked, "nobody shares this mutex", {});
  --readers_;
  serve();
}

// -- condition -----------------------------------------------------------------------------------

bool condition::wait(deadline until) {
  detail::place mine(waiting_);
  detail::unless_done lost([&] {
    if (mine.given()) notify_one();
  });
  return lost.done = mine.wait(until);
}

bool condition::wait(std::unique_lock<mutex>& lock, deadline until) {
  detail::place mine(waiting_);  // before the lock goes, whose next owner may tell us at once
  lock.unlock();
  detail::unless_done lost([&] {
    if (mine.given()) notify_one();
  });
  const bool told = mine.wait(until);
  lock.lock();
  lost.done = true;
  return told;
}

}  // namespace greenlets::hub
