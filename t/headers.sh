#!/bin/sh
# SPDX-License-Identifier: MIT
# Each public header compiles alone, and twice in a row, without a warning.

set -u
status=0
source=headers-test.$$.cpp
trap 'rm -f "$source"' EXIT

for header in $headers; do
  name=${header#include/}
  printf '#include <%s>\n#include <%s>\n' "$name" "$name" >"$source"
  $CXX -std=c++17 -Wall -Wextra -Wshadow -Werror -fsyntax-only \
    -I"$builddir/include" -I"$srcdir/include" "$source" || {
    echo "<$name> does not stand alone"
    status=1
  }
done

# TEST_CASE("198: every macro of a public header begins with GREENLET_")
seen=0
for header in $headers; do
  file=$srcdir/$header
  test -f "$file" || file=$builddir/$header
  for macro in $(sed -n 's/^ *# *define  *\([A-Za-z0-9_]*\).*/\1/p' "$file"); do
    seen=$((seen + 1))
    case $macro in
      GREENLET_*) ;;
      *) echo "$header defines $macro"; status=1 ;;
    esac
  done
done
test "$seen" -gt 10 || { echo "found only $seen macros in the public headers"; status=1; }
exit $status
