// SPDX-License-Identifier: MIT
// What PostgreSQL is given and what it answers: parameters, results, rows, notifications, failures.
#ifndef GREENLET_HUB_LIBPQ_RESULT_HPP
#define GREENLET_HUB_LIBPQ_RESULT_HPP

#include <greenlet/detail/api.hpp>

#include <libpq-fe.h>

#include <charconv>
#include <climits>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>
#include <utility>

namespace greenlets::hub::libpq {

namespace detail {

struct released {
  void operator()(PGconn* c) const noexcept { PQfinish(c); }
  void operator()(PGresult* r) const noexcept { PQclear(r); }
  void operator()(PGcancel* c) const noexcept { PQfreeCancel(c); }
  void operator()(PQconninfoOption* o) const noexcept { PQconninfoFree(o); }
  void operator()(PGnotify* n) const noexcept { PQfreemem(n); }
  void operator()(char* text) const noexcept { PQfreemem(text); }
};
// Something of libpq's.
template <class T>
using owned = std::unique_ptr<T, released>;

// libpq ends its messages with a newline.
inline std::string line_of(const char* message) {
  std::string text = message ? message : "";
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

// PostgreSQL takes C strings: what stands behind a zero byte would be lost without a word.
inline void check_text(std::string_view text) {
  if (text.find('\0') != std::string_view::npos) throw std::invalid_argument("libpq: a text with a zero byte in it");
}

}  // namespace detail

/// What becomes of a statement, or of a connection, when it does not become what was asked for: one of the three below.
class GREENLET_API failure : public std::runtime_error {
 public:
  explicit failure(const std::string& what, const char* sqlstate = nullptr) : std::runtime_error(what) {
    if (sqlstate && std::strlen(sqlstate) < sizeof sqlstate_) std::strcpy(sqlstate_, sqlstate);
  }
  /// Five characters (ISO 9075; PostgreSQL's appendix A), or none when the server said none.
  std::string_view sqlstate() const noexcept { return sqlstate_; }

 private:
  char sqlstate_[6] = "";
};

/// The server has refused a statement. The connection is as usable as before; a transaction has failed.
class GREENLET_API server_error : public failure {
 public:
  explicit server_error(detail::owned<PGresult> r)
      : failure(detail::line_of(PQresultErrorMessage(r.get())), PQresultErrorField(r.get(), PG_DIAG_SQLSTATE)),
        result_(std::move(r)) {}
  explicit server_error(const std::string& what, const char* sqlstate) : failure(what, sqlstate) {}
  /// What the server said in one of the fields PG_DIAG_* of <libpq-fe.h>; empty when nothing. Lives as long as this or a
  /// copy of it.
  std::string_view field(int which) const noexcept {
    const char* const text = PQresultErrorField(result_.get(), which);
    return text ? text : "";
  }
  std::string_view message() const noexcept { return field(PG_DIAG_MESSAGE_PRIMARY); }
  std::string_view detail() const noexcept { return field(PG_DIAG_MESSAGE_DETAIL); }
  std::string_view constraint() const noexcept { return field(PG_DIAG_CONSTRAINT_NAME); }

 private:
  std::shared_ptr<const PGresult> result_;
};

/// There was no connection to be had, or it is lost: by the server, the network, a hub's end or close(). Whether the
/// server has done what it was asked for last is not known.
class GREENLET_API connection_error : public failure {
 public:
  using failure::failure;
};

/// The deadline came first. What the server was doing it is told to leave.
class GREENLET_API timed_out : public failure {
 public:
  using failure::failure;
};

/// How values go over the connection: as people write them, or as the server has them (numbers in network order).
enum class format { text = 0, binary = 1 };

/// A value of $1, $2 and so on in a statement. Its type is the server's to find, as that of a quoted constant.
///
/// Owns: numbers, string_views and temporary strings. To other strings, and to what binary() is given, it refers.
class parameter {
 public:
  parameter(std::nullptr_t) noexcept {}                                                // NOLINT: conversions are the point
  parameter(std::nullopt_t) noexcept {}                                                // NOLINT
  parameter(const char* text) noexcept : data_(text) {}                                // NOLINT: nullptr is null
  /// Throws: std::invalid_argument: with a zero byte in it.
  parameter(const std::string& text) : data_(text.c_str()) { detail::check_text(text); }  // NOLINT
  parameter(std::string&& text) : own_(std::move(text)), owns_(true) { detail::check_text(own_); }  // NOLINT
  parameter(std::string_view text) : parameter(std::string(text)) {}                   // NOLINT
  parameter(bool b) noexcept : data_(b ? "t" : "f") {}                                 // NOLINT
  template <class N, class = std::enable_if_t<std::is_arithmetic_v<N> && !std::is_same_v<N, char>>>
  parameter(N number) : owns_(true) {  // NOLINT
    char digits[64];
    own_.assign(digits, std::to_chars(digits, digits + sizeof digits, number).ptr);
  }
  template <class T>
  parameter(const std::optional<T>& perhaps) : parameter(nullptr) {  // NOLINT
    if (perhaps) *this = parameter(*perhaps);
  }
  /// Bytes as the server has the type: those of a bytea, say. Throws: std::length_error: more than the protocol takes.
  static parameter binary(std::string_view bytes) {
    if (bytes.size() > INT_MAX) throw std::length_error("libpq: a parameter of more than 2 GiB");
    parameter p(bytes.data() ? bytes.data() : "");
    p.size_ = static_cast<int>(bytes.size());
    p.how_ = format::binary;
    return p;
  }

  const char* data() const noexcept { return owns_ ? own_.c_str() : data_; }  ///< nullptr: null
  int size() const noexcept { return size_; }                                 ///< of a binary one
  format how() const noexcept { return how_; }

 private:
  const char* data_ = nullptr;
  int size_ = 0;
  format how_ = format::text;
  std::string own_;
  bool owns_ = false;
};

namespace detail {

template <class T>
struct value_of {
  static T from(std::string_view text) {
    T number{};
    const char* const end = text.data() + text.size();
    const auto [at, error] = std::from_chars(text.data(), end, number);
    if (error == std::errc::result_out_of_range) throw std::out_of_range("libpq: " + std::string(text) + " is too large");
    if (error != std::errc() || at != end) throw std::invalid_argument("libpq: \"" + std::string(text) + "\" is no number");
    return number;
  }
};
template <>
struct value_of<bool> {
  static bool from(std::string_view text) {
    if (text != "t" && text != "f") throw std::invalid_argument("libpq: \"" + std::string(text) + "\" is no truth value");
    return text == "t";
  }
};
template <>
struct value_of<std::string> {
  static std::string from(std::string_view text) { return std::string(text); }
};
template <>
struct value_of<std::string_view> {
  static std::string_view from(std::string_view text) { return text; }
};

template <class T>
struct nullable {
  static constexpr bool is = false;
  using type = T;
};
template <class T>
struct nullable<std::optional<T>> {
  static constexpr bool is = true;
  using type = T;
};

}  // namespace detail

/// What a statement gave: rows and columns, counted from 0, and how many rows it changed. Move-only. Thread: any.
class result {
 public:
  /// Of nothing: no rows, no columns.
  result() noexcept = default;
  explicit result(detail::owned<PGresult> r) noexcept : result_(std::move(r)) {}

  std::size_t rows() const noexcept { return static_cast<std::size_t>(PQntuples(result_.get())); }
  std::size_t columns() const noexcept { return static_cast<std::size_t>(PQnfields(result_.get())); }
  /// A column's name, type and number. Throws: std::out_of_range: there is no such column.
  std::string_view name(std::size_t column) const { return PQfname(result_.get(), at(column)); }
  Oid type(std::size_t column) const { return PQftype(result_.get(), at(column)); }
  std::size_t column(const std::string& name) const {
    for (std::size_t n = 0; n < columns(); ++n)
      if (name == PQfname(result_.get(), static_cast<int>(n))) return n;
    throw std::out_of_range("libpq: no column \"" + name + "\"");
  }
  bool is_null(std::size_t row, std::size_t column) const {
    return PQgetisnull(result_.get(), at_row(row), at(column)) != 0;
  }
  /// The value as it came, nothing when it is null; it lives as long as the result. Throws: std::out_of_range.
  std::string_view value(std::size_t row, std::size_t column) const {
    const int r = at_row(row), c = at(column);
    return {PQgetvalue(result_.get(), r, c), static_cast<std::size_t>(PQgetlength(result_.get(), r, c))};
  }
  /// The value of a result in text as a number, bool, std::string, std::string_view, or std::optional of these. Throws:
  /// std::out_of_range, also when it is too large; std::invalid_argument: it is no T, or is null and T is not optional.
  template <class T>
  T get(std::size_t row, std::size_t column) const {
    if (is_null(row, column)) {
      if constexpr (detail::nullable<T>::is)
        return {};
      else
        throw std::invalid_argument("libpq: column \"" + std::string(name(column)) + "\" is null");
    }
    return detail::value_of<typename detail::nullable<T>::type>::from(value(row, column));
  }
  /// How many rows it changed, or gave; 0 when that is not the question.
  std::uint64_t affected() const noexcept {
    const std::string_view count = result_ ? PQcmdTuples(result_.get()) : "";
    std::uint64_t n = 0;
    std::from_chars(count.data(), count.data() + count.size(), n);
    return n;
  }
  /// What the server calls it: "INSERT 0 1".
  std::string_view command() const noexcept { return result_ ? PQcmdStatus(result_.get()) : ""; }
  const PGresult* native() const noexcept { return result_.get(); }  ///< for libpq's functions

 private:
  int at(std::size_t column) const { return within(column, columns(), "column"); }
  int at_row(std::size_t row) const { return within(row, rows(), "row"); }
  static int within(std::size_t n, std::size_t count, const char* what) {
    if (n >= count) throw std::out_of_range(std::string("libpq: no ") + what + " " + std::to_string(n));
    return static_cast<int>(n);
  }

  detail::owned<PGresult> result_;
};

/// One row of a stream of them.
class row {
 public:
  std::size_t columns() const noexcept { return of_.columns(); }
  std::string_view name(std::size_t column) const { return of_.name(column); }
  std::size_t column(const std::string& name) const { return of_.column(name); }
  bool is_null(std::size_t column) const { return of_.is_null(0, column); }
  /// As result's; it lives until the next row is asked for.
  std::string_view value(std::size_t column) const { return of_.value(0, column); }
  template <class T>
  T get(std::size_t column) const {
    return of_.get<T>(0, column);
  }

 private:
  friend class rows;
  result of_;
};

/// What NOTIFY sent.
struct notification {
  std::string channel;
  std::string payload;
  int sender = 0;  ///< the process of the server that sent it: connection::backend() there
};

}  // namespace greenlets::hub::libpq

#endif
