#!/bin/sh
# SPDX-License-Identifier: MIT
# Random programs printed as C++, as those that fail are, compile without a warning and do what the model says.

set -eu
: "${GREENLET_TEST_RUN_UNDER=}"
test -x "$builddir/t/random_programs" || { echo "skipped: t/random_programs was not built"; exit 77; }
work=random-print-test.$$
mkdir "$work"
trap 'rm -rf "$work"' EXIT

# The fourth has one thread, the ninth three.
for n in 4 9; do
  GREENLET_SEED=1 GREENLET_PROGRAMS=$n GREENLET_PRINT="$work/program.cpp" $GREENLET_TEST_RUN_UNDER "$builddir/t/random_programs" >"$work/log"
  $CXX $CXXFLAGS -O0 -U_FORTIFY_SOURCE $SANITIZER_FLAGS $PTHREAD_FLAGS -Wall -Wextra -Werror \
    -I"$builddir/include" -I"$srcdir/include" -c -o "$work/program.o" "$work/program.cpp"
  "$builddir/libtool" --quiet --tag=CXX --mode=link \
    $CXX $CXXFLAGS $LDFLAGS $SANITIZER_FLAGS $PTHREAD_FLAGS -o "$work/program" "$work/program.o" "$builddir/lib/libgreenlet.la"
  $GREENLET_TEST_RUN_UNDER "$work/program" >"$work/actual"
  cat "$work/actual"
  test "$(cat "$work/actual")" = "as expected"
done
