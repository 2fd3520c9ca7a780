#!/bin/sh
# SPDX-License-Identifier: MIT
# worker with a Redis server of its own: options; no job of ten thousand is lost while workers are killed all the time, and
# Redis itself once; jobs that fail are tried again and then put aside; SIGTERM lets finish what was begun.
# GREENLET_TEST_JOBS: so many jobs.

set -u
case $libraries in
  *libgreenlet-hub.la*) ;;
  *) echo "skipped: built without the hub"; exit 77 ;;
esac
worker=$builddir/examples/worker
[ -x "$worker" ] || { echo "skipped: built without hiredis"; exit 77; }
command -v redis-cli >/dev/null && command -v redis-check-rdb >/dev/null || {
  echo "skipped: no redis-cli (Debian package redis-tools)"
  exit 77
}
under=${GREENLET_TEST_RUN_UNDER-}
case " $SANITIZER_FLAGS $CXXFLAGS " in
  *-fsanitize* | *--coverage* | *-fprofile-arcs* | *" -O0 "*) jobs=${GREENLET_TEST_JOBS:-2000} ;;
  *) jobs=${GREENLET_TEST_JOBS:-10000} ;;
esac

work=$(mktemp -d "${TMPDIR:-/tmp}/worker-test.XXXXXX") || exit 99  # a socket's path is short
server=
workers=
cleanup() {
  for process in $workers $server; do kill -KILL "$process" 2>/dev/null; done
  rm -rf "$work"
}
trap cleanup EXIT
failures=0
fail() { echo "FAILED: $*"; failures=$((failures + 1)); }
give_up() { echo "FAILED: $*"; cat "$work"/err* "$work/log" 2>/dev/null | tail -n 40; exit 1; }

# The server is the same program as redis-check-rdb, by another name.
ln -s "$(command -v redis-check-rdb)" "$work/redis-server"
serve() {
  rm -f "$work/log"
  mkfifo "$work/log.fifo"
  "$work/redis-server" --port 0 --unixsocket "$work/s" --dir "$work" --save '' --appendonly yes --appendfsync no \
    >"$work/log.fifo" 2>&1 </dev/null &
  server=$!
  while read -r line; do
    case $line in *'eady to accept connections'*) break ;; esac
  done <"$work/log.fifo" || give_up 'redis-server did not start'
  rm "$work/log.fifo"
}
cli() { redis-cli -s "$work/s" "$@"; }

# start NAME OPTIONS...: sets $last.
start() {
  name=$1
  shift
  $under "$worker" run --socket "$work/s" "$@" >"$work/out.$name" 2>"$work/err.$name" </dev/null &
  last=$!
}

# until_is VALUE COMMAND...: asks Redis until it says so; half a minute.
until_is() {
  wanted=$1
  shift
  tries=0
  while value=$(cli "$@" | head -n 1) && [ "$value" != "$wanted" ]; do
    tries=$((tries + 1))
    [ $tries -lt 600 ] || give_up "$*: $value, expected $wanted"
    sleep 0.05
  done
}

# ended PROCESS STATUS
ended() {
  wait "$1"
  status=$?
  [ $status -eq "$2" ] || { fail "worker: exit status $status, expected $2"; cat "$work"/out* "$work"/err*; }
}
says() { grep -q -e "$2" "$work/$1" || { fail "no \"$2\" in $1:"; cat "$work/$1"; }; }


# -- Options

run() {
  expected=$1
  shift
  $under "$worker" "$@" >"$work/out" 2>"$work/err" </dev/null
  status=$?
  [ $status -eq "$expected" ] || { fail "$*: exit status $status, expected $expected"; cat "$work/out" "$work/err"; }
}
run 0 --help
says out '^Usage: worker add'
run 2
says err 'add or run?'
run 2 work
run 2 run a-job
says err 'run takes no jobs'
run 2 run --nonsense 1
says err 'unknown or incomplete option --nonsense'
run 2 run --jobs
run 2 run --jobs 0
says err '--jobs takes a number from 1 on'
run 2 run --deliveries x
run 1 add --socket "$work/nobody" x
says err 'cannot reach Redis'


# -- Killed all the time

serve
seq "$jobs" | $under "$worker" add --socket "$work/s" >"$work/out" || give_up 'add failed'
says out "^added $jobs jobs\$"
[ "$(cli XLEN jobs)" = "$jobs" ] || fail "$(cli XLEN jobs) jobs in the stream"

set -- --idle 300 --deliveries 1000000 --work 20 --jobs 24
# One of four is killed, and one begins, until the jobs are done. Once Redis is killed as well.
kills=0
redis_killed=no
oldest=
for n in 1 2 3 4; do
  start $n "$@"
  workers="$workers $last"
done
tries=0
while count=$(cli SCARD jobs:done 2>&1); [ "$count" != "$jobs" ]; do
  tries=$((tries + 1))
  [ $tries -lt 500 ] || give_up "only $count of $jobs were done, after $kills kills"
  if [ "$redis_killed" = no ] && [ "${count%%[!0-9]*}" = "$count" ] && [ "$count" -gt $((jobs / 2)) ]; then
    redis_killed=yes
    kill -TERM "$server"
    wait "$server"
    serve
  fi
  # shellcheck disable=SC2086
  set -- $workers -- "$@"
  oldest=$1
  shift
  workers=
  while [ "$1" != -- ]; do workers="$workers $1"; shift; done
  shift
  kill -KILL "$oldest"
  kills=$((kills + 1))
  wait "$oldest" 2>/dev/null
  start $((kills % 4 + 1)) "$@"
  workers="$workers $last"
  sleep 0.1
done
# What was done and not yet said to be is done again, and then nothing is left.
until_is 0 XPENDING jobs workers
until_is 0 XLEN jobs
for process in $workers; do kill -TERM "$process"; done
for process in $workers; do ended "$process" 0; done
workers=
seq "$jobs" | sort >"$work/expected"
cli SMEMBERS jobs:done | sort >"$work/actual"
cmp "$work/expected" "$work/actual" || fail 'a job is missing'
[ "$redis_killed" = yes ] || fail 'Redis was not stopped meanwhile'
[ $kills -gt 5 ] || fail "only $kills workers were killed"
[ "$(cli EXISTS jobs:dead)" = 0 ] || fail 'a job was put aside'
echo "$jobs jobs, $kills workers killed"


# -- What fails is tried again, and then put aside; the others are done.

start failing --stream s --idle 30 --deliveries 3 --exec 'case $JOB in bad*) echo "$JOB" >>'"$work"'/tried; exit 1 ;; esac
  read -r line; [ "$line" = "$JOB" ] && echo "$JOB_ID $JOB"'
workers=$last
$under "$worker" add --socket "$work/s" --stream s 'good one' bad 'good two' >"$work/out" || fail 'add failed'
until_is 1 XLEN s:dead
until_is 0 XLEN s
until_is 0 XPENDING s workers
kill -INT "$workers"
ended "$workers" 0
workers=
[ "$(grep -c bad "$work/tried")" -eq 3 ] || fail "tried $(grep -c bad "$work/tried") times, expected 3"
says out.failing '^[0-9]*-[0-9]* good one$'
says out.failing '^[0-9]*-[0-9]* good two$'
says err.failing 'exited with 1'
says err.failing 'failed too often'
[ "$(cli XRANGE s:dead - + | sed -n '2,7p' | tr '\n' ' ' | sed 's/id [0-9]*-[0-9]* //')" = 'job bad deliveries 3 ' ] ||
  fail "put aside as $(cli XRANGE s:dead - +)"
[ "$(cli XINFO CONSUMERS s workers)" = '' ] || fail 'a worker left its name'


# -- SIGTERM: what has begun is finished, what has not is for others; without grace it is for others as well.

# until_printed FILE WORDS
until_printed() {
  tries=0
  until grep -q -e "$2" "$work/$1"; do
    tries=$((tries + 1))
    [ $tries -lt 1500 ] || give_up "no \"$2\" in $1"
    sleep 0.02
  done
}
start graceful --stream g --jobs 2 --exec 'until [ -e '"$work"'/go ]; do sleep 0.02; done; echo "finished $JOB"'
workers=$last
$under "$worker" add --socket "$work/s" --stream g 1 2 3 4 >"$work/out" || fail 'add failed'
# With both places taken: two are pending, two have not been read.
until_is 2 XPENDING g workers
kill -TERM "$workers"
until_printed out.graceful '^stopping, 2 jobs at work$'
: >"$work/go"
ended "$workers" 0
workers=
[ "$(grep -c finished "$work/out.graceful")" = 2 ] || fail 'not just two jobs were finished'
[ "$(cli XLEN g)" = 2 ] || fail "$(cli XLEN g) jobs are left, expected 2"
[ "$(cli XINFO CONSUMERS g workers)" = '' ] || fail 'a worker left its name'

start hasty --stream g --jobs 2 --work 100000 --grace 0
workers=$last
until_is 2 XPENDING g workers
kill -TERM "$workers"
ended "$workers" 1
says out.hasty '^leaves 2 jobs to others$'
[ "$(cli XPENDING g workers | head -n 1)" = 2 ] || fail 'what was left is not pending'
# Redis is away when it is to stop.
start alone --stream g --idle 50 --grace 0
workers=$last
until_is 2 SCARD g:done
until_is 0 XPENDING g workers
[ "$(cli SCARD g:done)" = 2 ] || fail 'what was left was not taken over'
kill -TERM "$server"
wait "$server"
server=
kill -TERM "$workers"
ended "$workers" 1
workers=

[ "$failures" -eq 0 ]
