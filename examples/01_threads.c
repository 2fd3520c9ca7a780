// SPDX-License-Identifier: MIT
// Greenlets and threads, in C: a greenlet belongs to the thread that started it, for ever.
//
// The example of the page "Greenlets and Python Threads" of greenlet's documentation. A thread makes
// a child greenlet and runs it; the main thread tries to switch to that thread's greenlets, while it
// lives and after it has exited.
#include <greenlet/greenlet.h>

#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <string.h>

static greenlet_t *main_glet, *child_glet;
static sem_t started, switched;

static int does_nothing(void* data, void* payload, void** result) {
  (void)data, (void)payload, (void)result;
  return GREENLET_OK;
}

static void* in_thread(void* unused) {
  main_glet = greenlet_ref(greenlet_current());
  child_glet = greenlet_new(does_nothing, NULL, NULL);
  greenlet_switch(child_glet, NULL, NULL);
  sem_post(&started);
  sem_wait(&switched);
  return unused;
}

static void try_to_switch_to(greenlet_t* g) {
  if (greenlet_switch(g, NULL, NULL) != GREENLET_OK) {
    // The message goes on with which greenlets and threads these were.
    const char* message = greenlet_last_message();
    printf("%.*s\n", (int)strcspn(message, "\n"), message);
  }
}

int main(void) {
  pthread_t thread;
  sem_init(&started, 0, 0);
  sem_init(&switched, 0, 0);
  if (pthread_create(&thread, NULL, in_thread, NULL) != 0) return 1;

  sem_wait(&started);
  try_to_switch_to(main_glet);
  sem_post(&switched);
  pthread_join(thread, NULL);

  printf("main_glet.dead() = %s\n", greenlet_dead(main_glet) ? "true" : "false");
  try_to_switch_to(child_glet);
  try_to_switch_to(main_glet);
  greenlet_unref(child_glet);
  greenlet_unref(main_glet);
  return 0;
}
