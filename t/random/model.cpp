// SPDX-License-Identifier: MIT
// The model's steps: what is done next, by whom, and what the operations do.
#include "model.hpp"

#include <algorithm>

namespace programs {

using greenlets::errc;
using reason = greenlets::greenlet_exit::reason;

model::model(const program& p) : program_(p) { look_for_the_end(); }

// -- Steps ----------------------------------------------------------------------------------------

const step& model::next() {
  const int number = step_.number + 1;
  step_ = {};
  step_.number = number;
  while (!pick(step_.o)) {
  }
  step_.who = self_;
  step_.in = self().todo.back().n;
  perform(step_.o);
  run();
  look_for_the_end();
  return step_;
}

// Takes the next operation, or the one that ends things, and its thread; false if it is to be left out.
bool model::pick(op& o) {
  const bool more = cursor_ < program_.ops.size();
  if (more) {
    o = program_.ops[cursor_++];
  } else {
    o = {};
    o.what = verb::leave;
    o.thread = here_;
    while (!threads_[o.thread].alive) o.thread = (o.thread + 1) % most_threads;
  }
  here_ = o.thread;
  if (!here().alive) {
    if (homes_.size() > most_lives || o.what == verb::end_thread) return false;
    begin_thread();
    step_.begins_thread = true;
    if (!admit(o)) o.what = verb::enter;
    return true;
  }
  self_ = here().current;
  find_handles(o);
  if (here().unwinding > 4) o.what = verb::leave;  // else it could go on for more rounds than there are
  if (!more && at_main_first()) o.what = verb::end_thread;
  return admit(o);
}

// Most operations on empty handles would only be errors.
void model::find_handles(op& o) {
  if (o.exact) return;
  const auto look = [&](int& n) {
    for (int more = 0; more < program_.slots; ++more)
      if (const int at = (n + more) % program_.slots; slot(at) != nobody) {
        n = at;
        return;
      }
  };
  switch (o.what) {
    case verb::set_parent: look(o.b); [[fallthrough]];
    case verb::switch_to:
    case verb::throw_in:
    case verb::drop:
    case verb::set_run:
    case verb::reset_run: return look(o.a);
    case verb::copy:
    case verb::move:
    case verb::take_parent:
    case verb::make_weak: return look(o.b);
    case verb::create:
      if (o.given) look(o.b);
      return;
    default: return;
  }
}

// Leaves out what a program could not do, or what would have no end.
bool model::admit(op& o) {
  const auto& todo = self().todo;
  const auto calls = std::count_if(todo.begin(), todo.end(), [](const item& i) { return i.what == doing::operations; });
  if (o.what == verb::create || o.what == verb::call || o.what == verb::set_run) {
    if (o.active && active_guards_ == most_active) o.active = false;
    if (o.active) ++active_guards_;
  }
  switch (o.what) {
    case verb::create:
    case verb::create_without_run: return ordinary_ < most_greenlets;
    case verb::call: return calls < most_calls;
    case verb::leave: return !at_main_first();
    case verb::end_thread: return at_main_first();
    case verb::rethrow: return can_rethrow();
    default: return true;
  }
}

// The C++ runtimes keep what they need to throw in the exception itself, and cannot throw one again that
// is already on its way, as `throw;` would in a destructor that a `throw;` runs.
bool model::can_rethrow() const {
  const auto& todo = of(self_).todo;
  const thrown e = handling(self_);
  return e && std::none_of(todo.begin(), todo.end(), [&](const item& i) {
    return (i.what == doing::raise || i.what == doing::catching) && code(i.parcel.exception) == code(e);
  });
}

bool model::at_main_first() const {
  const auto& todo = of(self_).todo;
  return todo.size() == 2 && todo.front().what == doing::main_first;
}

void model::begin_thread() {
  thread_model& t = here();
  t = {};
  t.alive = true;
  t.life = static_cast<int>(homes_.size());
  homes_.push_back(here_);
  greenlets_.emplace_back();
  t.main = t.current = self_ = made();
  self().main = true;
  self().state = greenlet_model::active;
  self().life = t.life;
  self().references = 1;
  note(event::thread_begins, self_);
  call(call_record::main_first, self_, {{doing::main_first}});
}

// Over when no thread is left and no operation would begin one.
void model::look_for_the_end() {
  if (std::any_of(threads_, threads_ + most_threads, [](const thread_model& t) { return t.alive; })) return;
  while (cursor_ < program_.ops.size() &&
         (program_.ops[cursor_].what == verb::end_thread || homes_.size() > most_lives))
    ++cursor_;
  over_ = cursor_ == program_.ops.size();
}

const step& model::finish() {
  const int number = step_.number + 1;
  step_ = {};
  step_.number = number;
  outside_ = true;
  here_ = most_threads;
  self_ = nobody;
  for (int& each : slots_) {
    const int g = each;
    each = nobody;
    then({{doing::drop, g}});
    run();
  }
  // What keeps itself, or each other, by what they were to run.
  for (int g = 1; g <= made(); ++g)
    if (of(g).references > 0 && of(g).state == greenlet_model::unstarted && of(g).run.there) {
      keep(g);
      give_run(g, {});
      then({{doing::drop, g}});
      run();
    }
  return step_;
}

void model::run() {
  while (!step_.ends_thread) {
    auto& todo = self().todo;
    if (outside_ && todo.empty()) return;
    if (todo.back().what == doing::operations) {
      note(event::takes, self_, code(handling(self_)), uncaught(self_));
      return;
    }
    const item i = todo.back();
    todo.pop_back();
    execute(i);
  }
}

void model::then(std::initializer_list<item> items) {
  for (auto i = items.end(); i != items.begin();) self().todo.push_back(*--i);
}

// Calls a function of the program; the items below are done when it is left.
void model::call(call_record::kind what, int number, std::initializer_list<item> below) {
  call_record made{what, self_, -1, number};
  for (const item& i : self().todo)
    if (i.what == doing::operations) made.caller = i.n;
  then(below);
  item taking{doing::operations};
  taking.n = static_cast<int>(calls_.size());
  calls_.push_back(made);
  then({taking});
}

// -- Operations -----------------------------------------------------------------------------------

int model::keep(int g) {
  if (g == nobody) return g;
  greenlet_model& it = of(g);
  const auto has = [g](const std::deque<int>& queue) { return std::find(queue.begin(), queue.end(), g) != queue.end(); };
  if (it.references == 1 && it.life == here().life && (has(here().dropped) || has(here().to_kill))) it.last_is_queued = true;
  ++it.references;
  return g;
}

runnable model::make_run(const op& o) { return {true, step_.number, o.active, o.with ? keep(slot(o.c)) : nobody}; }

sent model::make_value(const op& o) {
  switch (o.kind) {
    case sends_one: return {sent::one, step_.number, nobody, {}};
    case sends_two: return {sent::two, step_.number, nobody, {}};
    case sends_handle: return {sent::one, step_.number, keep(slot(o.c)), {}};
    default: return {};
  }
}

thrown model::make_thrown(const op& o) const {
  if (o.kind == throws_exit) return {thrown::exit, static_cast<int>(reason::thrown)};
  return {o.kind == throws_own_exit ? thrown::own_exit : thrown::custom, step_.number};
}

void model::perform(const op& o) {
  switch (o.what) {
    case verb::leave: {
      auto& todo = self().todo;
      todo.pop_back();
      if (todo.size() == 2 && todo.front().what == doing::first) todo.front().parcel.value = make_value(o);
      return;
    }
    case verb::end_thread: self().todo.pop_back(); return;
    case verb::raise: {
      item i{doing::raise};
      i.parcel.exception = make_thrown(o);
      return then({i});
    }
    case verb::rethrow: {
      item i{doing::raise};
      i.parcel.exception = handling(self_);
      return then({i});
    }
    case verb::call: {
      item locals{doing::locals};
      locals.run = make_run(o);
      locals.n = o.kind;
      return call(call_record::call, step_.number, {locals});
    }
    default: break;
  }
  then({{doing::one_op}});
  perform_on_tree(o);
}

void model::perform_on_tree(const op& o) {
  item i{doing::enter};
  i.o = o;
  switch (o.what) {
    case verb::create: i.run = make_run(o); [[fallthrough]];
    case verb::create_without_run:
      i.what = doing::make;
      return then({{doing::enter}, i});
    case verb::switch_to:
    case verb::throw_in:
      i.what = doing::send;
      i.g = slot(o.a);
      if (o.what == verb::switch_to)
        i.parcel.value = make_value(o);
      else
        i.parcel.exception = make_thrown(o);
      i.kept = wants_attention();
      if (!i.kept) return then({i, {doing::switched}});
      keep(i.g);  // for user code may run before it is looked at
      return then({{doing::enter}, i, {doing::switched}});
    case verb::switch_to_parent:
      i.what = doing::send_to_parent;
      i.parcel.value = make_value(o);
      return then({{doing::enter}, i, {doing::switched}});
    case verb::enter: return then({{doing::enter}});
    case verb::keep_current:
      i.what = doing::keep;
      return then({{doing::enter}, i});
    case verb::set_parent:
      i.what = doing::reparent;
      i.g = keep(slot(o.a));
      i.other = keep(slot(o.b));
      return then({{doing::enter}, i});
    case verb::set_run: return give_run(slot(o.a), make_run(o));
    case verb::reset_run: return give_run(slot(o.a), {});
    default: return perform_on_table(o);
  }
}

// What does not look at the thread's state.
void model::perform_on_table(const op& o) {
  switch (o.what) {
    case verb::drop: return set_slot(o.a, nobody);
    case verb::copy: return set_slot(o.a, keep(slot(o.b)));
    case verb::move: {
      if (o.a == o.b) return;
      const int g = slot(o.b);
      slot(o.b) = nobody;
      return set_slot(o.a, g);
    }
    case verb::take_parent: {
      if (slot(o.b) != nobody) return set_slot(o.a, keep(of(slot(o.b)).parent));
      item i{doing::raise};
      i.parcel.exception = {thrown::error, static_cast<int>(errc::empty_handle)};
      return then({i});
    }
    case verb::make_weak: weak_[o.a] = slot(o.b); return;
    case verb::lock_weak: {
      const int g = weak_[o.b];
      return set_slot(o.a, g != nobody && of(g).references > 0 ? keep(g) : nobody);
    }
    default: return;
  }
}

void model::set_slot(int n, int g) {
  const int old = slot(n);
  slot(n) = g;
  then({{doing::drop, old}});
}

void model::give_run(int g, const runnable& run) {
  item error{doing::raise}, destroy{doing::destroy_run};
  destroy.run = run;
  error.parcel.exception = {thrown::error, static_cast<int>(errc::empty_handle)};
  if (g == nobody) return then({destroy, error});
  keep(g);
  error.parcel.exception.number = static_cast<int>(errc::already_started);
  if (of(g).state != greenlet_model::unstarted) return then({destroy, {doing::drop, g}, error});
  destroy.run = of(g).run;
  of(g).run = run;
  then({destroy, {doing::drop, g}});
}

// -- What can be asked -----------------------------------------------------------------------------

look model::at(int g) const {
  const greenlet_model& it = of(g);
  look l;
  if (it.references == 0) return l;
  l.main = it.main;
  l.parent = it.parent;
  l.has_run = it.state == greenlet_model::unstarted && it.run.there;
  switch (it.state) {
    case greenlet_model::unstarted: l.state = look::unstarted; break;
    case greenlet_model::active: l.state = current(g) ? look::current : look::suspended; break;
    case greenlet_model::finished: l.state = look::finished; break;
    case greenlet_model::unwound: l.state = look::unwound; break;
  }
  return l;
}

bool model::current(int g) const {
  return std::any_of(threads_, threads_ + most_threads, [g](const thread_model& t) { return t.alive && t.current == g; });
}

}  // namespace programs
