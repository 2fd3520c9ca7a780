#!/bin/sh
# SPDX-License-Identifier: MIT
# Each public header compiles alone, and twice in a row, without a warning; those for C also as C.

set -u
status=0
source=headers-test.$$.cpp
c_source=headers-test.$$.c
trap 'rm -f "$source" "$c_source"' EXIT

for header in $headers; do
  name=${header#include/}
  printf '#include <%s>\n#include <%s>\n' "$name" "$name" >"$source"
  $CXX -std=c++17 -Wall -Wextra -Wshadow -Werror -fsyntax-only \
    -I"$builddir/include" -I"$srcdir/include" "$source" || {
    echo "<$name> does not stand alone"
    status=1
  }
  case $name in
    *.h)
      cp "$source" "$c_source"
      $CC -std=c11 -Wall -Wextra -Wshadow -Wstrict-prototypes -Werror -fsyntax-only \
        -I"$builddir/include" -I"$srcdir/include" "$c_source" || {
        echo "<$name> does not stand alone in C"
        status=1
      }
      ;;
  esac
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
