// SPDX-License-Identifier: MIT
// The C interface, from C: threads, their exits, and pthread_exit and pthread_cancel in greenlets.
//
// Compiled with -fexceptions, as the header says, so that cleanups run when a thread ends by force.
#include "c_testing.h"

#include <pthread.h>
#include <semaphore.h>
#include <unistd.h>

#if defined(__SANITIZE_THREAD__)
#define T_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define T_TSAN 1
#endif
#endif

static void* const told = &checks;

static void* in_thread(void* (*f)(void*), void* data) {
  pthread_t thread;
  void* result = NULL;
  CHECK(pthread_create(&thread, NULL, f, data) == 0);
  CHECK(pthread_join(thread, &result) == 0);
  return result;
}

static void wait_for(sem_t* s) {
  while (sem_wait(s) != 0) continue;
}

static int waits(void* data, void* payload, void** result) {
  int status;
  do status = greenlet_switch_to_parent(payload, result);
  while (status == GREENLET_OK);
  greenlet_exception_t* e = greenlet_last_exception();
  if (data) note(data);
  switch (greenlet_exception_reason(e)) {
    case GREENLET_REASON_LAST_HANDLE: note("last handle"); break;
    case GREENLET_REASON_THREAD_EXIT: note("thread exit"); break;
    default: note("?");
  }
  greenlet_exception_unref(e);
  return status;
}

static int echo(void* data, void* payload, void** result) {
  (void)data;
  *result = payload;
  return GREENLET_OK;
}

// --- Two threads that live ---------------------------------------------------------------------------

struct shared {
  greenlet_t *main, *suspended, *unstarted, *finished;
  sem_t ready, go_on;
};

static void* has_greenlets(void* data) {
  struct shared* s = data;
  s->main = greenlet_ref(greenlet_current());
  s->suspended = greenlet_new(waits, "suspended", NULL);
  s->unstarted = greenlet_new(echo, NULL, NULL);
  s->finished = greenlet_new(echo, NULL, NULL);
  greenlet_switch(s->suspended, NULL, NULL);
  greenlet_switch(s->finished, NULL, NULL);
  sem_post(&s->ready);
  wait_for(&s->go_on);
  greenlet_current();  // an entry into the library
  note("thread ends");
  return NULL;
}

static void refuses(greenlet_t* g, int status) {
  void* answer = &answer;
  CHECK(greenlet_switch(g, NULL, &answer) == status);
  CHECK(answer == NULL);
  CHECK(greenlet_throw(g, NULL, NULL) == status);
  CHECK(greenlet_last_error() == status);
}

static void another_thread_s_greenlets(void) {
  struct shared s;
  pthread_t thread;
  sem_init(&s.ready, 0, 0);
  sem_init(&s.go_on, 0, 0);
  CHECK(pthread_create(&thread, NULL, has_greenlets, &s) == 0);
  wait_for(&s.ready);
  refuses(s.main, GREENLET_DIFFERENT_THREAD);
  CHECK(strncmp(greenlet_last_message(), "cannot switch to a different thread\n", 36) == 0);
  refuses(s.suspended, GREENLET_DIFFERENT_THREAD);
  refuses(s.unstarted, GREENLET_DIFFERENT_THREAD);
  refuses(s.finished, GREENLET_DIFFERENT_THREAD);
  CHECK(greenlet_set_parent(s.suspended, greenlet_current()) == GREENLET_PARENT_THREAD);
  CHECK(greenlet_state(s.suspended) == GREENLET_SUSPENDED && greenlet_active(s.suspended));

  // 80, 81: an unstarted one may come here.
  void* answer = NULL;
  CHECK(greenlet_set_parent(s.unstarted, greenlet_current()) == GREENLET_OK);
  CHECK(greenlet_switch(s.unstarted, number(3), &answer) == GREENLET_OK);
  CHECK(as_number(answer) == 3);
  greenlet_unref(s.unstarted);

  // 124, 126: it is unwound there, at the next entry into the library.
  greenlet_unref(s.suspended);
  EXPECT("");
  sem_post(&s.go_on);
  pthread_join(thread, NULL);
  EXPECT("suspended, last handle, thread ends");
  refuses(s.finished, GREENLET_THREAD_EXITED);
  refuses(s.main, GREENLET_COLLECTED);
  CHECK(greenlet_dead(s.main) && greenlet_state(s.main) == GREENLET_UNWOUND);
  greenlet_unref(s.finished);
  greenlet_unref(s.main);
  sem_destroy(&s.ready);
  sem_destroy(&s.go_on);
}

// --- The exit of a thread ----------------------------------------------------------------------------

static void* leaves_suspended_ones(void* data) {
  greenlet_t** kept = data;
  for (int n = 0; n < 2; ++n) {
    kept[n] = greenlet_new(waits, n ? "b" : "a", NULL);
    greenlet_switch(kept[n], NULL, NULL);
  }
  greenlet_switch(NULL, NULL, NULL);  // a last error of this thread's, which goes with it
  note("thread ends");
  return told;
}

static void a_thread_s_exit_unwinds(void) {
  greenlet_t* kept[2];
  CHECK(in_thread(leaves_suspended_ones, kept) == told);
  EXPECT("thread ends, b, thread exit, a, thread exit");
  for (int n = 0; n < 2; ++n) {
    CHECK(greenlet_state(kept[n]) == GREENLET_UNWOUND);
    CHECK(greenlet_switch(kept[n], NULL, NULL) == GREENLET_THREAD_EXITED);
    greenlet_unref(kept[n]);
  }
}

static pthread_key_t key;
static void late(void* data) {
  // In a destructor of the thread: the library may be used before its own and after it.
  greenlet_t* g = greenlet_new(echo, NULL, NULL);
  void* answer = NULL;
  CHECK(greenlet_switch(g, data, &answer) == GREENLET_OK && answer == data);
  greenlet_unref(g);
  CHECK(greenlet_switch(NULL, NULL, NULL) == GREENLET_EMPTY_HANDLE);
}

static void* uses_it_late(void* data) {
  greenlet_current();
  pthread_setspecific(key, data);
  return NULL;
}

static void* begins_with_an_error(void* data) {
  CHECK(greenlet_last_error() == GREENLET_OK);
  CHECK(greenlet_switch(NULL, NULL, NULL) == GREENLET_EMPTY_HANDLE);
  CHECK(strstr(greenlet_last_message(), "the pointer is NULL") != NULL);
  greenlet_current();
  CHECK(greenlet_last_error() == GREENLET_EMPTY_HANDLE);
  return data;
}

static void an_error_is_the_first_thing_in_a_thread(void) { CHECK(in_thread(begins_with_an_error, told) == told); }

static void used_in_a_thread_s_destructors(void) {
  CHECK(pthread_key_create(&key, late) == 0);
  for (int n = 0; n < 3; ++n) in_thread(uses_it_late, &key);
  pthread_key_delete(key);
}

// --- The end by force --------------------------------------------------------------------------------

static void cleaned(char** what) { note(*what); }
#define CLEANED(name, text) __attribute__((cleanup(cleaned), unused)) char* name = text

#ifndef T_TSAN  // ThreadSanitizer cannot follow pthread_exit on another stack

static void on_pop(void* what) { note(what); }

static int exits_its_thread(void* data, void* payload, void** result) {
  CLEANED(here, "inner frame");
  (void)payload, (void)result;
  pthread_cleanup_push(on_pop, "handler");
  pthread_exit(data);
  pthread_cleanup_pop(0);
  return GREENLET_OK;
}

static int nests(void* data, void* payload, void** result) {
  CLEANED(here, "outer frame");
  greenlet_t* g = greenlet_new(exits_its_thread, data, NULL);
  const int status = greenlet_switch(g, payload, result);
  note(status == GREENLET_EXIT ? "outer exit" : "?");
  greenlet_unref(g);
  return status;
}

static void* ends_by_force(void* data) {
  CLEANED(here, "main frame");
  greenlet_t** kept = data;
  kept[0] = greenlet_new(waits, "suspended", NULL);
  greenlet_switch(kept[0], NULL, NULL);
  kept[1] = greenlet_new(nests, told, NULL);
  greenlet_switch(kept[1], NULL, NULL);
  note("not reached");
  return NULL;
}

static int exits_its_thread_when_told(void* data, void* payload, void** result) {
  CLEANED(here, "greenlet frame");
  if (greenlet_switch_to_parent(payload, result) == GREENLET_EXIT) pthread_exit(data);
  return GREENLET_OK;
}

static void* drops_one_that_exits(void* data) {
  CLEANED(here, "main frame");
  greenlet_t* g = greenlet_new(exits_its_thread_when_told, data, NULL);
  greenlet_switch(g, NULL, NULL);
  greenlet_unref(g);
  note("dropped");  // a destructor, in C++: nothing may come out of it
  greenlet_switch(greenlet_current(), NULL, NULL);
  note("not reached");
  return NULL;
}

static void pthread_exit_while_being_unwound(void) {
  CHECK(in_thread(drops_one_that_exits, told) == told);
  EXPECT("greenlet frame, dropped, main frame");
}

static void pthread_exit_in_a_greenlet(void) {
  for (int n = 0; n < 50; ++n) {
    greenlet_t* kept[2];
    CHECK(in_thread(ends_by_force, kept) == told);
    // The outer one is a stack of its own, unwound as every suspended one by the thread's exit; its
    // switch returns GREENLET_EXIT there.
    EXPECT("handler, inner frame, main frame, outer exit, outer frame, suspended, thread exit");
    CHECK(greenlet_state(kept[0]) == GREENLET_UNWOUND && greenlet_state(kept[1]) == GREENLET_UNWOUND);
    greenlet_unref(kept[0]);
    greenlet_unref(kept[1]);
  }
}

#endif

static int waits_for_cancellation(void* data, void* payload, void** result) {
  CLEANED(here, "greenlet frame");
  struct shared* s = data;
  (void)payload, (void)result;
  sem_post(&s->ready);
  for (;;) pause();  // a cancellation point
  return GREENLET_OK;
}

static void* waits_in_a_greenlet(void* data) {
  CLEANED(here, "main frame");
  struct shared* s = data;
  s->suspended = greenlet_new(waits_for_cancellation, s, NULL);
  greenlet_switch(s->suspended, NULL, NULL);
  note("not reached");
  return NULL;
}

static void pthread_cancel_in_a_greenlet(void) {
  struct shared s;
  pthread_t thread;
  void* result = NULL;
  sem_init(&s.ready, 0, 0);
  CHECK(pthread_create(&thread, NULL, waits_in_a_greenlet, &s) == 0);
  wait_for(&s.ready);
  CHECK(pthread_cancel(thread) == 0);
  CHECK(pthread_join(thread, &result) == 0);
  CHECK(result == PTHREAD_CANCELED);
  EXPECT("greenlet frame, main frame");
  CHECK(greenlet_dead(s.suspended));
  greenlet_unref(s.suspended);
  sem_destroy(&s.ready);
}

static void* is_no_cancellation_point(void* data) {
  pthread_cancel(pthread_self());
  greenlet_t* g = greenlet_new(waits, data, NULL);
  greenlet_switch(g, NULL, NULL);
  greenlet_switch(NULL, NULL, NULL);
  greenlet_last_message();
  greenlet_unref(g);
  note("not cancelled");
  pthread_testcancel();
  return NULL;
}

static void no_cancellation_point(void) {
  CHECK(in_thread(is_no_cancellation_point, "g") == PTHREAD_CANCELED);
  EXPECT("g, last handle, not cancelled");
}

int main(void) {
  TEST_CASE("80, 102, 124: greenlets of another thread", another_thread_s_greenlets);
  TEST_CASE("137, 139: a thread's exit unwinds its greenlets, before it can be joined", a_thread_s_exit_unwinds);
  TEST_CASE("27: used in the destructors of a thread", used_in_a_thread_s_destructors);
  TEST_CASE("an error is the first thing that a thread meets", an_error_is_the_first_thing_in_a_thread);
#ifndef T_TSAN
  TEST_CASE("167: pthread_exit in a greenlet", pthread_exit_in_a_greenlet);
  TEST_CASE("167: pthread_exit in one that is being unwound comes out of the next switch", pthread_exit_while_being_unwound);
#endif
  TEST_CASE("167: pthread_cancel in a greenlet", pthread_cancel_in_a_greenlet);
  TEST_CASE("167: the library's own functions are no cancellation points", no_cancellation_point);
  return verdict();
}
