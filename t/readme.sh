#!/bin/sh
# SPDX-License-Identifier: MIT
# The program in README compiles and prints what README says it prints; that in greenlet.h, the same but
# for the last line.

set -eu
work=readme-test.$$
mkdir "$work"
trap 'rm -rf "$work"' EXIT

# The program is the indented block that begins with its #include; what it prints follows "prints".
awk '/^    #include/ { on = 1 } /^[^ ]/ { on = 0 } on' "$srcdir/README" | sed 's/^    //' >"$work/readme.cpp"
awk '/^[^ ]/ { on = 0 } on && NF; /^prints/ { on = 1 }' "$srcdir/README" | sed 's/^    //' >"$work/expected"
test -s "$work/readme.cpp" || { echo "README has no program"; exit 1; }
test -s "$work/expected" || { echo "README does not say what its program prints"; exit 1; }

$CXX $CXXFLAGS $SANITIZER_FLAGS $PTHREAD_FLAGS -Wall -Wextra -Wshadow -Werror \
  -I"$builddir/include" -I"$srcdir/include" -c -o "$work/readme.o" "$work/readme.cpp"
"$builddir/libtool" --quiet --tag=CXX --mode=link \
  $CXX $CXXFLAGS $SANITIZER_FLAGS $PTHREAD_FLAGS -o "$work/readme" "$work/readme.o" "$builddir/lib/libgreenlet.la"
"$work/readme" >"$work/actual"
diff -u "$work/expected" "$work/actual"

awk '/^[/][/]   #include/ { on = 1 } /^[/][/] [^ ]/ { on = 0 } on' "$srcdir/include/greenlet/greenlet.h" | sed 's,^//,,' >"$work/header.c"
test -s "$work/header.c" || { echo "greenlet.h has no program"; exit 1; }
$CC -std=c11 $CFLAGS $SANITIZER_FLAGS $PTHREAD_FLAGS -fexceptions -Wall -Wextra -Wshadow -Werror \
  -I"$builddir/include" -I"$srcdir/include" -c -o "$work/header.o" "$work/header.c"
"$builddir/libtool" --quiet --tag=CC --mode=link \
  $CC $CFLAGS $SANITIZER_FLAGS $PTHREAD_FLAGS -o "$work/header" "$work/header.o" "$builddir/lib/libgreenlet.la"
"$work/header" >"$work/actual"
sed '$d' "$work/expected" | diff -u - "$work/actual"
