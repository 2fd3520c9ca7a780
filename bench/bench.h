/* SPDX-License-Identifier: MIT */
/* What the programs of the benchmark share. Each is one way to have greenlets; each of its works does one thing
 * so often, and main() prints the nanoseconds of one. A program and its works are timed in turns by bench/run, so
 * that a change of the processor's speed meets all of them alike.
 *
 *   PROGRAM            lists its works
 *   PROGRAM WORK       "NS", or "NS BYTES" where memory is measured
 */
#ifndef BENCH_H
#define BENCH_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static inline double now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

/* For a work that times a part of itself: says what one took, and what it holds if that was measured, and ends the
 * process without taking down what it has built. */
static inline void finish(double ns_of_one, double bytes_of_one) {
  printf("%.3f", ns_of_one);
  if (bytes_of_one > 0) printf(" %.0f", bytes_of_one);
  putchar('\n');
  fflush(stdout);
  _exit(0);
}

/* The compiler must take it for used, and for changed. */
#define USE(object) __asm__ volatile("" : : "g"(&(object)) : "memory")

/* Resident memory and page tables of this process, in bytes. */
static inline double memory_bytes(void) {
  double rss = 0, tables = 0, kib;
  char line[200];
  FILE* f = fopen("/proc/self/status", "r");
  if (!f) return 0;
  while (fgets(line, sizeof line, f)) {
    if (sscanf(line, "VmRSS: %lf", &kib) == 1) rss = kib;
    if (sscanf(line, "VmPTE: %lf", &kib) == 1) tables = kib;
  }
  fclose(f);
  return (rss + tables) * 1024;
}

struct work {
  const char* name;
  void (*run)(long n); /* does it n times */
  long n;
  double divide; /* how many of what is counted one of them has */
};

static inline int bench_main(int argc, char** argv, const struct work* works) {
  for (; works->name; ++works) {
    if (argc < 2) {
      puts(works->name);
    } else if (strcmp(argv[1], works->name) == 0) {
      double start;
      if (works->n > 1) works->run(works->n / 10 + 1); /* warm */
      start = now_ns();
      works->run(works->n);
      finish((now_ns() - start) / (double)works->n / works->divide, 0);
    }
  }
  return argc < 2 ? 0 : 3; /* 3: it has no such work */
}

#endif
