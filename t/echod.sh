#!/bin/sh
# SPDX-License-Identifier: MIT
# echod and load from the command line: options, messages, exit statuses, the last line.

set -u
case $libraries in
  *libgreenlet-hub.la*) ;;
  *) echo "skipped: built without the hub"; exit 77 ;;
esac
echod=$builddir/examples/echod
load=$builddir/examples/load
under=${GREENLET_TEST_RUN_UNDER-}  # an emulator with its options, or nothing
work=echod-test.$$
mkdir "$work" || exit 99
daemon=
client=
cleanup() {
  for process in $daemon $client; do kill -KILL "$process" 2>/dev/null; done
  rm -rf "$work"
}
trap cleanup EXIT
failures=0
fail() { echo "FAILED: $*"; failures=$((failures + 1)); }

# run STATUS COMMAND...: its output is in $work/out and $work/err.
run() {
  expected=$1
  shift
  $under "$@" >"$work/out" 2>"$work/err" </dev/null
  status=$?
  [ "$status" -eq "$expected" ] || { fail "$*: exit status $status, expected $expected"; cat "$work/out" "$work/err"; }
}
says() { grep -q -e "$2" "$work/$1" || { fail "no \"$2\" in the $1put:"; cat "$work/out" "$work/err"; }; }

# start OPTIONS...: sets $daemon and $port; the daemon's further output comes from descriptor 3.
start() {
  rm -f "$work/fifo"
  mkfifo "$work/fifo" || exit 99
  $under "$echod" --port 0 "$@" >"$work/fifo" 2>"$work/daemon.err" </dev/null &
  daemon=$!
  exec 3<"$work/fifo"
  line=
  read -r line <&3
  port=$(echo "$line" | sed -n 's/^listening on 127\.0\.0\.1:\([0-9][0-9]*\)$/\1/p')
  [ -n "$port" ] || { echo "echod did not start: $line"; cat "$work/daemon.err"; exit 1; }
}

# stopped STATUS: waits for the daemon's end; its last line is then in $last.
stopped() {
  cat <&3 >"$work/rest"
  exec 3<&-
  wait "$daemon"
  status=$?
  daemon=
  [ "$status" -eq "$1" ] || fail "echod: exit status $status, expected $1"
  last=$(tail -n 1 "$work/rest")
  echo "$last" | grep -Eq '^served [0-9]+ connections, [0-9]+ bytes, [0-9]+ switches$' || fail "last line: $last"
  # AddressSanitizer says once that it knows swapcontext only so well.
  ! grep -v '^==[0-9]*==WARNING: ASan' "$work/daemon.err" || fail 'echod complained'
}

# wait_for_connections N: until the daemon has so many descriptors more than $idle; or until the
# client has ended already.
count_descriptors() { set -- /proc/"$daemon"/fd/*; descriptors=$#; }
wait_for_connections() {
  while [ -e /proc/"$client"/fd/1 ] && count_descriptors && [ "$descriptors" -lt $((idle + $1)) ]; do :; done
}


# -- Options

for program in "$echod" "$load"; do
  run 0 "$program" --help
  says out '^Usage: '
  run 2 "$program" --nonsense
  says err 'unknown or incomplete option --nonsense'
  says err '^Usage: '
  [ ! -s "$work/out" ] || fail "$program: a usage error on standard output"
  run 2 "$program" --host
  for bad in -1 65536 1x x 99999999999999999999 ''; do
    run 2 "$program" --port "$bad"
    says err '--port takes a number from'
  done
done
run 2 "$echod" --port
run 2 "$echod" --threads 0
says err '--threads takes a number from 1 to'
run 2 "$echod" --threads 1025
run 2 "$echod" --grace -1
run 2 "$echod" extra
run 2 "$load"
says err 'which FILE'
run 2 "$load" one two
run 2 "$load" --connections 0 file
run 2 "$load" --chunk 65537 file
run 1 "$load" "$work/no such file"
says err 'cannot read'
run 1 "$echod" --host localhost
says err 'not a numeric IPv4 or IPv6 address'

# -- One daemon: its port is in use meanwhile; what it has served is right.

head -c 50000 "$echod" >"$work/file"
size=$(($(wc -c <"$work/file")))
start
run 1 "$echod" --port "$port"
says err "cannot serve 127.0.0.1:$port: .*bind"
[ ! -s "$work/out" ] || fail 'one that cannot serve says that it listens'
run 1 "$echod" --port "$port" --threads 2
run 0 "$load" --port "$port" --connections 20 --chunk 1000 "$work/file"
says out 'connections at once *20$'
says out 'switches'
run 0 "$load" --port "$port" --connections 1 --daemon "$daemon" "$work/file"
kill -TERM "$daemon"
stopped 0
[ "${last%,*}" = "served 21 connections, $((21 * (size + 1))) bytes" ] || fail "wrong numbers: $last"

run 1 "$load" --port "$port" --connections 2 "$work/file"
says err '2 of 2 connections failed'

# -- SIGINT; several threads; nobody there.

start --threads 4
run 0 "$load" --port "$port" --connections 40 "$work/file"
kill -INT "$daemon"
stopped 0
[ "${last%,*}" = "served 40 connections, $((40 * (size + 1))) bytes" ] || fail "wrong numbers: $last"
start --threads 2
kill -INT "$daemon"
stopped 0
[ "$last" = "${last#served 0 connections, 0 bytes}" ] && fail "wrong numbers: $last"

# -- SIGTERM under load.

if [ -d /proc/self/fd ]; then
  # With time enough all finish, and the daemon does not wait longer than they need.
  dd if=/dev/zero of="$work/big" bs=65536 count=8 2>"$work/err"
  start --grace 60
  count_descriptors
  idle=$descriptors
  $under "$load" --port "$port" --connections 50 "$work/big" >"$work/out" 2>"$work/err" </dev/null &
  client=$!
  wait_for_connections 50
  kill -TERM "$daemon"
  wait "$client" || { fail 'load did not finish in the time of grace'; cat "$work/out" "$work/err"; }
  client=
  stopped 0

  # With none the rest is ended.
  dd if=/dev/zero of="$work/big" bs=65536 count=3200 2>"$work/err"
  start --grace 0 --threads 2
  count_descriptors
  idle=$descriptors
  $under "$load" --port "$port" --connections 50 "$work/big" >"$work/out" 2>"$work/err" </dev/null &
  client=$!
  wait_for_connections 50
  kill -TERM "$daemon"
  stopped 0
  wait "$client"
  status=$?
  client=
  [ "$status" -eq 1 ] || fail "load: exit status $status although its daemon went away"
  says err '50 of 50 connections failed'
fi

[ "$failures" -eq 0 ]
