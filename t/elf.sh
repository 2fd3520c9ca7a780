#!/bin/sh
# SPDX-License-Identifier: MIT
# No library asks for an executable stack, each is fully relocated before it runs, and stays loaded.

set -u
command -v readelf >/dev/null || { echo "skipped: no readelf"; exit 77; }
failures=0
seen=0

for la in $libraries; do
  name=$(basename "$la" .la)
  so=$builddir/lib/.libs/$name.so
  test -f "$so" || continue
  seen=$((seen + 1))
  segments=$(readelf -lW "$so") || exit 1

  # A missing GNU_STACK header asks for an executable stack as loudly as an RWE one.
  echo "$segments" | grep -q 'GNU_STACK.* RW ' || {
    echo "$so: executable stack: one of its objects has no .note.GNU-stack"
    failures=$((failures + 1))
  }
  readelf -dW "$so" | grep -q 'FLAGS_1.*NODELETE' || {
    echo "$so: no NODELETE: threads that used it crash when they end after it was unloaded"
    failures=$((failures + 1))
  }
  test "$hardening" = yes || continue
  echo "$segments" | grep -q GNU_RELRO || {
    echo "$so: no GNU_RELRO"
    failures=$((failures + 1))
  }
  readelf -dW "$so" | grep -Eq 'BIND_NOW|FLAGS_1.*NOW' || {
    echo "$so: no BIND_NOW, so its relro is partial"
    failures=$((failures + 1))
  }
done

test "$seen" -gt 0 || { echo "skipped: no shared library was built"; exit 77; }
test "$failures" -eq 0
