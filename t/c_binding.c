/* SPDX-License-Identifier: MIT */
/* The C interface, from C: what bindings use: user data, hooks, resolvers, tracers, a thread's greenlets unwound. */
#include "c_testing.h"

#include <pthread.h>

static void notes(void* data) { note(data); }

static int echo(void* data, void* payload, void** result) {
  (void)data;
  *result = payload;
  return GREENLET_OK;
}

static int waits(void* data, void* payload, void** result) {
  (void)data;
  int status;
  do status = greenlet_switch_to_parent(payload, result);
  while (status == GREENLET_OK);
  return status;
}

static int notes_its_end(void* data, void* payload, void** result) {
  const int status = waits(data, payload, result);
  note(data);
  if (status == GREENLET_EXIT) {
    greenlet_exception_t* e = greenlet_last_exception();
    note(greenlet_exception_reason(e) == GREENLET_REASON_THREAD_EXIT ? "thread exit" : "another reason");
    greenlet_exception_unref(e);
  }
  return status;
}

static greenlet_t* named(greenlet_function* run, const char* name) {
  greenlet_t* g = greenlet_new(run, NULL, NULL);
  greenlet_set_name(g, name);
  return g;
}

static void in_thread(void* (*f)(void*)) {
  pthread_t thread;
  if (CHECK(pthread_create(&thread, NULL, f, NULL) == 0)) pthread_join(thread, NULL);
}

// --- User data and the stack -------------------------------------------------------------------------

static void user_data(void) {
  greenlet_t* g = greenlet_new(echo, NULL, NULL);
  CHECK(greenlet_user_data(g) == NULL);
  CHECK(greenlet_set_user_data(g, "first", notes) == GREENLET_OK);
  CHECK_TEXT((const char*)greenlet_user_data(g), "first");
  CHECK(greenlet_set_user_data(g, "second", notes) == GREENLET_OK);
  EXPECT("first");
  greenlet_switch(g, NULL, NULL);
  EXPECT("");  // dead, and still there
  CHECK_TEXT((const char*)greenlet_user_data(g), "second");
  greenlet_unref(g);
  EXPECT("second");

  CHECK(greenlet_user_data(NULL) == NULL);
  CHECK(greenlet_set_user_data(NULL, "third", notes) == GREENLET_EMPTY_HANDLE);
  EXPECT("third");
  CHECK(greenlet_set_user_data(NULL, NULL, NULL) == GREENLET_EMPTY_HANDLE);
}

static int uses_stack(void* data, void* payload, void** result) {
  volatile char used[20000];
  used[0] = used[sizeof used - 1] = 1;
  (void)data;
  return greenlet_switch_to_parent(payload, result) + used[0] - used[sizeof used - 1];
}

static void* sees_only_the_reserved(void* g) {
  const greenlet_stack_usage_t n = greenlet_stack(g);
  CHECK(n.used == 0 && n.committed == 0 && n.reserved >= 64 * 1024);
  return NULL;
}

static void stack(void) {
  greenlet_attributes_t with = GREENLET_ATTRIBUTES;
  with.stack_size = 64 * 1024;
  greenlet_t* g = greenlet_new_with(uses_stack, NULL, &with);
  CHECK(greenlet_stack(g).reserved == 0);
  greenlet_switch(g, NULL, NULL);
  greenlet_stack_usage_t n = greenlet_stack(g);
  CHECK(n.used >= 20000 && n.used <= n.reserved);
  CHECK(n.committed >= 4096 && n.committed <= n.reserved);
  CHECK(n.reserved >= 64 * 1024 && n.reserved < 128 * 1024);
  pthread_t thread;
  if (CHECK(pthread_create(&thread, NULL, sees_only_the_reserved, g) == 0)) pthread_join(thread, NULL);
  greenlet_switch(g, NULL, NULL);
  n = greenlet_stack(g);
  CHECK(n.used == 0 && n.committed == 0 && n.reserved == 0);
  CHECK(greenlet_stack(NULL).used == 0);
  greenlet_unref(g);
}

// --- Hooks -------------------------------------------------------------------------------------------

static void leaves(void* data) { note(data), note("left"); }
static void enters(void* data) { note(data), note("entered"); }

static void hooks(void) {
  greenlet_attributes_t with = GREENLET_ATTRIBUTES;
  with.leave = leaves;
  with.enter = enters;
  with.hook_data = "g";
  greenlet_t* g = greenlet_new_with(waits, NULL, &with);
  CHECK(greenlet_set_on_switch(greenlet_main(), leaves, NULL, "main") == GREENLET_OK);
  EXPECT("");
  greenlet_switch(g, NULL, NULL);
  EXPECT("main, left, g, entered, g, left");
  CHECK(greenlet_set_on_switch(greenlet_main(), NULL, NULL, NULL) == GREENLET_OK);
  CHECK(greenlet_set_on_switch(g, NULL, enters, "other") == GREENLET_OK);
  greenlet_switch(g, NULL, NULL);
  EXPECT("other, entered");
  CHECK(greenlet_set_on_switch(g, NULL, NULL, NULL) == GREENLET_OK);
  greenlet_unref(g);
  EXPECT("");
  CHECK(greenlet_set_on_switch(NULL, leaves, NULL, NULL) == GREENLET_EMPTY_HANDLE);
}

static void* sets_hooks_of_another(void* g) {
  CHECK(greenlet_set_on_switch(g, leaves, NULL, NULL) == GREENLET_DIFFERENT_THREAD);
  return NULL;
}

static void hooks_of_another_thread(void) {
  greenlet_t* g = greenlet_new(waits, NULL, NULL);
  greenlet_switch(g, NULL, NULL);
  pthread_t thread;
  if (CHECK(pthread_create(&thread, NULL, sets_hooks_of_another, g) == 0)) pthread_join(thread, NULL);
  greenlet_unref(g);
}

static int status_in_hook, unwind_in_hook;
static void switches(void* g) {
  void* answer = g;
  status_in_hook = greenlet_switch(g, NULL, &answer);
  if (answer) note("not NULL");
  unwind_in_hook = greenlet_unwind_thread();
}

static void a_hook_must_not_switch(void) {
  greenlet_t* other = greenlet_new(echo, NULL, NULL);
  greenlet_t* g = greenlet_new(echo, NULL, NULL);
  greenlet_set_on_switch(g, NULL, switches, other);
  void* answer = NULL;
  CHECK(greenlet_switch(g, number(3), &answer) == GREENLET_OK);
  CHECK(as_number(answer) == 3);
  CHECK(status_in_hook == GREENLET_IN_HOOK);
  CHECK(unwind_in_hook == GREENLET_IN_HOOK);
  EXPECT("");
  CHECK(greenlet_state(other) == GREENLET_UNSTARTED);
  CHECK_TEXT(greenlet_strerror(GREENLET_IN_HOOK), "a hook on a greenlet's switches must not switch");
  greenlet_unref(g);
  greenlet_unref(other);
}

// --- Resolvers ---------------------------------------------------------------------------------------

static int says(void* data, void* payload, void** result) {
  note("runs");
  note(data);
  *result = payload;
  return GREENLET_OK;
}

static int resolves(greenlet_t* g, void* data, greenlet_run_t* what) {
  note(greenlet_state(g) == GREENLET_UNSTARTED && !what->run && !what->data && !what->release ? data : "wrong");
  what->run = says;
  what->data = greenlet_user_data(g);
  what->release = notes;
  return GREENLET_OK;
}

static void a_resolver_gives_the_function(void) {
  greenlet_attributes_t with = GREENLET_ATTRIBUTES;
  with.on_start = resolves;
  with.on_start_data = "asked";
  greenlet_t* g = greenlet_new_with(NULL, NULL, &with);
  greenlet_set_user_data(g, "given", NULL);
  EXPECT("");
  void* answer = NULL;
  CHECK(greenlet_switch(g, number(7), &answer) == GREENLET_OK);
  CHECK(as_number(answer) == 7);
  EXPECT("asked, runs, given, given");
  greenlet_unref(g);

  with.release = notes;
  g = greenlet_new_with(says, "before", &with);  // in place of what it had
  greenlet_set_user_data(g, "given", NULL);
  CHECK(greenlet_switch(g, NULL, NULL) == GREENLET_OK);
  EXPECT("asked, before, runs, given, given");
  greenlet_unref(g);

  with.release = NULL;
  g = greenlet_new_with(NULL, NULL, &with);  // a throw asks, and destroys what it gives
  greenlet_set_user_data(g, "given", NULL);
  CHECK(greenlet_throw(g, NULL, NULL) == GREENLET_OK);
  EXPECT("asked, given");
  CHECK(greenlet_dead(g));
  greenlet_unref(g);
}

static int resolves_nothing(greenlet_t* g, void* data, greenlet_run_t* what) {
  (void)g, (void)data, (void)what;
  note("asked");
  return GREENLET_OK;
}

static void a_resolver_may_give_nothing(void) {
  greenlet_attributes_t with = GREENLET_ATTRIBUTES;
  with.on_start = resolves_nothing;
  greenlet_t* g = greenlet_new_with(says, "own", &with);
  CHECK(greenlet_switch(g, NULL, NULL) == GREENLET_OK);
  EXPECT("asked, runs, own");
  greenlet_unref(g);
  g = greenlet_new_with(NULL, NULL, &with);
  CHECK(greenlet_switch(g, NULL, NULL) == GREENLET_NO_RUN);
  EXPECT("asked");
  greenlet_unref(g);
}

static int fails_at_first(greenlet_t* g, void* data, greenlet_run_t* what) {
  int* status = data;
  (void)g;
  what->run = says;
  what->data = "given";
  what->release = notes;
  const int now = *status;
  *status = GREENLET_OK;
  return now == GREENLET_NO_MEMORY ? greenlet_switch(NULL, NULL, NULL) : now;  // an error of the library
}

static void a_resolver_may_fail(void) {
  int status = GREENLET_USER + 5;
  greenlet_attributes_t with = GREENLET_ATTRIBUTES;
  with.on_start = fails_at_first;
  with.on_start_data = &status;
  greenlet_t* g = greenlet_new_with(NULL, NULL, &with);
  CHECK(greenlet_switch(g, NULL, NULL) == GREENLET_THROWN);
  EXPECT("given");  // released, not run
  greenlet_exception_t* e = greenlet_last_exception();
  CHECK(greenlet_exception_code(e) == GREENLET_USER + 5);
  CHECK(strstr(greenlet_exception_message(e), "the resolver of a greenlet returned status 1005") != NULL);
  greenlet_exception_unref(e);
  CHECK(greenlet_state(g) == GREENLET_UNSTARTED);
  status = GREENLET_NO_MEMORY;
  CHECK(greenlet_switch(g, NULL, NULL) == GREENLET_EMPTY_HANDLE);
  EXPECT("given");
  CHECK(greenlet_switch(g, NULL, NULL) == GREENLET_OK);  // tried again
  EXPECT("runs, given, given");
  greenlet_unref(g);
}

// --- Tracers -----------------------------------------------------------------------------------------

static void tells(const greenlet_trace_event_t* event, greenlet_t* origin, greenlet_t* target, void* data) {
  char from[16], to[16], line[80];
  greenlet_name(origin, from, sizeof from);
  greenlet_name(target, to, sizeof to);
  CHECK(target == greenlet_current());
  CHECK(event->kind == GREENLET_TRACE_THROWN || !event->exception);
  snprintf(line, sizeof line, "%s%s>%s%s%s%s", (const char*)data, from, to, event->starts ? " starts" : "",
           event->kind == GREENLET_TRACE_THROWN ? " thrown " : "",
           event->exception ? greenlet_exception_message(event->exception) : "");
  note(line);
}

static void a_tracer_is_told(void) {
  greenlet_set_name(greenlet_main(), "m");
  greenlet_t* g = named(waits, "g");
  CHECK(greenlet_settrace(tells, "", NULL) == GREENLET_OK);
  greenlet_switch(g, NULL, NULL);
  EXPECT("m>g starts, g>m");
  greenlet_switch(greenlet_current(), NULL, NULL);
  EXPECT("m>m");
  greenlet_exception_t* e = greenlet_exception_new(1, "broken", NULL, NULL);
  CHECK(greenlet_throw(g, e, NULL) == GREENLET_THROWN);
  greenlet_exception_unref(e);
  EXPECT("m>g thrown broken, g>m thrown broken");
  greenlet_unref(g);
  g = named(waits, "g");
  greenlet_switch(g, NULL, NULL);
  EXPECT("m>g starts, g>m");
  greenlet_unref(g);  // an exit is thrown into it, and arrives as a payload
  EXPECT("m>g thrown greenlets::greenlet_exit, g>m");
  CHECK(greenlet_settrace(NULL, NULL, NULL) == GREENLET_OK);
  greenlet_switch(greenlet_current(), NULL, NULL);
  EXPECT("");
}

static void tells_with_data_released(void) {
  CHECK(greenlet_settrace(tells, "first", notes) == GREENLET_OK);
  EXPECT("");
  CHECK(greenlet_settrace(tells, "second", notes) == GREENLET_OK);
  EXPECT("first");
  CHECK(greenlet_settrace(tells, "second", notes) == GREENLET_OK);  // the same again
  EXPECT("second");
  CHECK(greenlet_settrace(NULL, "none", notes) == GREENLET_OK);
  EXPECT("second, none");
}

static void* traces_for_itself(void* unused) {
  greenlet_switch(greenlet_current(), NULL, NULL);
  EXPECT("");  // a new thread has none
  greenlet_settrace(tells, "own ", notes);
  greenlet_switch(greenlet_current(), NULL, NULL);
  EXPECT("own >");
  return unused;
}

static void a_tracer_is_the_threads(void) {
  greenlet_settrace(tells, "outer ", NULL);
  in_thread(traces_for_itself);
  EXPECT("own ");  // released at the thread's exit
  greenlet_settrace(NULL, NULL, NULL);
}

static greenlet_t* detour;
static void switches_away(const greenlet_trace_event_t* event, greenlet_t* origin, greenlet_t* target, void* data) {
  (void)event, (void)origin, (void)data;
  if (!greenlet_is_main(target) || !detour) return;
  greenlet_t* g = detour;
  detour = NULL;
  void* answer = NULL;
  CHECK(greenlet_switch(g, number(9), &answer) == GREENLET_OK && as_number(answer) == 9);
  note("detour");
}

static void a_tracer_may_switch(void) {
  greenlet_t* g = greenlet_new(waits, NULL, NULL);
  greenlet_t* other = detour = greenlet_new(echo, NULL, NULL);
  greenlet_settrace(switches_away, NULL, NULL);
  void* answer = NULL;
  CHECK(greenlet_switch(g, number(4), &answer) == GREENLET_OK);
  CHECK(as_number(answer) == 4);  // what was on its way is kept
  EXPECT("detour");
  greenlet_settrace(NULL, NULL, NULL);
  greenlet_unref(g);
  greenlet_unref(other);
}

static void* switches_to_itself(void* unused) {
  greenlet_switch(greenlet_current(), NULL, NULL);
  return unused;
}

static void one_for_all_threads(void) {
  greenlet_set_name(greenlet_main(), "m");
  CHECK(greenlet_settrace_all_threads(tells, "all ", notes) == GREENLET_OK);
  greenlet_settrace(tells, "own ", NULL);
  greenlet_switch(greenlet_current(), NULL, NULL);
  EXPECT("all m>m, own m>m");
  in_thread(switches_to_itself);
  EXPECT("all >");
  greenlet_settrace(NULL, NULL, NULL);
  CHECK(greenlet_settrace_all_threads(NULL, NULL, NULL) == GREENLET_OK);
  greenlet_switch(greenlet_current(), NULL, NULL);
  EXPECT("all ");  // released by the last that forgets it
}

// --- The end of a thread's greenlets -----------------------------------------------------------------

static greenlet_t* suspended;
static void is_still_there(void* data) { note(greenlet_active(suspended) ? data : "too late"); }
static void gives_another(void* data) {
  note(data);
  CHECK(greenlet_at_thread_unwind(is_still_there, "another") == GREENLET_OK);
}

static void* unwinds(void* unused) {
  suspended = greenlet_new(notes_its_end, "g", NULL);
  greenlet_switch(suspended, NULL, NULL);
  CHECK(greenlet_at_thread_unwind(NULL, NULL) == GREENLET_OK);
  CHECK(greenlet_at_thread_unwind(is_still_there, "first") == GREENLET_OK);
  CHECK(greenlet_at_thread_unwind(gives_another, "second") == GREENLET_OK);
  greenlet_settrace(NULL, NULL, NULL);
  greenlet_t* main = greenlet_ref(greenlet_main());
  CHECK(greenlet_unwind_thread() == GREENLET_OK);
  EXPECT("second, another, first, g, thread exit");
  CHECK(greenlet_state(suspended) == GREENLET_UNWOUND);
  CHECK(greenlet_dead(main));
  greenlet_unref(suspended);
  CHECK(greenlet_unwind_thread() == GREENLET_OK);  // nothing is left
  CHECK(greenlet_main() != main && !greenlet_dead(greenlet_main()));
  CHECK(greenlet_switch(main, NULL, NULL) == GREENLET_COLLECTED);
  greenlet_unref(main);
  suspended = greenlet_new(notes_its_end, "h", NULL);
  greenlet_switch(suspended, NULL, NULL);
  greenlet_at_thread_unwind(is_still_there, "at exit");
  return unused;
}

static void a_threads_greenlets_are_unwound(void) {
  in_thread(unwinds);
  EXPECT("at exit, h, thread exit");
  greenlet_unref(suspended);
}

int main(void) {
  TEST_CASE("196: user data stays with the greenlet and is released with it", user_data);
  TEST_CASE("how much of its stack a greenlet uses", stack);
  TEST_CASE("hooks: left and entered", hooks);
  TEST_CASE("hooks are set on the greenlet's own thread", hooks_of_another_thread);
  TEST_CASE("a hook must not switch", a_hook_must_not_switch);
  TEST_CASE("a resolver gives what is to run, and its data", a_resolver_gives_the_function);
  TEST_CASE("a resolver that gives nothing: the greenlet runs what it has", a_resolver_may_give_nothing);
  TEST_CASE("a resolver that fails fails the switch, and is asked again", a_resolver_may_fail);
  TEST_CASE("154, 155, 156, 157: what a tracer is told", a_tracer_is_told);
  TEST_CASE("152, 160: a tracer takes the place of the one before, which is released", tells_with_data_released);
  TEST_CASE("153: a tracer is the thread's", a_tracer_is_the_threads);
  TEST_CASE("161: a tracer may switch", a_tracer_may_switch);
  TEST_CASE("153: one tracer for all threads, before a thread's own", one_for_all_threads);
  TEST_CASE("a thread's greenlets unwound on request, and who is told before", a_threads_greenlets_are_unwound);
  return verdict();
}
