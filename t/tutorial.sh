#!/bin/sh
# SPDX-License-Identifier: MIT
# The steps of examples/tutorial compile without a warning. The first four print what stands beside them; the fifth
# serves, and stops when it is told to; the sixth restarts again and again while clients come, and none is refused.

set -u
case $libraries in
  *libgreenlet-hub.la*) ;;
  *) echo "skipped: built without the hub"; exit 77 ;;
esac
tutorial=$srcdir/examples/tutorial
load=$builddir/examples/load
under=${GREENLET_TEST_RUN_UNDER-}
work=tutorial-test.$$
mkdir "$work" || exit 99
last=
cleanup() {
  [ -z "$last" ] || kill -KILL "$last" 2>/dev/null
  rm -rf "$work"
}
trap cleanup EXIT
fail() { echo "FAILED: $*"; cat "$work/out"; exit 1; }

# build STEP
build() {
  flags="$CXXFLAGS $TEST_CXXFLAGS $SANITIZER_FLAGS $PTHREAD_FLAGS"
  $CXX -std=c++17 $flags -Wall -Wextra -Wshadow -Werror "-I$builddir/include" "-I$srcdir/include" -c -o "$work/$1.o" "$tutorial/$1.cpp" &&
    "$builddir/libtool" --quiet --tag=CXX --mode=link $CXX $flags $LDFLAGS -o "$work/$1" "$work/$1.o" \
      "$builddir/lib/libgreenlet-hub.la" "$builddir/lib/libgreenlet.la" || fail "$1 does not compile"
}

for step in 1_greenlets 2_hub 3_echo 4_limits; do
  build $step
  $under "$work/$step" >"$work/out" || fail "$step: exit status $?"
  diff -u "$tutorial/$step.out" "$work/out" || fail "$step printed something else"
done

# until_printed WORDS: waits for a line with them; then $line is the last of those.
until_printed() {
  tries=0
  while ! line=$(grep -e "$1" "$work/out"); do
    tries=$((tries + 1))
    [ $tries -lt 600 ] || fail "it has not printed: $1"
    sleep 0.1
  done
  line=$(echo "$line" | tail -n 1)
}
port_of() { echo "$line" | sed -n 's/.*127\.0\.0\.1:\([0-9]*\)$/\1/p'; }

head -c 100000 "$load" >"$work/data"
clients() { $under "$load" --port "$port" --connections "$1" "$work/data" >"$work/clients" 2>&1 || { cat "$work/clients"; fail "clients"; }; }

build 5_daemon
$under "$work/5_daemon" 0 >"$work/out" 2>&1 &
last=$!
until_printed '^listening on'
port=$(port_of)
clients 20
kill -TERM $last
wait $last || fail "5_daemon: exit status $?"
grep -q '^stopping$' "$work/out" && grep -q '^served 20 connections$' "$work/out" || fail "5_daemon printed something else"

build 6_restart
$under "$work/6_restart" 0 >"$work/out" 2>&1 &
first=$!
last=$first
until_printed '^process [0-9]* listens on'
port=$(port_of)
for _ in 1 2 3; do
  clients 20
  kill -HUP $last
  clients 20
  until_printed "^process $last hands over to"
  last=${line##* }
done
wait $first || fail "6_restart: exit status $?"
clients 20
kill -TERM "$last"
until_printed "^process $last ends"
last=
