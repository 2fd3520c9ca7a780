#!/bin/sh
# SPDX-License-Identifier: MIT
# Each public header compiles alone, and twice in a row, without a warning, in C++17 and later; and
# what it cannot be compiled with it names.

set -u
status=0
source=headers-test.$$.cpp
trap 'rm -f "$source" "$source.stdlib.cpp"' EXIT

for header in $headers; do
  name=${header#include/}
  printf '#include <%s>\n#include <%s>\n' "$name" "$name" >"$source"
  $CXX -std=c++17 -Wall -Wextra -Wshadow -Werror -fsyntax-only \
    -I"$builddir/include" -I"$srcdir/include" "$source" || {
    echo "<$name> does not stand alone"
    status=1
  }
done

# All of them together.
for header in $headers; do echo "#include <${header#include/}>"; done >"$source"
for standard in c++20 c++2b; do
  $CXX -std=$standard -Wall -Wextra -Wshadow -Werror -fsyntax-only -I"$builddir/include" -I"$srcdir/include" "$source" || {
    echo "the headers are not for $standard"
    status=1
  }
done

# refused FLAG: by a sentence of ours that names it, before anything else.
refused() {
  if errors=$($CXX -std=c++17 "$1" -fsyntax-only -I"$builddir/include" -I"$srcdir/include" "$source" 2>&1); then
    echo "the headers compile with $1, and say that they do not"
    status=1
  elif ! echo "$errors" | grep error | head -n 1 | grep -q -e "error.*libgreenlet needs.*compile with.* $2"; then
    echo "the first error with $1 is not that it is refused:"
    echo "$errors" | grep error | head -n 3
    status=1
  fi
}
refused -std=c++14 -std=c++17
refused -fno-exceptions -fno-exceptions
refused -fno-rtti -fno-rtti
# Where it is installed.
printf '#include <cstddef>\n#ifndef _LIBCPP_VERSION\n#error\n#endif\n' >"$source.stdlib.cpp"
if $CXX -std=c++17 -stdlib=libc++ -fsyntax-only "$source.stdlib.cpp" 2>/dev/null; then
  refused -stdlib=libc++ -stdlib=libc++
fi
exit $status
