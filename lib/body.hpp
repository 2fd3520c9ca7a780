// SPDX-License-Identifier: MIT
// body: the library's record of one greenlet.
#ifndef LIB_BODY_HPP
#define LIB_BODY_HPP

#include "parcel.hpp"
#include "spinlock.hpp"
#include "stack.hpp"

#include <greenlet/attributes.hpp>
#include <greenlet/detail/closure.hpp>
#include <greenlet/detail/hot.hpp>
#include <greenlet/handle.hpp>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>

namespace greenlets {

// The library's own way into handles.
struct access {
  static detail::body* body_of(const greenlet& g) noexcept { return g.body_; }
  static detail::body* release(greenlet&& g) noexcept {
    detail::moved(g.body_, nullptr, &g);
    return std::exchange(g.body_, nullptr);
  }
  static greenlet adopt(detail::body* counted) noexcept { return {counted, greenlet::adopt{}}; }
  static bool has_resolver(const attributes& a) noexcept { return a.on_start_ != nullptr; }
  // Of a body to itself: not counted, so nobody is told where it is.
  static void refer(greenlet& self, detail::body* b) noexcept { self.body_ = b; }
};

namespace detail {

struct context_map;
struct creation;
struct local_table;
struct thread_record;
struct c_record;

// What few greenlets have, and a switch looks at only behind the attention word.
struct specials {
  start_resolver on_start;       // gives what is to run, at the first start
  switch_hook leave = nullptr;   // called with `data` when the greenlet is left
  switch_hook enter = nullptr;   // ... and entered
  void* data = nullptr;
  closure unused_run;            // what `on_start` gave something better than; goes before the run begins

  bool hooked() const noexcept { return leave || enter; }
  // Where a collector looks, for the callable's sake.
  static void* operator new(std::size_t n) { return allocate_visible(n, alignof(std::max_align_t)); }
  static void operator delete(void* p) noexcept { free_visible(p, alignof(std::max_align_t)); }
};

// There is no way back. Whether an active greenlet is the current one, its thread knows.
enum class life : unsigned char { unstarted, active, finished, unwound };

// What a body that is used again has anew.
struct body_course {
  bool orphan = false;     // its last handle went while it ran: the thread holds that reference until it is left
  bool beginning = false;  // a callable that it will not run is being destroyed, before its function begins
  bool ending = false;     // its function is over, and what it ran is being destroyed
  bool last_is_queued = false;  // its thread has taken a reference when only the queue had one
  bool abandoned = false;  // it refused to be killed: the thread holds the last reference until it is dead
  bool own_fp_env = false;           // instead of the thread's
  std::uint64_t switches = 0;          // to it, while they were counted
  unsigned kills = 0;                  // rounds of its thread's exit that it has survived
  sanitizer::fiber* fiber = nullptr;           // while active: its stack's, or the thread's own
  stack* memory = nullptr;             // while active; null for a main greenlet
  // --- The tree and its thread's list.
  body* previous_active = nullptr;     // in the owner's list of active greenlets, main ones excepted
  body* next_active = nullptr;
  body* next_dropped = nullptr;        // in the owner's queue of greenlets dropped elsewhere, and in its list
  body* previous_dropped = nullptr;    // in that list, to_kill
  std::uint64_t lineage_of = 0;        // while unstarted, under `lock`: the id of the main greenlet it
  std::uint64_t lineage_at = 0;        // descends from, and as of when; see belongs_to()

  // --- Life and description.
  std::size_t stack_size = default_stack_size;
  machine::fp_env fp_env = {};       // with own_fp_env, while suspended
  std::optional<greenlet_exit::reason> told;  // to end, while it was beginning: it does when that is over
  void (*delete_user_data)(void*) = nullptr;
  context_map* variables = nullptr;  // its context; counted. Null until the first is set
  local_table* locals = nullptr;     // its values of locals; null until the first is made
  creation* created = nullptr;       // when and where it was made; null when that is not recorded
  c_record* c = nullptr;             // of the C interface, made at its first error here; used while it runs
};

// The first base is what inline code touches. Its parent is counted; null for a main greenlet; written under
// `lock`, read without it by the owner, or while unstarted under it.
struct body : hot_body, body_course {
  std::atomic<thread_record*> owner{nullptr};  // set once, at the start; counted
  std::atomic<life> state{life::unstarted};
  body_lock lock;  // over parent, name, run, user data, variables, and the step from unstarted to active
  const bool main;
  std::atomic<bool> worn{false};     // more has come to it than a start, a run and an end that were straight: it cannot be used again as it is
  std::atomic<std::size_t> weak{1};  // the strong ones together hold one
  std::uint64_t id = 0;
  closure run;                       // until it finishes; no longer touched from outside once it has started
  std::exception_ptr held;           // thrown into it while it could not throw: its next switch throws this
  std::unique_ptr<specials> special;
  std::atomic<void*> user_data{nullptr};
  std::shared_ptr<const std::string> name;
  greenlet self;                     // current()'s answer: not counted

  explicit body(bool is_main);
  ~body();
  body(const body&) = delete;
  body& operator=(const body&) = delete;
  // With a collector, memory of its own.
  static void* operator new(std::size_t size);
  static void operator delete(void* memory) noexcept;
  void wear() noexcept { worn.store(true, std::memory_order_relaxed); }

  bool is(life l) const noexcept { return state.load(std::memory_order_acquire) == l; }
  // Also when its thread does not exist in this process: fork() has not brought it along.
  bool dead() const noexcept;
  thread_record* thread() const noexcept { return owner.load(std::memory_order_acquire); }
  // Where a switch to it goes, and from it comes.
  machine::place place() noexcept { return {where, *fiber}; }
};

// Changes whenever the parent of any greenlet does by set_parent().
std::uint64_t lineage_now() noexcept;
// ... or an unstarted one comes to another thread than its tree's, with all that descend from it.
void lineage_has_changed() noexcept;
// Whether it is, or would be when started, of thread `t`, which is the calling one.
bool belongs_to(thread_record& t, body* b) noexcept;
// A body's counted parent, safe from any thread; empty for a main greenlet.
greenlet parent_of(body* b) noexcept;
// Puts `p` (a counted reference, given away) in the parent's place and returns the old one, counted.
body* exchange_parent(body* b, body* p) noexcept;
// Puts the parent back (a counted reference, given away) that it had before it was unwound, unless that
// would close a cycle, and drops the one in its place.
void restore_parent(body* b, body* parent) noexcept;

// c/record.cpp: frees what the C interface keeps of it, which may be user code.
void free_c_record(body* b) noexcept;

// references.cpp
// How many there are. For its own thread, or when it is not active.
std::ptrdiff_t references(const body* b) noexcept;
// Whether the only reference is the caller's, and nobody else can come to it; for one that is not active.
inline bool is_sole(const body* b) noexcept {
  return b->shared.load(std::memory_order_acquire) == one_reference && b->weak.load(std::memory_order_acquire) == 1;
}
// Makes it inactive: its thread, which has counted apart until now, does so no more. While the thread ends, under
// the lock and with a reference that the caller holds: others may not be able to give it theirs any more.
void merge(body* b) noexcept;
inline void end_own_count(body* b) noexcept {
  if (__builtin_expect(b->here.load(std::memory_order_relaxed) != 1, 0)) merge(b);
  b->active_on.store(nullptr, std::memory_order_release);
}
void count_together(body* b) noexcept;
// Drops the reference that waits in the queue of `t`, which is the calling thread's, unless it is the last. Returns
// whether it has.
bool take_back(thread_record& t, body* b) noexcept;
// Its queue has been emptied, and the reference that waited there is the caller's.
void left_queue(body* b) noexcept;
// Frees what it holds and not the record itself, to which others may refer. Returns its parent, whose reference is
// the caller's to drop.
body* bury_contents(body* b) noexcept;
// Whether nothing refers to it any more, but weakly.
bool is_gone(const body* b) noexcept;
// What a weak reference is worth: counts one more reference, unless the last has gone.
bool ref_if_any(body* b) noexcept;
// Ends a weak reference.
void weak_unref(body* b) noexcept;

// "greenlet 7 "client 3" (suspended) of thread 4242 "worker"".
std::string describe(body* b);

}  // namespace detail
}  // namespace greenlets

#endif
