// SPDX-License-Identifier: MIT
// Contexts: the map of one, and which greenlet has which.
#include <greenlet/context.hpp>

#include "describe.hpp"
#include "own.hpp"
#include "thread.hpp"

#include <algorithm>
#include <mutex>
#include <vector>

namespace greenlets {
namespace detail {

// Greenlets of several threads may share one. Values are counted references, so what is done under
// the lock is to move pointers: it never allocates there, and never destroys a value.
struct context_map {
  struct entry {
    std::uint64_t key;
    context_value value;
  };

  std::atomic<std::size_t> references{1};
  std::atomic<bool> entered{false};  // by an entered_context
  const std::uint64_t key = new_key();
  context_lock lock;
  std::vector<entry> entries;  // by key

  auto place_of(std::uint64_t k) noexcept {
    return std::lower_bound(entries.begin(), entries.end(), k,
                            [](const entry& e, std::uint64_t wanted) { return e.key < wanted; });
  }

  context_value find(std::uint64_t k) noexcept {
    const std::lock_guard guard(lock);
    const auto at = place_of(k);
    return at != entries.end() && at->key == k ? at->value : nullptr;
  }

  void exchange(std::uint64_t k, context_value& v) {
    std::vector<entry> larger;
    for (std::size_t wanted = 0;; larger.reserve(wanted)) {
      const std::lock_guard guard(lock);
      auto at = place_of(k);
      if (at != entries.end() && at->key == k) {
        at->value.swap(v);
        if (!at->value) entries.erase(at);
        return;
      }
      if (!v) return;
      if (entries.size() == entries.capacity() && larger.capacity() > entries.size()) {
        for (entry& e : entries) larger.push_back(std::move(e));
        entries.swap(larger);
        at = place_of(k);
      }
      if (entries.size() < entries.capacity()) {
        entries.insert(at, entry{k, std::move(v)});
        v.reset();
        return;
      }
      wanted = 2 * entries.size() + 4;
    }
  }

  void copy_to(std::vector<entry>& copy) {
    for (std::size_t wanted = 0;; copy.reserve(wanted)) {
      const std::lock_guard guard(lock);
      wanted = entries.size();
      if (copy.capacity() < wanted) continue;
      copy.assign(entries.begin(), entries.end());
      return;
    }
  }
};

namespace {

context_map* counted(context_map* m) noexcept {
  if (m) m->references.fetch_add(1, std::memory_order_relaxed);
  return m;
}

void release(context_map* m) noexcept {
  if (m && m->references.fetch_sub(1, std::memory_order_acq_rel) == 1) delete m;  // user code
}

// The body's context, counted. A suspended greenlet's may be exchanged by any thread, and one that
// runs may have been suspended a moment ago: so its own thread locks too.
context_map* context_of(body* b) noexcept {
  const std::lock_guard guard(b->lock);
  return counted(b->variables);
}

// Takes one reference and gives another.
context_map* exchange_context(body* b, context_map* m) noexcept {
  const std::lock_guard guard(b->lock);
  b->wear();
  return std::exchange(b->variables, m);
}

struct release_map {
  void operator()(context_map* m) const noexcept { release(m); }
};
using counted_map = std::unique_ptr<context_map, release_map>;

counted_map made_context_of(body* b) {
  counted_map m(context_of(b));
  if (m) return m;
  m.reset(new context_map);
  const std::lock_guard guard(b->lock);
  b->wear();
  // Nobody else gives a running greenlet its first, but somebody may have found it suspended just before.
  if (!b->variables) b->variables = counted(m.get());
  return b->variables == m.get() ? std::move(m) : counted_map(counted(b->variables));
}

bool runs_elsewhere(body* b) noexcept {
  const thread_record* const owner = b->thread();
  return owner && b->is(life::active) && owner->running() == b && owner != this_thread_if_any();
}

error running_elsewhere(const char* verb, body* b) {
  return {errc::different_thread,
          std::string("cannot ") + verb + " context of a greenlet that is running in a different thread",
          "  " + describe(b) + describe_here()};
}

}  // namespace

std::uint64_t new_key() noexcept {
  static std::atomic<std::uint64_t> last{0};
  return last.fetch_add(1, std::memory_order_relaxed) + 1;
}

context_value find_variable(const context& in, std::uint64_t key) noexcept {
  return in.map_ ? in.map_->find(key) : nullptr;
}

context_value find_variable(std::uint64_t key) noexcept {
  thread_record* const t = this_thread_if_any();
  if (!t) return nullptr;
  body* const b = t->running();
  const std::lock_guard guard(b->lock);
  return b->variables ? b->variables->find(key) : nullptr;
}

std::uint64_t exchange_variable(std::uint64_t key, context_value& v) {
  const counted_map m = made_context_of(this_thread().running());
  m->exchange(key, v);
  return m->key;
}

void restore_variable(std::uint64_t key, std::uint64_t before, context_value& v, const std::string& name) {
  const counted_map m(context_of(this_thread().running()));
  if (!m || m->key != before) throw_wrong_token("the token was made in a different context", name);
  m->exchange(key, v);
}

void throw_no_value(const std::string& name) {
  throw error(errc::no_value, "the context variable has no value", "  " + name + describe_here());
}

void throw_wrong_token(const char* sentence, const std::string& name) {
  throw error(errc::wrong_token, sentence, "  " + name + describe_here());
}

bool has_context(body* b) noexcept {
  const std::lock_guard guard(b->lock);
  return b->variables != nullptr;
}

void drop_context(body* b) noexcept { release(exchange_context(b, nullptr)); }

}  // namespace detail

context::context(const context& other) noexcept : map_(detail::counted(other.map_)) {}

context::~context() { detail::release(map_); }

context context::make() { return context(new detail::context_map); }

context context::copy_current() {
  context made = make();
  detail::thread_record* const t = detail::this_thread_if_any();
  const context from(t ? detail::context_of(t->running()) : nullptr);
  if (from.map_) from.map_->copy_to(made.map_->entries);
  return made;
}

context context::copy() const {
  if (!map_) throw error(errc::empty_handle, "the handle refers to no context");
  context made = make();
  map_->copy_to(made.map_->entries);
  return made;
}

std::size_t context::size() const noexcept {
  if (!map_) return 0;
  const std::lock_guard guard(map_->lock);
  return map_->entries.size();
}

entered_context::entered_context(const context& c) : inside_(c) {
  if (!c.map_) throw error(errc::empty_handle, "the handle refers to no context");
  detail::body* const b = detail::this_thread().running();
  if (c.map_->entered.exchange(true, std::memory_order_acq_rel))
    throw error(errc::already_entered, "cannot enter context: already entered", detail::describe_here().substr(1));
  greenlet_ = b->id;
  before_.map_ = detail::exchange_context(b, detail::counted(c.map_));
}

entered_context::~entered_context() {
  inside_.map_->entered.store(false, std::memory_order_release);
  detail::thread_record* const t = detail::this_thread_if_any();
  // Another main greenlet, if the thread has been unwound meanwhile: that one never had this context.
  if (t && t->running()->id == greenlet_) before_.map_ = detail::exchange_context(t->running(), before_.map_);
}

context greenlet::get_context() const {
  if (!body_) throw error(errc::empty_handle, "the handle refers to no greenlet");
  if (detail::runs_elsewhere(body_)) throw detail::running_elsewhere("get", body_);
  return context(detail::context_of(body_));
}

void greenlet::set_context(context c) const {
  if (!body_) throw error(errc::empty_handle, "the handle refers to no greenlet");
  if (detail::runs_elsewhere(body_)) throw detail::running_elsewhere("set", body_);
  c.map_ = detail::exchange_context(body_, c.map_);  // the old one goes with `c`, when we are done
}

}  // namespace greenlets
