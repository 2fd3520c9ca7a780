// SPDX-License-Identifier: MIT
// The C interface, from C: payloads, statuses, the tree, ends, references.
#include "c_testing.h"

#include <errno.h>

// --- Functions of greenlets ----------------------------------------------------------------------------

static int doubler(void* data, void* payload, void** result) {
  (void)data, (void)result;
  int status = GREENLET_OK;
  while (status == GREENLET_OK) status = greenlet_switch_to_parent(number(2 * as_number(payload)), &payload);
  return status;
}

// Returns `data` as its result.
static int returns(void* data, void* payload, void** result) {
  (void)payload;
  *result = data;
  return GREENLET_OK;
}

// Returns the number `data` as its status.
static int returns_status(void* data, void* payload, void** result) {
  (void)payload, (void)result;
  return (int)as_number(data);
}

static int echo(void* data, void* payload, void** result) {
  (void)data;
  *result = payload;
  return GREENLET_OK;
}

// Switches to its parent once; notes what comes, under the name `data`; returns the status.
static int waits(void* data, void* payload, void** result) {
  const int status = greenlet_switch_to_parent(payload, result);
  if (data) note(data);
  note(status == GREENLET_EXIT ? "exit" : status == GREENLET_THROWN ? "thrown" : status == GREENLET_OK ? "ok" : "error");
  return status;
}

static void notes_release(void* data) { note(data); }

// --- Payloads ----------------------------------------------------------------------------------------

static void passes(void) {
  greenlet_t* g = greenlet_new(doubler, NULL, NULL);
  void* answer = NULL;
  for (int n = 1; n <= 3; ++n) {
    CHECK(greenlet_switch(g, number(n), &answer) == GREENLET_OK);
    CHECK(as_number(answer) == 2 * n);
  }
  CHECK(greenlet_switch(g, number(4), NULL) == GREENLET_OK);  // nobody cares for the answer
  greenlet_unref(g);
}

static void passes_data(void) {
  int object = 0;
  void* answer = NULL;
  greenlet_t* g = greenlet_new(returns, &object, NULL);
  CHECK(greenlet_switch(g, NULL, &answer) == GREENLET_OK);
  CHECK(answer == &object);
  greenlet_unref(g);

  g = greenlet_new(echo, NULL, NULL);
  CHECK(greenlet_switch(g, &object, &answer) == GREENLET_OK);
  CHECK(answer == &object);
  greenlet_unref(g);

  g = greenlet_new(echo, NULL, NULL);
  CHECK(greenlet_switch(g, GREENLET_NOTHING, &answer) == GREENLET_OK);
  CHECK(answer == NULL);
  greenlet_unref(g);
}

static void to_itself_and_to_the_dead(void) {
  void* answer = NULL;
  CHECK(greenlet_switch(greenlet_current(), number(5), &answer) == GREENLET_OK);
  CHECK(as_number(answer) == 5);
  greenlet_t* g = greenlet_new(echo, NULL, NULL);
  greenlet_switch(g, NULL, NULL);
  CHECK(greenlet_dead(g));
  CHECK(greenlet_switch(g, number(6), &answer) == GREENLET_OK);
  CHECK(as_number(answer) == 6);
  greenlet_unref(g);
}

// --- How a greenlet ends -----------------------------------------------------------------------------

static void ends_by_a_status_of_its_own(void) {
  void* answer = &answer;
  greenlet_t* g = greenlet_new(returns_status, number(-ECONNRESET), NULL);
  CHECK(greenlet_switch(g, NULL, &answer) == GREENLET_THROWN);
  CHECK(answer == NULL);
  CHECK(greenlet_dead(g));
  CHECK(greenlet_last_error() == GREENLET_THROWN);
  greenlet_exception_t* e = greenlet_last_exception();
  CHECK(greenlet_exception_code(e) == -ECONNRESET);
  CHECK(!greenlet_exception_is_exit(e));
  CHECK_TEXT(greenlet_exception_type(e), "greenlets::c_error");
  CHECK(strstr(greenlet_exception_message(e), "status -104") != NULL);
  CHECK_TEXT(greenlet_last_message(), greenlet_exception_message(e));
  greenlet_exception_unref(e);
  greenlet_unref(g);
}

static int misuses(void* data, void* payload, void** result) {
  (void)data, (void)payload;
  return greenlet_switch(NULL, NULL, result);
}

static greenlet_t* unrelated_to_all;

static int passes_on(void* data, void* payload, void** result) {
  const int status = greenlet_switch(data, payload, result);
  note(status == GREENLET_THROWN ? "passes on" : "?");
  greenlet_t* unrelated = greenlet_new(doubler, NULL, NULL);  // cleaning up may succeed, and fail
  greenlet_switch(unrelated, NULL, NULL);
  greenlet_unref(unrelated);
  CHECK(greenlet_set_parent(greenlet_main(), unrelated_to_all) == GREENLET_MAIN_PARENT);
  return status;
}

static void an_error_goes_to_the_parent_whole(void) {
  unrelated_to_all = greenlet_new(NULL, NULL, NULL);
  greenlet_t* outer = greenlet_new(passes_on, NULL, NULL);
  greenlet_t* inner = greenlet_new(misuses, NULL, outer);
  CHECK(greenlet_set_run(outer, passes_on, inner, NULL) == GREENLET_OK);
  CHECK(greenlet_switch(outer, NULL, NULL) == GREENLET_THROWN);
  EXPECT("passes on");
  greenlet_exception_t* e = greenlet_last_exception();
  CHECK(greenlet_exception_code(e) == GREENLET_EMPTY_HANDLE);
  CHECK_TEXT(greenlet_exception_type(e), "greenlets::error");
  CHECK(strncmp(greenlet_exception_message(e), "the handle refers to no greenlet\n", 33) == 0);
  greenlet_exception_unref(e);
  greenlet_unref(inner);
  greenlet_unref(outer);
  greenlet_unref(unrelated_to_all);
}

static void ends_by_an_exit_of_its_own(void) {
  void* answer = &answer;
  greenlet_t* g = greenlet_new(returns_status, number(GREENLET_EXIT), NULL);
  CHECK(greenlet_switch(g, NULL, &answer) == GREENLET_OK);
  CHECK(answer == NULL);
  greenlet_exception_t* e = greenlet_received_exit();
  CHECK(greenlet_exception_is_exit(e));
  CHECK(greenlet_exception_reason(e) == GREENLET_REASON_THROWN);
  CHECK(greenlet_exception_code(e) == GREENLET_EXIT);
  greenlet_exception_unref(e);
  greenlet_unref(g);

  g = greenlet_new(echo, NULL, NULL);
  greenlet_switch(g, NULL, NULL);
  CHECK(greenlet_received_exit() == NULL);  // of the last switch only
  greenlet_unref(g);
}

static void thrown_was_never_thrown(void) {
  greenlet_t* g = greenlet_new(returns_status, number(GREENLET_THROWN), NULL);
  CHECK(greenlet_switch(g, NULL, NULL) == GREENLET_THROWN);
  greenlet_exception_t* e = greenlet_last_exception();
  CHECK(greenlet_exception_code(e) == GREENLET_THROWN);
  CHECK(strstr(greenlet_exception_message(e), "returned status 200") != NULL);
  greenlet_exception_unref(e);
  greenlet_unref(g);
}

static int fails_with(void* data, void* payload, void** result) {
  (void)payload, (void)result;
  greenlet_exception_t* e = data;
  const int status = greenlet_fail_with(e);
  greenlet_exception_unref(e);
  return status;
}

static void ends_by_what_it_made(void) {
  static char payload[] = "payload released";
  greenlet_t* g = greenlet_new(fails_with, greenlet_exception_new(42, "disk full", payload, notes_release), NULL);
  CHECK(greenlet_switch(g, NULL, NULL) == GREENLET_THROWN);
  greenlet_exception_t* e = greenlet_last_exception();
  CHECK(greenlet_exception_code(e) == 42);
  CHECK(greenlet_exception_payload(e) == payload);
  CHECK_TEXT(greenlet_exception_message(e), "disk full");
  CHECK_TEXT(greenlet_last_message(), "disk full");
  greenlet_exception_unref(e);
  EXPECT("");  // the last error still has it
  greenlet_clear_error();
  EXPECT("payload released");
  greenlet_unref(g);

  void* answer = NULL;
  g = greenlet_new(fails_with, greenlet_exception_new_exit(payload, notes_release), NULL);
  CHECK(greenlet_switch(g, NULL, &answer) == GREENLET_OK);
  CHECK(answer == payload);
  greenlet_unref(g);
  greenlet_switch(greenlet_current(), NULL, NULL);  // the next switch forgets what was received
  EXPECT("payload released");
  CHECK(greenlet_fail_with(NULL) == GREENLET_EMPTY_HANDLE);
}

// --- Errors of the call ------------------------------------------------------------------------------

static void null_is_an_error(void) {
  void* answer = &answer;
  char name[4] = "abc";
  CHECK(greenlet_switch(NULL, NULL, &answer) == GREENLET_EMPTY_HANDLE);
  CHECK(answer == NULL);
  CHECK(greenlet_last_error() == GREENLET_EMPTY_HANDLE);
  CHECK(strncmp(greenlet_last_message(), "the handle refers to no greenlet\n", 33) == 0);
  CHECK(greenlet_throw(NULL, NULL, &answer) == GREENLET_EMPTY_HANDLE);
  CHECK(greenlet_set_run(NULL, echo, NULL, NULL) == GREENLET_EMPTY_HANDLE);
  CHECK(greenlet_reset_run(NULL) == GREENLET_EMPTY_HANDLE);
  CHECK(greenlet_set_parent(NULL, greenlet_current()) == GREENLET_EMPTY_HANDLE);
  CHECK(greenlet_set_name(NULL, "x") == GREENLET_EMPTY_HANDLE);
  CHECK(greenlet_report_unraisable(NULL, NULL) == GREENLET_EMPTY_HANDLE);
  greenlet_clear_error();
  CHECK(greenlet_parent(NULL) == NULL && greenlet_last_error() == GREENLET_EMPTY_HANDLE);
  greenlet_clear_error();
  CHECK(greenlet_weak_new(NULL) == NULL && greenlet_last_error() == GREENLET_EMPTY_HANDLE);
  CHECK(greenlet_weak_lock(NULL) == NULL && greenlet_weak_expired(NULL));
  CHECK(greenlet_dead(NULL) && !greenlet_started(NULL) && !greenlet_active(NULL) && !greenlet_is_main(NULL));
  CHECK(greenlet_state(NULL) == GREENLET_FINISHED && !greenlet_has_run(NULL) && greenlet_id(NULL) == 0);
  CHECK(greenlet_name(NULL, name, sizeof name) == 0 && name[0] == '\0');
  CHECK(greenlet_ref(NULL) == NULL && greenlet_exception_ref(NULL) == NULL);
  greenlet_unref(NULL);
  greenlet_weak_free(NULL);
  greenlet_exception_unref(NULL);
  CHECK(!greenlet_exception_is_exit(NULL) && greenlet_exception_code(NULL) == GREENLET_OK);
  CHECK(greenlet_exception_payload(NULL) == NULL && greenlet_exception_reason(NULL) == GREENLET_REASON_THROWN);
  CHECK_TEXT(greenlet_exception_type(NULL), "");
  CHECK_TEXT(greenlet_exception_message(NULL), "");
}

static void nothing_to_run(void) {
  static char data[] = "released";
  greenlet_t* g = greenlet_new(NULL, NULL, NULL);
  CHECK(g && !greenlet_has_run(g));
  CHECK(greenlet_switch(g, NULL, NULL) == GREENLET_NO_RUN);
  CHECK(greenlet_throw(g, NULL, NULL) == GREENLET_NO_RUN);
  CHECK(greenlet_state(g) == GREENLET_UNSTARTED);
  CHECK(greenlet_set_run(g, echo, data, notes_release) == GREENLET_OK);
  CHECK(greenlet_has_run(g));
  CHECK(greenlet_reset_run(g) == GREENLET_OK);
  EXPECT("released");
  CHECK(greenlet_set_run(g, echo, data, notes_release) == GREENLET_OK);
  CHECK(greenlet_switch(g, NULL, NULL) == GREENLET_OK);
  EXPECT("released");
  CHECK(greenlet_set_run(g, echo, data, notes_release) == GREENLET_ALREADY_STARTED);
  EXPECT("released");  // owned from the call on, whatever becomes of it
  CHECK(greenlet_reset_run(g) == GREENLET_ALREADY_STARTED);
  greenlet_unref(g);
}

static void attributes(void) {
  static char data[] = "released";
  greenlet_attributes_t with = GREENLET_ATTRIBUTES;
  char name[8];
  with.name = "client 7";
  with.stack_size = 64 * 1024;
  with.release = notes_release;
  greenlet_t* g = greenlet_new_with(echo, data, &with);
  CHECK(greenlet_name(g, NULL, 0) == 8);
  CHECK(greenlet_name(g, name, sizeof name) == 8);
  CHECK_TEXT(name, "client ");
  with.parent = g;
  greenlet_t* child = greenlet_new_with(echo, data, &with);
  greenlet_t* parent = greenlet_parent(child);
  CHECK(parent == g);
  greenlet_unref(parent);
  greenlet_unref(child);  // never run
  EXPECT("released");
  greenlet_unref(g);
  EXPECT("released");

  with.parent = NULL;
  with.stack_size = (size_t)-1;
  CHECK(greenlet_new_with(echo, data, &with) == NULL);
  CHECK(greenlet_last_error() == GREENLET_INVALID);
  EXPECT("released");
  with.stack_size = 0;
  g = greenlet_new_with(NULL, data, &with);  // without a function nobody needs its data
  EXPECT("released");
  greenlet_unref(g);
  with.size = sizeof with - 1;
  CHECK(greenlet_new_with(echo, data, &with) == NULL);
  CHECK(greenlet_last_error() == GREENLET_WRONG_ARGUMENTS);
  EXPECT("");  // who knows what there is

  struct {
    greenlet_attributes_t known;
    long unknown;
  } later = {GREENLET_ATTRIBUTES, 0};
  later.known.size = sizeof later;
  g = greenlet_new_with(echo, NULL, &later.known);
  CHECK(g != NULL);
  greenlet_unref(g);
  later.unknown = 1;
  CHECK(greenlet_new_with(echo, NULL, &later.known) == NULL);
  CHECK(greenlet_last_error() == GREENLET_WRONG_ARGUMENTS);
}

static void the_system_refuses(void) {
  greenlet_attributes_t with = GREENLET_ATTRIBUTES;
  with.stack_size = too_large();
  greenlet_t* g = greenlet_new_with(echo, NULL, &with);
  CHECK(greenlet_switch(g, NULL, NULL) == GREENLET_SYSTEM);
  CHECK(greenlet_last_errno() == ENOMEM || greenlet_last_errno() == EINVAL);  // the second from valgrind
  CHECK(strstr(greenlet_last_message(), "mmap") != NULL);
  CHECK(greenlet_state(g) == GREENLET_UNSTARTED);
  greenlet_unref(g);
}

static int fails_otherwise(void* data, void* payload, void** result) {
  greenlet_reset_run(data);  // already started
  const int status = greenlet_switch_to_parent(payload, result);
  CHECK(greenlet_last_error() == GREENLET_ALREADY_STARTED);
  return status;
}

static void the_last_error_is_the_greenlets(void) {
  CHECK(greenlet_last_error() == GREENLET_OK);
  CHECK_TEXT(greenlet_last_message(), "");
  CHECK(greenlet_last_exception() == NULL);
  CHECK(greenlet_switch(NULL, NULL, NULL) == GREENLET_EMPTY_HANDLE);
  const char* const message = greenlet_last_message();
  greenlet_t* g = greenlet_new(fails_otherwise, greenlet_main(), NULL);
  CHECK(greenlet_switch(g, NULL, NULL) == GREENLET_OK);
  CHECK(greenlet_last_error() == GREENLET_EMPTY_HANDLE);  // others fail meanwhile, and success leaves it alone
  CHECK(greenlet_last_message() == message);
  void* answer = &answer;
  CHECK(greenlet_switch_to_parent(NULL, &answer) == GREENLET_MAIN_PARENT);
  CHECK(answer == NULL);
  CHECK(greenlet_last_error() == GREENLET_MAIN_PARENT);
  CHECK(greenlet_switch(g, NULL, NULL) == GREENLET_OK);
  greenlet_unref(g);
}

static void every_status_has_a_text(void) {
  for (int status = GREENLET_OK; status <= GREENLET_ALREADY_SET; ++status)
    CHECK(strcmp(greenlet_strerror(status), "unknown status") != 0);
  for (int status = GREENLET_SYSTEM; status <= GREENLET_INVALID; ++status)
    CHECK(strcmp(greenlet_strerror(status), "unknown status") != 0);
  CHECK(strcmp(greenlet_strerror(GREENLET_THROWN), greenlet_strerror(GREENLET_EXIT)) != 0);
  CHECK_TEXT(greenlet_strerror(999), "unknown status");
  CHECK_TEXT(greenlet_strerror(GREENLET_USER), "an error of the program");
  CHECK_TEXT(greenlet_strerror(-1), "an error of the program");
  CHECK_TEXT(greenlet_version(), GREENLET_VERSION_STRING);
}

// --- Throwing ----------------------------------------------------------------------------------------

static void throws_an_exit(void) {
  void* answer = &answer;
  greenlet_t* g = greenlet_new(waits, NULL, NULL);
  greenlet_switch(g, NULL, NULL);
  CHECK(greenlet_throw(g, NULL, &answer) == GREENLET_OK);
  EXPECT("exit");
  CHECK(answer == NULL && greenlet_dead(g));
  CHECK(greenlet_last_error() == GREENLET_OK);
  CHECK(greenlet_throw(g, NULL, &answer) == GREENLET_OK);  // 92: a dead one passes it on as a value
  greenlet_exception_t* e = greenlet_received_exit();
  CHECK(greenlet_exception_is_exit(e));
  greenlet_exception_unref(e);
  greenlet_unref(g);
}

static void throws_an_error(void) {
  greenlet_exception_t* e = greenlet_exception_new(7, "seven", NULL, NULL);
  greenlet_t* g = greenlet_new(waits, NULL, NULL);
  greenlet_switch(g, NULL, NULL);
  CHECK(greenlet_throw(g, e, NULL) == GREENLET_THROWN);  // 88: what it does not handle goes to its parent
  EXPECT("thrown");
  CHECK(greenlet_throw(g, e, NULL) == GREENLET_THROWN);  // 91: dead
  greenlet_unref(g);

  g = greenlet_new(waits, NULL, NULL);
  CHECK(greenlet_throw(g, e, NULL) == GREENLET_THROWN);  // 89: unstarted, dies without running
  EXPECT("");
  CHECK(greenlet_dead(g));
  greenlet_unref(g);

  CHECK(greenlet_throw(greenlet_current(), e, NULL) == GREENLET_THROWN);  // 93
  greenlet_exception_t* same = greenlet_last_exception();
  CHECK(greenlet_exception_code(same) == 7);
  greenlet_exception_unref(same);
  CHECK(greenlet_throw(greenlet_current(), NULL, NULL) == GREENLET_EXIT);  // 31: in main too
  greenlet_exception_unref(e);
}

static int handles(void* data, void* payload, void** result) {
  (void)data;
  if (greenlet_switch_to_parent(payload, NULL) == GREENLET_THROWN) *result = number(9);
  return GREENLET_OK;
}

static void handles_what_is_thrown(void) {
  void* answer = NULL;
  greenlet_exception_t* e = greenlet_exception_new(7, NULL, NULL, NULL);
  greenlet_t* g = greenlet_new(handles, NULL, NULL);
  greenlet_switch(g, NULL, NULL);
  CHECK(greenlet_throw(g, e, &answer) == GREENLET_OK);  // 87
  CHECK(as_number(answer) == 9);
  greenlet_exception_unref(e);
  greenlet_unref(g);
}

int main(void) {
  TEST_CASE("35, 37: payloads go both ways", passes);
  TEST_CASE("34, 61: data, the first payload and the result", passes_data);
  TEST_CASE("38, 39: to itself, and to a dead greenlet", to_itself_and_to_the_dead);
  TEST_CASE("62: a status of its own goes to the parent as an error", ends_by_a_status_of_its_own);
  TEST_CASE("62: the library's error goes up as it is, through cleanup that fails", an_error_goes_to_the_parent_whole);
  TEST_CASE("64: an exit of its own is an ordinary end", ends_by_an_exit_of_its_own);
  TEST_CASE("GREENLET_THROWN without anything thrown is an error", thrown_was_never_thrown);
  TEST_CASE("a function ends by the exception that it made", ends_by_what_it_made);
  TEST_CASE("96, 210: NULL is an error, never a crash", null_is_an_error);
  TEST_CASE("11, 17: no run, set_run, reset_run", nothing_to_run);
  TEST_CASE("attributes, of this version and of others", attributes);
  TEST_CASE("58: a failure of the system has its errno", the_system_refuses);
  TEST_CASE("the last error belongs to the greenlet", the_last_error_is_the_greenlets);
  TEST_CASE("every status has a text", every_status_has_a_text);
  TEST_CASE("85, 92: an exit is thrown", throws_an_exit);
  TEST_CASE("88, 89, 91, 93: an error is thrown", throws_an_error);
  TEST_CASE("87: a greenlet may handle what is thrown", handles_what_is_thrown);
  return verdict();
}
