/* SPDX-License-Identifier: MIT */
/* State Threads.
 *   switch   two threads that signal each other's condition, one way
 *   start    a thread of an empty function, joined
 */
#include "bench.h"

#include <st.h>

static st_cond_t ping, pong;
static long left;

static void* loop(void* nothing) {
  while (left > 0) {
    st_cond_signal(ping);
    st_cond_wait(pong);
  }
  st_cond_signal(ping);
  return nothing;
}

static void* empty(void* nothing) { return nothing; }

static void just_switch(long n) {
  st_thread_t t;
  st_init();
  ping = st_cond_new();
  pong = st_cond_new();
  left = n;
  t = st_thread_create(loop, NULL, 1, 0);
  for (; left > 0; --left) {
    st_cond_signal(pong);
    st_cond_wait(ping);
  }
  st_cond_signal(pong);
  st_thread_join(t, NULL);
}

static void start(long n) {
  long i;
  st_init();
  for (i = 0; i < n; ++i) st_thread_join(st_thread_create(empty, NULL, 1, 0), NULL);
}

static const struct work works[] = {{"switch", just_switch, 500000, 2}, {"start", start, 100000, 1}, {NULL, NULL, 0, 0}};

int main(int argc, char** argv) { return bench_main(argc, argv, works); }
