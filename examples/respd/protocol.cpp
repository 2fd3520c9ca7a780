// SPDX-License-Identifier: MIT
// respd: requests and replies of the Redis protocol.
#include "protocol.hpp"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <new>
#include <utility>

namespace respd {
namespace {

constexpr std::size_t most_words = 1024 * 1024;
constexpr std::size_t longest_line = 64 * 1024;  // of words, or of the length of something
constexpr std::size_t kept = 64 * 1024;          // of memory that one large request needed

bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

int hexadecimal(char c) {
  c = lower(c);
  return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

// The character behind a backslash at `at` in double quotes, which may be several: "\n", "\x0a". `at` is then at its last.
char unescaped(std::string_view line, std::size_t& at) {
  const char c = line[++at];
  if (c == 'x' && at + 2 < line.size() && hexadecimal(line[at + 1]) >= 0 && hexadecimal(line[at + 2]) >= 0) {
    at += 2;
    return static_cast<char>(hexadecimal(line[at - 1]) * 16 + hexadecimal(line[at]));
  }
  constexpr std::string_view names = "nrtba", values = "\n\r\t\b\a";
  const std::size_t which = names.find(c);
  return which == names.npos ? c : values[which];
}

}  // namespace

bool same_word(std::string_view a, std::string_view b) {
  const auto same = [](char x, char y) { return lower(x) == lower(y); };
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(), same);
}

bool parse_number(std::string_view text, long long& n) {
  const char* const end = text.data() + text.size();
  const auto [at, failed] = std::from_chars(text.data(), end, n);
  const std::string_view digits = text.substr(!text.empty() && text[0] == '-');
  return failed == std::errc() && at == end && (digits[0] != '0' || text == "0");
}


// -- Requests ------------------------------------------------------------------------------------

// What hiredis is told of an object is this one; a null pointer has it stop.
template <class Count>
void* request::on_array(const redisReadTask* task, Count count) {
  request& r = *static_cast<request*>(task->privdata);
  if (task->parent) return r.fail("expected '$', got '*'"), nullptr;
  if (static_cast<std::size_t>(count) > most_words) return r.fail("invalid multibulk length"), nullptr;
  r.announced_ = static_cast<std::size_t>(count);
  return &r;
}

void* request::on_string(const redisReadTask* task, char* data, std::size_t size) try {
  request& r = *static_cast<request*>(task->privdata);
  if (task->type != REDIS_REPLY_STRING) return r.fail("expected '$'"), nullptr;
  return r.add(data, size) ? &r : nullptr;
} catch (const std::bad_alloc&) {
  return nullptr;  // not through C: hiredis says the same
}

request::reader_ptr request::make_reader() {
  static redisReplyObjectFunctions functions = [] {
    redisReplyObjectFunctions f{};  // of numbers and the like there is nothing to make: they are counted in next_array()
    f.createArray = on_array;
    f.createString = on_string;
    return f;
  }();
  reader_ptr made(redisReaderCreateWithFunctions(&functions));
  if (!made) throw std::bad_alloc();
  made->privdata = this;
  return made;
}

void request::give_reader(std::string_view data) {
  if (redisReaderFeed(reader_.get(), data.data(), data.size()) != REDIS_OK) throw std::bad_alloc();
}

void request::feed(const char* data, std::size_t size) {
  if (begun_ || (line_.empty() && *data == '*'))
    give_reader({data, size});
  else
    line_.append(data, size);
}

bool request::next() {
  if (!begun_) clear();
  while (error_.empty()) {
    if (line_at_ < line_.size() && line_[line_at_] != '*') {
      if (!next_line()) return false;
    } else {
      if (line_at_ < line_.size()) give_reader(std::string_view(line_).substr(line_at_));
      forget_line();
      if (!begun_ && !begin_array()) {
        if (line_.empty()) return false;
        continue;
      }
      if (!next_array()) return false;
    }
    if (!words_.empty()) return true;  // an empty array, or line, is no request
  }
  return false;
}

// Whether an array comes next. What hiredis has been fed behind the last one may be a line: that is taken back.
bool request::begin_array() {
  const std::string_view rest = unread();
  if (rest.empty()) return false;
  if (rest[0] != '*') {
    line_ = rest;
    reader_ = make_reader();
    return false;
  }
  announced_ = 0;
  return begun_ = true;
}

bool request::next_array() {
  void* made = nullptr;
  if (redisReaderGetReply(reader_.get(), &made) != REDIS_OK) return fail(reader_->errstr);
  if (made) {
    begun_ = false;
    return words_.size() == announced_ || fail("expected '$'");
  }
  // hiredis waits for all of a string, however long that says it is. What it has not taken begins with that length.
  const std::string_view rest = unread();
  const std::size_t end = rest.find("\r\n");
  unsigned long long length = 0;
  if (end != rest.npos) std::from_chars(rest.data(), rest.data() + end, length);
  if (length > most_ - text_.size()) return fail("invalid bulk length");
  if (end == rest.npos && rest.size() > longest_line) return fail("too big count string");
  return false;
}

bool request::next_line() {
  const std::size_t end = line_.find('\n', line_at_);
  if (end == line_.npos) {
    line_.erase(0, std::exchange(line_at_, 0));
    return line_.size() > longest_line && fail("too big inline request");
  }
  const bool good = split(std::string_view(line_).substr(line_at_, end - line_at_));
  line_at_ = end + 1;
  return good || fail("unbalanced quotes in request");
}

// Into words, as a shell does; false when a quotation does not end, or something stands right behind it.
bool request::split(std::string_view line) {
  for (std::size_t at = 0;; ++at) {
    while (at < line.size() && is_space(line[at])) ++at;
    if (at >= line.size()) return true;
    words_.push_back({text_.size(), 0});
    for (char quote = 0; at < line.size() && (quote || !is_space(line[at])); ++at) {
      char c = line[at];
      if (!quote && (c == '"' || c == '\'')) {
        quote = c;
      } else if (quote && c == quote) {
        quote = 0;
        if (at + 1 < line.size() && !is_space(line[at + 1])) return false;
      } else {
        if (quote == '"' && c == '\\' && at + 1 < line.size()) c = unescaped(line, at);
        if (quote == '\'' && line.substr(at, 2) == "\\'") c = line[++at];
        text_.push_back(c);
      }
      if (quote && at + 1 == line.size()) return false;
    }
    words_.back().size = text_.size() - words_.back().at;
  }
}

bool request::add(const char* data, std::size_t size) {
  if (size > most_ - text_.size()) return fail("the request is too large");
  words_.push_back({text_.size(), size});
  text_.append(data, size);
  return true;
}

bool request::fail(const std::string& why) {
  if (error_.empty()) error_ = "ERR Protocol error: " + why;
  return false;
}

void request::forget_line() {
  line_.clear();
  line_at_ = 0;
  if (line_.capacity() > kept) line_.shrink_to_fit();
}

void request::clear() {
  text_.clear();
  words_.clear();
  if (text_.capacity() > kept) text_.shrink_to_fit();
  if (words_.capacity() > kept / sizeof(word)) words_.shrink_to_fit();
}


// -- Replies -------------------------------------------------------------------------------------

void reply::line(char type, std::string_view text) {
  out_.push_back(type);
  out_.append(text);
  out_.append("\r\n", 2);
}

// An error may quote the client, who is not to write a line of his own here.
void reply::error(std::string_view text) {
  const std::size_t begin = out_.size() + 1;
  line('-', text);
  for (std::size_t n = begin; n < out_.size() - 2; ++n)
    if (out_[n] == '\r' || out_[n] == '\n') out_[n] = ' ';
}

void reply::number(char type, long long n) {
  char digits[24];
  digits[0] = type;
  char* const end = std::to_chars(digits + 1, digits + 22, n).ptr;
  std::memcpy(end, "\r\n", 2);
  out_.append(digits, static_cast<std::size_t>(end + 2 - digits));
}

void reply::bulk(std::string_view text) {
  if (out_.size() + text.size() > most_) throw refused{"ERR the reply is too large"};
  number('$', static_cast<long long>(text.size()));
  out_.append(text);
  out_.append("\r\n", 2);
}

}  // namespace respd
