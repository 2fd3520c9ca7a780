// SPDX-License-Identifier: MIT
// What greenlet-dump is asked for.
#ifndef TOOLS_DUMP_OPTIONS_HPP
#define TOOLS_DUMP_OPTIONS_HPP

#include <string>
#include <sys/types.h>

namespace greenlets::outside {

struct options {
  enum class format { text, json, dot };

  format as = format::text;
  bool frames = true;
  bool verbose = false;
  std::string executable;  // empty: what the process or core file says
  std::string core;        // empty: it is a process
  pid_t pid = 0;
};

// Throws failure(status::usage). Ends the program when it is asked for a text about itself.
options parse(char** arguments);

}  // namespace greenlets::outside

#endif
