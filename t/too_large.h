/* SPDX-License-Identifier: MIT */
/* The size of a stack for which there is no room, for C and C++. */
#ifndef T_TOO_LARGE_H
#define T_TOO_LARGE_H

#if !defined(__cplusplus) && !defined(_DEFAULT_SOURCE)
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS, in standard C too */
#endif
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>

/* More than the address space has. Where no size is, all but holes of less than 1 GiB is taken, and stays so:
   nothing is ever in it. */
static inline size_t too_large(void) {
#if SIZE_MAX > UINT32_MAX
  return (size_t)1 << 60;
#else
  while (mmap(NULL, (size_t)1 << 30, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0) != MAP_FAILED) continue;
  return (size_t)1 << 30;
#endif
}

#endif
