// SPDX-License-Identifier: MIT
// What bindings need, in C: user data, hooks on switches, tracers, and the end of a thread's greenlets.
#include "record.hpp"

#include <greenlet/thread.hpp>
#include <greenlet/trace.hpp>

#include <memory>

namespace greenlets::detail {
namespace {

// A tracer is copied by those who set it and those who call it; the data is released with the last copy.
class c_tracer {
 public:
  c_tracer(greenlet_tracer* f, const std::shared_ptr<void>& data) noexcept : f_(f), data_(data) {}

  void operator()(const trace_event& event, const greenlet& origin, const greenlet& target) const {
    // Without memory for it a tracer of C is told of the switch nevertheless, and nothing is thrown.
    const exception_for_c e(to_c_if_possible(event.exception()));
    const auto kind = event == trace_event::thrown ? GREENLET_TRACE_THROWN : GREENLET_TRACE_SWITCHED;
    const greenlet_trace_event_t told = {kind, event.starts() != nullptr, e.get()};
    f_(&told, c_pointer(origin), c_pointer(target), data_.get());
  }

 private:
  greenlet_tracer* f_;
  std::shared_ptr<void> data_;
};

using setter = tracer (*)(tracer);

int set_tracer(setter set, greenlet_tracer* f, void* data, void (*release)(void*)) {
  return guarded([&] {
    tracer made;
    const std::shared_ptr<void> kept(data, [release](void* p) {
      if (release) release(p);
    });
    if (f) made = c_tracer(f, kept);
    set(std::move(made));
  });
}

}  // namespace
}  // namespace greenlets::detail

using namespace greenlets::detail;

greenlet_stack_usage_t greenlet_stack(const greenlet_t* g) {
  const greenlets::stack_usage n = g ? body_of(g)->self.stack() : greenlets::stack_usage();
  return {n.used, n.committed, n.reserved};
}

void* greenlet_user_data(const greenlet_t* g) { return g ? body_of(g)->self.user_data() : nullptr; }

int greenlet_set_user_data(greenlet_t* g, void* data, void (*release)(void*)) {
  if (!g && release) release(data);
  return guarded([&] { handle_of(g).set_user_data(data, release); });
}

int greenlet_set_on_switch(greenlet_t* g, greenlet_switch_hook* leave, greenlet_switch_hook* enter, void* data) {
  return guarded([&] { handle_of(g).set_on_switch(leave, enter, data); });
}

int greenlet_settrace(greenlet_tracer* f, void* data, void (*release)(void*)) {
  return set_tracer(&greenlets::settrace, f, data, release);
}

int greenlet_settrace_all_threads(greenlet_tracer* f, void* data, void (*release)(void*)) {
  return set_tracer(&greenlets::settrace_all_threads, f, data, release);
}

int greenlet_unwind_thread() {
  return guarded([] { greenlets::unwind_thread(); });
}

int greenlet_at_thread_unwind(void (*f)(void*), void* data) {
  if (!f) return GREENLET_OK;
  return guarded([&] { greenlets::at_thread_unwind([f, data] { f(data); }); });
}
