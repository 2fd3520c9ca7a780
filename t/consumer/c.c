// SPDX-License-Identifier: MIT
// A program of somebody else's in C, linked by a C compiler.
#include <greenlet/greenlet.h>

#include <stdint.h>
#include <stdio.h>

static int doubler(void* data, void* payload, void** result) {
  (void)data, (void)result;
  int status = GREENLET_OK;
  while (status == GREENLET_OK)
    status = greenlet_switch_to_parent((void*)(2 * (intptr_t)payload), &payload);
  return status;
}

int main(void) {
  void* answer = NULL;
  greenlet_t* g = greenlet_new(doubler, NULL, NULL);
  if (!g || greenlet_switch(g, (void*)(intptr_t)21, &answer) != GREENLET_OK) return 1;
  printf("version %s\n", greenlet_version());
  printf("doubled %d\n", (int)(intptr_t)answer);
  greenlet_unref(g);
  printf("refused %d\n", greenlet_switch(NULL, NULL, NULL) == GREENLET_EMPTY_HANDLE);
  return 0;
}
