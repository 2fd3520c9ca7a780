// SPDX-License-Identifier: MIT
// Writing where nobody is there to be told that it went wrong.
#ifndef LIB_BACKTRACE_WRITING_HPP
#define LIB_BACKTRACE_WRITING_HPP

#include <functional>
#include <string>
#include <string_view>

namespace greenlets::detail {

// Each returns whether all of it was written; `stopped` is asked now and then while there is nothing but to wait.
// Throws std::bad_alloc.

// To a descriptor that anybody may have made, blocking or not. Gives up after two seconds in which nothing could be written.
bool write_all(int descriptor, std::string_view text, const std::function<bool()>& stopped);
bool append_to(const std::string& file, std::string_view text, const std::function<bool()>& stopped);
// Into a file beside it, which is put in its place, or removed.
bool replace(const std::string& file, std::string_view text, const std::function<bool()>& stopped);

}  // namespace greenlets::detail

#endif
