/* SPDX-License-Identifier: MIT */
/* GNU Pth: yields, through its scheduler.
 *   switch   pth_yield() to a thread that yields back, one way
 *   start    a thread of an empty function, joined
 */
#include "bench.h"

#include <pth.h>

static long left;

static void* loop(void* other) {
  (void)other;
  while (left > 0) pth_yield(NULL);
  return NULL;
}

static void* empty(void* nothing) { return nothing; }

static void just_switch(long n) {
  pth_t t;
  pth_init();
  left = n;
  t = pth_spawn(PTH_ATTR_DEFAULT, loop, NULL);
  for (; left > 0; --left) pth_yield(t);
  pth_join(t, NULL);
}

static void start(long n) {
  long i;
  pth_init();
  for (i = 0; i < n; ++i) pth_join(pth_spawn(PTH_ATTR_DEFAULT, empty, NULL), NULL);
}

static const struct work works[] = {{"switch", just_switch, 30000, 2}, {"start", start, 10000, 1}, {NULL, NULL, 0, 0}};

int main(int argc, char** argv) { return bench_main(argc, argv, works); }
