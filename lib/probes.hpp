// SPDX-License-Identifier: MIT
// Probes for tracers (SystemTap, bpftrace, perf, gdb): places in the code that an ELF note names. Each is one nop.
//
// None is in what is inlined into programs, where the straight switch is: for a tracer that wants every switch, the library
// makes each one, when bit 31 of a thread's attention is set (attention_debugger).
#ifndef LIB_PROBES_HPP
#define LIB_PROBES_HPP

#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#ifdef HAVE_SYS_SDT_H
#include <sys/sdt.h>
// A greenlet's number, and the address of its record.
#define GREENLET_PROBE(name, b) DTRACE_PROBE2(libgreenlet, name, (b)->id, (b))
// ... and of another, to which it goes.
#define GREENLET_PROBE_PAIR(name, b, other) DTRACE_PROBE4(libgreenlet, name, (b)->id, (b), (other)->id, (other))
#else
#define GREENLET_PROBE(name, b) static_cast<void>(b)
#define GREENLET_PROBE_PAIR(name, b, other) static_cast<void>(b), static_cast<void>(other)
#endif

#endif
