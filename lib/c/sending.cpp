// SPDX-License-Identifier: MIT
// Switching in C: payloads, what comes back, and how a C function ends its greenlet.
#include "record.hpp"

#include <cstddef>
#include <new>

namespace greenlets::detail {
namespace {

value packed(void* payload) {
  if (payload == greenlet_nothing()) return {};
  return value(payload);
}

// Notes whether what was received is the exit that ended somebody. Returns whether it could be kept.
bool note_received(const value& v) noexcept {
  std::exception_ptr exit = v.thrown();
  c_record* const r = exit ? c_record_here() : c_record_if_any();
  if (!r) return false;
  r->received.swap(exit);
  // While somebody has one, switches come through here, which is where it goes.
  if (bool(r->received) != bool(exit)) count_received(this_thread(), r->received != nullptr);
  return true;
}

// What C can read of it. Throws unreadable_value, which takes it.
void* payload_of(value& v) {
  if (!v.has_value()) return nullptr;
  if (void* const* p = v.get_if<void*>()) return *p;
  if (v.is<std::nullptr_t>()) return nullptr;
  if (v.is<greenlet_exit>()) {
    const bool kept = note_received(v);
    // Else nobody owns what its payload points at.
    const c_exit* const made_by_c = kept ? v.get_if<c_exit>() : nullptr;
    return made_by_c ? made_by_c->payload.get() : nullptr;
  }
  throw unreadable_value(std::move(v));
}

// A C function has ended its greenlet with a status, or told one that it cannot be started: what did it mean?
[[noreturn]] void throw_status(int status, const char* function) {
  if (const c_record* const r = could_not_keep(status) ? nullptr : c_record_if_any()) {
    const std::exception_ptr meant = status == GREENLET_EXIT     ? r->exit
                                     : status == GREENLET_THROWN ? r->thrown
                                     : status == r->code         ? r->last
                                                                 : nullptr;
    if (meant) std::rethrow_exception(meant);
  }
  if (status == GREENLET_EXIT) throw greenlet_exit();
  if (could_not_keep(status)) throw std::bad_alloc();
  throw c_error(status, std::string(function) + " returned status " + std::to_string(status) + ": " +
                            greenlet_strerror(status) + describe_here());
}

value call_c(value& callable, value&& sent_to_us) {
  const c_callable& f = callable.get<c_callable>();
  void* payload = nullptr;
  {
    // Gone before the function runs, which may take long.
    value sent(std::move(sent_to_us));
    if (sent.is<greenlet_exit>() || !sent.has_value() || sent.is<void*>() || sent.is<std::nullptr_t>())
      payload = payload_of(sent);
    else
      throw_wrong_arguments({&typeid(void*)}, sent);
  }
  void* result = nullptr;
  const int status = f.run(f.data, payload, &result);
  if (status != GREENLET_OK) throw_status(status, "the function of a greenlet");
  return packed(result);
}

// What the running greenlet finds when it goes on.
int receive(parcel&& got, void** result) {
  if (got.forced) open(std::move(got));
  if (got.thrown) {
    const int status = is_exit(got.thrown) ? GREENLET_EXIT : GREENLET_THROWN;
    return fail(std::move(got.thrown), status);
  }
  return guarded([&] {
    void* const payload = payload_of(got.sent);
    if (result) *result = payload;
  });
}

int send(body* target, parcel&& p, void** result) {
  if (result) *result = nullptr;
  parcel got;
  if (const int status = guarded([&] { got = exchange(target, std::move(p)); })) return status;
  note_received({});  // not before: a call that is refused has changed nothing
  return receive(std::move(got), result);
}

}  // namespace

closure make_closure_of(c_callable&& callable) {
  c_callable owned(std::move(callable));
  closure c;
  if (owned.run) {
    c.callable = value(std::move(owned));
    c.call = &call_c;
  }
  return c;
}

start_resolver make_resolver_of(greenlet_resolver* f, void* data) {
  return [f, data](const greenlet& g) {
    greenlet_run_t what = {nullptr, nullptr, nullptr};
    const int status = f(c_pointer(g), data, &what);
    c_callable given(what.run, what.data, what.release);
    if (status != GREENLET_OK) throw_status(status, "the resolver of a greenlet");
    return make_closure_of(std::move(given));
  };
}

}  // namespace greenlets::detail

using namespace greenlets::detail;

// straight.cpp compares with its address, in assembly, which link-time optimisation does not see.
extern "C" __attribute__((visibility("hidden"))) char greenlet_c_nothing;
__attribute__((used)) char greenlet_c_nothing;

void* greenlet_nothing() { return &greenlet_c_nothing; }

int greenlets::detail::switch_slowly(greenlet_t* g, void* payload, void** result) {
  if (result) *result = nullptr;
  if (const int status = guarded([&] { handle_of(g); })) return status;
  return send(body_of(g), parcel(packed(payload)), result);
}

int greenlets::detail::switch_to_parent_slowly(void* payload, void** result) {
  return send(nullptr, parcel(packed(payload)), result);
}

int greenlets::detail::land(const machine::cargo& c, body* self, void** result) {
  if (result) *result = nullptr;
  parcel got = is_in_slot(c) ? arrived(self) : parcel_of(c);
  note_received({});
  return receive(std::move(got), result);
}

int greenlet_throw(greenlet_t* g, greenlet_exception_t* e, void** result) {
  if (result) *result = nullptr;
  parcel p;
  const int status = guarded([&] {
    handle_of(g);
    p.thrown = e ? e->thrown : std::make_exception_ptr(greenlets::greenlet_exit());
  });
  if (status) return status;
  return send(body_of(g), std::move(p), result);
}

greenlet_exception_t* greenlet_received_exit() {
  const c_record* const r = c_record_if_any();
  return r ? to_c_if_possible(r->received) : nullptr;
}

int greenlet_fail_with(greenlet_exception_t* e) {
  if (!e) return guarded([] { throw greenlets::error(greenlets::errc::empty_handle, "there is no exception to fail with"); });
  if (!c_record_here()) return fail(std::make_exception_ptr(std::bad_alloc()));
  return fail(e->thrown, greenlet_exception_is_exit(e) ? GREENLET_EXIT : GREENLET_THROWN);
}
