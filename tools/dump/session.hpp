// SPDX-License-Identifier: MIT
// One dump, from stopping to writing.
#ifndef TOOLS_DUMP_SESSION_HPP
#define TOOLS_DUMP_SESSION_HPP

#include "options.hpp"

namespace greenlets::outside {

// Writes to standard output. Throws failure.
void dump(const options& o);

}  // namespace greenlets::outside

#endif
