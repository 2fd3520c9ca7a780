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
