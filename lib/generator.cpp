// SPDX-License-Identifier: MIT
// Generators: who reads, who gives, and that one of them is never left without the other.
//
//   reader               function
//     | step(): reader     |
//     |------------------->|
//     |       giver, full  | generator_turn::give()
//     |<-------------------|
//     | no reader          | waits, its parent the main greenlet
#include <greenlet/generator.hpp>

#include "describe.hpp"
#include "thread.hpp"

#include <exception>
#include <utility>

namespace greenlets::detail {
namespace {

// Whether `b`, a started greenlet of this thread, is above the running one.
bool is_ancestor(thread_record& t, body* b) noexcept {
  body* p = t.running();
  // The parents of started greenlets of ours are changed by nobody else. Those of unstarted ones are.
  for (; p && p->thread() == &t; p = p->parent.load(std::memory_order_relaxed))
    if (p == b) return true;
  for (greenlet a = p ? p->self : greenlet(); !a.empty(); a = parent_of(access::body_of(a)))
    if (access::body_of(a) == b) return true;
  return false;
}

// Here and below the thread's record is asked for anew: user code may have ended the one before.
void begin(body* b) {
  thread_record& t = this_thread();
  if (b->is(life::unstarted)) {
    if (b->self.parent() != t.running()->self) b->self.set_parent(t.running()->self);
    return;
  }
  if (b->parent.load(std::memory_order_relaxed) == t.running()) return;
  if (is_ancestor(t, b))
    throw error(errc::cyclic_parent, "cyclic parent chain",
                "  generator: " + describe(b) + "\n  reader:    " + describe(t.running()));
  ref(t.running());
  unref(exchange_parent(b, t.running()));
}

// Between two steps it is a child of the main greenlet: it would else keep a reader whose stack it is on.
void rest(body* b) noexcept {
  thread_record* const t = this_thread_if_any();
  if (!t || t->running() == t->main || b->is(life::unstarted)) return;
  if (b->parent.load(std::memory_order_relaxed) != t->running()) return;
  ref(t->main);
  unref(exchange_parent(b, t->main));
}

// Nobody can be switched to in a hook; it is then unwound when its last handle has gone.
void unwind(body* b) noexcept {
  thread_record* const t = this_thread_if_any();
  if (!t || b->thread() != t || !b->is(life::active) || b == t->running() || t->wants(attention::in_hook)) return;
  const pinned pin(*t);
  unwind_one(*t, b, greenlet_exit::reason::last_handle);
}

void check_tree(const generator_state& s, const thread_record& t, const char* sentence) {
  const std::uint64_t tree = s.tree.load(std::memory_order_acquire);
  if (tree == 0 || tree == t.main->id) return;
  throw error(errc::different_thread, sentence, describe_here().substr(1));
}

// False at the end. Throws error(out_of_turn) if somebody reads it.
bool is_readable(const generator_state& s) {
  if (s.over || s.function.empty()) return false;
  if (!s.reader && (s.giver || s.tree.load(std::memory_order_relaxed) == 0)) return true;
  throw error(errc::out_of_turn, "the generator is already running",
              "  " + describe(access::body_of(s.function)) + describe_here());
}

}  // namespace

bool step(generator_state& s, void (*clear)(generator_state&) noexcept) {
  check_tree(s, this_thread(), "cannot read a generator of a different thread");
  check_no_hook(entered());
  const greenlet function = s.function;  // the generator may be destroyed meanwhile
  body* const b = access::body_of(function);
  if (!is_readable(s)) return false;
  begin(b);
  if (!is_readable(s)) return false;  // begin() may be the first to find that attention is wanted
  s.reader = &this_thread().running()->self;
  try {
    clear(s);
    s.full = false;
    switch_to(s.giver ? *s.giver : function, {});
    s.reader = nullptr;
    if (!s.full && !s.over)
      throw error(errc::out_of_turn, "the reader of a generator was switched to before it got a value",
                  "  generator: " + describe(b) + describe_here());
  } catch (...) {
    s.reader = nullptr;
    if (!b->is(life::unstarted)) {
      s.over = true;
      unwind(b);
    }
    rest(b);
    throw;
  }
  rest(b);
  return s.full;
}

void close(generator_state& s) noexcept {
  const greenlet function = std::move(s.function);
  thread_record* const t = this_thread_if_any();
  body* const b = access::body_of(function);
  if (!t || !b || b->thread() != t) return;  // unstarted, or unwound by its own thread
  if (b != t->running()) s.over = true;
  unwind(b);
}

generator_scope::generator_scope(generator_state& s) noexcept : state_(s) {
  s.tree.store(this_thread().main->id, std::memory_order_release);
}

generator_turn::generator_turn(generator_state& s) : state_(s) {
  thread_record& t = this_thread();
  check_tree(s, t, "cannot give a value to a generator of a different thread");
  if (s.reader && !s.giver && !s.over) {
    s.giver = &t.running()->self;
    mine_ = true;
  } else if (std::uncaught_exceptions() == 0) {
    throw error(errc::out_of_turn, "nobody reads the generator", describe_here().substr(1));
  }
}

void generator_turn::give() {
  state_.full = true;
  switch_to(*state_.reader, {});
  if (!state_.reader && std::uncaught_exceptions() == 0)
    throw error(errc::out_of_turn, "a generator was switched to while nobody reads it", describe_here().substr(1));
}

}  // namespace greenlets::detail
