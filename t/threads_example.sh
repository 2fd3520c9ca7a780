#!/bin/sh
# SPDX-License-Identifier: MIT
# The example of greenlet's page on threads prints, to the letter, what that page says; in C++ and in C.

set -u
actual=threads-example.$$.out
trap 'rm -f "$actual"' EXIT

for program in 01_threads 01_threads_c; do
  ${GREENLET_TEST_RUN_UNDER-} "$builddir/examples/$program" >"$actual" || { echo "$program: exit status $?"; exit 1; }
  diff -u "$srcdir/examples/01_threads.out" "$actual" || { echo "$program: printed something else"; exit 1; }
done
