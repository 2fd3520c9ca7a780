#!/bin/sh
# SPDX-License-Identifier: MIT
# Each public header compiles alone, and twice in a row, without a warning, in C++17 and later, those for C
# also as C; and what it cannot be compiled with it names.

set -u
status=0
source=headers-test.$$.cpp
c_source=headers-test.$$.c
trap 'rm -f "$source" "$c_source" "$source.stdlib.cpp"' EXIT
# Those of libraries of others are for the headers that are about them, where these are installed.
includes="-I$builddir/include -I$srcdir/include $optional_cflags"

for header in $headers; do
  name=${header#include/}
  printf '#include <%s>\n#include <%s>\n' "$name" "$name" >"$source"
  $CXX -std=c++17 -Wall -Wextra -Wshadow -Werror -fsyntax-only \
    $includes "$source" || {
    echo "<$name> does not stand alone"
    status=1
  }
  case $name in
    *.h)
      cp "$source" "$c_source"
      $CC -std=c11 -Wall -Wextra -Wshadow -Wstrict-prototypes -Werror -fsyntax-only \
        $includes "$c_source" || {
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
# All of them together.
for header in $headers; do echo "#include <${header#include/}>"; done >"$source"
for standard in c++20 c++2b; do
  $CXX -std=$standard -Wall -Wextra -Wshadow -Werror -fsyntax-only $includes "$source" || {
    echo "the headers are not for $standard"
    status=1
  }
done

# refused FLAG: by a sentence of ours that names it, before anything else.
refused() {
  if errors=$($CXX -std=c++17 "$1" -fsyntax-only $includes "$source" 2>&1); then
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
