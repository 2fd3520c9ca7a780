// SPDX-License-Identifier: MIT
// What the core and a thread that watches the others know of each other. doc/design.md, "Watching".
#ifndef LIB_WATCHING_HPP
#define LIB_WATCHING_HPP

#include "arch/registers.hpp"

#include <greenlet/detail/api.hpp>

#include <cstddef>
#include <cstdint>
#include <sys/types.h>
#include <ucontext.h>

namespace greenlets::detail {

// A thread that uses greenlets, at one moment.
struct watched_thread_v1 {
  const void* record;     // tells it from others, as long as it lives
  pid_t tid;
  const void* current;    // tells the greenlet that runs from others, as long as that lives
  std::uint64_t id;       // of that one, perhaps: it may have ended since; 0: it is not known
  bool is_main;           // that one is
  bool has_hub;
  bool is_hub;            // the greenlet that runs is the hub's
  bool waits;             // ... and waits for events
  bool has_switched;      // since it was last noted; or it never was
  std::uint64_t polled_at;  // when its hub has last looked for events, in milliseconds of CLOCK_MONOTONIC
  char name[16];
};

// Tells of all threads, and with `note` has the next switch of each noted. Returns how many there are, which may be more than `most`:
// those beyond are left alone. Allocates nothing.
GREENLET_API std::size_t watch_threads(watched_thread_v1* room, std::size_t most, bool note) noexcept;

// What a signal handler takes with it from the thread that it has interrupted.
struct interruption_v1 {
  machine::registers at;
  std::uintptr_t low = 0;     // the address of the first byte
  char* bytes = nullptr;      // where they go; the caller's
  std::size_t room = 0;       // there
  std::size_t size = 0;       // how many there are
  std::uint64_t greenlet = 0; // that was running; 0: none, or in the middle of a switch
  bool is_main = false;
  bool is_hub = false;
  char name[256] = "";        // its
};

// For a handler, of what was interrupted `here`: async-signal-safe, takes less than 1 KiB of the stack. Of a stack that is
// no greenlet's, copies as far as there is memory.
GREENLET_API void copy_interrupted(const ucontext_t& here, interruption_v1& to) noexcept;

// Has each thread, those that exist and those to come, handle signals on a stack of its own: greenlets' may be too small.
// Throws std::system_error (mmap, mprotect, sigaltstack) when the calling thread cannot have one.
GREENLET_API void want_signal_stacks();

// Has the calling thread call this at its next entry into the library: for what a handler of fork() cannot do. When it has
// not used the library, then at its first use. One at a time.
GREENLET_API void set_errand(void (*call)() noexcept) noexcept;

// For entries.
bool has_errand() noexcept;
void run_errand() noexcept;

}  // namespace greenlets::detail

#endif
