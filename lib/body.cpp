// SPDX-License-Identifier: MIT
// The life of a body: made, counted, and buried when nothing refers to it.
#include "body.hpp"

#include "census.hpp"
#include "collector.hpp"
#include "own.hpp"
#include "thread.hpp"

#include <greenlet/attributes.hpp>
#include <greenlet/weak.hpp>

#include <new>

namespace greenlets {
namespace detail {

census_t census;

namespace {

void count_greenlet(std::ptrdiff_t change) noexcept {
  if (thread_record* const t = this_thread_if_any())
    t->greenlets.store(t->greenlets.load(std::memory_order_relaxed) + change, std::memory_order_relaxed);
  else
    census.greenlets.fetch_add(change, std::memory_order_relaxed);
}

}  // namespace

body::body(bool is_main, std::uint64_t number) : main(is_main), id(number) {
  access::refer(self, this);
  count_greenlet(1);
  if (main) census.main_greenlets.fetch_add(1, std::memory_order_relaxed);
  if (collects) the_collector->made(this);
}

void* body::operator new(std::size_t size) {
  if (collects) return the_collector->allocate_body();
  if (record)
    if (void* const spare = record->spare.take()) return spare;
  return ::operator new(size);
}

void body::operator delete(void* memory) noexcept {
  if (collects) return the_collector->free_body(memory);
  if (!record || !record->spare.give(memory)) ::operator delete(memory);
}

void spare_bodies::trim() noexcept {
  while (void* const memory = take()) ::operator delete(memory);
}

body::~body() {
  access::refer(self, nullptr);  // it was not counted, so it must not drop
}

body* bury(body* b) noexcept {
  body* parent = nullptr;
  if (!is_traced(b)) {
    parent = bury_contents(b);
  } else if (!the_collector->is_husk(b)) {
    parent = bury_contents(b);
    the_collector->make_husk(b);  // for as long as there are weak references
  }
  weak_unref(b);
  return parent;
}

body* bury_contents(body* b) noexcept {
  if (b->run) b->run = {};  // user code
  if (b->unused_run) b->unused_run = {};
  if (!b->slot.empty()) b->slot = {};
  if (b->held) b->held = nullptr;
  bury_own(b);
  if (b->special) b->special.reset();
  if (b->delete_user_data) b->delete_user_data(b->user_data.load(std::memory_order_relaxed));
  if (b->name) b->name.reset();
  if (thread_record* t = b->thread()) unref(*t);
  body* const parent = b->parent.load(std::memory_order_relaxed);
  b->parent.store(nullptr, std::memory_order_relaxed);
  count_greenlet(-1);
  if (b->main) census.main_greenlets.fetch_sub(1, std::memory_order_relaxed);
  return parent;
}

bool is_gone(const body* b) noexcept {
  const std::ptrdiff_t shared = b->shared.load(std::memory_order_acquire);
  return (shared & ~counts_slowly) == 0 || (shared & is_collected && the_collector->is_husk(b));
}

static body* new_body(thread_record& t, closure&& run, const greenlet* parent, const void* at) {
  auto* const made = new body(false, t.ids.next());  // counted from here on, so nothing below may throw
  made->run = std::move(run);
  // A collector may have run finalizers, which are user code, and may have ended the record.
  thread_record& now = collects ? this_thread() : t;
  body* p = parent && !parent->empty() ? access::body_of(*parent) : now.running();
  ref(p);
  made->parent.store(p, std::memory_order_relaxed);
  moved(made, at, nullptr);
  return made;
}

body* new_body(closure&& run, const greenlet* parent, const attributes* with, const void* at) {
  if (!with) return new_body(entered(), std::move(run), parent, at);
  if (!with->parent().empty()) parent = &with->parent();
  const std::size_t stack_size = round_stack_size(with->stack_size());
  std::shared_ptr<const std::string> name;
  if (!with->name().empty()) name = std::make_shared<const std::string>(with->name());

  std::unique_ptr<specials> special;
  if (with->on_start_ || with->leave_ || with->enter_)
    special.reset(new specials{with->on_start_, with->leave_, with->enter_, with->data_});

  thread_record& t = entered();  // after the copy of the resolver, which is user code, and may end a record
  body* const made = new_body(t, std::move(run), parent, at);
  made->special = std::move(special);
  made->stack_size = stack_size;
  made->own_fp_env = with->preserve_fp_env();
  made->name = std::move(name);
  return made;
}

greenlet make_greenlet(closure&& run, const greenlet& parent) {
  return access::adopt(new_body(std::move(run), &parent, nullptr, nullptr));
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
