#!/bin/sh
# SPDX-License-Identifier: MIT
# The collector's tests, with libgc set up in the ways that its users may choose, and with few and many markers.

: "${builddir:?}"
[ -x "$builddir/t/gc_sound" ] || { echo 'skipped: configured --without-gc'; exit 77; }
status=0

# run NAME VARIABLE=VALUE TEST...
run() {
  name=$1
  setting=$2
  shift 2
  for test do
    env "$setting" GREENLET_TEST_GC_MODE="$name" "$builddir/t/$test" >"$builddir/t/gc_modes.out" 2>&1
    case $? in
      0) echo "ok: $test: $name, $setting" ;;
      77) cat "$builddir/t/gc_modes.out"; exit 77 ;;
      *)
        cat "$builddir/t/gc_modes.out"
        echo "FAILED: $test: $name, $setting"
        status=1
        ;;
    esac
  done
}

# A sanitizer's frames keep too much for the tests of completeness (t/gc_testing.hpp), and take their time.
others='gc_complete gc_life'
case ${SANITIZER_FLAGS-} in *sanitize*) others= ;; esac
# shellcheck disable=SC2086  # a list
{
  run markers GC_MARKERS=1 gc_sound $others
  run markers GC_MARKERS=16 gc_sound gc_neighbours $others
  for mode in no-interior-pointers no-java-finalization finalize-on-demand; do
    run $mode GC_MARKERS=2 gc_sound $others
  done
}
run incremental GC_MARKERS=2 gc_sound
# There libgc looks once more when the program ends, at what the program has lost, but not at what the library keeps.
run find-leak GC_FIND_LEAK=1 gc_sound gc_find_leak
if grep -i leaked "$builddir/t/gc_modes.out"; then
  echo 'FAILED: gc_find_leak: reported at its end'
  status=1
fi

rm -f "$builddir/t/gc_modes.out"
exit $status
