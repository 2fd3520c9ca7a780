// SPDX-License-Identifier: MIT
// What is asked of Redis, and what it answers: request, pipeline, reply. Included by hiredis.hpp.
#ifndef GREENLET_HUB_HIREDIS_REPLY_HPP
#define GREENLET_HUB_HIREDIS_REPLY_HPP

#include <greenlet/error.hpp>

#if __has_include(<hiredis/hiredis.h>)
#include <hiredis/hiredis.h>
#else
#include <hiredis.h>
#endif

#include <algorithm>
#include <charconv>
#include <climits>
#include <cstdarg>
#include <cstddef>
#include <initializer_list>
#include <iterator>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <string_view>
#include <strings.h>
#include <system_error>
#include <type_traits>
#include <utility>
#include <vector>

namespace greenlets::hub::hiredis {

/// Of one code, 1: Redis has answered with an error, whose text is beside it.
inline const std::error_category& redis_category() noexcept {
  struct category : std::error_category {
    const char* name() const noexcept override { return "redis"; }
    std::string message(int) const override { return "Redis answered with an error"; }
  };
  static const category only;
  return only;
}

/// What Redis has answered, or why it has not: a tree, which is the caller's, and no part of hiredis. What Redis calls
/// an error is an answer as well, and neither is an exception. Thread: any, as any object.
class reply {
 public:
  /// What it is: `none` when there is no answer. What RESP3 has besides is the nearest of these.
  enum class kind { none, nil, integer, status, error, string, array };

  /// None, with operation_in_progress.
  reply() = default;
  /// A copy of what hiredis has. Throws: std::bad_alloc.
  explicit reply(const redisReply& from);
  /// None, and why.
  static reply failed(std::error_code why, std::string text = {});

  /// Redis has answered, and not with an error.
  explicit operator bool() const noexcept { return kind_ != kind::none && kind_ != kind::error; }
  kind type() const noexcept { return kind_; }
  bool is_nil() const noexcept { return kind_ == kind::nil; }
  /// Redis has answered with an error: "WRONGTYPE Operation against ...", for instance.
  bool is_error() const noexcept { return kind_ == kind::error; }
  /// No error; redis_category() when Redis has answered with one, or has closed the connection with one; otherwise
  /// the system's, in std::generic_category(): why there is no answer.
  std::error_code error() const noexcept;
  bool timed_out() const noexcept { return kind_ == kind::none && why_ == std::errc::timed_out; }
  /// The connection was closed here, or its hub has ended.
  bool closed() const noexcept { return kind_ == kind::none && why_ == std::errc::operation_canceled; }
  /// The connection is no more, whoever has ended it. Whether the command was obeyed is not known.
  bool lost() const noexcept { return kind_ == kind::none && !timed_out(); }
  /// What an error says, or why there is no answer; for people.
  std::string message() const;

  /// Of a string, a status or an error. Throws: greenlets::error(wrong_type) of something else.
  const std::string& text() const;
  /// Of an integer. Throws: greenlets::error(wrong_type) of something else.
  long long integer() const;
  /// Of an array; of anything else there are none.
  std::size_t size() const noexcept { return elements_.size(); }
  std::vector<reply>::const_iterator begin() const noexcept { return elements_.begin(); }
  std::vector<reply>::const_iterator end() const noexcept { return elements_.end(); }
  /// Throws: std::out_of_range.
  const reply& operator[](std::size_t n) const { return elements_.at(n); }

 private:
  [[noreturn]] void refuse(const char* wanted) const;

  kind kind_ = kind::none;
  long long integer_ = 0;
  std::error_code why_ = std::make_error_code(std::errc::operation_in_progress);
  std::string text_;
  std::vector<reply> elements_;
};

/// One word of a command: text of any bytes, or a number. What it is made of must live as long.
class argument {
 public:
  argument(std::string_view text) noexcept : text_(text) {}         // NOLINT: conversions are the point
  argument(const char* text) noexcept : text_(text) {}              // NOLINT
  argument(const std::string& text) noexcept : text_(text) {}       // NOLINT
  template <class N, class = std::enable_if_t<std::is_integral_v<N> && !std::is_same_v<N, bool> && !std::is_same_v<N, char>>>
  argument(N number) noexcept                                        // NOLINT
      : length_(static_cast<std::size_t>(std::to_chars(digits_, digits_ + sizeof digits_, number).ptr - digits_)) {}

  std::string_view text() const noexcept { return length_ ? std::string_view(digits_, length_) : text_; }

 private:
  std::string_view text_;
  char digits_[24] = {};
  std::size_t length_ = 0;
};

/// A command as it goes to Redis. Move-only. Words may have any bytes, zeros and line ends included, and never become
/// two. Throws: std::invalid_argument: no word, more than INT_MAX bytes, or a command whose replies are not one
/// each (SUBSCRIBE and its like: see subscriber; MONITOR); std::bad_alloc.
class request {
 public:
  request(std::initializer_list<argument> words) : request(words.begin(), words.end()) {}
  /// Of anything that has words: std::vector<std::string>, for instance.
  template <class C, class Word = decltype(*std::begin(std::declval<const C&>())),
            class = std::enable_if_t<std::is_constructible_v<argument, Word>>>
  request(const C& words) : request(std::begin(words), std::end(words)) {}  // NOLINT

  std::string_view wire() const noexcept { return {text_.get(), size_}; }

 private:
  friend request format(const char* pattern, ...);
  friend class subscriber;
  struct unchecked {};
  struct freer {
    void operator()(char* text) const noexcept { redisFreeCommand(text); }
  };

  request() = default;
  template <class I>
  request(I from, I to) : request(unchecked(), from, to) {
    check();
  }
  template <class I>
  request(unchecked, I from, I to) {
    std::vector<argument> words;
    for (; from != to; ++from) words.emplace_back(*from);
    build(words);
  }
  void build(const std::vector<argument>& words);
  void check() const;

  std::unique_ptr<char, freer> text_;
  std::size_t size_ = 0;
};

/// As redisCommand() of hiredis has it: %s, %b (const void*, std::size_t: any bytes), and the integers and numbers of
/// printf(3). The compiler checks none of it: a list of words is safer. Throws: as request.
///
///   redis.command(hub::hiredis::format("SET %s %b", key, data, size), std::chrono::seconds(1));
request format(const char* pattern, ...);

/// Commands that go out together, with nobody else's between them: MULTI, ..., EXEC for instance.
class pipeline {
 public:
  /// Throws: std::bad_alloc.
  void add(request one) { all_.push_back(std::move(one)); }
  std::size_t size() const noexcept { return all_.size(); }
  void clear() noexcept { all_.clear(); }

 private:
  friend class connection;
  std::vector<request> all_;
};


// --- How it is done

inline reply::reply(const redisReply& from) : why_() {
  switch (from.type) {
    case REDIS_REPLY_NIL: kind_ = kind::nil; break;
    case REDIS_REPLY_INTEGER: kind_ = kind::integer; break;
    case REDIS_REPLY_STATUS: kind_ = kind::status; break;
    case REDIS_REPLY_ERROR: kind_ = kind::error; break;
    case REDIS_REPLY_ARRAY: kind_ = kind::array; break;
    case REDIS_REPLY_STRING: kind_ = kind::string; break;
    default: kind_ = from.elements ? kind::array : from.str ? kind::string : kind::integer;  // RESP3's
  }
  if (kind_ == kind::integer) integer_ = from.integer;
  if (kind_ == kind::string || kind_ == kind::status || kind_ == kind::error) text_.assign(from.str, from.len);
  if (kind_ != kind::array) return;
  elements_.reserve(from.elements);
  for (std::size_t n = 0; n < from.elements; ++n) elements_.emplace_back(*from.element[n]);  // hiredis bounds the depth
}

inline reply reply::failed(std::error_code why, std::string text) {
  reply r;
  r.why_ = why;
  r.text_ = std::move(text);
  return r;
}

inline std::error_code reply::error() const noexcept {
  return kind_ == kind::error ? std::error_code(1, redis_category()) : why_;
}

inline std::string reply::message() const {
  if (kind_ == kind::error || (kind_ == kind::none && !text_.empty())) return text_;
  return why_ ? why_.message() : std::string();
}

inline void reply::refuse(const char* wanted) const {
  constexpr const char* names[] = {"none", "nil", "an integer", "a status", "an error", "a string", "an array"};
  throw greenlets::error(errc::wrong_type, std::string("a reply of Redis is not ") + wanted,
                         std::string("  it is ") + names[static_cast<int>(kind_)] + ' ' + message());
}

inline const std::string& reply::text() const {
  if (kind_ != kind::string && kind_ != kind::status && kind_ != kind::error) refuse("text");
  return text_;
}

inline long long reply::integer() const {
  if (kind_ != kind::integer) refuse("an integer");
  return integer_;
}

inline void request::build(const std::vector<argument>& words) {
  if (words.empty()) throw std::invalid_argument("hiredis::request: a command has a name");
  std::vector<const char*> texts;
  std::vector<std::size_t> sizes;
  std::size_t all = 32;
  for (const argument& a : words) {
    texts.push_back(a.text().data() ? a.text().data() : "");
    sizes.push_back(a.text().size());
    all += a.text().size() + 32;  // more than what the protocol adds to each
  }
  // hiredis counts in an int.
  if (all > INT_MAX) throw std::invalid_argument("hiredis::request: a command of more than INT_MAX bytes");
  char* made = nullptr;
  const auto size = redisFormatCommandArgv(&made, static_cast<int>(words.size()), texts.data(), sizes.data());
  if (size < 0) throw std::bad_alloc();
  text_.reset(made);
  size_ = static_cast<std::size_t>(size);
}

// hiredis looks for these names, in its own way: it takes off a p, and the name ends where the line does.
inline void request::check() const {
  std::string_view name = wire();
  name.remove_prefix(std::min(name.find('$'), name.size()));
  name.remove_prefix(std::min(name.find("\r\n") + 2, name.size()));
  name = name.substr(0, name.find("\r\n"));
  for (const std::string_view refused : {"subscribe", "psubscribe", "ssubscribe", "unsubscribe", "punsubscribe",
                                         "sunsubscribe", "monitor", "pmonitor"})
    if (name.size() == refused.size() && strncasecmp(name.data(), refused.data(), refused.size()) == 0)
      throw std::invalid_argument("hiredis::request: " + std::string(name) + " has not one reply; see hiredis::subscriber");
}

inline request format(const char* pattern, ...) {
  request r;
  va_list list;
  va_start(list, pattern);
  char* made = nullptr;
  const auto size = redisvFormatCommand(&made, pattern, list);
  va_end(list);
  if (size == -1) throw std::bad_alloc();
  if (size < 0) throw std::invalid_argument("hiredis::format: a conversion that hiredis does not know");
  r.text_.reset(made);
  r.size_ = static_cast<std::size_t>(size);
  if (size > 0 && made[1] == '0') throw std::invalid_argument("hiredis::request: a command has a name");
  r.check();
  return r;
}

}  // namespace greenlets::hub::hiredis

#endif
