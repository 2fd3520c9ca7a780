#!/bin/sh
# SPDX-License-Identifier: MIT
# contrib/greenlet-gdb.py finds, in a running process and in its core, with a library without debugging information as well,
# what the process's own snapshot has: 10,000 greenlets of two threads, and each address of their frames.

set -u
skip() { echo "skipped: $1"; exit 77; }
command -v gdb >/dev/null || skip "no gdb (Debian: gdb)"
gdb -batch -nx -ex 'python print(gdb.invalidate_cached_frames)' 2>/dev/null | grep -q built-in || skip "this gdb has no Python"
case ${SANITIZER_FLAGS:-} in *-fsanitize*) skip "not with a sanitizer, whose core is too large" ;; esac
test -z "${GREENLET_TEST_RUN_UNDER:-}" || skip "not under $GREENLET_TEST_RUN_UNDER"
command -v strip >/dev/null || skip "no strip (Debian: binutils)"
build=$(cd "$builddir" && pwd) || exit 1
source=$(cd "$srcdir" && pwd) || exit 1
program=$build/t/observed/program
so=$build/lib/.libs/libgreenlet.so
test -f "$so" || skip "no shared library was built"

where=$(mktemp -d) || exit 1
pid=
# shellcheck disable=SC2317
clean() {
  exec 3>&-
  test -z "$pid" || wait "$pid" 2>/dev/null
  rm -rf "$where"
}
trap clean EXIT
failures=0

# The library as it is installed, beside it what gdb loads by itself, and nothing that tells of types or lines.
mkdir "$where/lib"
real=$(basename "$(readlink -f "$so")")
strip -o "$where/lib/$real" "$so" && ln -s "$real" "$where/lib/libgreenlet.so.0" || exit 1
cp "$source/contrib/greenlet-gdb.py" "$where/lib/$real-gdb.py"

# say LINE ANSWER: which is a pattern.
say() {
  echo "$1" >&3
  read -r line <&4
  # shellcheck disable=SC2254
  case $line in
    $2) ;;
    "no snapshot") skip "configured --without-backtrace" ;;
    *) echo "asked to $1 the program said: $line"; cat "$where/errors"; exit 1 ;;
  esac
}

# Until each thread waits in the kernel: who has answered is about to.
settle() {
  looks=0
  while test $looks -lt 3; do
    looks=$((looks + 1))
    for stat in /proc/"$pid"/task/*/stat; do
      case $(cat "$stat") in *") S "*) ;; *) looks=0 ;; esac
    done
  done
}

# start COUNT
start() {
  mkfifo "$where/in" "$where/out" || exit 1
  (
    cd "$where" || exit 1
    ulimit -c unlimited 2>/dev/null
    LD_LIBRARY_PATH=$where/lib:$build/lib/.libs exec "$program" "$1" <"$where/in" >"$where/out" 2>"$where/errors"
  ) &
  pid=$!
  exec 3>"$where/in" 4<"$where/out"
  read -r line <&4
  test "$line" = "ready $pid" || { echo "the program said: $line"; cat "$where/errors"; exit 1; }
}

# debug OUTPUT TARGET COMMAND...: gdb, with the script loaded as an installed one is.
debug() {
  output=$1 target=$2
  shift 2
  set -- "$@" -ex quit
  # shellcheck disable=SC2086
  LD_LIBRARY_PATH=$where/lib:$build/lib/.libs timeout 300 gdb -batch -nx -iex "add-auto-load-safe-path $where" \
    -iex 'set pagination off' -iex 'set width 0' -iex 'set confirm off' $target "$@" >"$where/$output" 2>&1
}

fail() {
  echo "$1"
  head -40 "$where/$output" | cut -c1-300 | sed 's/^/  /'
  failures=$((failures + 1))
}

# has TEXT...: each is in the output.
has() {
  for text do grep -q -e "$text" "$where/$output" || fail "$output has no '$text'"; done
}

# Of few, the program's own function is told, and its line.
start 10
settle
debug few "-p $pid" -ex 'info greenlets'
grep -q 'ptrace: Operation not permitted' "$where/few" && skip "gdb may not look at processes here (ptrace)"
has ' suspended .* observed::[a-z_:]* at .*program.cpp:[1-9]'
exec 3>&- 4<&-
wait "$pid"
pid=
rm -f "$where/in" "$where/out"

# In the middle of a switch who is current is another than whose stack it is: nobody is told with another's frames. The
# innermost may be that of who switches, in whose code the last instruction of a switch is.
start 20
say spin spinning
looks=0
while test $looks -lt 6; do
  looks=$((looks + 1))
  debug spinning "-p $pid" -ex 'greenlet apply all bt'
  awk '/^([0-9]* )?greenlets? .*:$/ { who = /, main\)/ ? "main" : /"spins 0"/ ? "0" : /"spins 1"/ ? "1" : "" }
       /worker::spin\(\)/ && who != "main" || /spinner<0>/ && who != "0" || /spinner<1>/ && who != "1"' "$where/spinning" >"$where/others"
  test ! -s "$where/others" || { output=others; fail "frames of another greenlet's:"; break; }
done
output=spinning
grep -q 'ptrace: Operation not permitted' "$where/spinning" && skip "gdb may not look at processes here (ptrace)"
has 'spin_here<0>' 'spin_in_main'
say still still
say handle handling
debug handling "-p $pid" -ex 'greenlet apply all bt'
awk '/^([0-9]* )?greenlets? .*:$/ { its = /"handles"/ } its' "$where/handling" >"$where/handles"
output=handles
has 'observed::spin_in_handler' 'observed::raise_on_another_stack'
say still still
exec 3>&-
wait "$pid"
rm "$where/in" "$where/out"

start 10000
settle
say "snapshot $where/inside.json" written
settle
debug live "-p $pid" -ex "source $source/t/gdb.py" -ex "compare-greenlets $where/inside.json" -ex 'info greenlets' \
  -ex 'greenlet apply all bt 6'
grep -q 'ptrace: Operation not permitted' "$where/live" && skip "gdb may not look at processes here (ptrace)"
has 'compared: 1000[0-9] greenlets, [1-9][0-9]* frames, 0 different' 'greenlets ([0-9, ]*\.\.\.), as greenlet [0-9]* ".*" (suspended)' \
  'observed::wait_for_a_switch' '^ *1 suspended .* main ' ' unstarted .*"unstarted\\x0a\\x00\\"\\x1b\[31m"'

# The process goes on as if nobody had looked. Then it dies, and the system writes its core: not gdb's own gcore, which leaves
# out what is behind a guard page that is none of its mappings.
say turn 'went on [1-9]* times'
settle
say "snapshot $where/inside.json" written
settle
case $(cat /proc/sys/kernel/core_pattern) in
  core) ;;
  *) echo "note: no core, /proc/sys/kernel/core_pattern is not 'core'"; test "$failures" -eq 0; exit ;;
esac
echo abort >&3
wait "$pid" 2>/dev/null
process=$pid pid=
for core in "$where/core" "$where/core.$process"; do test -f "$core" && break; done
test -f "$core" || { echo "note: no core, though ulimit -c is $(ulimit -c)"; test "$failures" -eq 0; exit; }

# One of them, by its number, on which a command runs as on a thread.
one=$(sed -n 's/^ *\([0-9]*\) suspended .*"deep [0-9]*".*wait_for_a_switch.*/\1/p' "$where/live" | head -1)
test -n "$one" || { echo "nobody is in wait_for_a_switch()"; failures=$((failures + 1)); }
debug dead "$program $core" -ex "source $source/t/gdb.py" -ex "compare-greenlets $where/inside.json" \
  -ex "greenlet $one bt" -ex 'echo MARK 1\n' -ex "greenlet $one" -ex 'bt' -ex 'up' -ex 'echo MARK 2\n' -ex 'greenlet' -ex 'bt 1' \
  -ex "greenlet apply $one $one bt 2"
has 'compared: 1000[0-9] greenlets, [1-9][0-9]* frames, 0 different' '^#[0-9]* .*observed::wait_for_a_switch (.*program.cpp:' \
  '^\[greenlet '"$one"' "deep [0-9]*" (suspended) of thread' '^2 greenlets ('"$one, $one"'), as greenlet'
# Selected, its frames are gdb's own; and afterwards the thread's are again.
sed '1,/^MARK 1/d; /^MARK 2/,$d' "$where/dead" >"$where/chosen"
sed '1,/^MARK 2/d' "$where/dead" >"$where/after"
output=chosen
has '^#[0-9]* .*observed::wait_for_a_switch' '^#1[0-9] .* from .*/libgreenlet'
output=after
grep '^#' "$where/after" | head -1 | grep -q 'wait_for_a_switch' && fail "the greenlet is still selected"

# What cannot be is said.
debug wrong "$program $core" -ex 'greenlet 123456789 bt'
has 'there is no greenlet 123456789'
debug wrong "$program $core" -ex 'greenlet apply bt'
has 'greenlet apply (all | ID...) COMMAND'
debug wrong /bin/true -iex "source $source/contrib/greenlet-gdb.py" -ex 'info greenlets'
has 'no libgreenlet with greenlet_anchor_v1'

test "$failures" -eq 0
