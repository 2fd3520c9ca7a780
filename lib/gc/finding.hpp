// SPDX-License-Identifier: MIT
// finding: who is unreachable when marking ends, and what becomes of them.
#ifndef LIB_GC_FINDING_HPP
#define LIB_GC_FINDING_HPP

#include "threads.hpp"

#include <greenlet/gc.hpp>

#include <atomic>
#include <cstdint>
#include <ctime>

namespace greenlets::gc::detail {

// Made by enable(), which may be called before any constructor of ours would run, and never gone.
extern options* chosen;

struct totals_t {
  std::atomic<std::size_t> collections{0};
  std::atomic<std::size_t> found{0};      // suspended ones
  std::atomic<std::size_t> freed{0};      // others
  std::atomic<std::size_t> unwound{0};
  std::atomic<std::size_t> refused{0};
  std::atomic<std::size_t> stack_bytes{0};
  std::atomic<std::uint64_t> last_ns{0};  // in our hooks, in the last collection
  std::atomic<std::uint64_t> most_ns{0};
};
extern totals_t totals;

std::uint64_t now_ns() noexcept;

// Time spent in hooks.
class stopwatch {
 public:
  stopwatch() noexcept : since_(now_ns()) {}
  void stop() const noexcept { spent += now_ns() - since_; }
  static std::uint64_t spent;  // under the lock

 private:
  std::uint64_t since_;
};

// At enable().
void begin_finding();

// libgc's events.
void marking_ended(bool roots_were_pushed) noexcept;
void reclaimed() noexcept;

// Whether every greenlet is a root.
bool keeps_all() noexcept;
// Those that the collection just now keeps besides, with all that they refer to.
void each_kept(void (*f)(void*, body*), void* data) noexcept;
template <class F>
void each_kept(F&& f) noexcept {
  each_kept([](void* data, body* b) { (*static_cast<F*>(data))(b); }, &f);
}

// What the core calls.
body* next_condemned(thread_record& t) noexcept;
void unwound(body* b, bool was_suspended) noexcept;
void refused(body* b) noexcept;
void count_unwound(const body* b) noexcept;
void wanted_again(body* b) noexcept;
bool is_husk(const body* b) noexcept;
void make_husk(body* b) noexcept;

// Wakes threads that may be blocked, and have something to unwind. Under no lock.
void wake_owners() noexcept;

// Whether enough has been made since the last collection for another one.
bool is_due() noexcept;
void one_more() noexcept;

// leaks.cpp: notes one for leaks(), and tells who is to be told.
void note_leak(const entry& e, body* b) noexcept;

}  // namespace greenlets::gc::detail

#endif
