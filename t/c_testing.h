/* SPDX-License-Identifier: MIT */
/* What the C tests share: checks that are counted, cases that are named and leave nothing behind. */
#ifndef T_C_TESTING_H
#define T_C_TESTING_H

#include "too_large.h"

#include <greenlet/greenlet.h>

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

static atomic_int checks, failures; /* of all threads */
static const char* case_name;

static inline int check(int holds, const char* what, const char* file, int line) {
  ++checks;
  if (holds) return 1;
  ++failures;
  printf("%s:%d: in \"%s\": FAILED: %s\n  last error: %d %s\n", file, line, case_name, what, greenlet_last_error(),
         greenlet_last_message());
  return 0;
}
#define CHECK(condition) check((condition) != 0, #condition, __FILE__, __LINE__)
#define CHECK_TEXT(text, expected) check(strcmp((text), (expected)) == 0, #text " is " #expected, __FILE__, __LINE__)

static inline greenlet_counts_t holdings(void) {
  greenlet_current(); /* unwinds what others have dropped; and the main greenlet counts from the beginning */
  greenlet_trim_stacks();
  return greenlet_counts();
}

static inline void run_case(const char* name, void (*f)(void)) {
  const greenlet_counts_t before = holdings();
  case_name = name;
  f();
  greenlet_clear_error();
  const greenlet_counts_t after = holdings();
  CHECK(after.greenlets == before.greenlets);
  CHECK(after.main_greenlets == before.main_greenlets);
  CHECK(after.stacks == before.stacks);
  CHECK(after.threads == before.threads);
}

#define TEST_CASE(title, function) run_case(title, function) /* as in C++, and found as there: t/behaviours.sh */

/* Says what was run; the program's exit status. A program that checked nothing has not passed. */
static inline int verdict(void) {
  printf("%d checks, %d failed\n", checks, failures);
  return checks == 0 || failures != 0;
}

/* What happened, in order. */
static char events[512];
static inline void note(const char* what) {
  if (events[0]) strncat(events, ", ", sizeof events - strlen(events) - 1);
  strncat(events, what, sizeof events - strlen(events) - 1);
}
static inline void expect(const char* expected, const char* file, int line) {
  if (!check(strcmp(events, expected) == 0, expected, file, line)) printf("  happened: %s\n", events);
  events[0] = '\0';
}
#define EXPECT(expected) expect(expected, __FILE__, __LINE__)

/* Number as payload, and back. */
static inline void* number(intptr_t n) { return (void*)n; }
static inline intptr_t as_number(void* p) { return (intptr_t)p; }

#endif
