#!/bin/sh
# SPDX-License-Identifier: MIT
# A library exports its namespace and nothing else.

# TEST_CASE("198: every symbol of a library is in its namespace")

set -u
command -v nm >/dev/null && command -v c++filt >/dev/null || { echo "skipped: no nm or c++filt"; exit 77; }
status=0
seen=0

for la in $libraries; do
  name=$(basename "$la" .la)
  so=$builddir/lib/.libs/$name.so
  test -f "$so" || continue
  seen=$((seen + 1))
  case $name in
    libgreenlet) namespace='greenlets' ;;
    libgreenlet-*) namespace="greenlets::${name#libgreenlet-}" ;;
  esac
  # Absolute symbols are the names of version nodes.
  exported=$(nm -D --defined-only "$so" | awk '$2 != "A" { print $3 }' | sed 's/@.*//' | c++filt)
  test -n "$exported" || { echo "$so exports nothing"; status=1; }

  of='((typeinfo|typeinfo name|vtable|VTT|guard variable|TLS (init|wrapper) function) for )?'
  foreign=$(echo "$exported" | grep -Ev "^$of$namespace::")
  test -z "$foreign" || {
    echo "$so exports names that are not in $namespace:"
    echo "$foreign" | sed 's/^/  /'
    status=1
  }
done

test "$seen" -gt 0 || { echo "skipped: no shared library was built"; exit 77; }
exit $status
