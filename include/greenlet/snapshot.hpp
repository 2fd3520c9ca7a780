// SPDX-License-Identifier: MIT
// snapshot: every greenlet of the process at one moment, and what it is doing. For people at night.
// Link with libgreenlet-backtrace (pkg-config greenlet-backtrace).
//
//   greenlets::write_text(std::cerr, greenlets::snapshot());
#ifndef GREENLET_SNAPSHOT_HPP
#define GREENLET_SNAPSHOT_HPP

#include <greenlet/backtrace.hpp>
#include <greenlet/creation.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <iosfwd>
#include <map>
#include <optional>
#include <string>
#include <sys/types.h>
#include <vector>

namespace greenlets {

/// One greenlet, as it was when it was looked at.
struct greenlet_snapshot {
  std::uint64_t id = 0;      ///< as greenlet::id(): never used again
  std::string name;          ///< any bytes; at most 4096 of them
  greenlet_state state = greenlet_state::unstarted;
  std::uint64_t parent = 0;  ///< its id; 0: none
  bool is_main = false;      ///< its thread's first one
  bool is_hub = false;       ///< it runs its thread's loop (<greenlet/hub.hpp>)
  std::optional<std::chrono::nanoseconds> age;  ///< since it was made; when that is recorded: record_creation()
  std::optional<std::uint64_t> switches;        ///< how often it was switched to, while that was counted: count_switches()
  /// Bytes. Of one that is running only what is reserved is known, and what is committed. Of a thread's own stack, what
  /// is used is known as far as it was looked at: 256 KiB.
  stack_usage stack = {0, 0, 0};
  std::size_t high_water = 0;  ///< bytes: the most that was ever used of the stack, also by others before, in whole pages
  /// What it waits for, for people: "reading descriptor 7, 3.2 s left", "mutex 0x55d0c1c7e2b5", "timer, 0.5 s left",
  /// "its turn": it is ready to run. Empty: nothing that a hub knows.
  std::string waits_for;
  /// Where it is suspended, innermost first: each is looked up in process_snapshot::symbols.
  std::vector<void*> addresses;
  /// Where it was made, when that is recorded.
  std::vector<void*> created_at;
};

/// One thread that has used greenlets, and those that belong to it: the ones that it runs, its dead ones to which there
/// are handles, and unstarted ones whose parents are its.
struct thread_snapshot {
  pid_t tid = 0;             ///< 0: those that belong to no thread
  std::string name;          ///< as it was at its first use of the library
  bool exited = false;       ///< it has ended, or fork() has not brought it along; what it had is dead, and still held
  std::uint64_t current = 0; ///< the id of the one that it was running
  std::uint64_t main = 0;    ///< of its main one
  /// For how long its hub has been in the turn of its loop that it is in; none while the loop waits for events.
  std::optional<std::chrono::nanoseconds> in_turn;
  std::vector<greenlet_snapshot> greenlets;  ///< by id
};

/// What a snapshot has.
struct process_snapshot {
  std::chrono::system_clock::time_point taken;
  pid_t pid = 0;
  std::vector<thread_snapshot> threads;  ///< by tid; exited ones last
  /// What is at the addresses of frames: as frames() tells it, with what was inlined there first.
  std::map<void*, std::vector<frame>> symbols;
  std::size_t changing = 0;  ///< how many went on each time they were looked at: they are told without frames
  std::size_t lost = 0;      ///< how many could not be read, or not attributed, or there was no memory for
};

/// What to look for.
struct snapshot_options {
  bool frames = true;   ///< walk the stacks; without, addresses and symbols stay empty
  bool symbols = true;  ///< look up what is at the addresses; without, they are only numbers
  bool pages = true;    ///< ask the system which pages of the stacks are in memory: committed, and high_water
  std::size_t most_frames = 200;  ///< of each greenlet: the innermost
};

/// Every greenlet of the process, as far as it can be known without stopping anybody: no lock is taken that another
/// thread or an interrupted one could hold but the allocator's and the dynamic linker's, and nobody's cooperation is
/// needed. Threads go on meanwhile, and switch; so those of a busy thread are each as they were at a moment of their
/// own. 100,000 suspended greenlets take about a second.
///
/// The calling greenlet's frames begin with the caller; those that run in other threads have none.
/// Switches: no. Thread: any, also one that has never used the library. Not in a signal handler.
/// Throws: std::bad_alloc.
GREENLET_API process_snapshot snapshot(const snapshot_options& with = {});

/// A tree for each thread: who is whose child, in what state, what it waits for and where. Those that differ in nothing
/// but their number and their ages are told once, with how many they are. UTF-8; other bytes and control characters of
/// names are told as "\x1b".
/// Switches: no. Thread: any. Throws: what `out` does; std::bad_alloc.
GREENLET_API void write_text(std::ostream& out, const process_snapshot& s);
/// One JSON object (RFC 8259) in one line. Bytes of names that are no UTF-8 become U+FFFD.
/// Switches: no. Thread: any. Throws: what `out` does; std::bad_alloc.
GREENLET_API void write_json(std::ostream& out, const process_snapshot& s);
/// A graph for Graphviz: threads, and whose children greenlets are. Siblings that do the same are one node.
/// Switches: no. Thread: any. Throws: what `out` does; std::bad_alloc.
GREENLET_API void write_dot(std::ostream& out, const process_snapshot& s);

/// The functions in which `g` is, and after them those in which its parent is, and so on: where what `g` throws or
/// returns will go. As frames(), whose rules hold for each; a parent that has no frames adds none, and of those that go
/// on meanwhile each is as of its own moment.
/// Switches: no. Thread: any. Not in a signal handler. Throws: std::bad_alloc.
GREENLET_API std::vector<frame> logical_frames(const greenlet& g);

}  // namespace greenlets

#endif
