#!/bin/sh
# SPDX-License-Identifier: MIT
# The library has its probes where tracers look for them, each a nop; and what is not to have them has none.

set -u
command -v readelf >/dev/null || { echo "skipped: no readelf (Debian: binutils)"; exit 77; }
so=$builddir/lib/.libs/libgreenlet.so
test -f "$so" || { echo "skipped: no shared library was built"; exit 77; }
names=$(readelf -nW "$so" 2>/dev/null | awk '/Provider: libgreenlet/{ provided = 1 } provided && $1 == "Name:" { print $2; provided = 0 }' | sort -u | tr '\n' ' ')
if test "${with_probes:-no}" != yes; then
  test -z "$names" || { echo "configured without probes, and has $names"; exit 1; }
  echo "skipped: configured without probes (Debian: systemtap-sdt-dev)"
  exit 77
fi
test "$names" = "condemn create finish start switch throw " || { echo "the probes are: $names"; exit 1; }

# Each place is one nop: the instruction there is that.
command -v objdump >/dev/null || exit 0
for place in $(readelf -nW "$so" | sed -n 's/^ *Location: 0x0*\([0-9a-f]*\),.*Semaphore: 0x0*$/\1/p'); do
  objdump -d --no-show-raw-insn --start-address="0x$place" --stop-address="$((0x$place + 1))" "$so" | grep -q "^ *$place:.*nop" || {
    echo "at $place is no nop of one byte"
    exit 1
  }
done

# A debugger finds them, and stops at one.
command -v gdb >/dev/null || exit 0
test -z "${GREENLET_TEST_RUN_UNDER:-}" || exit 0
case ${SANITIZER_FLAGS:-} in *-fsanitize*) exit 0 ;; esac
stops=$(gdb -batch -nx -ex 'set breakpoint pending on' -ex 'set confirm off' -ex "set environment LD_LIBRARY_PATH $builddir/lib/.libs" \
  -ex 'break -probe-stap libgreenlet:finish' -ex 'run 4 </dev/null' -ex 'print $_probe_argc' -ex 'print $_probe_arg0' \
  "$builddir/t/observed/program" 2>&1)
case $stops in
  *'$1 = 2'*'$2 = '[1-9]*) ;;
  *'ptrace: Operation not permitted'* | *'Could not trace'*) ;;
  *) echo "gdb has not stopped at a probe: $stops"; exit 1 ;;
esac
