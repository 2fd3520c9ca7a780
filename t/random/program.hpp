// SPDX-License-Identifier: MIT
// A random program: a flat list of operations on greenlets. Whichever greenlet is running takes the
// next one, so the list decides the interleaving and no greenlet has a text of its own.
#ifndef T_RANDOM_PROGRAM_HPP
#define T_RANDOM_PROGRAM_HPP

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace programs {

constexpr int most_threads = 4;
constexpr int most_slots = 48;   // handles, in a table that all threads share
constexpr int most_weak = 8;
constexpr int most_greenlets = 50;  // main greenlets not counted
constexpr int most_lives = 12;      // of threads: one that has ended may be started again
constexpr int most_calls = 6;       // nested in one greenlet
constexpr int most_active = 12;     // destructors that take operations

// `a` and `b` are slots, unless something else is said. "With" is an extra handle: a copy of slot `c`.
enum class verb : unsigned char {
  create,              // a = greenlet, child of b or of the running one; the callable keeps the extra handle
  create_without_run,  // a = greenlet with nothing to run
  switch_to,           // a, sending
  throw_in,            // a
  switch_to_parent,    // sending
  leave,               // this function; a greenlet's first one returns what is sent
  raise,               // throw here
  rethrow,             // throw;
  call,                // a function, with the extra handle and a guard among its locals, that catches what `kind` says
  drop,                // a
  copy,                // a = b
  move,                // a = std::move(b)
  keep_current,        // a = current()
  take_parent,         // a = b.parent()
  set_parent,          // of a: b
  set_run,             // of a
  reset_run,           // of a
  make_weak,           // weak a = b
  lock_weak,           // a = weak b
  enter,               // calls current() and no more
  end_thread,          // its function returns
};

// The meanings of op::kind: what is sent, what is thrown, what a call catches.
enum sending : unsigned char { sends_nothing, sends_one, sends_two, sends_handle };
enum throwing : unsigned char { throws_exit, throws_own_exit, throws_custom, throws_custom_too };
enum catching : unsigned char { catches_nothing, catches_custom, catches_exits, catches_all };

struct op {
  verb what = verb::enter;
  int thread = 0;
  int a = 0, b = 0, c = 0;
  int kind = 0;
  bool with = false;    // the extra handle
  bool active = false;  // the guard's destructor takes operations until one leaves it
  bool given = false;   // create: the parent is b
  bool exact = false;   // slots are meant even if they are empty; else the next with something in it
};

struct program {
  int threads = 1;
  int slots = 6;
  std::vector<op> ops;
};

// Every string of bytes is a program: three of them for the whole, then five for each operation.
program decode(const std::uint8_t* bytes, std::size_t size);

// The bytes of the n-th program of a seed.
std::vector<std::uint8_t> random_bytes(std::uint64_t seed, std::uint64_t n);

// "switch_to 3 sending 2", for reports.
std::string to_string(const op& o);

}  // namespace programs

#endif
