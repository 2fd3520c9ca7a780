# SPDX-License-Identifier: MIT
# Finds libgreenlet from the configure.ac of a program that uses it.

# GREENLET_CHECK([MODULES], [MIN-VERSION], [ACTION-IF-FOUND], [ACTION-IF-NOT-FOUND])
# ---------------------------------------------------------------------------------
# MODULES is a list of what the program needs beside the core, which it always gets: backtrace, hub, gc, or
# nothing.
# Sets and substitutes GREENLET_CFLAGS and GREENLET_LIBS. Without ACTION-IF-NOT-FOUND configure
# stops with pkg-config's own explanation. For example:
#
#   GREENLET_CHECK([hub], [0.1])
#
# and in Makefile.am:
#
#   AM_CPPFLAGS = $(GREENLET_CFLAGS)
#   LDADD = $(GREENLET_LIBS)
#
# The headers are C++17, which GREENLET_CHECK leaves to the program (AX_CXX_COMPILE_STDCXX).
AC_DEFUN([GREENLET_CHECK],
[AC_REQUIRE([PKG_PROG_PKG_CONFIG])dnl
PKG_CHECK_MODULES([GREENLET],
  m4_expand([greenlet[]_GREENLET_MIN([$2])[]m4_map_args_w([$1], [ greenlet-], [_GREENLET_MIN([$2])])]),
  [$3], [$4])
])

# _GREENLET_MIN([MIN-VERSION])
m4_define([_GREENLET_MIN], [m4_ifnblank([$1], [ >= $1])])
