// SPDX-License-Identifier: MIT
// A thread's record: made at its first use of the library, counted, described.
#include "thread.hpp"

#include "anchor.hpp"
#include "census.hpp"
#include "collector.hpp"
#include "creation.hpp"
#include "fault.hpp"
#include "overflow.hpp"
#include "threads.hpp"
#include "watching.hpp"

#include <greenlet/counts.hpp>

#include <algorithm>
#include <pthread.h>
#include <system_error>
#include <unistd.h>

namespace greenlets {
namespace detail {
namespace {

// The ended record on whose survivor's stack the thread is.
__attribute__((tls_model("initial-exec"))) thread_local thread_record* survivors_record = nullptr;

void check(int code, const char* call) {
  if (code != 0) throw std::system_error(code, std::system_category(), call);
}

// Made once and never deleted: threads may outlive main().
pthread_key_t exit_key() {
  struct key {
    pthread_key_t value;
    key() {
      check(GREENLET_MAY_FAIL(pthread_key_create, errno, &value,
                              [](void* t) { exit_thread(*static_cast<thread_record*>(t)); }),
            "pthread_key_create");
      try {
        watch_forks();
      } catch (...) {
        pthread_key_delete(value);  // the next use of the library tries again
        throw;
      }
    }
  };
  static const key made;
  return made.value;
}

std::string name_of_this_thread() {
  char name[16] = "";
  pthread_getname_np(pthread_self(), name, sizeof name);
  return name;
}

// Owns no greenlet; what inline code finds in a thread that has no record.
hot_thread no_record{{attention::nobody}, {nullptr}, nullptr};

void set_record(thread_record* t) noexcept {
  record = t;
  hot_thread_v1 = t ? t : &no_record;
  if (collects) the_collector->uses(t);
}

}  // namespace

__thread thread_record* record = nullptr;

thread_record& first_use() {
  const pthread_key_t key = exit_key();
  if (collects) the_collector->attach();
  auto* const made = new thread_record;
  // The allocator is user code, which may have used the library meanwhile: t/hard_allocation.cpp.
  if (record) {
    end_record(*made);
    return *record;
  }
  if (const int code = GREENLET_MAY_FAIL(pthread_setspecific, errno, key, made)) {
    end_record(*made);
    check(code, "pthread_setspecific");
  }
  if (record) {  // by the user's operator new, which has used the library meanwhile (t/hard_allocation.cpp)
    pthread_setspecific(key, record);
    end_record(*made);
    return *record;
  }
  enlist(*made);
  set_record(made);
  look_for_tracers(*made);
  if (gives_signal_stacks()) try_signal_stack(*made);
  if (has_errand()) made->raise(attention::errand);
  return *made;
}

__thread hot_thread* hot_thread_v1 = &no_record;

std::mutex threads_lock;

thread_record* first_thread() noexcept { return greenlet_anchor_v1.threads.load(std::memory_order_relaxed); }

void enlist(thread_record& t) noexcept {
  const std::lock_guard lock(threads_lock);
  t.next_thread = first_thread();
  if (t.next_thread) t.next_thread->previous_thread = &t;
  greenlet_anchor_v1.threads.store(&t, std::memory_order_release);
  if (switches_are_counted) t.raise(attention::counted);
}

void forget(thread_record& t) noexcept {
  const std::lock_guard lock(threads_lock);
  if (!t.previous_thread && first_thread() != &t) return;  // its first use failed
  if (t.previous_thread)
    t.previous_thread->next_thread = t.next_thread;
  else
    greenlet_anchor_v1.threads.store(t.next_thread, std::memory_order_release);
  if (t.next_thread) t.next_thread->previous_thread = t.previous_thread;
  t.previous_thread = t.next_thread = nullptr;
  census.greenlets.fetch_add(t.greenlets.load(std::memory_order_relaxed), std::memory_order_relaxed);
  census.pooled_stacks.fetch_add(t.pool.count(), std::memory_order_relaxed);
}

void end_record(thread_record& t) noexcept {
  drop_signal_stack(t);
  t.exited.store(true, std::memory_order_release);
  t.main->held = nullptr;
  free_c_record(t.main);
  count_together(t.main);
  t.main->state.store(life::unwound, std::memory_order_release);
  if (record == &t) {
    set_record(nullptr);
    pthread_setspecific(exit_key(), nullptr);
    t.spare.trim();
    t.cells.trim();
  }
  t.references.fetch_add(t.own_references - thread_record::while_it_runs, std::memory_order_acq_rel);
  census.threads.fetch_sub(1, std::memory_order_relaxed);
  forget(t);
  unpin(t.main);
  unref(t.main);
  unref(t);
}

thread_record*& surviving_record() noexcept { return survivors_record; }

void id_source::take_block() noexcept {
  static std::atomic<std::uint64_t> blocks{0};
  if (next_ == end_of_block_) {
    next_ = blocks.fetch_add(1, std::memory_order_relaxed) * block + 1;
    end_of_block_ = next_ + block;
  }
  end_ = records_creation.load(std::memory_order_relaxed) ? next_ + 1 : end_of_block_;
}

thread_record::thread_record()
    : tid(gettid()), name(name_of_this_thread()), main(new body(true)) {
  main->id = ids.next();
  forget(slot.sent);
  exceptions = exceptions_of_thread();
  machine.swaps = machine::must_swap();
  machine.plain = !machine.swaps && !sanitizer::follows_switches();
  if (!machine.plain || GREENLET_REFUSES_SWITCHES) raise(attention::by_call);
  census.greenlets.fetch_add(1, std::memory_order_relaxed);
  if (survivors_record) {
    native = survivors_record->survivor->fiber;
    survives_in = survivors_record;
  } else {
    sanitizer::describe_native(native);
  }
  main->fiber = &native;
  main->active_on.store(this, std::memory_order_relaxed);
  main->owner.store(this, std::memory_order_relaxed);
  main->state.store(life::active, std::memory_order_relaxed);
  ref(*this);  // the main body's
  current.store(main, std::memory_order_release);
  census.threads.fetch_add(1, std::memory_order_relaxed);
}

thread_record::~thread_record() = default;

void thread_record::wake() noexcept {
  const std::lock_guard lock(waker_lock);
  if (waker) waker(waker_data);
}

void unref_elsewhere(thread_record& t) noexcept {
  if (t.references.fetch_sub(1, std::memory_order_acq_rel) == 1) delete &t;
}

}  // namespace detail

process_counts counts() noexcept {
  const auto read = [](const auto& n) { return n.load(std::memory_order_relaxed); };
  using detail::census;
  const std::lock_guard lock(detail::threads_lock);
  std::ptrdiff_t greenlets = read(census.greenlets);
  std::size_t pooled = read(census.pooled_stacks);
  for (const detail::thread_record* t = detail::first_thread(); t; t = t->next_thread) {
    greenlets += read(t->greenlets);
    pooled += t->pool.count();
  }
  return {static_cast<std::size_t>(greenlets), read(census.main_greenlets), read(census.stacks), pooled,
          read(census.threads)};
}

process_stacks stack_statistics() noexcept {
  using detail::census;
  const auto read = [](const std::atomic<std::size_t>& n) { return n.load(std::memory_order_relaxed); };
  const process_counts now = counts();
  const std::size_t places = read(census.stack_places);
  return {places,
          read(census.stack_bytes),
          places,
          read(census.stack_protected),
          now.stacks - std::min(now.stacks, now.pooled_stacks),  // the two may be of different moments
          now.pooled_stacks,
          read(census.most_stacks),
          read(census.most_stack_bytes)};
}

void trim_stacks() noexcept {
  if (detail::thread_record* t = detail::this_thread_if_any()) {
    t->pool.trim();
    t->spare.trim();
    t->cells.trim();
  }
}

}  // namespace greenlets
