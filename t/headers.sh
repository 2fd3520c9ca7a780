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
exit $status
