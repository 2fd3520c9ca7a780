// SPDX-License-Identifier: MIT
// The life of a body: made, counted, and buried when nothing refers to it.
#include "body.hpp"

#include "cells.hpp"
#include "census.hpp"
#include "collector.hpp"
#include "creation.hpp"
#include "own.hpp"
#include "probes.hpp"
#include "thread.hpp"

#include <greenlet/attributes.hpp>
#include <greenlet/weak.hpp>

#include <new>

namespace greenlets {
namespace detail {

census_t census;

body::body(bool is_main) : main(is_main) {
  access::refer(self, this);
  if (collects) {
    wear();
    // A thread's record refers to it, and the collector knows of that only while the thread has the record:
    // t/gc_threads.cpp. Until end_record().
    if (main) the_collector->pin(this);
    the_collector->made(this);
  }
  if (!main) return;
  wear();
  census.main_greenlets.fetch_add(1, std::memory_order_relaxed);
}

body::~body() {
  access::refer(self, nullptr);  // it was not counted, so it must not drop
}

void* body::operator new(std::size_t) { return collects ? the_collector->allocate_body() : take_cell(); }

void body::operator delete(void* memory) noexcept {
  if (collects)
    the_collector->free_body(memory);
  else
    give_cell(memory);
}

void spare_bodies::trim() noexcept {
  while (has()) delete pop();
}

// `parent` is a counted reference, given away.
GREENLET_ALWAYS_INLINE static body* fill(thread_record& t, body* made, std::uint64_t id, closure&& run, body* parent) noexcept {
  made->id = id;
  t.count(1);
  ::new (static_cast<void*>(&made->run)) closure(std::move(run));
  made->parent.store(parent, std::memory_order_relaxed);
  GREENLET_PROBE(create, made);
  return made;
}

static body* new_body(thread_record& t, closure&& run, body* parent) {
  body* const made = t.spare.has() ? t.spare.pop() : new body(false);
  ref(parent);
  fill(t, made, t.ids.next(), std::move(run), parent);
  if (__builtin_expect(records_creation.load(std::memory_order_relaxed), 0)) note_creation(made);
  return made;
}

static body* parent_or_running(thread_record& t, const greenlet* parent) noexcept {
  return __builtin_expect(parent && !parent->empty(), 0) ? access::body_of(*parent) : t.running();
}

// A collector may run finalizers when memory is asked for, which are user code, and may end the thread's record.
static body* new_collected_body(closure&& run, const greenlet* parent, const void* at) {
  auto* const made = new body(false);
  thread_record& t = this_thread();
  body* const p = parent_or_running(t, parent);
  ref(p);
  fill(t, made, t.ids.next(), std::move(run), p);
  moved(made, at, nullptr);
  return made;
}

body* new_body(closure&& run, const greenlet* parent, const attributes& with, void* at) {
  if (!with.parent().empty()) parent = &with.parent();
  const std::size_t stack_size = round_stack_size(with.stack_size());
  std::shared_ptr<const std::string> name;
  if (!with.name().empty()) name = std::make_shared<const std::string>(with.name());

  std::unique_ptr<specials> special;
  if (with.on_start_ || with.leave_ || with.enter_)
    special.reset(new specials{with.on_start_, with.leave_, with.enter_, with.data_, {}});

  thread_record& t = entered();  // after the copy of the resolver, which is user code, and may end a record
  body* const made = collects ? new_collected_body(std::move(run), parent, at)
                              : new_body(t, std::move(run), parent_or_running(t, parent));
  made->wear();
  made->special = std::move(special);
  made->stack_size = stack_size;
  made->own_fp_env = with.preserve_fp_env();
  made->name = std::move(name);
  return made;
}

__attribute__((noinline)) static body* new_body_slowly(closure&& run, const greenlet* parent, const void* at) {
  thread_record& t = entered();
  if (__builtin_expect(collects, 0)) return new_collected_body(std::move(run), parent, at);
  return new_body(t, std::move(run), parent_or_running(t, parent));
}

body* new_body(closure&& run, const greenlet* parent, void* at) {
  thread_record* const t = this_thread_if_any();
  if (__builtin_expect(t && !t->is_busy() && t->spare.has() && t->ids.has(), 1)) {  // then nothing is called, and few registers are needed
    body* const p = parent_or_running(*t, parent);
    if (ref_here(p, t)) return fill(*t, t->spare.pop(), t->ids.pop(), std::move(run), p);
  }
  return new_body_slowly(std::move(run), parent, at);
}

greenlet make_greenlet(closure&& run, const greenlet& parent) {
  return access::adopt(new_body(std::move(run), &parent, nullptr));
}

}  // namespace detail

weak_greenlet::weak_greenlet(const greenlet& g) noexcept : body_(g.body_ ? detail::hidden(g.body_) : nullptr) {
  if (body_) g.body_->weak.fetch_add(1, std::memory_order_relaxed);
}

weak_greenlet::weak_greenlet(const weak_greenlet& other) noexcept : body_(other.body_) {
  if (body_) detail::hidden(body_)->weak.fetch_add(1, std::memory_order_relaxed);
}

weak_greenlet::~weak_greenlet() {
  if (body_) detail::weak_unref(detail::hidden(body_));
}

greenlet weak_greenlet::lock() const noexcept {
  detail::body* const b = body_ ? detail::hidden(body_) : nullptr;
  return b && detail::ref_if_any(b) ? access::adopt(b) : greenlet();
}

bool weak_greenlet::expired() const noexcept { return !body_ || detail::is_gone(detail::hidden(body_)); }

}  // namespace greenlets
