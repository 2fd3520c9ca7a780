// SPDX-License-Identifier: MIT
// The hooks of a greenlet that is left or entered, for those who keep state of their own per greenlet.
#include "thread.hpp"

#include <utility>

namespace greenlets::detail {
namespace {

// Nothing may switch meanwhile: the switch is under way, and its parcel is in nobody's hands.
void call(thread_record& t, body* b, switch_hook hook) noexcept {
  t.raise(attention::in_hook);
  try {
    hook(b->special->data);
  } catch (...) {
    report_unraisable(b, std::current_exception());
  }
  t.lower(attention::in_hook);
}

bool hooked(const body* b) noexcept { return b->special && b->special->hooked(); }

}  // namespace

void hook(thread_record& t, body* b) noexcept {
  if (hooked(b) && t.hooked++ == 0) t.raise(attention::hooked);
}

void unhook(thread_record& t, body* b) noexcept {
  if (hooked(b) && --t.hooked == 0) t.lower(attention::hooked);
}

void check_no_hook(const thread_record& t) {
  if (t.wants(attention::in_hook))
    throw error(errc::in_hook, "a hook on a greenlet's switches must not switch", "  running: " + describe(t.running()));
}

void call_leave(thread_record& t, body* running) noexcept {
  if (running->special && running->special->leave) call(t, running, running->special->leave);
}

void call_enter(thread_record& t, body* running) noexcept {
  if (running->special && running->special->enter) call(t, running, running->special->enter);
}

}  // namespace greenlets::detail

namespace greenlets {

void greenlet::set_on_switch(switch_hook leave, switch_hook enter, void* data) const {
  if (!body_) throw error(errc::empty_handle, "the handle refers to no greenlet");
  detail::thread_record& t = detail::this_thread();
  detail::body* const b = body_;
  const auto set = [&] {
    b->special->leave = leave;
    b->special->enter = enter;
    b->special->data = data;
  };
  auto made = std::make_unique<detail::specials>();
  b->wear();
  {
    const std::lock_guard lock(b->lock);
    if (b->is(detail::life::unstarted)) {
      if (!b->special) b->special = std::move(made);
      return set();
    }
  }
  detail::check_thread(t, b);
  if (!b->special) {
    const std::lock_guard lock(b->lock);  // somebody who has seen it unstarted may be looking for its resolver
    b->special = std::move(made);
  }
  if (b->dead()) return set();
  detail::unhook(t, b);
  set();
  detail::hook(t, b);
}

}  // namespace greenlets
