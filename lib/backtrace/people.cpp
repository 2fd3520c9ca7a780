// SPDX-License-Identifier: MIT
// Texts for people.
#include "people.hpp"

#include <algorithm>
#include <cstdio>
#include <ctime>
#include <ios>
#include <locale>
#include <ostream>
#include <utility>

namespace greenlets::detail {

std::vector<frame> frames_at(const process_snapshot& s, const std::vector<void*>& addresses) {
  std::vector<frame> all;
  for (void* const a : addresses) {
    const auto known = s.symbols.find(a);
    if (known != s.symbols.end() && !known->second.empty()) {
      all.insert(all.end(), known->second.begin(), known->second.end());
    } else {
      all.emplace_back();
      all.back().address = a;
    }
  }
  return all;
}

namespace {

bool has(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

// Not "/greenlet/" alone: a program's own files may lie in a directory of that name.
bool is_of_headers(const frame& f) {
  return f.inlined && (has(f.file, "/include/greenlet/") || f.function.rfind("greenlets::", 0) == 0);
}

// How a thread begins, and a process.
bool is_of_the_system(const frame& f) {
  for (const char* const name : {"_start", "__libc_start_call_main", "__libc_start_main", "start_thread", "clone", "clone3", "__clone",
                                 "__clone3", "thread_start"})
    if (f.function == name || f.function.rfind(std::string(name) + "@", 0) == 0) return true;
  return false;
}

bool is_internal(const frame& f) { return has(f.function, "greenlets::detail::") || has(f.function, "greenlets::hub::detail::"); }

// The library's machinery; not its public functions, which tell what is waited for.
bool is_machinery(const frame& f) { return is_of_headers(f) || is_internal(f); }

template <class P>
void drop_outermost(std::vector<frame>& all, P&& is_dull) {
  while (all.size() > 1 && is_dull(all.back())) all.pop_back();
}

}  // namespace

std::vector<frame> of_waiting(std::vector<frame> all) {
  all = of_interest(std::move(all));
  drop_outermost(all, is_of_the_system);
  auto begin = std::find_if_not(all.begin(), all.end(), is_machinery);
  if (begin == all.end()) {  // of hub::every(), say: what is inlined of the headers tells at least what it was made with
    begin = std::find_if_not(all.begin(), all.end(), is_internal);
    if (begin != all.end()) all.erase(all.begin(), begin);
    return all;
  }
  all.erase(all.begin(), begin);
  drop_outermost(all, [](const frame& f) { return is_machinery(f) || has(f.file, "/c++/"); });
  return all;
}

std::vector<frame> of_creation(std::vector<frame> all) {
  const auto is_ours = [](const frame& f) {
    return f.function.rfind("greenlets::", 0) == 0 || has(f.object, "/libgreenlet") || is_of_headers(f);
  };
  all.erase(all.begin(), std::find_if_not(all.begin(), all.end(), is_ours));
  all = of_interest(std::move(all));
  drop_outermost(all, is_of_the_system);
  return all;
}

std::size_t length_of_character(const char* text, std::size_t left) noexcept {
  const auto byte = [text](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  if (left == 0) return 0;
  const unsigned char first = byte(0);
  if (first < 0x80) return 1;
  const std::size_t n = first >= 0xc2 && first < 0xe0 ? 2 : first >= 0xe0 && first < 0xf0 ? 3 : first >= 0xf0 && first < 0xf5 ? 4 : 0;
  if (n == 0 || left < n) return 0;
  for (std::size_t i = 1; i < n; ++i)
    if ((byte(i) & 0xc0) != 0x80) return 0;
  // Not the shortest form; surrogates; beyond Unicode.
  if ((first == 0xe0 && byte(1) < 0xa0) || (first == 0xed && byte(1) >= 0xa0) || (first == 0xf0 && byte(1) < 0x90) ||
      (first == 0xf4 && byte(1) >= 0x90))
    return 0;
  return n;
}

// Character by character: `odd(to, text, n)` writes one that is not printed as it is, of n bytes, or says that it is. n is
// 0 for a byte that belongs to none.
template <class Odd>
static std::string quoted_by(const std::string& text, Odd odd) {
  std::string to = "\"";
  for (std::size_t i = 0; i < text.size();) {
    const std::size_t n = length_of_character(text.data() + i, text.size() - i);
    if (!odd(to, text.data() + i, n)) {
      if (text[i] == '"' || text[i] == '\\') to += '\\';
      to.append(text, i, n);
    }
    i += std::max<std::size_t>(n, 1);
  }
  return to + '"';
}

static void add_number(std::string& to, const char* before, int digits, char c) {
  char escaped[8];
  std::snprintf(escaped, sizeof escaped, "%s%0*x", before, digits, static_cast<unsigned>(static_cast<unsigned char>(c)));
  to += escaped;
}

static bool is_control(char c) noexcept { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }

std::string quoted(const std::string& text) {
  return quoted_by(text, [](std::string& to, const char* at, std::size_t n) {
    // U+0080 to U+009F are control characters, too, which terminals may follow.
    const bool high = n == 2 && at[0] == '\xc2' && static_cast<unsigned char>(at[1]) < 0xa0;
    if (n != 0 && !is_control(*at) && !high) return false;
    for (std::size_t k = 0; k < std::max<std::size_t>(n, 1); ++k) add_number(to, "\\x", 2, at[k]);
    return true;
  });
}

std::string json_quoted(const std::string& text) {
  return quoted_by(text, [](std::string& to, const char* at, std::size_t n) {
    if (n != 0 && !is_control(*at)) return false;
    if (n == 0)
      to += "\\ufffd";
    else
      add_number(to, "\\u", 4, *at);
    return true;
  });
}

void plainly(std::ostream& to, const std::function<void(std::ostream&)>& write) {
  std::ostream plain(nullptr);
  plain.imbue(std::locale::classic());  // while there is no buffer that would take it, too
  plain.rdbuf(to.rdbuf());
  plain.clear(to.rdstate());
  plain.exceptions(to.exceptions());
  plain.setf(to.flags() & std::ios_base::unitbuf);
  try {
    write(plain);
  } catch (...) {
    try {
      to.setstate(plain.rdstate());
    } catch (const std::ios_base::failure&) {  // the stream's own way to throw what is thrown here
    }
    throw;
  }
  to.setstate(plain.rdstate());
}

const char* name_of(greenlet_state s) noexcept {
  switch (s) {
    case greenlet_state::unstarted: return "unstarted";
    case greenlet_state::current: return "running";
    case greenlet_state::suspended: return "suspended";
    case greenlet_state::finished: return "finished";
    case greenlet_state::unwound: return "unwound";
  }
  return "?";
}

std::string text_of(std::chrono::nanoseconds time) {
  const double s = std::chrono::duration<double>(time).count();
  char text[48];
  if (s < 0.1)
    std::snprintf(text, sizeof text, "%.1f ms", s * 1e3);
  else if (s < 120)
    std::snprintf(text, sizeof text, "%.1f s", s);
  else if (s < 7200)
    std::snprintf(text, sizeof text, "%.0f min", s / 60);
  else
    std::snprintf(text, sizeof text, "%.1f h", s / 3600);
  return text;
}

std::string text_of_bytes(std::size_t bytes) {
  char text[48];
  if (bytes < 1024)
    std::snprintf(text, sizeof text, "%zu B", bytes);
  else if (bytes < 1024 * 1024)
    std::snprintf(text, sizeof text, "%.1f KiB", static_cast<double>(bytes) / 1024);
  else
    std::snprintf(text, sizeof text, "%.1f MiB", static_cast<double>(bytes) / (1024 * 1024));
  return text;
}

std::string text_of(std::chrono::system_clock::time_point when) {
  const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(when.time_since_epoch()).count();
  const auto seconds = static_cast<std::time_t>(ms / 1000);
  std::tm utc = {};
  gmtime_r(&seconds, &utc);
  char text[80];
  std::snprintf(text, sizeof text, "%04d-%02d-%02dT%02d:%02d:%02d.%03dZ", utc.tm_year + 1900, utc.tm_mon + 1, utc.tm_mday,
                utc.tm_hour, utc.tm_min, utc.tm_sec, static_cast<int>(ms % 1000));
  return text;
}

}  // namespace greenlets::detail
