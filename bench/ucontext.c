/* SPDX-License-Identifier: MIT */
/* The C library's swapcontext, which makes a system call.
 *   switch   swapcontext there and back, one way
 *   start    getcontext and makecontext on one and the same stack, run to its end
 */
#include "bench.h"

#include <ucontext.h>

static ucontext_t here, there;
static char stack[64 * 1024];

static void loop(void) {
  for (;;) swapcontext(&there, &here);
}

static void empty(void) {}

static void make(void (*f)(void)) {
  getcontext(&there);
  there.uc_stack.ss_sp = stack;
  there.uc_stack.ss_size = sizeof stack;
  there.uc_link = &here;
  makecontext(&there, f, 0);
}

static void just_switch(long n) {
  long i;
  make(loop);
  for (i = 0; i < n; ++i) swapcontext(&here, &there);
}

static void start(long n) {
  long i;
  for (i = 0; i < n; ++i) {
    make(empty);
    swapcontext(&here, &there);
  }
}

static const struct work works[] = {{"switch", just_switch, 300000, 2}, {"start", start, 200000, 1}, {NULL, NULL, 0, 0}};

int main(int argc, char** argv) { return bench_main(argc, argv, works); }
