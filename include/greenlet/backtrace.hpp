// SPDX-License-Identifier: MIT
// frames: in which functions a greenlet is suspended.
// Link with libgreenlet-backtrace (pkg-config greenlet-backtrace).
//
//   greenlets::write_frames(std::cerr, greenlets::frames(g));
//
// prints, innermost first:
//
//   0x55d0c1c7e2b5 read_line(connection&)+0x45 at server.cpp:31 in /usr/bin/server
//   0x55d0c1c7e2d9 serve(connection&)+0x19 at server.cpp:47 in /usr/bin/server
//   ...
#ifndef GREENLET_BACKTRACE_HPP
#define GREENLET_BACKTRACE_HPP

#include <greenlet/handle.hpp>

#include <cstddef>
#include <iosfwd>
#include <string>
#include <vector>

namespace greenlets {

/// One function that has been called and has not returned.
struct frame {
  void* address = nullptr;  ///< where it goes on
  std::string function;     ///< its name, demangled; empty when nothing tells
  std::string object;       ///< the program or the library that it is in
  std::string file;         ///< of its source, as the compiler was given it; empty without debugging information
  std::size_t offset = 0;   ///< bytes from its beginning to `address`; without a name, from that of the object
  unsigned line = 0;        ///< in `file`; 0 when nothing tells
  bool inlined = false;     ///< into the next frame, which has the same address
};

/// The functions in which `g` is: innermost first, the last is that with which its stack begins. Of one that is
/// suspended, in any thread; and of the calling greenlet, which begins with the caller. Empty for one that is running
/// in another thread, unstarted, dead, or no greenlet.
///
/// libunwind keeps two descriptors open from the first call on, and libdw one for each separate file of debugging
/// information that it has read; all are closed in children that execute other programs.
///
/// The stack is copied and then walked, so that a thread that goes on with its greenlet meanwhile is not disturbed; what
/// it does is told as it was, or as none. Of a thread's own stack the innermost 256 KiB are. Names of functions that
/// are not exported, files and lines need debugging information, and a library that was built with libdw; these are
/// read from the program's files, which takes milliseconds the first time.
///
/// Switches: no. Thread: any. Not in a signal handler. Throws: std::bad_alloc.
GREENLET_API std::vector<frame> frames(const greenlet& g);

/// The same for people: a line for each, but for those that are the same in every greenlet, with which its stack begins,
/// and for inlined ones of this library's and of the standard library's.
/// Switches: no. Thread: any. Throws: what `out` does.
GREENLET_API void write_frames(std::ostream& out, const std::vector<frame>& frames);

namespace detail {
// A program that includes this has the library, also where its linker leaves out what nobody refers to.
GREENLET_API bool has_frames() noexcept;
[[maybe_unused]] inline const bool has_frames_here = has_frames();
}  // namespace detail

}  // namespace greenlets

#endif
