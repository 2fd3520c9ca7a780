#!/bin/sh
# SPDX-License-Identifier: MIT
# README and every page of the manual but those of commands have a program, and each of their programs compiles without a
# warning and prints what is printed there. Those that headers open with compile; where it is said what
# they print, they are run as well. What is a program, and what it prints, says t/examples.awk.

set -u
status=0
count=0
work=examples-test.$$
mkdir "$work"
trap 'rm -rf "$work"' EXIT

common="$SANITIZER_FLAGS $PTHREAD_FLAGS"
warnings='-Wall -Wextra -Wshadow -Werror'
include="-I$builddir/include -I$srcdir/include $optional_cflags"

# compile SOURCE OBJECT [MORE]
compile() {
  case $1 in
    *.c) $CC -std=c11 $CFLAGS $TEST_CXXFLAGS $common -fexceptions -Wstrict-prototypes $warnings $include -c -o "$2" "$1" ;;
    *) $CXX -std=c++17 $CXXFLAGS $TEST_CXXFLAGS $common $warnings $include -c -o "$2" "$1" ;;
  esac
}

# run SOURCE: and compare.
run() {
  program=${1%.*}
  libs=$builddir/lib/libgreenlet.la
  ! grep -q '#include <greenlet/hub' "$1" || libs="$builddir/lib/libgreenlet-hub.la $libs"
  ! grep -q '#include <greenlet/hub/libpq' "$1" || libs="$libs $LIBPQ_LIBS"
  ! grep -q '#include <greenlet/hub/hiredis' "$1" || libs="$libs $HIREDIS_LIBS"
  ! grep -Eq '#include <greenlet/(backtrace|dump|monitor|snapshot)' "$1" || libs="$builddir/lib/libgreenlet-backtrace.la $libs"
  ! grep -q '#include <greenlet/gc' "$1" || libs="$builddir/lib/libgreenlet-gc.la $libs"
  case $1 in *.c) tag=CC compiler=$CC libs="$libs $static_libs" ;; *) tag=CXX compiler=$CXX ;; esac
  compile "$1" "$program.o" || return 1
  "$builddir/libtool" --quiet --tag=$tag --mode=link $compiler $CXXFLAGS $LDFLAGS $common -o "$program" "$program.o" $libs || return 1
  ${GREENLET_TEST_RUN_UNDER-} "$program" >"$program.actual" || { echo "exit status $?"; return 1; }
  diff -u "$program.expected" "$program.actual"
}

for text in README $manuals $headers; do
  file=$srcdir/$text
  test -f "$file" || file=$builddir/$text
  name=$(basename "$text" | tr . -)
  $AWK -v to="$work/$name-" -f "$srcdir/t/examples.awk" "$file" >"$work/said" || exit 1
  test ! -s "$work/said" || { cat "$work/said"; status=1; }
  case $text in
    *.hpp | *.h | *.1 | */greenlet-gdb.7) ;;
    *) set -- "$work/$name"-1.c*; test -f "$1" || { echo "$text has no program"; status=1; } ;;
  esac
  for source in "$work/$name"-*.c "$work/$name"-*.cpp; do
    test -f "$source" || continue
    count=$((count + 1))
    if [ -f "${source%.*}.expected" ]; then
      run "$source"
    else
      compile "$source" "${source%.*}.o"
    fi || { echo "$text: program ${source##*-} is wrong"; status=1; }
  done
done

echo "$count programs"
exit $status
