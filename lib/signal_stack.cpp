// SPDX-License-Identifier: MIT
// Alternate signal stacks: a handler cannot run on a stack that is used up.
#include "fault.hpp"
#include "overflow.hpp"
#include "sanitizer.hpp"
#include "slab.hpp"
#include "threads.hpp"

#include <atomic>
#include <cerrno>
#include <csignal>
#include <sys/mman.h>
#include <system_error>

namespace greenlets::detail {
namespace {

std::size_t mapped_size() noexcept { return page_size() + signal_stack_size; }

// Null, and errno, when it cannot be had; `call` is then what was refused.
char* map_signal_stack(const char*& call) noexcept {
  call = "mmap";
  void* const mapping = GREENLET_MAY_FAIL(mmap, MAP_FAILED, nullptr, mapped_size(), PROT_READ | PROT_WRITE,
                                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
  if (mapping == MAP_FAILED) return nullptr;
  char* const base = static_cast<char*>(mapping);
  stack_t ours = {};
  ours.ss_sp = base + page_size();
  ours.ss_size = signal_stack_size;
  call = "mprotect";
  if (GREENLET_MAY_FAIL(mprotect, -1, base, page_size(), PROT_NONE) == 0) {
    call = "sigaltstack";
    if (GREENLET_MAY_FAIL(sigaltstack, -1, &ours, nullptr) == 0) return base;
  }
  const int code = errno;
  munmap(base, mapped_size());
  errno = code;
  return nullptr;
}

// Null when there is nothing left to do, else what the system has refused.
const char* give(thread_record& t) noexcept {
  stack_t now = {};
  sigaltstack(nullptr, &now);
  if (!(now.ss_flags & SS_DISABLE)) return nullptr;
  drop_signal_stack(t);  // somebody has disabled it
  const char* call;
  t.signal_stack = map_signal_stack(call);
  if (t.signal_stack) t.signal_stack_id = sanitizer::knows_stack(t.signal_stack + page_size(), signal_stack_size);
  return t.signal_stack ? nullptr : call;
}

std::atomic<bool> for_all{false};

}  // namespace

bool gives_signal_stacks() noexcept { return for_all.load(std::memory_order_relaxed); }

void give_signal_stacks(const thread_record* mine) noexcept {
  for_all.store(true, std::memory_order_relaxed);
  for (thread_record* t = first_thread(); t; t = t->next_thread)
    if (t != mine) t->raise(attention::signal_stack);
}

void give_signal_stack(thread_record& t) {
  if (const char* const refused = give(t))
    throw std::system_error(errno, std::system_category(), std::string(refused) + " of an alternate signal stack");
}

void try_signal_stack(thread_record& t) noexcept {
  const int before = errno;
  give(t);
  errno = before;
}

void drop_signal_stack(thread_record& t) noexcept {
  char* const base = std::exchange(t.signal_stack, nullptr);
  if (!base) return;
  stack_t now = {};
  sigaltstack(nullptr, &now);
  if (now.ss_flags & SS_ONSTACK) return;  // a handler ends the thread: we are standing on it
  if (now.ss_sp == base + page_size()) {
    now = {};
    now.ss_flags = SS_DISABLE;
    now.ss_size = signal_stack_size;
    sigaltstack(&now, nullptr);
  }
  sanitizer::forgets_stack(t.signal_stack_id);
  munmap(base, mapped_size());
}

}  // namespace greenlets::detail
