// SPDX-License-Identifier: MIT
// The model: what a program must do, in plain data and without the library.
//
// A greenlet is modelled as a list of what is left for it to do, innermost last: a model's stack. A switch
// makes another list current. One step of a program is one operation and everything that follows from
// it until somebody takes the next. The rules are those of doc/design.md, one function each; what
// user code may do in the middle of them (destructors, mostly) is why they are written as items that are
// left to do and not as plain functions.
#ifndef T_RANDOM_MODEL_HPP
#define T_RANDOM_MODEL_HPP

#include "event.hpp"
#include "program.hpp"

#include <greenlet/error.hpp>
#include <greenlet/exit.hpp>

#include <deque>
#include <initializer_list>
#include <string>
#include <vector>

namespace programs {

constexpr int nobody = 0;  // the number of no greenlet

// What an unstarted greenlet is to run: the greenlets all run the same function, so only what
// its destruction does matters.
struct runnable {
  bool there = false;
  int guard = 0;
  bool active = false;
  int handle = nobody;
};

struct parcel {
  sent value;
  thrown exception;
};

enum class doing {
  // The functions of the program.
  operations,   // takes operations
  locals,       // its locals are destroyed: a guard, a handle
  first,        // a greenlet's first function ends
  main_first,   // that of a main greenlet: catches everything
  handler,      // in a catch block
  no_throw,     // in a destructor that catches everything
  one_op,       // an operation ends, which catches error
  // On the way between them.
  raise,        // an exception is in flight
  catching,     // ... and will be caught when these destructors are done
  destroy_value, destroy_guard, destroy_run, drop, drop_again,
  // Inside the library.
  enter, enter_held, flush, flush_next,
  make, keep, reparent,
  send, send_to_parent, route, die_unstarted, died_unstarted, lost, route_on, refused,
  switched, starting, killed,   // away: who is arrived at goes on with what was sent
  open, guests, killed_end,
  dying, unwind, unwind_round,
};

struct item {
  doing what;
  int g = nobody;       // the greenlet that it is about
  int other = nobody;
  runnable run = {};
  programs::parcel parcel = {};
  bool by_dying = false;   // route: the parcel is a result
  bool committed = false;  // route: errors are results from here on
  bool kept = false;       // send, route: the target is a guest
  int n = 0;
  op o = {};
};

struct greenlet_model {
  enum { unstarted, active, finished, unwound } state = unstarted;
  bool main = false;
  int life = nobody;  // of the thread that it belongs to; once started
  int references = 0;
  int parent = nobody;
  runnable run;
  std::vector<item> todo;
  thrown held;        // for its next switch
  bool ending = false;     // its first function is over
  bool orphan = false;     // its last handle went while it ran
  bool last_is_queued = false;  // its thread has taken a reference when only its queue had one
  bool abandoned = false;  // it refused to end
  int told = 0;            // rounds of its thread's exit

  bool dead() const { return state == finished || state == unwound; }
};

struct thread_model {
  bool alive = false;
  int life = nobody;   // a new one each time that the thread is started
  int current = nobody, main = nobody;
  std::vector<int> active;       // started and not dead, newest first; without the main one
  std::deque<int> dropped;       // ... whose last handle went on another thread
  std::deque<int> to_kill;       // of those, the ones being unwound now
  int guests[2] = {nobody, nobody};  // references that whoever arrives next is to drop
  int unwinding = 0;             // the round of its exit
};

// One function of the program as it was called: for printing.
struct call_record {
  enum kind { first, main_first, call, handler, destructor } what;
  int who;
  int caller = -1;    // the record of the function it was called from, if it was
  int number;         // call, handler: the step that called; destructor: the guard; else the greenlet
};

struct step {
  op o;                    // as it is to be done
  int number = 0;          // from 1
  int who = nobody;        // ... by
  int in = 0;              // ... in this call
  bool begins_thread = false;
  bool ends_thread = false;     // the thread will have exited
  std::vector<event> events;    // what must be seen
};

class model {
 public:
  explicit model(const program& p);

  // Does the next operation that means anything; after the last ones, what ends every thread.
  // Not to be called when over().
  const step& next();
  bool over() const { return over_; }
  // When all threads are gone: the rest of the handles goes, and what unstarted greenlets were to run.
  const step& finish();
  const step& last() const { return step_; }
  int number() const { return step_.number; }

  int made() const { return static_cast<int>(greenlets_.size()) - 1; }
  look at(int g) const;
  bool current(int g) const;
  const std::vector<call_record>& calls() const { return calls_; }

 private:
  greenlet_model& of(int g) { return greenlets_[static_cast<std::size_t>(g)]; }
  const greenlet_model& of(int g) const { return greenlets_[static_cast<std::size_t>(g)]; }
  int& slot(int n) { return slots_[n]; }
  void note(event::kind what, int who, int number = 0, int more = 0) { step_.events.push_back({what, who, number, more}); }

  // Steps.
  bool pick(op& o);
  void find_handles(op& o);
  bool admit(op& o);
  void begin_thread();
  void look_for_the_end();
  void perform(const op& o);
  void perform_on_tree(const op& o);
  void perform_on_table(const op& o);
  void run();
  void execute(const item& i);
  void execute_destroying(const item& i);
  void execute_entering(const item& i);
  void execute_routing(const item& i);

  // What `self_` is to do next: the first of these first.
  void then(std::initializer_list<item> items);
  void call(call_record::kind what, int number, std::initializer_list<item> below);
  bool at_main_first() const;
  bool can_rethrow() const;

  // The rules.
  void raise(const thrown& e);
  void drop(int g);
  bool take_back(int g);
  void set_slot(int n, int g);
  void kill(int g, greenlets::greenlet_exit::reason why);
  void route(item r);
  void go_to(int target, const item& r);
  void refuse(const item& r, greenlets::errc why);
  void jump(int to, const programs::parcel& p);
  void open(const item& i);
  void open_killed(const item& killed, const item& i);
  void start(int g);
  void die(const programs::parcel& result);
  void replace_result(const parcel& result);
  void unwind_round();
  void exit_thread();
  void change_parent(int child, int parent);
  void give_run(int g, const runnable& run);
  bool allowed(int g, greenlets::errc& why) const;
  int lineage(int g) const;   // the life of the thread that it belongs to or would
  int uncaught(int g) const;
  thrown handling(int g) const;
  bool wants_attention() const;
  int keep(int g);            // counts a reference
  runnable make_run(const op& o);
  sent make_value(const op& o);
  thrown make_thrown(const op& o) const;
  thread_model& here() { return threads_[here_]; }
  greenlet_model& self() { return of(self_); }

  program program_;
  std::size_t cursor_ = 0;
  bool over_ = false;
  std::deque<greenlet_model> greenlets_{1};  // nobody is also where finish() runs
  std::vector<int> homes_{-1};               // of each life, its thread; -1 when that has exited
  thread_model threads_[most_threads + 1];
  int slots_[most_slots] = {};
  int weak_[most_weak] = {};
  int here_ = 0;       // the thread of this step
  int self_ = nobody;  // who is running there
  int ordinary_ = 0, active_guards_ = 0;
  bool outside_ = false;
  step step_;
  std::vector<call_record> calls_;
};

}  // namespace programs

#endif
