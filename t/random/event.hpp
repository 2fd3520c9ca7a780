// SPDX-License-Identifier: MIT
// What can be seen of a program: the model says which events must come, the library makes them come.
#ifndef T_RANDOM_EVENT_HPP
#define T_RANDOM_EVENT_HPP

#include <string>

namespace programs {

// Something thrown: `number` is a greenlet_exit::reason, an errc, or the step that made it.
struct thrown {
  enum kind { nothing, exit, own_exit, custom, error, refusal, other } what = nothing;
  int number = 0;
  explicit operator bool() const { return what != nothing; }
  bool is_exit() const { return what == exit || what == own_exit; }
};

// Something sent: a payload (`number` is the step that made it) with perhaps a handle, or a
// greenlet_exit that ended somebody.
struct sent {
  enum kind { nothing, one, two, exit, other } what = nothing;
  int number = 0;
  int handle = 0;  // the number of a greenlet
  thrown why;
};

// Greenlets are numbered in the order they are made, main ones with the others, from 1.
struct event {
  enum kind {
    thread_begins,  // who: its main greenlet
    takes,          // who takes the next operation; what it is handling; how many are uncaught
    created,        // who
    starts,         // who, with what was sent
    gets,           // who, what was sent
    value_gone,     // a payload was destroyed
    guard_gone,     // the destructor of a guard began
    fails,          // who, with an error
    catches,        // who, in a function that catches
    swallows,       // who, in a destructor
    survives,       // who: a main greenlet has caught it in its first function
    unraisable,     // who, what
    thread_ends,    // who: its function returns
  } what = takes;
  int who = 0;
  int number = 0;
  int more = 0;
};

inline bool operator==(const event& x, const event& y) {
  return x.what == y.what && x.who == y.who && x.number == y.number && x.more == y.more;
}

// A thrown or sent object as one number; and back, as words.
constexpr int code(const thrown& e) { return e.what * 100000 + e.number; }
constexpr int code(const sent& v) { return v.what * 1000000 + (v.what == sent::exit ? code(v.why) : v.number); }
std::string words_of_thrown(int code);
std::string words_of_sent(int code, int handle);
std::string to_string(const event& e);

// What the predicates say of a greenlet.
struct look {
  enum life { gone, unstarted, current, suspended, finished, unwound } state = gone;
  int parent = 0;
  bool main = false;
  bool has_run = false;
};

inline bool operator==(const look& x, const look& y) {
  return x.state == y.state && x.parent == y.parent && x.main == y.main && x.has_run == y.has_run;
}

std::string to_string(const look& l);

}  // namespace programs

#endif
