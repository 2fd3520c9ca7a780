// SPDX-License-Identifier: MIT
// Where control goes: past the dead, into the unstarted, up the tree.
#include "collector.hpp"
#include "fault.hpp"
#include "thread.hpp"

#include <cxxabi.h>
#include <exception>
#include <mutex>
#include <utility>

namespace greenlets::detail {
namespace {

// Keeps `b` while user code runs that may drop everything else that holds it, and switch; then leaves
// that to the one who arrives next, so that nothing counted is left on a stack that may be given up.
class kept {
 public:
  kept(thread_record& t, body* b) noexcept : thread_(t), body_(b) { ref(b); }
  kept(const kept&) = delete;
  kept& operator=(const kept&) = delete;
  ~kept() {
    thread_.raise(attention::guests);
    if (body* before = std::exchange(thread_.guests[1], body_)) unref(before);
  }

 private:
  thread_record& thread_;
  body* body_;
};

// Another thread may be giving an unstarted one hooks, and with them a place for them. What is there with an
// on_start was there from the beginning, so that needs no lock.
const specials* specials_of(body* b) noexcept {
  const std::lock_guard lock(b->lock);
  return b->special.get();
}

// What `on_start` of an unstarted greenlet on the way has given.
struct resolution {
  closure run;
  body* of = nullptr;  // who was asked, to compare

  // Asks `b`, if it is to be asked and was not. Returns whether it was.
  bool ask(thread_record& t, body* b) {
    if (of == b) return false;
    const specials* const special = specials_of(b);
    if (!special || !special->on_start) return false;
    const kept for_now(t, b);
    run = {};  // another's that has gone its own way
    of = b;
    run = special->on_start(b->self);
    return true;
  }
};

// Where the stack of one on the way comes from.
struct stack_source {
  bool asked = false;

  // With a collector, there may be stacks that nobody can reach: then they are had back, once. Returns whether they
  // have been looked for.
  bool ask_collector(thread_record& t, body* b) noexcept {
    if (!collects || std::exchange(asked, true)) return false;
    const kept for_now(t, b);
    the_collector->collect();
    flush_condemned(t);
    return true;
  }

  // Null when user code has run meanwhile. When none can be had for the one that the user has named, that is his error.
  // One that the library has picked would be picked again and again, so it dies of it, and the error goes on.
  stack* take(thread_record& t, body* b, bool named) {
    try {
      return take_stack(t, b);
    } catch (...) {
      if (ask_collector(t, b)) return nullptr;
      if (!named) {
        const kept for_now(t, b);
        die_unstarted(t, b);
      }
      throw;
    }
  }
};

}  // namespace

GREENLET_CATCHES_FORCED_UNWIND body* route(thread_record& t, body* b, parcel& p, sender by) {
  body* const self = t.running();
  body* const named = by == sender::caller ? b : nullptr;
  bool committed = by == sender::dying;  // errors are results from here on
  resolution resolved;
  stack_source stacks;
  while (b) {
    const std::uint64_t as_of = lineage_now();
    try {
      if (!committed || !b->dead()) check_thread(t, b);
      if (b->is(life::active) && !b->dead()) {
        if (b->thread() != &t) continue;  // unstarted when it was checked; another thread has taken it since
        if (b != self) GREENLET_MAY_REFUSE(next_switch);
        if (b != self || by == sender::caller) return b;
      } else if (b->is(life::unstarted)) {
        if (resolved.ask(t, b)) continue;  // user code has run: look again
        if (!resolved.run && !b->self.has_run()) {
          if (!b->is(life::unstarted)) continue;
          throw error(errc::no_run, "the greenlet has nothing to run", "  " + describe(b));
        }
        if (!p.thrown) {
          stack* const memory = stacks.take(t, b, b == named);
          if (!memory) continue;
          start(t, b, as_of, resolved.run, memory);
          return b;
        }
        committed = true;
        const kept for_now(t, b);
        resolved.run = {};
        die_unstarted(t, b);
        if (!b->dead()) continue;
      }
      if (b->dead()) exit_to_value(p);
    } catch (abi::__forced_unwind&) {
      throw;
    } catch (...) {
      if (!committed) throw;
      const kept for_now(t, b);  // the result that is lost is user code too
      p = parcel(std::current_exception());
      // In another thread's tree nothing above is ours either, and all of it may change under us.
      if (!belongs_to(t, b)) break;
    }
    b = b->parent.load(std::memory_order_relaxed);
  }
  // An unstarted ancestor was moved to another thread's tree. Our own main greenlet is left.
  return t.main;
}

}  // namespace greenlets::detail
