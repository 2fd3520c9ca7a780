// SPDX-License-Identifier: MIT
// Where control goes: past the dead, into the unstarted, up the tree.
#include "fault.hpp"
#include "thread.hpp"

#include <exception>
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
    if (body* before = std::exchange(thread_.guests[1], body_)) unref(before);
  }

 private:
  thread_record& thread_;
  body* body_;
};

}  // namespace

body* route(thread_record& t, body* b, parcel& p, sender by) {
  body* const self = t.running();
  bool committed = by == sender::dying;  // errors are results from here on
  while (b) {
    const std::uint64_t as_of = lineage_now();
    try {
      if (!committed || !b->dead()) check_thread(t, b);
      if (b->is(life::active)) {
        if (b->thread() != &t) continue;  // unstarted when it was checked; another thread has taken it since
        if (b != self) GREENLET_MAY_REFUSE(next_switch);
        if (b != self || by == sender::caller) return b;
      } else if (b->is(life::unstarted)) {
        if (!b->self.has_run()) {
          if (!b->is(life::unstarted)) continue;
          throw error(errc::no_run, "the greenlet has nothing to run", "  " + describe(b));
        }
        if (!p.thrown) {
          start(t, b, as_of);
          return b;
        }
        committed = true;
        const kept for_now(t, b);
        die_unstarted(t, b);
        if (!b->dead()) continue;
      }
      if (b->dead()) exit_to_value(p);
    } catch (const std::exception&) {
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
