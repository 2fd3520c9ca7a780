// SPDX-License-Identifier: MIT
// The C interface without memory: each allocation of a scenario fails in turn; the status says so, the
// rest goes on, and nothing is left.
#include "testing.hpp"

#include <greenlet/c.hpp>

#include <cstdlib>
#include <new>
#include <stdexcept>
#include <string>

namespace {

// The allocation that fails, counted down; negative: none.
long fails_in = -1;
bool has_failed = false;

void* allocate(std::size_t size) {
  if (fails_in >= 0 && fails_in-- == 0) {
    has_failed = true;
    throw std::bad_alloc();
  }
  if (void* p = std::malloc(size ? size : 1)) return p;
  throw std::bad_alloc();
}

int released;
void release(void*) { ++released; }

int thrown_at(void*, void* payload, void** result) {
  return greenlet_switch_to_parent(payload, result);
}

// Makes, switches, throws, fails and reads what failed. Returns whether something went wrong, which is
// always for want of memory.
bool scenario() {
  bool wrong = false;
  const auto check = [&wrong](int status, int expected) {
    if (status == expected) return;
    wrong = true;
    // The status of a call that could not be done; or, when what was thrown could not be kept.
    CHECK((status == GREENLET_NO_MEMORY || status == GREENLET_THROWN));
  };
  greenlet_attributes_t with = GREENLET_ATTRIBUTES;
  with.name = "a name that does not fit into a string";
  with.release = &release;
  greenlet_t* g = greenlet_new_with(&thrown_at, &wrong, &with);
  if (!g) {
    CHECK(greenlet_last_error() == GREENLET_NO_MEMORY);
    CHECK(*greenlet_last_message() != '\0');
    return true;
  }
  check(greenlet_switch(g, nullptr, nullptr), GREENLET_OK);
  check(greenlet_set_name(g, "another name, as long"), GREENLET_OK);
  greenlet_exception_t* e = greenlet_exception_new(42, "an error with a long enough text", &wrong, &release);
  if (!e) {
    wrong = true;
    CHECK(greenlet_last_error() == GREENLET_NO_MEMORY);
  }
  if (greenlet_active(g)) check(greenlet_throw(g, e, nullptr), e ? GREENLET_THROWN : GREENLET_OK);
  greenlet_exception_t* came = greenlet_last_exception();
  if (e && greenlet_exception_code(came) != 42) {
    wrong = true;  // it could not be kept: there in the greenlet, or here
    if (came) CHECK(std::string(greenlet_exception_type(came)) == "std::bad_alloc");
  }
  greenlet_exception_unref(came);
  check(greenlet_switch(nullptr, nullptr, nullptr), GREENLET_EMPTY_HANDLE);
  CHECK(greenlet_last_error() != GREENLET_OK);
  const char* const message = greenlet_last_message();
  CHECK(*message != '\0');
  if (message == greenlet_strerror(greenlet_last_error())) wrong = true;  // that needs no memory
  greenlet_exception_t* last = greenlet_last_exception();
  if (!last) wrong = true;
  greenlet_exception_unref(last);
  greenlet_exception_unref(e);
  greenlet_unref(g);
  greenlet_clear_error();
  CHECK(greenlet_last_error() == GREENLET_OK);
  return wrong;
}

}  // namespace

void* operator new(std::size_t size) { return allocate(size); }
void operator delete(void* p) noexcept { std::free(p); }
void operator delete(void* p, std::size_t) noexcept { std::free(p); }

TEST_CASE("each allocation may fail") {
  greenlet_clear_error();
  CHECK(!scenario());
  int failed = 0;
  for (long n = 0;; ++n) {
    released = 0;
    has_failed = false;
    fails_in = n;
    const bool wrong = scenario();
    fails_in = -1;
    greenlet_clear_error();
    if (!has_failed) {
      CHECK(!wrong);
      CHECK(released == 2);
      break;
    }
    ++failed;
    CAPTURE(n);
    CHECK(wrong);
    CHECK(released >= 1);  // always, whatever failed
  }
  CHECK(failed > 8);
}

TEST_CASE("tracers, hooks and resolvers for which there is no memory: refused, and the data released") {
  const auto tracer = [](const greenlet_trace_event_t*, greenlet_t*, greenlet_t*, void*) {};
  const auto resolver = [](greenlet_t*, void*, greenlet_run_t*) -> int { return GREENLET_OK; };
  const auto hook = [](void*) {};
  greenlet_attributes_t with = GREENLET_ATTRIBUTES;
  with.release = &release;
  with.on_start = resolver;
  with.leave = hook;
  greenlet_clear_error();
  int failed = 0;
  for (long n = 0;; ++n) {
    released = 0;
    has_failed = false;
    fails_in = n;
    const int traced = greenlet_settrace(tracer, &failed, &release);
    greenlet_settrace(nullptr, nullptr, nullptr);
    const int hooked = greenlet_set_on_switch(greenlet_main(), hook, hook, nullptr);
    const int told = greenlet_at_thread_unwind(hook, nullptr);
    greenlet_t* g = greenlet_new_with(&thrown_at, &failed, &with);
    fails_in = -1;
    greenlet_settrace(nullptr, nullptr, nullptr);
    greenlet_set_on_switch(greenlet_main(), nullptr, nullptr, nullptr);
    greenlet_unref(g);
    greenlet_clear_error();
    CAPTURE(n);
    CHECK(released == 2);
    for (const int status : {traced, hooked, told}) CHECK((status == GREENLET_OK || status == GREENLET_NO_MEMORY));
    if (!has_failed) {
      CHECK(traced == GREENLET_OK);
      CHECK(hooked == GREENLET_OK);
      CHECK(told == GREENLET_OK);
      CHECK(g != nullptr);
      break;
    }
    ++failed;
  }
  CHECK(failed > 5);
}

TEST_CASE("a tracer is told of an exception for which C has no memory, and it arrives") {
  static int told_without;
  told_without = 0;
  greenlet_t* g = greenlet_new(&thrown_at, nullptr, nullptr);
  greenlet_exception_t* e = greenlet_exception_new(42, "an error", nullptr, nullptr);
  REQUIRE(greenlet_switch(g, nullptr, nullptr) == GREENLET_OK);
  REQUIRE(greenlet_settrace(
              [](const greenlet_trace_event_t* event, greenlet_t*, greenlet_t* target, void*) {
                fails_in = -1;
                if (event->kind == GREENLET_TRACE_THROWN && !event->exception) ++told_without;
                greenlet_settrace(nullptr, nullptr, nullptr);
                CHECK(!greenlet_is_main(target));
              },
              nullptr, nullptr) == GREENLET_OK);
  fails_in = 0;
  CHECK(greenlet_throw(g, e, nullptr) == GREENLET_THROWN);
  fails_in = -1;
  CHECK(told_without == 1);
  greenlet_exception_t* came = greenlet_last_exception();
  CHECK(greenlet_exception_code(came) == 42);
  greenlet_exception_unref(came);
  greenlet_exception_unref(e);
  greenlet_unref(g);
  greenlet_clear_error();
}
