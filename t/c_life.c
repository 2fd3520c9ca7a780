// SPDX-License-Identifier: MIT
// The C interface, from C: references, the tree, states, and greenlets that are unwound.
#include "c_testing.h"

// Notes that it runs and, under its name `data`, how it is told to end.
static int waits(void* data, void* payload, void** result) {
  int status;
  do status = greenlet_switch_to_parent(payload, result);
  while (status == GREENLET_OK);
  note(data);
  if (status == GREENLET_EXIT) {
    greenlet_exception_t* e = greenlet_last_exception();
    note(greenlet_exception_reason(e) == GREENLET_REASON_LAST_HANDLE ? "last handle" : "another reason");
    greenlet_exception_unref(e);
  }
  return status;
}

static int echo(void* data, void* payload, void** result) {
  (void)data;
  *result = payload;
  return GREENLET_OK;
}

static void notes_release(void* data) { note(data); }

static int unraisable_code;
static char unraisable_message[256];
static uint64_t unraisable_id;
static void notes_unraisable(greenlet_t* g, greenlet_exception_t* e, void* data) {
  note(data);
  unraisable_id = greenlet_id(g);
  unraisable_code = greenlet_exception_code(e);
  snprintf(unraisable_message, sizeof unraisable_message, "%s", greenlet_exception_message(e));
}
static char unraisable[] = "unraisable";

// --- References --------------------------------------------------------------------------------------

static void the_last_reference_unwinds(void) {
  greenlet_attributes_t with = GREENLET_ATTRIBUTES;
  with.release = notes_release;
  greenlet_t* g = greenlet_new_with(waits, "g", &with);
  greenlet_switch(g, NULL, NULL);
  greenlet_ref(g);
  greenlet_unref(g);
  EXPECT("");
  note("drop");
  greenlet_unref(g);
  EXPECT("drop, g, last handle, g");  // the last is the release of its data
}

static void unstarted_and_dead_are_just_freed(void) {
  greenlet_t* g = greenlet_new(waits, "g", NULL);
  greenlet_unref(g);
  g = greenlet_new(echo, NULL, NULL);
  greenlet_switch(g, NULL, NULL);
  greenlet_unref(g);
  EXPECT("");
}

static int fails_at_the_end(void* data, void* payload, void** result) {
  (void)data;
  greenlet_switch_to_parent(payload, result);
  return 4242;
}

static void an_error_while_unwinding_is_reported(void) {
  CHECK(greenlet_set_unraisable_handler(notes_unraisable, unraisable) == GREENLET_OK);
  greenlet_t* g = greenlet_new(fails_at_the_end, NULL, NULL);
  const uint64_t id = greenlet_id(g);
  greenlet_switch(g, NULL, NULL);
  greenlet_unref(g);
  EXPECT("unraisable");
  CHECK(unraisable_code == 4242 && unraisable_id == id);
  CHECK(greenlet_last_error() == GREENLET_OK);  // nothing of it is ours

  greenlet_exception_t* e = greenlet_exception_new(3, "three", NULL, NULL);
  CHECK(greenlet_report_unraisable(NULL, e) == GREENLET_OK);
  EXPECT("unraisable");
  CHECK(unraisable_code == 3 && unraisable_id == 0);
  CHECK_TEXT(unraisable_message, "three");
  greenlet_exception_unref(e);
  CHECK(greenlet_set_unraisable_handler(NULL, NULL) == GREENLET_OK);
}

static int ignores_its_exit(void* data, void* payload, void** result) {
  while (greenlet_switch_to_parent(payload, result) != GREENLET_EXIT) continue;
  note("exit");
  *(greenlet_weak_t**)data = greenlet_weak_new(greenlet_current());
  greenlet_switch_to_parent(payload, result);
  note("ends");
  return GREENLET_OK;
}

static void an_ignored_exit_is_reported_once(void) {
  // Its thread's exit would tell it again; here a weak reference finds it, and lets it end.
  greenlet_weak_t* w = NULL;
  greenlet_set_unraisable_handler(notes_unraisable, unraisable);
  greenlet_t* g = greenlet_new(ignores_its_exit, &w, NULL);
  greenlet_switch(g, NULL, NULL);
  greenlet_unref(g);
  EXPECT("exit, unraisable");
  CHECK(strncmp(unraisable_message, "greenlet_exit did not kill greenlet ", 36) == 0);
  g = greenlet_weak_lock(w);
  CHECK(greenlet_state(g) == GREENLET_SUSPENDED);
  CHECK(greenlet_switch(g, NULL, NULL) == GREENLET_OK);
  EXPECT("ends");
  CHECK(greenlet_dead(g));
  greenlet_unref(g);
  greenlet_weak_free(w);
  greenlet_set_unraisable_handler(NULL, NULL);
}

static greenlet_t* resurrected;

static int resurrects(void* data, void* payload, void** result) {
  (void)data;
  greenlet_switch_to_parent(payload, result);
  resurrected = greenlet_ref(greenlet_current());
  int status = greenlet_switch_to_parent(payload, result);
  note(status == GREENLET_EXIT ? "exit again" : "?");
  return status;
}

static void a_reference_kept_while_unwinding_keeps_it(void) {
  greenlet_t* g = greenlet_new(resurrects, NULL, NULL);
  greenlet_switch(g, NULL, NULL);
  greenlet_unref(g);
  CHECK(resurrected == g && greenlet_active(g));
  greenlet_unref(resurrected);
  EXPECT("exit again");
}

static int drops_itself(void* data, void* payload, void** result) {
  greenlet_unref(*(greenlet_t**)data);
  note("still running");
  int status = greenlet_switch_to_parent(payload, result);
  note(status == GREENLET_EXIT ? "exit" : "?");
  return status;
}

static void the_running_greenlet_lives_by_running(void) {
  greenlet_t* g = greenlet_new(drops_itself, &g, NULL);
  void* answer = NULL;
  CHECK(greenlet_switch(g, number(8), &answer) == GREENLET_OK);
  CHECK(as_number(answer) == 8);  // 44: the value in flight is not lost
  EXPECT("still running, exit");
}

static void references_are_exact(void) {
  greenlet_t* g = greenlet_new(waits, "g", NULL);
  greenlet_weak_t* w = greenlet_weak_new(g);
  greenlet_switch(g, NULL, NULL);
  for (int n = 0; n < 1000; ++n) {
    CHECK(greenlet_parent(g) == greenlet_current());
    greenlet_unref(greenlet_current());
    greenlet_t* child = greenlet_new(echo, NULL, g);
    CHECK(greenlet_set_parent(child, greenlet_main()) == GREENLET_OK);
    CHECK(greenlet_set_parent(child, g) == GREENLET_OK);
    greenlet_unref(child);
    greenlet_t* same = greenlet_weak_lock(w);
    greenlet_throw(same, NULL, NULL), greenlet_unref(same);
  }
  EXPECT("g, another reason");
  greenlet_unref(g);
  CHECK(greenlet_weak_expired(w));
  greenlet_weak_free(w);
}

static void weak_references(void) {
  greenlet_t* g = greenlet_new(echo, NULL, NULL);
  greenlet_weak_t* w = greenlet_weak_new(g);
  CHECK(!greenlet_weak_expired(w));
  greenlet_t* locked = greenlet_weak_lock(w);
  CHECK(locked == g);
  greenlet_unref(g);
  CHECK(!greenlet_weak_expired(w));
  greenlet_unref(locked);
  CHECK(greenlet_weak_expired(w));
  CHECK(greenlet_weak_lock(w) == NULL);
  greenlet_weak_free(w);
}

static int locks_itself(void* data, void* payload, void** result) {
  int status = greenlet_switch_to_parent(payload, result);
  greenlet_t* self = greenlet_weak_lock(*(greenlet_weak_t**)data);
  note(self == greenlet_current() ? "resolves" : "?");
  greenlet_unref(self);
  return status;
}

static void weak_references_resolve_while_unwinding(void) {
  greenlet_weak_t* w;
  greenlet_t* g = greenlet_new(locks_itself, &w, NULL);
  w = greenlet_weak_new(g);
  greenlet_switch(g, NULL, NULL);
  greenlet_unref(g);
  EXPECT("resolves");
  CHECK(greenlet_weak_expired(w));
  greenlet_weak_free(w);
}

// --- The tree, and what greenlets are ------------------------------------------------------------------

static void parents(void) {
  greenlet_t* const self = greenlet_current();
  CHECK(self == greenlet_main() && greenlet_is_main(self));
  CHECK(greenlet_parent(self) == NULL && greenlet_last_error() == GREENLET_OK);  // no error, for a main greenlet
  greenlet_t* a = greenlet_new(waits, "a", NULL);
  greenlet_t* b = greenlet_new(echo, NULL, a);
  greenlet_t* parent = greenlet_parent(b);
  CHECK(parent == a);
  greenlet_unref(parent);
  CHECK(greenlet_set_parent(a, b) == GREENLET_CYCLIC_PARENT);
  CHECK(greenlet_set_parent(a, a) == GREENLET_CYCLIC_PARENT);
  CHECK(greenlet_set_parent(self, a) == GREENLET_MAIN_PARENT);
  CHECK(greenlet_set_parent(b, NULL) == GREENLET_EMPTY_HANDLE);
  CHECK(greenlet_set_parent(b, self) == GREENLET_OK);
  greenlet_unref(b);
  greenlet_unref(a);
}

static greenlet_t* reached;
static int notes_where(void* data, void* payload, void** result) {
  (void)data;
  reached = greenlet_current();
  *result = payload;
  return GREENLET_OK;
}

static void the_result_goes_to_the_parent_of_now(void) {
  // 212. Also 66: not to who switched there last; and 68: the unstarted one is started with it.
  greenlet_t* parent = greenlet_new(notes_where, NULL, NULL);
  greenlet_t* child = greenlet_new(echo, NULL, NULL);
  void* answer = NULL;
  CHECK(greenlet_set_parent(child, parent) == GREENLET_OK);
  CHECK(greenlet_switch(child, number(11), &answer) == GREENLET_OK);
  CHECK(reached == parent && as_number(answer) == 11);
  greenlet_unref(child);
  greenlet_unref(parent);
}

static int asks_for_its_state(void* data, void* payload, void** result) {
  (void)data;
  greenlet_t* const self = greenlet_current();
  CHECK(greenlet_state(self) == GREENLET_CURRENT && greenlet_active(self) && !greenlet_dead(self));
  CHECK(!greenlet_has_run(self) && greenlet_main() != self && !greenlet_is_main(self));
  CHECK(greenlet_state(greenlet_main()) == GREENLET_SUSPENDED);
  greenlet_switch_to_parent(payload, result);
  return GREENLET_OK;
}

static void states(void) {
  // 211: as the attributes of greenlet, ACTIVE being bool.
  greenlet_t* g = greenlet_new(asks_for_its_state, NULL, NULL);
  CHECK(greenlet_state(g) == GREENLET_UNSTARTED);
  CHECK(!greenlet_started(g) && !greenlet_active(g) && !greenlet_dead(g) && greenlet_has_run(g));
  greenlet_switch(g, NULL, NULL);
  CHECK(greenlet_state(g) == GREENLET_SUSPENDED);
  CHECK(greenlet_started(g) && greenlet_active(g) && !greenlet_dead(g));
  greenlet_switch(g, NULL, NULL);
  CHECK(greenlet_state(g) == GREENLET_FINISHED);
  CHECK(greenlet_started(g) && !greenlet_active(g) && greenlet_dead(g));
  greenlet_unref(g);
}

static void names_and_numbers(void) {
  greenlet_t* g = greenlet_new(echo, NULL, NULL);
  char name[16] = "?";
  CHECK(greenlet_id(g) != 0 && greenlet_id(g) != greenlet_id(greenlet_main()));
  CHECK(greenlet_name(g, name, sizeof name) == 0);
  CHECK_TEXT(name, "");
  CHECK(greenlet_set_name(g, "client") == GREENLET_OK);
  CHECK(greenlet_name(g, name, sizeof name) == 6);
  CHECK_TEXT(name, "client");
  CHECK(greenlet_name(g, name, 1) == 6 && name[0] == '\0');
  greenlet_reset_run(g);
  CHECK(greenlet_switch(g, NULL, NULL) == GREENLET_NO_RUN);
  CHECK(strstr(greenlet_last_message(), "\"client\"") != NULL);
  CHECK(greenlet_set_name(g, NULL) == GREENLET_OK);
  CHECK(greenlet_name(g, NULL, 0) == 0);
  greenlet_unref(g);
}

static void counts(void) {
  const greenlet_counts_t before = holdings();
  greenlet_t* g = greenlet_new(waits, "g", NULL);
  CHECK(greenlet_counts().greenlets == before.greenlets + 1 && greenlet_counts().stacks == before.stacks);
  greenlet_switch(g, NULL, NULL);
  CHECK(greenlet_counts().stacks == before.stacks + 1);
  greenlet_unref(g);
  EXPECT("g, last handle");
  CHECK(greenlet_counts().pooled_stacks == before.pooled_stacks + 1);
  const greenlet_process_stacks_t stacks = greenlet_stack_statistics();
  CHECK(stacks.pooled == greenlet_counts().pooled_stacks);
  CHECK(stacks.in_use + stacks.pooled == greenlet_counts().stacks);
  CHECK(stacks.mapped >= 1 && stacks.guarded == stacks.mapped && stacks.guarded_by_mprotect <= stacks.guarded);
  CHECK(stacks.mapped_bytes >= stacks.mapped * 256 * 1024 && stacks.high_water >= 1);
  CHECK(stacks.high_water_bytes >= stacks.mapped_bytes);
  greenlet_trim_stacks();
  CHECK(greenlet_counts().pooled_stacks == 0 && greenlet_counts().greenlets == before.greenlets);
}

/* What is said of one: t/overflow.cpp. */
static void reports(void) {
  CHECK(greenlet_report_stack_overflows() == GREENLET_OK);
  CHECK(greenlet_report_stack_overflows() == GREENLET_OK);
}

int main(void) {
  TEST_CASE("109: the last reference of a suspended greenlet tells it to end", the_last_reference_unwinds);
  TEST_CASE("110: an unstarted or dead one is just freed", unstarted_and_dead_are_just_freed);
  TEST_CASE("113: an error while unwinding goes to the handler", an_error_while_unwinding_is_reported);
  TEST_CASE("117: an ignored exit is reported once", an_ignored_exit_is_reported_once);
  TEST_CASE("115: resurrection", a_reference_kept_while_unwinding_keeps_it);
  TEST_CASE("24, 44: the running greenlet lives by running", the_running_greenlet_lives_by_running);
  TEST_CASE("213: reference counts are exact", references_are_exact);
  TEST_CASE("194: weak references", weak_references);
  TEST_CASE("119: weak references resolve while unwinding", weak_references_resolve_while_unwinding);
  TEST_CASE("28, 78, 210: parents", parents);
  TEST_CASE("212: the child's end goes to the new parent", the_result_goes_to_the_parent_of_now);
  TEST_CASE("97, 98, 211: states", states);
  TEST_CASE("names and numbers", names_and_numbers);
  TEST_CASE("counts", counts);
  TEST_CASE("overflows of stacks are reported from C too", reports);
  return verdict();
}
