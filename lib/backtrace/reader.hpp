// SPDX-License-Identifier: MIT
// reader: makes a snapshot from a process's memory alone, this one's or another's, running or not.
//
// It takes no lock and stops nobody, so all that it reads may change meanwhile. Bodies lie in memory that stays; each is
// read, used, and read again, and what is different then is tried again. A thread's record is known from its bodies, which
// keep it, and a loop from that.
#ifndef LIB_BACKTRACE_READER_HPP
#define LIB_BACKTRACE_READER_HPP

#include "memory.hpp"
#include "walk.hpp"

#include "../anchor.hpp"

#include <greenlet/snapshot.hpp>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

namespace greenlets::detail {

// Reads the anchor there. False when there is none, or one of a version that is not known, or that makes no sense.
bool anchor_at(memory& from, std::uintptr_t address, anchor& to) noexcept;

// What a reader is told; all but the memory and the anchor may be left out.
struct reading {
  memory& from;
  const anchor& where;
  snapshot_options with;
  // The frames of a copied stack. Without: none.
  std::function<std::vector<place_in_code>(const suspension_v1&)> walk;
  // Registers and stack of the greenlet that a thread is running, which ends at `high`, or 0: nobody knows. False: none.
  std::function<bool(pid_t tid, std::uintptr_t high, suspension_v1& to)> running;
  // Adds what is at an address, inlined ones first. Without: nothing.
  std::function<void(std::vector<frame>& to, const place_in_code& p)> describe;
};

// Throws std::bad_alloc, and what those functions do.
process_snapshot read_process(const reading& how);

// -- Inside ------------------------------------------------------------------------------------------------------------

// What is read of a body, as it is there.
struct body_words {
  std::uint64_t id = 0;
  std::uint8_t state = 0;
  bool main = false;
  std::uintptr_t owner = 0, parent = 0, shared = 0;
  std::uintptr_t sp = 0, fp = 0, pc = 0, base = 0;
  std::uintptr_t memory = 0, stack_size = 0;
  std::uintptr_t name = 0, created = 0;
  std::uint64_t switches = 0;

  bool is_somebody() const noexcept;
  // In all that tells where it is; not in how often it was there.
  bool operator==(const body_words& other) const noexcept;
};

// ... and of a thread's record.
struct thread_words {
  std::uintptr_t address = 0;
  pid_t tid = 0;
  std::string name;
  std::uintptr_t current = 0, main = 0, hub = 0;
  bool exited = false;
};

// Of a hub: who waits there, by the addresses of bodies.
struct hub_words {
  std::uintptr_t runner = 0;
  std::uint64_t turn_began = 0;  // nanoseconds; 0: unknown
  std::unordered_map<std::uintptr_t, std::string> waits;
};

// Throws std::bad_alloc.
hub_words read_hub(memory& from, const anchor& where, std::uintptr_t loop, std::uintptr_t record);

// Little things that both read.
template <class T>
T word_at(const char* record, offset at) noexcept {
  T t = {};
  if (at >= 0) std::memcpy(&t, record + at, sizeof t);
  return t;
}
// A text that ends with a 0; at most so long.
std::string text_at(memory& from, std::uintptr_t address, std::size_t most);

}  // namespace greenlets::detail

#endif
