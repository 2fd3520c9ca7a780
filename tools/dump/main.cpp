// SPDX-License-Identifier: MIT
// greenlet-dump: what the greenlets of a process or a core file are doing; doc/man/greenlet-dump.1.
#include "failure.hpp"
#include "options.hpp"
#include "session.hpp"

#include <cstdio>
#include <exception>

int main(int, char** arguments) {
  using namespace greenlets::outside;
  try {
    dump(parse(arguments));
    return 0;
  } catch (const failure& f) {
    std::fprintf(stderr, "greenlet-dump: %s\n", f.what());
    return static_cast<int>(f.why());
  } catch (const std::exception& e) {
    std::fprintf(stderr, "greenlet-dump: %s\n", e.what());
    return static_cast<int>(status::failed);
  }
}
