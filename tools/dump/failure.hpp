// SPDX-License-Identifier: MIT
// What can go wrong, and with which status the program then ends; doc/man/greenlet-dump.1 lists them.
#ifndef TOOLS_DUMP_FAILURE_HPP
#define TOOLS_DUMP_FAILURE_HPP

#include <cerrno>
#include <stdexcept>
#include <string>
#include <system_error>

namespace greenlets::outside {

enum class status {
  done = 0,
  failed = 1,         // a call of the system; writing what was asked for
  usage = 2,
  gone = 3,           // no such process, or it ended meanwhile
  refused = 4,        // not allowed to read it
  no_library = 5,     // it has no libgreenlet
  other_version = 6,  // of the library, than this program knows
  unreadable = 7,     // of another machine, damaged, no core file
};

class failure : public std::runtime_error {
 public:
  failure(status s, const std::string& what) : std::runtime_error(what), status_(s) {}
  status why() const noexcept { return status_; }

 private:
  status status_;
};

// "cannot open FILE: No such file or directory", by errno.
inline std::string with_reason(const std::string& what) { return what + ": " + std::generic_category().message(errno); }

}  // namespace greenlets::outside

#endif
