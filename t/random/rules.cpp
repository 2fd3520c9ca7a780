// SPDX-License-Identifier: MIT
// The model's rules: who gets control and what, who dies, and in which order things are destroyed.
#include "model.hpp"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <utility>

namespace programs {
namespace {

using greenlets::errc;
using reason = greenlets::greenlet_exit::reason;

[[noreturn]] void broken(const char* why) {
  std::fprintf(stderr, "the model itself is broken: %s\n", why);
  std::abort();
}

item dropping(int g) { return {doing::drop, g}; }

item destroying(const sent& v) {
  item i{doing::destroy_value};
  i.parcel.value = v;
  return i;
}

item destroying(const runnable& r) {
  item i{doing::destroy_run};
  i.run = r;
  return i;
}

item with_exception(doing what, const thrown& e) {
  item i{what};
  i.parcel.exception = e;
  return i;
}

item with_parcel(doing what, const parcel& p, int g = nobody) {
  item i{what, g};
  i.parcel = p;
  return i;
}

}  // namespace

void model::execute(const item& i) {
  switch (i.what) {
    case doing::locals: {
      item guard{doing::destroy_guard};
      guard.run = i.run;
      return then({guard, dropping(i.run.handle)});
    }
    case doing::first: return die(i.parcel);
    case doing::main_first:
      note(event::thread_ends, self_);
      here().unwinding = 1;
      return then({{doing::unwind}});
    case doing::handler:
    case doing::no_throw:
    case doing::one_op: return;
    case doing::raise: return raise(i.parcel.exception);
    case doing::catching:
      note(event::catches, self_, code(i.parcel.exception));
      return call(call_record::handler, i.n, {with_exception(doing::handler, i.parcel.exception)});
    case doing::dying: {
      if (self().held) return replace_result(i.parcel);
      item r = with_parcel(doing::route, i.parcel, self().parent);
      r.by_dying = r.committed = true;
      return route(r);
    }
    case doing::unwind:
      if (here().active.empty() && here().dropped.empty() && here().to_kill.empty()) return exit_thread();
      if (here().unwinding > 16) broken("a thread that does not end");
      return then({{doing::flush}, {doing::unwind_round}});
    case doing::unwind_round: return unwind_round();
    default: return execute_destroying(i);
  }
}

// -- Exceptions -----------------------------------------------------------------------------------

// An exception leaves whatever is innermost.
void model::raise(const thrown& e) {
  const item from = self().todo.back();
  self().todo.pop_back();
  const item on = with_exception(doing::raise, e);
  switch (from.what) {
    case doing::operations:
    case doing::handler:
    case doing::switched:
    case doing::keep: return then({on});
    case doing::locals: {
      const bool caught = from.n == catches_all || (from.n == catches_custom && e.what == thrown::custom) ||
                          (from.n == catches_exits && e.is_exit());
      item guard{doing::destroy_guard}, handler = with_exception(doing::catching, e);
      guard.run = from.run;
      handler.n = from.run.guard;
      return then({guard, dropping(from.run.handle), caught ? handler : on});
    }
    case doing::no_throw: return note(event::swallows, self_, code(e));
    case doing::one_op:
      if (e.what == thrown::error) return note(event::fails, self_, code(e));
      return then({on});
    case doing::first: {
      parcel result;
      (e.is_exit() ? result.value.why : result.exception) = e;
      if (e.is_exit()) result.value.what = sent::exit;
      return die(result);
    }
    case doing::main_first:
      note(event::survives, self_, code(e));
      return call(call_record::main_first, self_, {from});
    // Inside the library, when what is held has been thrown at the entry.
    case doing::make: return then({destroying(from.run), on});
    case doing::reparent: return then({dropping(from.other), dropping(from.g), on});
    case doing::send: return then({dropping(from.kept ? from.g : nobody), destroying(from.parcel.value), on});
    case doing::send_to_parent: return then({destroying(from.parcel.value), on});
    default: broken("an exception where nothing throws");
  }
}

// std::uncaught_exceptions(): those whose way to a handler is not over yet.
int model::uncaught(int g) const {
  const auto& todo = of(g).todo;
  return static_cast<int>(std::count_if(
      todo.begin(), todo.end(), [](const item& i) { return i.what == doing::raise || i.what == doing::catching; }));
}

// std::current_exception().
thrown model::handling(int g) const {
  const auto& todo = of(g).todo;
  const auto it = std::find_if(todo.rbegin(), todo.rend(), [](const item& i) { return i.what == doing::handler; });
  return it == todo.rend() ? thrown() : it->parcel.exception;
}

// -- Destruction ----------------------------------------------------------------------------------

void model::execute_destroying(const item& i) {
  switch (i.what) {
    case doing::destroy_value:
      if (i.parcel.value.what != sent::one && i.parcel.value.what != sent::two) return;
      note(event::value_gone, nobody, i.parcel.value.number);
      return then({dropping(i.parcel.value.handle)});
    case doing::destroy_guard:
      note(event::guard_gone, nobody, i.run.guard);
      if (i.run.active && !outside_) call(call_record::destructor, i.run.guard, {{doing::no_throw}});
      return;
    case doing::destroy_run: {
      if (!i.run.there) return;
      item guard{doing::destroy_guard};
      guard.run = i.run;
      return then({guard, dropping(i.run.handle)});
    }
    case doing::drop: return drop(i.g);
    case doing::drop_again:
      if (of(i.g).dead() || of(i.g).references > 1) return then({dropping(i.g)});
      // It refused. Trying again might go on for ever.
      of(i.g).abandoned = true;
      return note(event::unraisable, i.g, code({thrown::refusal, 0}));
    default: return execute_entering(i);
  }
}

// The reference that waits in this thread's queue goes, unless it is the last, or was when this thread took another.
bool model::take_back(int g) {
  greenlet_model& it = of(g);
  if (it.state != greenlet_model::active || it.life != here().life || it.last_is_queued || it.references == 1) return false;
  for (std::deque<int>* queue : {&here().dropped, &here().to_kill})
    if (const auto at = std::find(queue->begin(), queue->end(), g); at != queue->end()) {
      queue->erase(at);
      --it.references;
      return true;
    }
  return false;
}

// A reference goes.
void model::drop(int g) {
  if (g == nobody) return;
  greenlet_model& it = of(g);
  take_back(g);
  if (it.references > 1 || it.state != greenlet_model::active) {
    if (--it.references > 0) return;
    // Gone: first what it was to run, then what it kept.
    return then({destroying(std::exchange(it.run, {})), dropping(it.parent)});
  }
  if (it.life != here().life) {
    threads_[homes_[static_cast<std::size_t>(it.life)]].dropped.push_back(g);
  } else if (g == self_) {
    it.orphan = true;
  } else {
    then({{doing::drop_again, g}});
    kill(g, reason::last_handle);
  }
}

// Throws greenlet_exit into it. Its parent is for this time who does so, to have control back.
void model::kill(int g, reason why) {
  greenlet_model& it = of(g);
  parcel p;
  if (uncaught(g) == 0 && !it.ending) p.exception = {thrown::exit, static_cast<int>(why)};
  item killed{doing::killed, g, it.parent};
  it.parent = keep(self_);
  then({killed});
  jump(g, p);
}

// Control is back, from whomever.
void model::open_killed(const item& killed, const item& i) {
  const thrown& e = i.parcel.exception;
  if (i.other == killed.g && of(killed.g).dead()) {
    if (e) note(event::unraisable, killed.g, code(e));
  } else if (e && !self().held) {
    self().held = e;
  } else if (e) {
    note(event::unraisable, self_, code(e));
  }
  then({destroying(i.parcel.value), {doing::killed_end, killed.g, killed.other}});
}

// -- Entering the library ---------------------------------------------------------------------------

bool model::wants_attention() const {
  const thread_model& t = threads_[here_];
  const auto holds = [this](int g) { return static_cast<bool>(of(g).held); };
  return !t.dropped.empty() || !t.to_kill.empty() || holds(t.main) || std::any_of(t.active.begin(), t.active.end(), holds);
}

void model::execute_entering(const item& i) {
  thread_model& t = here();
  switch (i.what) {
    case doing::enter:
      if (t.dropped.empty() && t.to_kill.empty()) return then({{doing::enter_held}});
      return then({{doing::flush}, {doing::enter_held}});
    case doing::enter_held:
      if (const thrown e = std::exchange(self().held, {})) then({with_exception(doing::raise, e)});
      return;
    case doing::flush:
      t.to_kill.insert(t.to_kill.end(), t.dropped.begin(), t.dropped.end());
      t.dropped.clear();
      return then({{doing::flush_next}});
    case doing::flush_next: {
      if (t.to_kill.empty()) return;
      const int g = t.to_kill.front();
      t.to_kill.pop_front();
      of(g).last_is_queued = false;
      return then({dropping(g), {doing::flush_next}});
    }
    case doing::make: {
      greenlets_.emplace_back();
      ++ordinary_;
      greenlet_model& it = greenlets_.back();
      it.references = 1;
      it.run = i.run;
      const int given = i.o.what == verb::create && i.o.given ? slot(i.o.b) : nobody;
      it.parent = keep(given != nobody ? given : self_);
      note(event::created, made());
      return set_slot(i.o.a, made());
    }
    case doing::keep: return set_slot(i.o.a, keep(self_));
    case doing::reparent: return change_parent(i.g, i.other);
    default: return execute_routing(i);
  }
}

void model::change_parent(int child, int parent) {
  const auto fails = [&](errc why) {
    then({dropping(parent), dropping(child), with_exception(doing::raise, {thrown::error, static_cast<int>(why)})});
  };
  if (child == nobody || parent == nobody) return fails(errc::empty_handle);
  greenlet_model& it = of(child);
  if (it.main) return fails(errc::main_parent);
  int root = parent;
  for (int each = parent; each != nobody; each = of(each).parent) {
    if (each == child) return fails(errc::cyclic_parent);
    root = each;
  }
  if (it.state != greenlet_model::unstarted) {
    if (it.life != of(root).life) return fails(errc::parent_thread);
    if (it.life != here().life)
      return fails(homes_[static_cast<std::size_t>(it.life)] < 0 ? errc::thread_exited : errc::different_thread);
  }
  const int old = std::exchange(it.parent, keep(parent));
  then({dropping(old), dropping(parent), dropping(child)});
}

// -- Switching --------------------------------------------------------------------------------------

int model::lineage(int g) const {
  while (of(g).state == greenlet_model::unstarted) g = of(g).parent;
  return of(g).life;
}

bool model::allowed(int g, errc& why) const {
  const int life = lineage(g);
  if (life == threads_[here_].life) return true;
  if (homes_[static_cast<std::size_t>(life)] >= 0)
    why = errc::different_thread;
  else
    why = of(g).main ? errc::collected : errc::thread_exited;
  return false;
}

void model::execute_routing(const item& i) {
  thread_model& t = here();
  switch (i.what) {
    case doing::send: {
      if (i.kept) {
        if (t.guests[0] != nobody) return then({dropping(std::exchange(t.guests[0], nobody)), i});
        t.guests[0] = i.g;
      }
      if (i.g == nobody) return refuse(i, errc::empty_handle);
      return route(i);
    }
    case doing::send_to_parent: {
      item r = i;
      r.g = self().parent;
      if (r.g == nobody) return refuse(r, errc::main_parent);
      return route(r);
    }
    case doing::route: return route(i);
    case doing::die_unstarted:
      if (of(i.g).state != greenlet_model::unstarted) return;
      of(i.g).state = greenlet_model::finished;
      of(i.g).life = t.life;
      return then({destroying(std::exchange(of(i.g).run, {}))});  // which it was given just now
    // It has been kept meanwhile, and is until somebody arrives; another one no longer.
    case doing::died_unstarted: {
      item r = i;
      r.what = doing::route_on;
      r.n = of(i.g).dead();
      return then({dropping(std::exchange(t.guests[1], i.g)), r});
    }
    case doing::lost: {
      item r = i;
      r.what = doing::route_on;
      r.n = lineage(i.g) == t.life ? 1 : 2;
      return then({dropping(std::exchange(t.guests[1], i.g)), with_exception(doing::handler, i.parcel.exception), r});
    }
    case doing::route_on: {
      item r = i;
      if (r.n == 2) return go_to(t.main, r);
      if (r.n == 1) {
        if (of(r.g).dead() && r.parcel.exception.is_exit()) {
          r.parcel.value = {sent::exit, 0, nobody, r.parcel.exception};
          r.parcel.exception = {};
        }
        r.g = of(r.g).parent;
      }
      return route(r);
    }
    case doing::refused: return then({destroying(i.parcel.value), with_exception(doing::raise, i.parcel.exception)});
    case doing::guests:
      for (int& g : t.guests)
        if (g != nobody) return then({dropping(std::exchange(g, nobody)), {doing::guests}});
      return;
    case doing::open: return open(i);
    case doing::killed_end:
      if (of(i.g).parent != self_) return then({dropping(i.other)});  // it chose another parent meanwhile
      for (int each = i.other; each != nobody; each = of(each).parent)
        if (each == i.g) return then({dropping(i.other)});  // which descends from it by now
      of(i.g).parent = i.other;
      return then({dropping(self_)});
    default: broken("an item that is not done");
  }
}

// Who gets it: past the dead, into the unstarted, up the tree.
void model::route(item r) {
  errc why{};
  for (;; r.g = of(r.g).parent) {
    if (r.g == nobody) return go_to(here().main, r);
    greenlet_model& it = of(r.g);
    const auto fails = [&](errc code) {
      if (!r.committed) return refuse(r, code);
      // A result is lost, and the error goes on in its place.
      const parcel lost = std::exchange(r.parcel, {{}, {thrown::error, static_cast<int>(code)}});
      keep(r.g);
      r.what = doing::lost;
      then({destroying(lost.value), with_exception(doing::handler, r.parcel.exception), r});
    };
    if (!(r.committed && it.dead()) && !allowed(r.g, why)) return fails(why);
    if (it.state == greenlet_model::active && !(r.g == self_ && r.by_dying)) return go_to(r.g, r);
    if (it.state == greenlet_model::unstarted) {
      if (!it.run.there) return fails(errc::no_run);
      if (!r.parcel.exception) {
        start(r.g);
        return go_to(r.g, r);
      }
      // It dies of the exception without having run.
      r.committed = true;
      keep(r.g);
      r.what = doing::died_unstarted;
      return then({destroying(std::exchange(it.run, {})), {doing::die_unstarted, r.g}, r});
    }
    if (it.dead() && r.parcel.exception.is_exit()) r.parcel = {{sent::exit, 0, nobody, r.parcel.exception}, {}};
  }
}

// Nothing has changed: the error is thrown here.
void model::refuse(const item& r, errc why) {
  const thrown e{thrown::error, static_cast<int>(why)};
  const item refused = with_parcel(doing::refused, {r.parcel.value, e});
  if (why == errc::main_parent) return then({refused});
  then({{doing::guests}, with_exception(doing::handler, e), refused});
}

void model::start(int g) {
  greenlet_model& it = of(g);
  it.state = greenlet_model::active;
  it.life = here().life;
  it.told = here().unwinding;
  it.todo = {{doing::starting}};
  here().active.insert(here().active.begin(), g);
}

void model::go_to(int target, const item& r) {
  if (r.by_dying) {
    if (!self().todo.empty()) broken("a greenlet that ends with something left to do");
    auto& active = here().active;
    active.erase(std::find(active.begin(), active.end(), self_));
    take_back(self_);
    self().state = here().unwinding ? greenlet_model::unwound : greenlet_model::finished;
    self().held = {};
  } else if (target == self_) {
    return then({{doing::guests}, with_parcel(doing::open, r.parcel)});
  }
  jump(target, r.parcel);
}

void model::jump(int to, const parcel& p) {
  greenlet_model& left = self();
  item opening = with_parcel(doing::open, p);
  opening.other = self_;
  const int let_go = left.orphan || (left.abandoned && left.dead()) ? self_ : nobody;
  if (let_go != nobody) left.orphan = left.abandoned = false;
  here().current = self_ = to;
  then({dropping(let_go), {doing::guests}, opening});
}

// Whoever was away goes on.
void model::open(const item& i) {
  const item away = self().todo.back();
  self().todo.pop_back();
  const sent& v = i.parcel.value;
  switch (away.what) {
    case doing::switched:
      if (i.parcel.exception) return then({with_exception(doing::raise, i.parcel.exception)});
      note(event::gets, self_, code(v), v.handle);
      return then({destroying(v)});
    case doing::starting: {
      note(event::starts, self_, code(v), v.handle);
      item locals{doing::locals};
      locals.run.guard = 10000 + self_;
      call(call_record::first, self_, {locals, {doing::first}});
      return then({destroying(v)});
    }
    case doing::killed: return open_killed(away, i);
    default: broken("a greenlet that was not away");
  }
}

// -- The end ----------------------------------------------------------------------------------------

// Its first function is over. What it ran goes while it is still current and active.
void model::die(const parcel& result) {
  self().ending = true;
  then({destroying(std::exchange(self().run, {})), with_parcel(doing::dying, result)});
}

// What is held for its next switch is thrown by its last, in place of the result.
void model::replace_result(const parcel& result) {
  const thrown e = std::exchange(self().held, {});
  if (result.exception) {
    note(event::unraisable, self_, code(e));
    return then({with_parcel(doing::dying, result)});
  }
  const parcel instead = e.is_exit() ? parcel{{sent::exit, 0, nobody, e}, {}} : parcel{{}, e};
  then({destroying(result.value), with_parcel(doing::dying, instead)});
}

void model::unwind_round() {
  thread_model& t = here();
  const auto next = std::find_if(t.active.begin(), t.active.end(), [&](int g) { return of(g).told < t.unwinding; });
  if (next == t.active.end()) {
    ++t.unwinding;
    return then({{doing::unwind}});
  }
  const int g = keep(*next);
  of(g).told = t.unwinding;
  then({dropping(g), {doing::unwind_round}});
  kill(g, reason::thread_exit);
}

void model::exit_thread() {
  thread_model& t = here();
  greenlet_model& main = of(t.main);
  if (main.held) note(event::unraisable, t.main, code(main.held));
  main.state = greenlet_model::unwound;
  main.held = {};
  --main.references;
  homes_[static_cast<std::size_t>(t.life)] = -1;
  t = {};
  step_.ends_thread = true;
}

}  // namespace programs
