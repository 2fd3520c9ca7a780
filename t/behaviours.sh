#!/bin/sh
# SPDX-License-Identifier: MIT
# doc/behaviours.md is what doc/behaviours.in and the titles of the tests make; every row has a test or
# says why not; every number in a title is a row's. The script that finds this out sees what is wrong.

set -u
work=behaviours-test.$$
mkdir "$work" || exit 1
trap 'rm -rf "$work"' EXIT
status=0
fail() {
  echo "$@"
  status=1
}

# behaviours ROWS TEST...: the table on standard output, what is wrong in $work/wrong.
behaviours() { awk -f "$srcdir/doc/behaviours.awk" "$@" 2>"$work/wrong"; }

tests=$(cd "$srcdir" && find t -name '*.cpp' -o -name '*.c' -o -name '*.sh' | grep -v '^t/behaviours\.sh$' | LC_ALL=C sort |
  sed "s|^|$srcdir/|")
# shellcheck disable=SC2086
behaviours "$srcdir/doc/behaviours.in" $tests >"$work/behaviours.md" || {
  cat "$work/wrong"
  status=1
}
grep '^[0-9]* rows: ' "$work/behaviours.md" || fail "the table has no summary"
if [ "${1-}" = --write ]; then
  test $status -eq 0 && cp "$work/behaviours.md" "$srcdir/doc/behaviours.md"
  exit $status
fi
diff -u "$srcdir/doc/behaviours.md" "$work/behaviours.md" || fail "doc/behaviours.md is out of date: make behaviours"

# What is wrong is found. Each case: the rows, a test, and what the script is to say.
finds() {
  printf '## A heading\n\n%b\n' "$1" >"$work/rows"
  printf '%b\n' "$2" >"$work/test.cpp"
  if behaviours "$work/rows" "$work/test.cpp" >"$work/out"; then
    test -z "$3" || fail "not found: $3"
  else
    test -n "$3" || { fail "nothing is wrong with $1 and $2:"; cat "$work/wrong"; }
    grep -qF "$3" "$work/wrong" || { fail "not said: $3; but:"; cat "$work/wrong"; }
  fi
}
finds '1 D one' 'TEST_CASE("1: it") {' ''
finds '1 D one\nB2 two' '// TEST_CASE("1, B2: both")\nTEST_CASE("no number")' ''
finds '1 D one\ncannot: no way' 'TEST_CASE("2 things") {' ''
finds '1 D one,\n  and more\nopen: later' '' ''
finds '1 D one' '' 'row 1 has no test: one'
finds '1 D one\nB2 two' 'TEST_CASE("1: it")' 'row B2 has no test: two'
finds '1 D one' 'TEST_CASE("1, 2: it")' 'there is no row 2: 1, 2: it'
finds '1 D one' 'TEST_CASE("1, B3: it")' 'there is no row B3'
finds '1 D one\ncannot: no way' 'TEST_CASE("1: it")' 'row 1 has a test, and says why it cannot have one'
finds '1 D one\nopen: later' 'TEST_CASE("1: it")' 'row 1 has a test, and says that it waits for one: later'
finds '1 D one\n1 A again' 'TEST_CASE("1: it")' 'row 1 is given twice'
finds '1 D one\nnonsense' 'TEST_CASE("1: it")' 'is none of these: nonsense'
finds '1 D one' 'TEST_CASE(\n  "1: it")' 'the title is not on the line of its TEST_CASE'

# What the table says of a row.
finds '1 D `a|b` <c>\n  d\ninstead: e\nB2 f' 'TEST_CASE("1, B2: \\"g\\" | h") {' ''
grep -qF '| 1 D | `a\|b` &lt;c> d | e | ' "$work/out" || { fail "the row is not right:"; cat "$work/out"; }
grep -qF '· "g" \| h |' "$work/out" || { fail "the title is not right:"; cat "$work/out"; }
grep -q '^| B2 | f |' "$work/out" || fail "the table of errors has no row"
exit $status
