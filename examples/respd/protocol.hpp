// SPDX-License-Identifier: MIT
// respd: the Redis protocol as a server speaks it: requests, which hiredis's reader takes apart, and replies.
#ifndef RESPD_PROTOCOL_HPP
#define RESPD_PROTOCOL_HPP

#include <hiredis/read.h>

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace respd {

/// Thrown by a command that cannot be done: the text of its error reply.
struct refused {
  std::string why;
};

/// As in the C locale.
inline char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

/// Whether the two differ in nothing but capitals.
bool same_word(std::string_view a, std::string_view b);

/// Whether it is a whole number as Redis has them: no sign but "-", no spaces, no zero in front.
bool parse_number(std::string_view text, long long& n);

/// What one client asks, request by request: feed() what was read, and call next() until there is no more. A request is
/// an array of strings, or a line of words, for people with telnet. It refers to itself, and is not moved.
class request {
 public:
  /// `most`: bytes of one request.
  explicit request(std::size_t most) : most_(most), reader_(make_reader()) {}
  request(const request&) = delete;
  request& operator=(const request&) = delete;

  void feed(const char* data, std::size_t size);
  /// Whether a request has come whole. When none has, and error() has a text, nothing that follows can be understood.
  bool next();
  const std::string& error() const { return error_; }

  /// The words of the request that next() has found, one at least; valid until its next call.
  std::size_t size() const { return words_.size(); }
  std::string_view operator[](std::size_t n) const { return {text_.data() + words_[n].at, words_[n].size}; }

 private:
  struct word {
    std::size_t at, size;  // in text_
  };
  struct reader_free {
    void operator()(redisReader* r) const { redisReaderFree(r); }
  };
  using reader_ptr = std::unique_ptr<redisReader, reader_free>;

  // What hiredis calls for what it finds. How it counts elements differs between its versions.
  template <class Count>
  static void* on_array(const redisReadTask* task, Count count);
  static void* on_string(const redisReadTask* task, char* data, std::size_t size);

  reader_ptr make_reader();
  std::string_view unread() const { return {reader_->buf + reader_->pos, reader_->len - reader_->pos}; }
  void give_reader(std::string_view data);
  bool begin_array();
  bool next_array();
  bool next_line();
  bool split(std::string_view line);
  void forget_line();
  void clear();
  bool add(const char* data, std::size_t size);
  bool fail(const std::string& why);

  std::size_t most_;
  reader_ptr reader_;
  bool begun_ = false;         // an array: the rest of it is to come
  std::size_t announced_ = 0;  // how many words it has
  std::string line_;           // what is not an array
  std::size_t line_at_ = 0;    // how much of that is done
  // hiredis moves its buffer while an array comes in parts, and so the words are copied. That costs less than objects
  // made of them: nothing is allocated for a request that is no larger than one before.
  std::string text_;
  std::vector<word> words_;
  std::string error_;
};

/// Composes replies at the end of a string.
class reply {
 public:
  /// `most`: bytes that may stand there; more is refused.
  reply(std::string& out, std::size_t most) : out_(out), most_(most) {}

  void status(std::string_view text) { line('+', text); }
  void error(std::string_view text);
  void integer(long long n) { number(':', n); }
  void array(std::size_t elements) { number('*', static_cast<long long>(elements)); }
  void nil() { out_.append("$-1\r\n", 5); }
  void nil_array() { out_.append("*-1\r\n", 5); }
  void bulk(std::string_view text);
  void bulk_or_nil(const std::string* text) { text ? bulk(*text) : nil(); }

  /// Where the next one will begin; and back to there, when it cannot be given.
  std::size_t mark() const { return out_.size(); }
  void back_to(std::size_t begin) { out_.resize(begin); }

 private:
  void line(char type, std::string_view text);
  void number(char type, long long n);

  std::string& out_;
  std::size_t most_;
};

}  // namespace respd

#endif
