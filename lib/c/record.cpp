// SPDX-License-Identifier: MIT
// The last error of the running greenlet.
#include "record.hpp"

#include <new>
#include <stdexcept>
#include <system_error>

namespace greenlets::detail {
namespace {

// The C codes are the C++ ones.
constexpr bool same(int c, errc cpp) { return c == static_cast<int>(cpp); }
static_assert(same(GREENLET_DIFFERENT_THREAD, errc::different_thread) &&
              same(GREENLET_THREAD_EXITED, errc::thread_exited) && same(GREENLET_COLLECTED, errc::collected) &&
              same(GREENLET_NO_RUN, errc::no_run) && same(GREENLET_ALREADY_STARTED, errc::already_started) &&
              same(GREENLET_CYCLIC_PARENT, errc::cyclic_parent) && same(GREENLET_MAIN_PARENT, errc::main_parent) &&
              same(GREENLET_PARENT_THREAD, errc::parent_thread) && same(GREENLET_WRONG_TYPE, errc::wrong_type) &&
              same(GREENLET_WRONG_ARGUMENTS, errc::wrong_arguments) &&
              same(GREENLET_EMPTY_HANDLE, errc::empty_handle) && same(GREENLET_NOT_RUNNING, errc::not_running) &&
              same(GREENLET_STACK_LIMIT, errc::stack_limit) &&
              same(GREENLET_ALREADY_WAITING, errc::already_waiting) && same(GREENLET_IN_HOOK, errc::in_hook) &&
              same(GREENLET_NO_VALUE, errc::no_value) && same(GREENLET_WRONG_TOKEN, errc::wrong_token) &&
              same(GREENLET_ALREADY_ENTERED, errc::already_entered) &&
              same(GREENLET_OUT_OF_TURN, errc::out_of_turn));

// Where there is no memory for a record, or none for the thread's first one, at least the code is kept,
// and then it is the thread's. Zero while the record has the last error.
__attribute__((tls_model("initial-exec"))) thread_local int code_without_record = GREENLET_OK;
__attribute__((tls_model("initial-exec"))) thread_local int number_without_record = 0;

int status_of(const std::exception_ptr& e, int& number) noexcept {
  try {
    std::rethrow_exception(e);
  } catch (const greenlet_exit&) {
    return GREENLET_EXIT;
  } catch (const error& x) {
    return static_cast<int>(x.code());
  } catch (const std::system_error& x) {
    number = x.code().value();
    return GREENLET_SYSTEM;
  } catch (const std::bad_alloc&) {
    return GREENLET_NO_MEMORY;
  } catch (const std::invalid_argument&) {
    return GREENLET_INVALID;
  } catch (...) {
    return GREENLET_THROWN;
  }
}

int note(std::exception_ptr e, int status, int number) noexcept {
  c_record* const r = c_record_here();
  code_without_record = r ? GREENLET_OK : status;
  number_without_record = r ? 0 : number;
  if (!r) return status;
  // The old ones are destroyed when everything is in its place: their destructors are user code.
  const std::exception_ptr old_last = std::exchange(r->last, e);
  std::exception_ptr old;
  if (status == GREENLET_EXIT) old = std::exchange(r->exit, e);
  if (status == GREENLET_THROWN) old = std::exchange(r->thrown, e);
  r->code = status;
  r->number = number;
  r->has_message = false;
  return status;
}

}  // namespace

c_record* c_record_if_any() noexcept {
  const thread_record* t = this_thread_if_any();
  return t ? t->running()->c : nullptr;
}

c_record* c_record_here() noexcept {
  try {
    body* const self = this_thread().running();
    self->wear();
    if (!self->c) self->c = new c_record;
    return self->c;
  } catch (const std::exception&) {
    return nullptr;
  }
}

void free_c_record(body* b) noexcept {
  c_record* const r = std::exchange(b->c, nullptr);
  // One that was made after the end may go on another thread, which must not count; then the bit stays up.
  thread_record* const t = this_thread_if_any();
  if (r && r->received && t && b->thread() == t) count_received(*t, false);
  delete r;
}

void count_received(thread_record& t, bool one_more) noexcept {
  if (one_more ? t.received_exits++ == 0 : --t.received_exits == 0)
    one_more ? t.raise(attention::received) : t.lower(attention::received);
}

int fail(std::exception_ptr e) noexcept {
  int number = 0;
  const int status = status_of(e, number);
  return note(std::move(e), status, number);
}

int fail_with_current() {
  std::exception_ptr e = std::current_exception();
  if (!e) throw;  // there is no C++ object in a forced unwind
  return fail(std::move(e));
}

int fail(std::exception_ptr e, int status) noexcept { return note(std::move(e), status, 0); }

bool could_not_keep(int status) noexcept { return code_without_record == status; }

void clear_errors() noexcept {
  code_without_record = GREENLET_OK;
  number_without_record = 0;
  c_record* const r = c_record_if_any();
  if (!r) return;
  c_record old = std::exchange(*r, {});
  r->received.swap(old.received);  // no error; its payload may be in use
}

std::string message_of(const std::exception_ptr& e) {
  try {
    std::rethrow_exception(e);
  } catch (const std::exception& x) {
    return x.what();
  } catch (...) {
    return describe(e);
  }
}

}  // namespace greenlets::detail

using namespace greenlets::detail;

int greenlet_last_error() {
  if (code_without_record != GREENLET_OK) return code_without_record;
  const c_record* r = c_record_if_any();
  return r ? r->code : static_cast<int>(GREENLET_OK);
}

int greenlet_last_errno() {
  if (code_without_record != GREENLET_OK) return number_without_record;
  const c_record* r = c_record_if_any();
  return r ? r->number : 0;
}

const char* greenlet_last_message() {
  if (code_without_record != GREENLET_OK) return greenlet_strerror(code_without_record);
  c_record* const r = c_record_if_any();
  if (!r || !r->last) return "";
  if (!r->has_message) {
    try {
      r->message = message_of(r->last);
      r->has_message = true;
    } catch (const std::bad_alloc&) {
      return greenlet_strerror(r->code);
    }
  }
  return r->message.c_str();
}

greenlet_exception_t* greenlet_last_exception() {
  const c_record* r = c_record_if_any();
  return code_without_record == GREENLET_OK && r ? to_c_if_possible(r->last) : nullptr;
}

void greenlet_clear_error() { clear_errors(); }

const char* greenlet_strerror(int status) {
  switch (status) {
    case GREENLET_OK: return "success";
    case GREENLET_DIFFERENT_THREAD: return "the greenlet belongs to a different thread";
    case GREENLET_THREAD_EXITED: return "the greenlet belongs to a different thread (which happens to have exited)";
    case GREENLET_COLLECTED: return "the main greenlet of a thread that has exited";
    case GREENLET_NO_RUN: return "the greenlet has nothing to run";
    case GREENLET_ALREADY_STARTED: return "the greenlet has been started";
    case GREENLET_CYCLIC_PARENT: return "cyclic parent chain";
    case GREENLET_MAIN_PARENT: return "a main greenlet has no parent";
    case GREENLET_PARENT_THREAD: return "parent cannot be on a different thread";
    case GREENLET_WRONG_TYPE: return "what was sent is not a void pointer";
    case GREENLET_WRONG_ARGUMENTS: return "what was given does not fit";
    case GREENLET_EMPTY_HANDLE: return "the handle refers to no greenlet";
    case GREENLET_NOT_RUNNING: return "no greenlet of this thread is running";
    case GREENLET_STACK_LIMIT: return "the system allows no more guarded stacks";
    case GREENLET_ALREADY_WAITING: return "another greenlet already waits for the same thing";
    case GREENLET_IN_HOOK: return "a hook on a greenlet's switches must not switch";
    case GREENLET_NO_VALUE: return "the context variable has no value";
    case GREENLET_WRONG_TOKEN: return "the token does not fit";
    case GREENLET_ALREADY_ENTERED: return "the context has been entered already";
    case GREENLET_OUT_OF_TURN: return "the generator is out of turn";
    case GREENLET_SYSTEM: return "a system call failed";
    case GREENLET_NO_MEMORY: return "no memory";
    case GREENLET_INVALID: return "invalid argument";
    case GREENLET_THROWN: return "something was thrown into the greenlet";
    case GREENLET_EXIT: return "the greenlet is told to end";
    default: return status > 0 && status < GREENLET_USER ? "unknown status" : "an error of the program";
  }
}
