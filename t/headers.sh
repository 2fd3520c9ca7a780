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
exit $status
