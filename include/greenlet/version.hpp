// SPDX-License-Identifier: MIT
// The version of these headers; the library's own is in its soname.
#ifndef GREENLET_VERSION_HPP
#define GREENLET_VERSION_HPP

#include <greenlet/version.h>

#endif
