// SPDX-License-Identifier: MIT
// fork(): the child has one thread, which goes on in the greenlet that called it. The other threads do
// not exist there; their greenlets are dead, as if the threads had exited, but nothing of them is
// destroyed, for what is on their stacks may be half made, and other threads' locks may be held.
#include "census.hpp"
#include "fault.hpp"
#include "sanitizer.hpp"
#include "threads.hpp"

#include <cerrno>
#include <pthread.h>
#include <system_error>
#include <unistd.h>

namespace greenlets::detail {
namespace {

// In the order in which the library takes them. Critical sections are a few instructions and call
// nobody, but for a waker, which may call into the kernel.
void before() {
  threads_lock.lock();
  for (thread_record* t = first_thread(); t; t = t->next_thread) t->waker_lock.lock();
  tracer_lock.lock();
  unraisable_lock().lock();
  lock_lineage();
  body_lock::lock_all();
  context_lock::lock_all();
  lock_cells();
  sanitizer::lock_for_fork();
}

void unlock() noexcept {
  sanitizer::unlock_after_fork();
  unlock_cells();
  context_lock::unlock_all();
  body_lock::unlock_all();
  unlock_lineage();
  unraisable_lock().unlock();
  tracer_lock.unlock();
  for (thread_record* t = first_thread(); t; t = t->next_thread) t->waker_lock.unlock();
  threads_lock.unlock();
}

void in_parent() { unlock(); }

void in_child() {
  unlock();
  thread_record* const mine = this_thread_if_any();
  thread_record* next;
  for (thread_record* t = first_thread(); t; t = next) {
    next = t->next_thread;
    if (t == mine) continue;
    forget(*t);
    for (body* b = t->active; b; b = b->next_active) {
      b->wear();
      count_together(b);
    }
    count_together(t->main);
    t->exited.store(true, std::memory_order_release);
    t->dropped.close();  // what waits there is dead, and keeps its memory
  }
  census.threads.store(mine ? 1 : 0, std::memory_order_relaxed);
  if (!mine) return;
  mine->tid = gettid();
  mine->raise(attention::dropped);  // somebody may have queued a greenlet, and not lived to say so
}

}  // namespace

void watch_forks() {
  if (const int code = GREENLET_MAY_FAIL(pthread_atfork, errno, &before, &in_parent, &in_child))
    throw std::system_error(code, std::system_category(), "pthread_atfork");
}

}  // namespace greenlets::detail
