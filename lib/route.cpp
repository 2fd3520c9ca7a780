// SPDX-License-Identifier: MIT
// Where control goes: past the dead, into the unstarted, up the tree.
#include "thread.hpp"

#include <exception>
#include <utility>

namespace greenlets::detail {

body* route(thread_record& t, body* b, parcel& p, sender by) {
  body* const self = t.running();
  bool committed = by == sender::dying;  // errors are results from here on
  while (b) {
    try {
      if (!committed || !b->dead()) check_thread(t, b);
      if (b->is(life::active)) {
        if (b != self || by == sender::caller) return b;
      } else if (b->is(life::unstarted)) {
        if (!b->self.has_run()) throw error(errc::no_run, "the greenlet has nothing to run", "  " + describe(b));
        if (!p.thrown) {
          start(t, b);
          return b;
        }
        committed = true;
        ref(b);  // what die_unstarted() destroys may drop everything else that holds it
        if (body* before = std::exchange(t.guests[1], b)) unref(before);
        die_unstarted(t, b);
        if (!b->dead()) continue;
      }
      if (b->dead()) exit_to_value(p);
    } catch (const std::exception&) {
      if (!committed) throw;
      p = parcel(std::current_exception());
    }
    b = b->parent.load(std::memory_order_relaxed);
  }
  // An unstarted ancestor was moved to another thread's tree. Our own main greenlet is left.
  return t.main;
}

}  // namespace greenlets::detail
