#!/bin/sh
# SPDX-License-Identifier: MIT
# The example of greenlet's page on threads prints, to the letter, what that page says.

set -u
actual=threads-example.$$.out
trap 'rm -f "$actual"' EXIT

"$builddir/examples/01_threads" >"$actual" || { echo "01_threads: exit status $?"; exit 1; }
diff -u "$srcdir/examples/01_threads.out" "$actual"
