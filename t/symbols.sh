#!/bin/sh
# SPDX-License-Identifier: MIT
# A library exports its namespace, the core its C functions too, and nothing else; and holds nothing of
# the seam for failing calls.

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
    libgreenlet) namespace='greenlets' c='greenlet_([a-z_]+|anchor_v1)$' ;;
    libgreenlet-backtrace) namespace='greenlets' c='$.' ;;
    libgreenlet-*) namespace="greenlets::${name#libgreenlet-}" c='$.' ;;
  esac
  # lib/fault.hpp, by its namespace and by a string of it.
  for file in "$so" "$builddir/lib/.libs/$name.a"; do
    test -f "$file" || continue
    if grep -Eq 'N9greenlets6detail5fault|first_switch' "$file"; then
      echo "$file was built with GREENLET_FAULTS, or has been linked with what was"
      status=1
    fi
  done

  # Absolute symbols are the names of version nodes.
  exported=$(nm -D --defined-only "$so" | awk '$2 != "A" { print $3 }' | sed 's/@.*//' | c++filt)
  test -n "$exported" || { echo "$so exports nothing"; status=1; }

  of='((typeinfo|typeinfo name|vtable|VTT|guard variable|TLS (init|wrapper) function) for )?'
  foreign=$(echo "$exported" | grep -Ev "^$of$namespace::|^$c")
  test -z "$foreign" || {
    echo "$so exports names that are not in $namespace:"
    echo "$foreign" | sed 's/^/  /'
    status=1
  }

  # Each function that the C header declares is there, and each that is there is declared.
  test "$name" = libgreenlet || continue
  declared=$(sed -n 's/^GREENLET_API .*[ *]\(greenlet_[a-z_]*\)(.*/\1/p' "$srcdir/include/greenlet/greenlet.h" | sort)
  test "$declared" = "$(echo "$exported" | grep '^greenlet_' | grep -v '^greenlet_anchor_' | sort)" || {
    echo "$so and greenlet.h have different C functions"
    status=1
  }
done

test "$seen" -gt 0 || { echo "skipped: no shared library was built"; exit 77; }
exit $status
