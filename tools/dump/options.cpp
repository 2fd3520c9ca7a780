// SPDX-License-Identifier: MIT
// The command line.
#include "options.hpp"

#include "config.h"
#include "failure.hpp"

#include <cstdio>
#include <cstdlib>
#include <limits>

namespace greenlets::outside {
namespace {

constexpr const char* usage =
    "Usage: greenlet-dump [--text | --json | --dot] [--no-frames] [--verbose]\n"
    "                     [--executable FILE] PID | --core FILE\n"
    "Tells every greenlet of a process, or of its core file, without its help; see greenlet-dump(1).\n"
    "  --text             for people: a tree for each thread (if nothing else is said)\n"
    "  --json             for programs\n"
    "  --dot              a graph: greenlet-dump --dot PID | dot -Tsvg >greenlets.svg\n"
    "  --no-frames        not in which functions they are, which is most of the work\n"
    "  --core FILE        that file, instead of a process\n"
    "  --executable FILE  the program's file, where it is not found or has been stripped\n"
    "  --verbose          how long the process was stopped, and what was not found, on standard error\n"
    "  --help, --version  about this program\n";

[[noreturn]] void complain(const std::string& what) { throw failure(status::usage, what + "\n" + usage); }

[[noreturn]] void tell(const std::string& text) {
  std::fputs(text.c_str(), stdout);
  std::exit(std::fflush(stdout) == 0 ? 0 : static_cast<int>(status::failed));
}

pid_t process_number(const std::string& text) {
  char* end = nullptr;
  const unsigned long n = std::strtoul(text.c_str(), &end, 10);
  if (text.empty() || text[0] < '0' || text[0] > '9' || *end || n < 1 || n > static_cast<unsigned long>(std::numeric_limits<pid_t>::max()))
    complain('"' + text + "\" is not the number of a process");
  return static_cast<pid_t>(n);
}

}  // namespace

options parse(char** arguments) {
  options o;
  while (*++arguments) {
    const std::string word = *arguments;
    const auto value = [&]() -> std::string {
      if (!arguments[1] || !*arguments[1]) complain(word + " takes a FILE");
      return *++arguments;
    };
    if (word == "--help")
      tell(usage);
    else if (word == "--version")
      tell("greenlet-dump (libgreenlet) " PACKAGE_VERSION "\n");
    else if (word == "--text")
      o.as = options::format::text;
    else if (word == "--json")
      o.as = options::format::json;
    else if (word == "--dot")
      o.as = options::format::dot;
    else if (word == "--no-frames")
      o.frames = false;
    else if (word == "--verbose")
      o.verbose = true;
    else if (word == "--core")
      o.core = value();
    else if (word == "--executable")
      o.executable = value();
    else if (word.compare(0, 1, "-") == 0)
      complain("there is no option " + word);
    else if (o.pid)
      complain("one process at a time, not also \"" + word + '"');
    else
      o.pid = process_number(word);
  }
  if (!o.pid && o.core.empty()) complain("which process?");
  if (o.pid && !o.core.empty()) complain("a process or a core file, not both");
  return o;
}

}  // namespace greenlets::outside
