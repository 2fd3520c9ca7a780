// SPDX-License-Identifier: MIT
// Greenlets in C: made, counted, in their tree, described; and what C++ sees of them.
#include "collector.hpp"
#include "record.hpp"

#include <greenlet/attributes.hpp>

#include <algorithm>
#include <cstring>
#include <memory>
#include <mutex>
#include <system_error>

namespace greenlets {

greenlet_t* c_pointer(const greenlet& g) noexcept { return detail::c_pointer(access::body_of(g)); }

greenlet_t* to_c(greenlet&& g) noexcept {
  detail::body* const b = access::release(std::move(g));
  detail::moved(b, detail::of_c, nullptr);
  return detail::c_pointer(b);
}

greenlet from_c(greenlet_t* g) noexcept { return g ? detail::body_of(g)->self : greenlet(); }

greenlet adopt_from_c(greenlet_t* g) noexcept {
  detail::moved(detail::body_of(g), nullptr, detail::of_c);
  return access::adopt(detail::body_of(g));
}

namespace detail {
namespace {

// What a program of any version has filled in. Longer ones than ours are fine while what we do not
// know is zero, which is the default of everything.
const greenlet_attributes_t& checked(const greenlet_attributes_t& with) {
  const auto* bytes = reinterpret_cast<const unsigned char*>(&with);
  if (with.size < sizeof with || std::any_of(bytes + sizeof with, bytes + with.size, [](unsigned char b) { return b; }))
    throw error(errc::wrong_arguments, "the attributes are of another version, or were not begun with GREENLET_ATTRIBUTES",
                "  their size is " + std::to_string(with.size) + ", known are " + std::to_string(sizeof with) +
                    describe_here());
  return with;
}

greenlet_t* make(c_callable&& callable, greenlet_t* parent, const attributes* with, std::unique_ptr<specials> special) {
  closure run = make_closure_of(std::move(callable));
  const greenlet* const above = parent ? &handle_of(parent) : nullptr;
  body* const made = with ? new_body(std::move(run), above, *with, of_c) : new_body(std::move(run), above, of_c);
  if (special) made->wear();
  made->special = std::move(special);  // nobody else knows of it yet
  return c_pointer(made);
}

std::unique_ptr<specials> specials_of(const greenlet_attributes_t& given) {
  if (!given.on_start && !given.leave && !given.enter) return nullptr;
  auto result = std::make_unique<specials>();
  result->leave = given.leave;
  result->enter = given.enter;
  result->data = given.hook_data;
  if (given.on_start) result->on_start = make_resolver_of(given.on_start, given.on_start_data);
  return result;
}

// The calling thread's record, with what others have dropped unwound; null if it cannot be made.
thread_record* here() {
  thread_record* result = nullptr;
  guarded([&] {
    thread_record& t = this_thread();
    // Not enter(), which may throw what is held: asking who runs must not fail of that.
    if (t.wants(attention::dropped | attention::condemned)) {
      const pinned pin(t);
      flush_dropped(t);
      flush_condemned(t);
    }
    result = &this_thread();  // another, when what ran meanwhile has ended the first
  });
  return result;
}

}  // namespace
}  // namespace detail
}  // namespace greenlets

using namespace greenlets::detail;

greenlet_t* greenlet_new(greenlet_function* run, void* data, greenlet_t* parent) {
  greenlet_t* made = nullptr;
  guarded([&] { made = make({run, data, nullptr}, parent, nullptr, nullptr); });
  return made;
}

greenlet_t* greenlet_new_with(greenlet_function* run, void* data, const greenlet_attributes_t* with) {
  if (!with) return greenlet_new(run, data, nullptr);
  greenlet_t* made = nullptr;
  guarded([&] {
    const greenlet_attributes_t& given = checked(*with);
    c_callable callable(run, data, given.release);
    greenlets::attributes as;
    as.stack_size(given.stack_size).preserve_fp_env(given.preserve_fp_env);
    if (given.name) as.name(given.name);
    made = make(std::move(callable), given.parent, &as, specials_of(given));
  });
  return made;
}

int greenlet_set_run(greenlet_t* g, greenlet_function* run, void* data, void (*release)(void*)) {
  return guarded([&] {
    c_callable callable(run, data, release);
    const greenlets::greenlet& target = handle_of(g);
    set_run(target, make_closure_of(std::move(callable)));
  });
}

int greenlet_reset_run(greenlet_t* g) {
  return guarded([&] { handle_of(g).reset_run(); });
}

int greenlet_has_run(const greenlet_t* g) { return g && body_of(g)->self.has_run(); }

greenlet_t* greenlet_ref(greenlet_t* g) {
  if (g) ref(body_of(g), of_c);
  return g;
}

void greenlet_unref(greenlet_t* g) {
  if (g) unref(body_of(g), of_c);
}

greenlet_t* greenlet_current() {
  const thread_record* t = here();
  return t ? c_pointer(t->running()) : nullptr;
}

greenlet_t* greenlet_main() {
  const thread_record* t = here();
  return t ? c_pointer(t->main) : nullptr;
}

greenlet_t* greenlet_parent(const greenlet_t* g) {
  greenlet_t* parent = nullptr;
  guarded([&] { parent = greenlets::to_c(handle_of(g).parent()); });
  return parent;
}

int greenlet_set_parent(greenlet_t* g, greenlet_t* parent) {
  return guarded([&] { handle_of(g).set_parent(handle_of(parent)); });
}

int greenlet_dead(const greenlet_t* g) { return !g || body_of(g)->self.dead(); }

int greenlet_started(const greenlet_t* g) { return g && body_of(g)->self.started(); }

int greenlet_active(const greenlet_t* g) { return g && static_cast<bool>(body_of(g)->self); }

int greenlet_is_main(const greenlet_t* g) { return g && body_of(g)->main; }

greenlet_state_t greenlet_state(const greenlet_t* g) {
  using greenlets::greenlet_state;
  static_assert(GREENLET_UNSTARTED == static_cast<int>(greenlets::greenlet_state::unstarted) &&
                GREENLET_CURRENT == static_cast<int>(greenlets::greenlet_state::current) &&
                GREENLET_SUSPENDED == static_cast<int>(greenlets::greenlet_state::suspended) &&
                GREENLET_FINISHED == static_cast<int>(greenlets::greenlet_state::finished) &&
                GREENLET_UNWOUND == static_cast<int>(greenlets::greenlet_state::unwound));
  return g ? static_cast<greenlet_state_t>(body_of(g)->self.state()) : GREENLET_FINISHED;
}

uint64_t greenlet_id(const greenlet_t* g) { return g ? body_of(g)->id : 0; }

size_t greenlet_name(const greenlet_t* g, char* buffer, size_t size) {
  std::shared_ptr<const std::string> name;
  if (g) {
    body* const b = body_of(g);
    const std::lock_guard lock(b->lock);
    name = b->name;
  }
  const size_t length = name ? name->size() : 0;
  if (buffer && size) {
    const size_t copied = std::min(length, size - 1);
    if (copied) std::memcpy(buffer, name->data(), copied);
    buffer[copied] = '\0';
  }
  return length;
}

int greenlet_set_name(greenlet_t* g, const char* name) {
  return guarded([&] { handle_of(g).set_name(name ? name : ""); });
}
