#!/bin/sh
# SPDX-License-Identifier: MIT
# Programs built with a sanitizer, and the library without: what is right is silent, and each planted mistake is reported
# with the frames of the greenlet that has made it. As users have it: they install the library and build their program.

set -u
so=$builddir/lib/.libs/libgreenlet.so
test -f "$so" || { echo "skipped: no shared library was built"; exit 77; }
case ${SANITIZER_FLAGS:-} in *-fsanitize*) echo "skipped: the library is built with a sanitizer itself"; exit 77 ;; esac
test -z "${GREENLET_TEST_RUN_UNDER:-}" || { echo "skipped: not under $GREENLET_TEST_RUN_UNDER"; exit 77; }

libdir=$(cd "$builddir/lib/.libs" && pwd) || exit 1
backtrace=
test ! -f "$libdir/libgreenlet-backtrace.so" || backtrace="-DT_BACKTRACE $libdir/libgreenlet-backtrace.so"
where=$(mktemp -d) || exit 1
trap 'rm -rf "$where"' EXIT
failures=0
ran=0

# Whether a program that does nothing can be built so, and runs.
can() {
  echo 'int main() {}' >"$where/nothing.cpp"
  "$1" "-fsanitize=$2" -o "$where/nothing" "$where/nothing.cpp" >/dev/null 2>&1 && "$where/nothing" >/dev/null 2>&1
}

# Frames that are kept apart to see who uses them later are not looked at for what they refer to, when their stack is left.
apart=1
run() {
  ASAN_OPTIONS=detect_stack_use_after_return=$apart:detect_leaks=1 timeout 120 "$program" "$@" >"$where/out" 2>&1
}

fail() {
  echo "$compiler -fsanitize=$sanitizer: $1"
  sed 's/^/  /' "$where/out" | head -60
  failures=$((failures + 1))
}

# is_silent WORD OUTPUT
is_silent() {
  run "$1" || { fail "$1: exited with $?"; return; }
  test "$(cat "$where/out")" = "$2" || fail "$1: printed something else than '$2'"
}

# is_reported WORD KIND FUNCTION...: the report's first stack has these functions, in this order, and then the library's
# first.
is_reported() {
  word=$1 kind=$2
  shift 2
  if run "$word"; then fail "$word: was not reported"; return; fi
  grep -q "$kind" "$where/out" || { fail "$word: no '$kind'"; return; }
  awk '/^ *#0 /{ if (++stacks > 1) exit } stacks == 1 { if ($1 !~ /^#/) exit; print }' "$where/out" >"$where/stack"
  line=0
  for function in "$@" first_function; do
    at=$(grep -n "$function" "$where/stack" | cut -d: -f1 | awk -v after="$line" '$1 > after { print; exit }')
    test -n "$at" || { fail "$word: $function is not in the frames, or not in its place"; return; }
    line=$at
  done
}

for compiler in g++ clang++; do
  command -v $compiler >/dev/null || { echo "note: no $compiler (Debian: g++, clang)"; continue; }
  for sanitizer in address thread; do
    can $compiler $sanitizer || {
      echo "note: $compiler -fsanitize=$sanitizer does not work here (Debian: libclang-rt-14-dev)"
      continue
    }
    program=$where/$sanitizer
    # shellcheck disable=SC2086
    $compiler -std=c++17 -g -O1 -fno-omit-frame-pointer $PTHREAD_FLAGS "-fsanitize=$sanitizer" -I"$srcdir/include" \
      -I"$builddir/include" -o "$program" "$srcdir/t/planted/program.cpp" $backtrace "$so" -Wl,-rpath,"$libdir" \
      >"$where/out" 2>&1 || { fail "does not compile"; continue; }
    ran=$((ran + 1))
    is_silent everything right
    test -z "$backtrace" || is_silent interrupted 'told where'
    if test $sanitizer = address; then
      is_reported return stack-use-after-return planted_use_after_return
      is_reported scope stack-use-after-scope planted_use_after_scope
      is_reported leak 'LeakSanitizer: detected memory leaks' planted_leak
      apart=0
      is_silent everything right
      is_reported leak 'LeakSanitizer: detected memory leaks' planted_leak
      is_silent kept ''
      apart=1
    else
      is_reported race 'ThreadSanitizer: data race' planted_write 'operator()'
    fi
  done
done

test "$ran" -gt 0 || { echo "skipped: no compiler has a sanitizer that works"; exit 77; }
test "$failures" -eq 0
