#!/bin/sh
# SPDX-License-Identifier: MIT
# greenlet-dump on a program with greenlets in two threads, alive and as a core file: what it tells is what the program
# tells of itself; the program goes on afterwards; and what cannot be read is refused with a status of its own.

set -u
dump=$builddir/tools/greenlet-dump
program=$builddir/t/observed/program
# ThreadSanitizer can do no more.
case ${SANITIZER_FLAGS-} in *thread*) many=6000 ;; *) many=10000 ;; esac
# Each thread has a main greenlet, and a hub.
case $libraries in *libgreenlet-hub.la*) hub=hub own=4 ;; *) hub='' own=2 ;; esac
[ -x "$dump" ] || { echo 'skipped: greenlet-dump is built with libdw only (Debian: libdw-dev)'; exit 77; }
[ -d /proc/self/task ] || { echo 'skipped: no /proc'; exit 77; }
[ -z "${GREENLET_TEST_RUN_UNDER-}" ] || { echo "skipped: under $GREENLET_TEST_RUN_UNDER the process is another one"; exit 77; }

work=$(pwd)/greenlet-dump-test.$$
mkdir "$work" || exit 99
chmod 755 "$work"
started=
cleanup() {
  for process in $started; do kill -KILL "$process" 2>/dev/null; done
  rm -rf "$work"
}
trap cleanup EXIT
failures=0
fail() { echo "FAILED: $*"; failures=$((failures + 1)); }
note() { echo "note: $*"; }

# run STATUS COMMAND...: its output is in $work/out and $work/err.
run() {
  expected=$1
  shift
  "$@" >"$work/out" 2>"$work/err" </dev/null
  status=$?
  [ "$status" -eq "$expected" ] || { fail "$*: exit status $status, expected $expected"; head -n 20 "$work/out" "$work/err"; }
}
says() { grep -q -e "$2" "$work/$1" || { fail "no \"$2\" in $1:"; head -n 20 "$work/$1"; }; }
# has NUMBER PATTERN FILE: so many lines.
has() {
  number=$(grep -c -e "$2" "$3")
  [ "$number" -eq "$1" ] || fail "$number lines with \"$2\", expected $1"
}

# start COMMAND...: a program to be looked at, as $process; it reads from descriptor 8, and what it says comes from 9.
start() {
  rm -f "$work/to" "$work/from"
  mkfifo "$work/to" "$work/from" || exit 99
  "$@" <"$work/to" >"$work/from" 2>"$work/process.err" &
  process=$!
  started="$started $process"
  exec 8>"$work/to" 9<"$work/from"
  answers "^ready $process\$"
}
answers() {
  line=
  read -r line <&9
  echo "$line" | grep -q -e "$1" || { fail "the program said \"$line\", not \"$1\""; cat "$work/process.err"; }
}
# turns: it goes on.
turns() {
  echo turn >&8
  answers '^went on [1-9][0-9]* times$'
}
# ends N: so many greenlets end as they should.
ends() {
  exec 8>&-
  answers "^ended $1\$"
  wait "$process"
  status=$?
  [ "$status" -eq 0 ] || fail "the program ended with status $status"
  exec 9<&-
}
# snapshot FILE: its own.
snapshot() {
  echo "snapshot $1" >&8
  answers '^written$'
}
state_of() { sed -n 's/^State:[^A-Z]*\([A-Z]\).*/\1/p' "/proc/$process/status"; }

# comparable FILE: a dump as JSON, one greenlet or symbol a line, without what differs from moment to moment: times; and
# of those that are running what only the one who has stopped them sees.
comparable() {
  sed -e 's/{"id":/\
&/g' -e 's/"0x[0-9a-f]*":\[/\
&/g' "$1" |
    sed -e 's/"taken":"[^"]*",//' -e 's/"changing":0,"lost":0//' -e 's/"in_turn[a-z_]*":[^,]*,//' \
        -e 's/, [0-9.]* s left//' -e '/"state":"running"/s/"stack":.*//' -e 's/[],}]*$//'
}
# same INSIDE OUTSIDE: the greenlets are; and what is at an address outside, where more are known.
same() {
  comparable "$1" >"$work/inside"
  comparable "$2" >"$work/outside"
  grep '"[t]*id":' "$work/inside" >"$work/inside.greenlets"
  grep '"[t]*id":' "$work/outside" | diff "$work/inside.greenlets" - >"$work/difference" ||
    { fail 'the greenlets are others than the program tells:'; head -n 20 "$work/difference"; }
  sed -n '/^"0x/p' "$work/inside" | sort >"$work/inside.symbols"
  [ -s "$work/inside.symbols" ] || fail 'the program knows no symbols'
  sed -n '/^"0x/p' "$work/outside" | sort | comm -23 "$work/inside.symbols" - >"$work/difference"
  [ ! -s "$work/difference" ] || { fail 'what is at an address is told otherwise:'; head -n 20 "$work/difference"; }
}


# -- The command line

run 0 "$dump" --help
says out '^Usage: greenlet-dump'
run 0 "$dump" --version
says out '^greenlet-dump (libgreenlet) [0-9]'
for bad in '' 0 -1 1x x 99999999999 --nonsense --core --executable '1 2' '1 --core x'; do
  # shellcheck disable=SC2086 # several words
  run 2 "$dump" $bad
  says err '^Usage: '
  [ ! -s "$work/out" ] || fail 'a usage error on standard output'
done

# -- What cannot be read

run 7 "$dump" --core "$work/nothing"
says err "cannot open $work/nothing: No such file"
run 7 "$dump" --core "$program"
says err 'is not a core file'
: >"$work/empty"
run 7 "$dump" --core "$work/empty"
run 7 "$dump" --core "$work"
mkfifo "$work/fifo" && run 7 "$dump" --core "$work/fifo"
sh -c 'exit 0' &
gone=$!
wait "$gone"
run 3 "$dump" "$gone"
says err "there is no process $gone"
sleep 1000 &
other=$!
started="$started $other"
run 5 "$dump" "$other"
says err "process $other has no libgreenlet"
if [ "$(id -u)" -eq 0 ]; then
  if command -v setpriv >/dev/null; then
    cp "$builddir/tools/.libs/greenlet-dump" "$work/dump" 2>/dev/null || cp "$dump" "$work/dump"
    run 4 env LD_LIBRARY_PATH="$builddir/lib/.libs" setpriv --reuid 65534 --regid 65534 --clear-groups "$work/dump" "$other"
    says err "not allowed to read process $other .*belongs to the user with the number 0"
  fi
else
  run 4 "$dump" 1
  says err 'not allowed to read process 1 '
fi
kill "$other"


# -- A process

start "$program" 100
run 0 "$dump" --verbose "$process"
says err "^greenlet-dump: stopped process $process for [0-9.]* ms\$"
says out 'observed::wait_for_a_switch(int)'
[ -z "$hub" ] || says out 'waits for reading descriptor'
run 0 "$dump" --json "$process"
cp "$work/out" "$work/json"
snapshot "$work/own"
same "$work/own" "$work/json"
[ "$(state_of)" = S ] || fail "the process is left in state $(state_of)"
turns
snapshot "$work/own"  # who has gone on waits elsewhere now
# Where there is no call to read another process's memory, by its file. A sanitizer wants to know more than may be asked then.
case ${SANITIZER_FLAGS-} in
  *sanitize*) ;;
  *)
    run 0 "$program" --refuse "$dump" --json "$process"
    same "$work/own" "$work/out"
    ;;
esac
run 0 "$dump" --no-frames "$process"
! grep -q wait_for_a_switch "$work/out" || fail 'frames although none were asked for'
run 0 "$dump" --dot "$process"
says out '^digraph'
if command -v dot >/dev/null; then
  cp "$work/out" "$work/dot"
  run 0 dot -Tsvg "$work/dot"
  says out '<svg'
else
  note 'no dot to read the graph (Debian: graphviz)'
fi

# In the middle of a switch who is current is another than whose stack it is: nobody is told with another's frames. The
# innermost may be that of who switches, in whose code the last instruction of a switch is.
echo spin >&8
answers '^spinning$'
for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16; do
  run 0 "$dump" "$process"
  awk '/^ *(greenlet|[0-9]* greenlets) .*: [a-z]*/ { who = /\(main\)/ ? "main" : /"spins 0"/ ? "0" : /"spins 1"/ ? "1" : "" }
       /worker::spin\(\)/ && who != "main" || /spinner<0>/ && who != "0" || /spinner<1>/ && who != "1"' "$work/out" >"$work/difference"
  [ ! -s "$work/difference" ] || { fail "frames of another greenlet's:"; cat "$work/difference"; break; }
done
says out 'spin_here<0>'
echo still >&8
answers '^still$'

# Who is in a handler on a stack for signals is there, and not where it was suspended before.
echo handle >&8
answers '^handling$'
run 0 "$dump" "$process"
awk '/^ *(greenlet|[0-9]* greenlets) .*: [a-z]*/ { its = /"handles"/ } its' "$work/out" >"$work/handles"
says handles 'observed::spin_in_handler'
has 0 wait_for_a_switch "$work/handles"
echo still >&8
answers '^still$'

# A stopped process stays stopped.
kill -STOP "$process"
while [ "$(state_of)" != T ]; do :; done
run 0 "$dump" "$process"
says out wait_for_a_switch
[ "$(state_of)" = T ] || fail "the stopped process is in state $(state_of) afterwards"
kill -CONT "$process"
turns
ends 98

# Whoever stops is killed: the kernel lets the process go. Whoever asks is stopped with it, or gone before: both must end.
start "$program" 3000
for _ in 1 2 3 4 5; do
  "$dump" "$process" >"$work/out" 2>"$work/err" &
  dumper=$!
  while kill -0 "$dumper" 2>/dev/null && ! grep -q '^TracerPid:.*[1-9]' "/proc/$process/status"; do :; done
  kill -KILL "$dumper" 2>/dev/null
  wait "$dumper" 2>/dev/null
  turns
done
ends 2998

# It is killed while it is read.
for _ in 1 2 3 4 5; do
  start "$program" 3000
  exec 8>&- 
  "$dump" --json "$process" >"$work/out" 2>"$work/err" &
  dumper=$!
  while kill -0 "$dumper" 2>/dev/null && ! grep -q '^TracerPid:.*[1-9]' "/proc/$process/status" 2>/dev/null; do :; done
  kill -KILL "$process" 2>/dev/null
  wait "$dumper"
  status=$?
  case $status in
    0) says out '"symbols"' ;;
    3) says err "process $process" ;;
    *) fail "exit status $status when the process is killed:"; cat "$work/err" ;;
  esac
  wait "$process" 2>/dev/null
  exec 9<&-
done

# Many.
start "$program" "$many"
run 0 "$dump" --json "$process"
cp "$work/out" "$work/json"
snapshot "$work/own"
same "$work/own" "$work/json"
has $((many + own)) '"id":' "$work/inside.greenlets"
run 0 "$dump" --text "$process"
says out ": $((many + own)) greenlets in 2 threads"
turns
ends $((many - 2))


# -- Files that are not as they were

# Copies of the program and of its libraries, to be changed; $private is where they are.
private=$work/private
copies() {
  rm -rf "$private"
  mkdir "$private"
  cp "$program" "$private/program"
  for la in $libraries; do cp -L "$builddir/lib/.libs/$(basename "$la" .la)".so.0 "$private" 2>/dev/null; done
}
start_copies() { start env LD_LIBRARY_PATH="$private${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" "$private/program" "$@"; }
shared=
[ ! -e "$builddir/lib/.libs/libgreenlet.so.0" ] || shared=shared

if [ -n "$shared" ]; then
  # Stripped: found, and told without the names of what is not exported.
  copies
  strip "$private"/*
  start_copies 100
  run 0 "$dump" --json "$process"
  cp "$work/out" "$work/json"
  snapshot "$work/own"
  same "$work/own" "$work/json"
  ! grep -q wait_for_a_switch "$work/json" || fail 'a stripped program has names'
  # What was stripped off can be given.
  run 0 "$dump" --executable "$program" "$process"
  says out 'observed::wait_for_a_switch(int)'
  run 7 "$dump" --executable "$dump" "$process"
  says err 'is not what runs in process'
  run 7 "$dump" --executable "$work/nothing" "$process"
  says err 'cannot open'

  # Deleted, and others in their place.
  rm "$private"/*
  for file in "$private/program" "$private/libgreenlet.so.0"; do echo other >"$file"; done
  run 0 "$dump" --json "$process"
  says out "$private/program (deleted)"
  sed 's/ (deleted)//g' "$work/out" >"$work/json"
  same "$work/own" "$work/json"
  turns
  ends 98

  # Another version's anchor.
  copies
  at=$(grep -abo 'greenlet anchor' "$private/libgreenlet.so.0" | sed -n '1s/:.*//p')
  printf '\002' | dd of="$private/libgreenlet.so.0" bs=1 seek=$((at + 16)) conv=notrunc 2>"$work/err"
  start_copies 10
  run 6 "$dump" "$process"
  says err "has libgreenlet in $private/libgreenlet.so.0, which tells of its greenlets in another way, number 2"
  turns
  ends 8
fi

# Linked statically and stripped it exports nothing: found by what stands in its memory.
if [ -e "$builddir/lib/.libs/libgreenlet.a" ] && [ -n "${CXX-}" ]; then
  libs=
  for la in $libraries; do case $la in *-gc.la) ;; *) libs="$builddir/$la $libs" ;; esac; done
  # shellcheck disable=SC2086 # several words each
  "$builddir/libtool" --quiet --tag=CXX --mode=link $CXX ${CXXFLAGS-} ${LDFLAGS-} ${SANITIZER_FLAGS-} ${PTHREAD_FLAGS-} -static \
    -o "$work/static" "$builddir"/t/observed/*program.o $libs || fail 'a static program cannot be linked'
  strip "$work/static"
  start "$work/static" 100
  run 0 "$dump" --verbose --json "$process"
  says err "$work/static is libgreenlet .*, without its symbol"
  cp "$work/out" "$work/json"
  snapshot "$work/own"
  same "$work/own" "$work/json"
  ends 98
fi


# -- A core file

ulimit -c unlimited 2>"$work/err"
pattern=$(cat /proc/sys/kernel/core_pattern 2>"$work/err")
case $pattern in
  '' | */* | '|'* | *%*) note "no test of core files: /proc/sys/kernel/core_pattern is \"$pattern\", not a plain name" ;;
  *)
    ulimit -c unlimited 2>"$work/err" || note 'ulimit -c does not allow core files'
    program=$(cd "$(dirname "$program")" && pwd)/program
    start sh -c 'cd "$1" && exec "$2" 200' sh "$work" "$program"
    snapshot "$work/own"
    echo abort >&8
    wait "$process" 2>"$work/err"
    exec 8>&- 9<&-
    core=$work/$pattern
    [ -e "$core" ] || core=$work/$pattern.$process
    if [ ! -e "$core" ]; then
      note 'no test of core files: there is none'
    else
      run 0 "$dump" --json --core "$core"
      # Which pages were in memory it does not say, nor when it was written.
      for file in "$work/own" "$work/out"; do
        sed 's/"committed":[0-9]*,"reserved":\([0-9]*\),"high_water":[0-9]*/"reserved":\1/g; s/, until a deadline//g' "$file" >"$file.core"
      done
      same "$work/own.core" "$work/out.core"
      run 0 "$dump" --core "$core"
      says out 'observed::wait_for_a_switch(int)'

      # Of other machines, and damaged: the beginning is enough.
      head -c 65536 "$core" >"$work/short"
      run 7 "$dump" --core "$work/short"
      says err 'is cut short'
      cp "$work/short" "$work/foreign"
      printf '\363\000' | dd of="$work/foreign" bs=1 seek=18 conv=notrunc 2>"$work/err"
      run 7 "$dump" --core "$work/foreign"
      says err 'is of another machine (RISC-V)'
      printf '\001' | dd of="$work/foreign" bs=1 seek=4 conv=notrunc 2>"$work/err"
      run 7 "$dump" --core "$work/foreign"
      says err 'is of a 32-bit program'
    fi
    ;;
esac

[ "$failures" -eq 0 ]
