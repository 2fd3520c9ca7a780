/* SPDX-License-Identifier: MIT */
/* libgreenlet, through its C interface: calls, nothing inline.
 *   switch_c   greenlet_switch() and greenlet_switch_to_parent(), one way, with a void* that is received
 */
#include "bench.h"

#include <greenlet/greenlet.h>

static int loop(void* data, void* payload, void** result) {
  int status = GREENLET_OK;
  (void)data;
  (void)result;
  while (status == GREENLET_OK) status = greenlet_switch_to_parent(payload, &payload);
  return status;
}

static void just_switch(long n) {
  greenlet_t* g = greenlet_new(loop, NULL, NULL);
  void* got = &got;
  long i;
  for (i = 0; i <= n; ++i)
    if (greenlet_switch(g, &got, &got) != GREENLET_OK) abort();
  greenlet_unref(g);
}

static const struct work works[] = {{"switch_c", just_switch, 3000000, 2}, {NULL, NULL, 0, 0}};

int main(int argc, char** argv) { return bench_main(argc, argv, works); }
