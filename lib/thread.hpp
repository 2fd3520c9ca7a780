// SPDX-License-Identifier: MIT
// thread_record: what the library knows of one thread that uses greenlets.
//
// Made at the thread's first use of the library, and ended by a pthread key's destructor on the
// dying thread (unwind.cpp). It outlives the thread for as long as a body refers to it, so that
// errors can still say whose a greenlet was.
#ifndef LIB_THREAD_HPP
#define LIB_THREAD_HPP

#include "body.hpp"
#include "cells.hpp"
#include "dropped.hpp"
#include "fault.hpp"
#include "impossible.hpp"
#include "spare.hpp"
#include "stack.hpp"

#include <greenlet/trace.hpp>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <sys/types.h>
#include <utility>
#include <vector>

namespace greenlets::detail {

// Reasons to leave a switch's straight path; bits of thread_record::attention.
namespace attention {
constexpr std::uint32_t fp_env = attention_fp_env;  // 1: some active greenlet has a floating-point environment of its own
constexpr std::uint32_t dropped = 2;    // other threads have dropped the last handles of greenlets of ours
constexpr std::uint32_t held = 4;       // some greenlet holds an exception for its next switch
constexpr std::uint32_t forced = 8;     // a forced unwind waits until the main greenlet can go on with it
constexpr std::uint32_t traced = 16;    // there is a tracer, of the thread or of all threads
constexpr std::uint32_t hooked = 32;    // some active greenlet has hooks on its switches
constexpr std::uint32_t in_hook = 64;   // ... and one of them runs just now
constexpr std::uint32_t orphan = 128;   // the last handle of the running greenlet has gone
constexpr std::uint32_t by_call = 256;  // switches are the library's: a sanitizer is told of them, or swapcontext makes them
constexpr std::uint32_t guests = 512;   // who arrives next is to drop references
constexpr std::uint32_t received = 1024;  // a C function has an exit that it received, until its next switch returns
constexpr std::uint32_t nobody = 2048;  // the thread has no record
constexpr std::uint32_t signal_stack = 4096;  // it is to have one of its own
constexpr std::uint32_t ending = 8192;  // its greenlets are being unwound, or have been
constexpr std::uint32_t condemned = 16384;  // a collector has found greenlets of ours that nothing can reach
constexpr std::uint32_t watched = 32768;    // somebody wants to know whether there is a switch: the next one takes it away
constexpr std::uint32_t errand = 65536;     // something is to be done that only a thread can do that is in no handler
constexpr std::uint32_t counted = 131072;   // switches are to be counted
// Those for which only inline code has to make way.
constexpr std::uint32_t out_of_line =
    attention_debugger | fp_env | orphan | by_call | guests | received | ending | watched | counted;
}  // namespace attention

struct thread_record : hot_thread {
  parcel slot;                     // what the one who arrives is to find; filled just before the jump
  body* left = nullptr;            // who ran before; valid from a jump until settle()
  stack* left_stack = nullptr;     // ... the stack it has finished on, to be pooled
  bool left_by_force = false;      // ... by a forced unwind: that stack's trampoline is not parked
  body* guests[2] = {};            // references that the one who arrives next is to drop (attention::guests)
  std::size_t holding = 0;         // how many greenlets hold an exception (attention::held)
  unsigned unwinding = 0;          // the round of the thread's exit; 0 before it
  exception_state forced_state;    // with attention::forced
  std::size_t hooked = 0;          // how many active greenlets have hooks (attention::hooked)

  // Tracing (trace.cpp); with attention::traced.
  std::shared_ptr<const greenlets::tracer> tracer;
  std::shared_ptr<const greenlets::tracer> tracer_of_all;  // as it was in the generation
  std::uint64_t tracer_generation = 0;
  bool tracer_of_all_threw = false;                        // ... and then it is not called any more

  std::size_t received_exits = 0;  // how many C functions have one (attention::received)

  machine::shared machine;
  sanitizer::fiber native;         // of the stack that the thread came with
  machine::fp_env fp_env;          // the thread's, while a greenlet with its own runs
  std::size_t fp_envs = 0;         // how many active greenlets have their own (attention::fp_env)

  body* active = nullptr;          // the list of active greenlets, newest first
  stack_pool pool;
  dropped_queue dropped;           // greenlets of ours that others dropped
  body* to_kill = nullptr;         // those of them already taken from the queue, oldest first
  body* to_kill_last = nullptr;
  std::vector<std::function<void()>> at_unwind;

  // After unwind_thread() in a greenlet that was not the main one: the stack on which the thread's code
  // goes on until that function ends. The record keeps itself and that greenlet until then.
  stack* survivor = nullptr;
  thread_record* survives_in = nullptr;  // the record whose survivor this one was begun on

  char* signal_stack = nullptr;    // the mapping of its alternate one, when that is ours (signal_stack.cpp)
  unsigned signal_stack_id = 0;    // valgrind's

  // Whoever blocks the thread in the kernel sets this, to be told that attention is wanted.
  std::mutex waker_lock;
  void (*waker)(void*) = nullptr;
  void* waker_data = nullptr;

  std::atomic<bool> exited{false};
  // One for the thread, one for each body that started here, and others for a while. What the thread itself takes
  // and drops it counts apart; until its end the rest is far above nothing.
  static constexpr std::ptrdiff_t while_it_runs = PTRDIFF_MAX / 2;
  std::atomic<std::ptrdiff_t> references{1 + while_it_runs};
  std::ptrdiff_t own_references = 0;
  std::atomic<std::ptrdiff_t> greenlets{0};  // made by the thread, less those that it has freed
  id_source ids;
  cell_cache cells;
  spare_bodies spare;
  pid_t tid;
  std::string name;
  body* main;  // counted

  // The list of all records of threads that have not ended; see threads.hpp.
  thread_record* previous_thread = nullptr;
  thread_record* next_thread = nullptr;
  // For who looks from elsewhere: its hub's loop, by hub_layout (anchor.hpp), set to null under threads_lock; and whether
  // that waits for events, unless another greenlet is current.
  std::atomic<const char*> hub{nullptr};
  std::atomic<bool> in_poll{false};

  thread_record();
  ~thread_record();
  thread_record(const thread_record&) = delete;
  thread_record& operator=(const thread_record&) = delete;

  body* running() const noexcept { return current.load(std::memory_order_relaxed); }
  void raise(std::uint32_t bits) noexcept { attention.fetch_or(bits, std::memory_order_acq_rel); }
  void lower(std::uint32_t bits) noexcept { attention.fetch_and(~bits, std::memory_order_acq_rel); }
  bool wants(std::uint32_t bits) const noexcept { return attention.load(std::memory_order_relaxed) & bits; }
  // Whether there is something to do before a switch.
  bool is_busy() const noexcept { return wants(~attention::out_of_line); }
  void wake() noexcept;
  void count(std::ptrdiff_t change) noexcept {
    greenlets.store(greenlets.load(std::memory_order_relaxed) + change, std::memory_order_relaxed);
  }
};

inline bool body::dead() const noexcept {
  const life l = state.load(std::memory_order_acquire);
  return l == life::finished || l == life::unwound || (l == life::active && thread()->exited.load(std::memory_order_acquire));
}

// The calling thread's record, or null. initial-exec: one load, also from a shared library; and no lazy allocation
// that could fail.
extern __thread thread_record* record __attribute__((tls_model("initial-exec")));

void unref_elsewhere(thread_record& t) noexcept;
inline void ref(thread_record& t) noexcept {
  if (&t == record)
    ++t.own_references;
  else
    t.references.fetch_add(1, std::memory_order_relaxed);
}
inline void unref(thread_record& t) noexcept {
  if (&t == record)
    --t.own_references;
  else
    unref_elsewhere(t);
}

std::string describe(const thread_record& t);

// usage.cpp
// The stack that the calling thread came with: what the C library knows of it.
GREENLET_API bool native_bounds(char*& low, char*& high) noexcept;

// The calling thread's record, made at need. Throws std::bad_alloc, std::system_error.
thread_record& first_use();
inline thread_record& this_thread() { return record ? *record : first_use(); }
// The same, or null.
inline thread_record* this_thread_if_any() noexcept { return record; }
// The calling thread's record that has ended and whose survivor goes on; null if there is none.
GREENLET_API thread_record*& surviving_record() noexcept;
// The record's end: nothing of the thread is active any more. Marks it exited and its main greenlet
// dead, and takes it away from the thread, whose next use of the library makes another.
void end_record(thread_record& t) noexcept;

// switch.cpp
inline void count_switch(body* to) noexcept {
  to->wear();
  ++to->switches;
}
// With a collector: what a value has held that is empty now. It looks at all values in records (gc/marking.cpp).
inline void forget(value& v) noexcept {
  if (__builtin_expect(collects, 0) && !v.has_value()) value_access::storage(v) = {};
}
// Takes what a body is to run, and leaves nothing: a moved-from one would seem to be there.
inline closure take_run(body* b) noexcept {
  closure taken = std::exchange(b->run, {});
  forget(b->run.callable);
  return taken;
}
// Takes what is for the one who has arrived, before any user code can run, for that may send something else.
inline parcel take_slot(thread_record& t) noexcept {
  parcel taken = std::exchange(t.slot, {});
  forget(t.slot.sent);
  return taken;
}

// The start of every operation that may switch: unwinds what other threads have dropped, throws
// what is held for the running greenlet.
void enter_slowly(thread_record& t);
inline void enter(thread_record& t) {
  if (t.is_busy()) enter_slowly(t);
}
// The calling thread's record, after that.
thread_record& entered_slowly();
inline thread_record& entered() {
  thread_record* const t = record;
  return t && !t->is_busy() ? *t : entered_slowly();
}

// Keeps a record and its main greenlet while user code runs, which may end it (unwind_thread()).
class pinned {
 public:
  pinned() noexcept = default;
  explicit pinned(thread_record& t) noexcept { pin(t); }
  pinned(const pinned&) = delete;
  pinned& operator=(const pinned&) = delete;
  ~pinned() { release(); }
  // Before a jump: the stack that is left may be given up.
  void release() noexcept {
    if (thread_record* const t = std::exchange(thread_, nullptr)) {
      unref(t->main);
      unref(*t);
    }
  }
  void pin(thread_record& t) noexcept {
    if (thread_) return;
    thread_ = &t;
    ref(t);
    ref(t.main);
  }

 private:
  thread_record* thread_ = nullptr;
};

// What who arrives has to know of how it came; lives for as long as the record is used after a jump.
struct arrival {
  pinned pin;             // when user code runs on arrival; first, so that it goes last
  body* left = nullptr;   // who switched here: a pointer to compare, not to follow
  bool traced = false;    // trace() is to be called
  greenlet origin;        // ... with this
};

// Jumps to `to`, which is active and not current, and returns what the current greenlet finds when
// it goes on. Does not throw; may not return.
parcel jump(thread_record& t, body* to, parcel&& p, arrival& how) noexcept;
// What a greenlet does first when it has control: cleans up after the one that ran before.
void settle(thread_record& t, arrival& how) noexcept;
// What `self`, which has been gone back to, finds in the slot.
parcel arrived(body* self);
// As switch_to() and throw_in(), for who must tell what is wrong with the call, which is thrown, from
// what comes while the running greenlet is away, which is all in the parcel. nullptr: to the parent.
parcel exchange(body* target, parcel&& p);
// Whether a switch to `b` is allowed on this thread; throws error if not.
void check_thread(thread_record& t, body* b);

// route.cpp
// Finds who gets `p` when it is sent to `b` by the running greenlet (caller: errors are thrown, and
// nothing has changed) or is the result of the running greenlet (dying: an error takes the
// result's place and goes to the next ancestor). Returns the running greenlet or one to jump to.
enum class sender { caller, dying };
body* route(thread_record& t, body* b, parcel& p, sender by);

// start.cpp
// Gives `b` (unstarted) this stack, taken for it, and makes it active; what it is to run is `resolved`,
// if that is not empty. Throws before any change, and puts the stack back.
// `as_of` is lineage_now() from before its thread was checked; if that is over, it is checked again.
void start(thread_record& t, body* b, std::uint64_t as_of, closure& resolved, stack* memory);
stack* take_stack(thread_record& t, body* b);
// The same for the ordinary case, in which no user code runs and nothing can fail. Returns false, and has done
// nothing, when it is not that.
bool start_plainly(thread_record& t, body* b) noexcept;
// Ends an unstarted `b` without control ever having been there: destroys what it was to run, which
// is user code, and marks it finished unless that code has started it.
void die_unstarted(thread_record& t, body* b) noexcept;
// The function of every first frame; `argument` is the thread's record.
void first_function(void* argument);
// Takes it out of its thread's list.
void unlist(thread_record& t, body* b) noexcept;

// fp_env.cpp
// Puts the running greenlet's floating-point environment away, and that of `to` in its place.
void carry_fp_env(thread_record& t, body* to) noexcept;
// At a start and an end: counts those that have their own. It begins with what is there.
void begin_fp_env(thread_record& t, body* b) noexcept;
void end_fp_env(thread_record& t, body* b) noexcept;

// hooks.cpp
// Counts the greenlets with hooks among the active ones, at a start and an end.
void hook(thread_record& t, body* b) noexcept;
void unhook(thread_record& t, body* b) noexcept;
// Throws error(in_hook) while one is being called.
void check_no_hook(const thread_record& t);
// Calls the running greenlet's own hook, if it has one.
void call_leave(thread_record& t, body* running) noexcept;
void call_enter(thread_record& t, body* running) noexcept;

// trace.cpp
// Calls the tracers with what has arrived at the running greenlet; what they throw takes its place.
// `starts` is what the greenlet is about to begin with.
void trace(thread_record& t, parcel& arrived, const greenlet& origin, const closure* starts = nullptr);
// Sees whether there is a tracer for the thread.
void look_for_tracers(thread_record& t) noexcept;

// kill.cpp
// Throws greenlet_exit into `b` (suspended, of this thread) and comes back when it has finished or
// somebody switches here. What it throws otherwise is reported.
void unwind_one(thread_record& t, body* b, greenlet_exit::reason why) noexcept;
// Has the next switch of `b` (of this thread) throw it, because now `b` cannot.
void hold(thread_record& t, body* b, std::exception_ptr e) noexcept;
// What is held for `b`, whose next switch will not throw it after this; null when nothing is.
std::exception_ptr take_held(thread_record& t, body* b) noexcept;
// Puts what was taken from the queue behind what waits already.
void wait_for_kill(thread_record& t, body* oldest) noexcept;
// Drops what waits.
void drop_waiting(thread_record& t) noexcept;
// Takes `b` out of the queue of what other threads have dropped, and with it the reference there. Returns false
// when it is not there, or not yet.
bool take_dropped(thread_record& t, body* b) noexcept;
// Unwinds what other threads have dropped.
void flush_dropped(thread_record& t) noexcept;

// collected.cpp
// Unwinds what a collector has found.
void flush_condemned(thread_record& t) noexcept;

// unraisable.cpp
void report_unraisable(body* b, std::exception_ptr e) noexcept;
// `b` was told to end and did not.
void report_refusal(body* b) noexcept;

// unwind.cpp
// Unwinds all greenlets of the thread but the running one, and makes the main one dead.
void unwind(thread_record& t) noexcept;
// The thread's end: the same on the thread's own stack, when the running greenlet has been lost.
void exit_thread(thread_record& t) noexcept;
// On the survivor's stack, when its function has ended: goes to where the main greenlet waits.
[[noreturn]] void leave_survivor(thread_record& t, parcel&& result) noexcept;

}  // namespace greenlets::detail

#endif
