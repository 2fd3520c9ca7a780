// SPDX-License-Identifier: MIT
// anchor: where everything is that tells of the greenlets of a process, for who reads its memory: a snapshot from
// inside, greenlet-dump, a debugger. doc/design.md, "The anchor".
//
// It is data of the shared library, exported as greenlet_anchor_v1, and begins with a text by which it is found where
// symbols are not. Whoever knows version 1 can read a process whose libraries are stripped, or others' builds.
// All numbers are the process's own; an offset that is -1 is that of something that there is not.
#ifndef LIB_ANCHOR_HPP
#define LIB_ANCHOR_HPP

#include <greenlet/detail/api.hpp>

#include <atomic>
#include <cstdint>

namespace greenlets::detail {

struct cell_chunk;
struct thread_record;

// Where in what, in bytes.
using offset = std::int32_t;
constexpr offset no_offset = -1;

// Chunks of equal things: a list of them, newest first, of which each is written once and stays.
struct chunk_layout {
  offset next;         // a pointer to the next chunk; null: the last
  offset first;        // the first of the things
  std::int32_t stride;  // bytes from one to the next
  std::int32_t count;
};

// A std::string.
struct string_layout {
  offset data;
  offset size;
};

// One greenlet. There is none where `id` is 0; nor where `parent` is null and `main` 0, nor where `main` is not 0 and
// `shared` less than 4: its record waits to be used again.
struct body_layout {
  std::int32_t bytes;  // of the whole record
  offset id;           // 64 bits
  offset state;        // 8 bits: 0 unstarted, 1 active (current if its thread says so, else suspended), 2 finished, 3 unwound
  offset main;         // 8 bits: a thread's first greenlet
  offset owner;        // its thread's record; null while unstarted
  offset parent;       // another body
  offset shared;       // a word
  // While suspended: the registers with which it goes on (anchor::registers). Where `pc` is null a ucontext_t lies at
  // `sp`, with all of them.
  offset sp, fp, pc, base;
  // While active: where its stack ends; null for a main one, whose is the thread's. It begins `stack_size` bytes below,
  // rounded down to a page.
  offset memory;
  offset stack_size;   // a word
  offset name;         // a pointer to a std::string; null: none
  offset created;      // a pointer to what creation_layout tells; null: not recorded
  offset switches;     // 64 bits: to it, while they were counted
};

struct thread_layout {
  std::int32_t bytes;
  offset next;     // in the list of threads that have not ended
  offset tid;      // 32 bits
  offset name;     // a std::string
  offset current;  // the body that it runs
  offset main;     // its first body
  offset exited;   // 8 bits: nothing of it runs any more
  offset hub;      // what hub_layout::loop tells; null: none
};

// When and where a greenlet was made.
struct creation_layout {
  offset made;       // 64 bits: nanoseconds of CLOCK_MONOTONIC
  offset count;      // a word: how many addresses
  offset addresses;  // here, innermost first
};

// With a collector: chunks of entries.
struct registry_layout {
  chunk_layout chunks;
  offset hidden;   // the complement of a body's address; 0: none
  offset made;     // 64 bits: nanoseconds of CLOCK_MONOTONIC
  offset made_at;  // a pointer to addresses, null at the end; or null
};

// Of libgreenlet-hub, when there has been a hub: `loop` is not 0 then.
struct hub_layout {
  std::int32_t loop;   // bytes of a loop
  offset runner;       // the body that runs it
  offset ready;        // a wait list: who is there is ready to run
  offset time;         // 64 bits: milliseconds of CLOCK_MONOTONIC, when it last came from waiting for events
  offset waiters;      // the first of the chunks of waiters
  chunk_layout chunks;
  // One waiter. It waits when `who` is not null, `home` is its loop, `what` is 0 and `why` is 0; `why` is not 0 when it is
  // ready to go on.
  offset what, why;    // 8 bits
  offset timed;        // 8 bits: not 0: until `when`
  offset who;          // a body
  offset home;
  offset slot;         // where a poller has it: at its `reader` or its `writer`; null: it does not wait for a descriptor
  offset in;           // the wait list in which it stands, or null
  offset when;         // 64 bits: nanoseconds of CLOCK_MONOTONIC
  // A poller lies at a multiple of `aligned` bytes, by which it is known which of both a slot is.
  std::int32_t aligned;
  offset reader, writer;
  offset descriptor;   // 32 bits
  // A wait list: what it is for people, null when nobody has said; and of what object.
  offset kind, object;
};

// Kinds of registers: which four a suspended greenlet has.
enum class registers_kind : std::int32_t { none = 0, x86_64 = 1, aarch64 = 2 };  // rsp rbp rip rbx; sp x29 pc x19

struct anchor {
  char magic[16];        // "greenlet anchor", and a 0
  std::int32_t version;  // 1
  std::int32_t bytes;    // of this; later ones of version 1 may have more at the end
  std::int32_t word;     // of a pointer
  registers_kind registers;
  char library[16];      // the version of libgreenlet, for people

  std::atomic<thread_record*> threads;  // the first in the list of threads; changes at any time
  std::atomic<cell_chunk*> cells;       // the first chunk of bodies
  std::atomic<void*> registry;          // with a collector: the first chunk of entries

  body_layout body;
  chunk_layout chunks;   // of bodies
  string_layout string;
  thread_layout thread;
  creation_layout creation;
  registry_layout entries;
  hub_layout hub;
};

// For a hub: its thread's loop, or null when it has ended; and, first, the layout, the same each time. The answer is where
// it tells whether it waits for events, and stays there as long as the thread has greenlets.
GREENLET_API std::atomic<bool>* set_hub(const void* loop, const hub_layout& layout);
// For a collector, before it is installed; and each new chunk of entries, which is the first from then on.
GREENLET_API void set_registry(const registry_layout& layout) noexcept;
GREENLET_API void set_registry_chunk(void* first) noexcept;

}  // namespace greenlets::detail

extern "C" GREENLET_API greenlets::detail::anchor greenlet_anchor_v1;

#endif
