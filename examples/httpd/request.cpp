// SPDX-License-Identifier: MIT
// Parsing, and what the fields of a request say.
#include "request.hpp"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <iterator>

namespace httpd {
namespace {

std::string_view standard(boost::beast::string_view s) { return {s.data(), s.size()}; }

int hex(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  c = static_cast<char>(c | 0x20);
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

// What is compared has no control characters.
bool same(std::string_view a, std::string_view b) {
  const auto same_letter = [](char x, char y) { return (x | 0x20) == (y | 0x20); };
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(), same_letter);
}

std::string_view trimmed(std::string_view s) {
  while (!s.empty() && (s.front() == ' ' || s.front() == '\t')) s.remove_prefix(1);
  while (!s.empty() && (s.back() == ' ' || s.back() == '\t')) s.remove_suffix(1);
  return s;
}

}  // namespace

void parser::reset(std::uint64_t most_body) {
  http::basic_parser<true>::operator=(parser());
  header_limit(most_header);
  body_limit(most_body);
  asked_ = {};
  joined_.clear();
  in_header_ = true;
}

std::size_t parser::take(const char* text, std::size_t size, error_code& error) {
  text_ = text;
  size_ = size;
  return put(boost::asio::const_buffer(text, size), error);
}

void parser::on_request_impl(http::verb method, string_view text, string_view target, int version, error_code& error) {
  asked_.method = method;
  asked_.method_text = standard(text);
  asked_.target = standard(target);
  asked_.version = static_cast<unsigned>(version);
  if (target.size() > most_target) error = http::error::header_limit;
}

void parser::on_header_impl(error_code&) {
  in_header_ = false;
  const request& r = asked_;
  for (const std::string_view& each :
       {r.if_match, r.if_none_match, r.if_modified_since, r.if_unmodified_since, r.range})
    asked_.conditional = asked_.conditional || each.data();
}

// A field that may come once only.
void parser::single(std::string_view& field, std::string_view value, error_code& error) {
  if (field.data()) error = http::error::bad_value;
  field = value;
}

// One that is a list may come in several lines: RFC 9110, 5.3.
void parser::list(std::string_view& field, std::string_view value) {
  if (field.data()) {
    joined_.push_front(std::string(field).append(", ").append(value));
    value = joined_.front();
  }
  field = value;
}

void parser::on_field_impl(http::field field, string_view, string_view found, error_code& error) {
  if (!in_header_) return;  // a trailer: nothing of it matters here
  const std::string_view value(found.empty() ? "" : found.data(), found.size());
  // A value in several lines, which RFC 9112, 5.2, has us refuse, was put together in a place of the parser's.
  if (!value.empty() && (value.data() < text_ || value.data() >= text_ + size_)) {
    error = http::error::bad_value;
    return;
  }
  switch (field) {
    case http::field::host: ++asked_.hosts; break;
    case http::field::expect: list(asked_.expect, value); break;
    case http::field::transfer_encoding: list(asked_.transfer_encoding, value); break;
    case http::field::user_agent: asked_.user_agent = value; break;
    case http::field::referer: asked_.referer = value; break;
    case http::field::if_match: list(asked_.if_match, value); break;
    case http::field::if_none_match: list(asked_.if_none_match, value); break;
    case http::field::if_modified_since: single(asked_.if_modified_since, value, error); break;
    case http::field::if_unmodified_since: single(asked_.if_unmodified_since, value, error); break;
    case http::field::if_range: single(asked_.if_range, value, error); break;
    case http::field::range: single(asked_.range, value, error); break;
    default: break;
  }
}

unsigned parser::refusal(const error_code& error) {
  return error == http::error::body_limit ? 413 : 400;
}

unsigned parser::refusal() const {
  // RFC 9112, 3.2: one Host, or none in HTTP/1.0.
  if (asked_.hosts > 1 || (asked_.hosts == 0 && asked_.version >= 11)) return 400;
  if (asked_.transfer_encoding.data()) {
    // 6.1: HTTP/1.0 has none; and what another coding hides is not for us to undo.
    if (asked_.version < 11) return 400;
    if (!same(trimmed(asked_.transfer_encoding), "chunked")) return 501;
  }
  if (asked_.expect.data() && !same(trimmed(asked_.expect), "100-continue")) return 417;
  return 0;
}

bool path_of(std::string_view target, std::string& path) {
  if (target.empty() || target.front() != '/') {
    // The absolute form, which every server has to take: "http://host/path", where the path may be missing.
    const std::size_t host = target.find("://");
    if (host == std::string_view::npos || !same(target.substr(0, host), "http")) return false;
    const std::size_t from = target.find_first_of("/?", host + 3);
    target = from == std::string_view::npos ? "/" : target.substr(from);
  }
  target = target.substr(0, target.find_first_of("?#"));
  path.assign("/");
  // Byte for byte; at each "/", and at the end, the last segment is looked at.
  const auto end_segment = [&path](bool at_end) {
    const std::size_t from = path.rfind('/');
    const std::string_view last = std::string_view(path).substr(from + 1);
    if (last == ".") {
      path.resize(from + 1);
    } else if (last == "..") {
      if (from == 0) return false;
      path.resize(path.rfind('/', from - 1) + 1);
    } else if (!last.empty() && !at_end) {
      path += '/';
    }
    return true;
  };
  for (std::size_t i = 0; i < target.size(); ++i) {
    char c = target[i];
    if (c == '%') {
      const int high = i + 2 < target.size() ? hex(target[i + 1]) : -1, low = high < 0 ? -1 : hex(target[i + 2]);
      if (low < 0) return false;
      c = static_cast<char>(high << 4 | low);
      i += 2;
      if (c == 0) return false;
    }
    if (c != '/')
      path += c;
    else if (!end_segment(false))
      return false;
  }
  return end_segment(true);
}

namespace {

// Calls `f` with each tag of a list, and whether it is weak, until that is true. RFC 9110, 8.8.3.
template <class F>
bool any_tag(std::string_view list, F&& f) {
  while (!(list = trimmed(list)).empty()) {
    const bool weak = list.substr(0, 2) == "W/";
    if (weak) list.remove_prefix(2);
    if (list.empty() || list.front() != '"') return false;
    const std::size_t end = list.find('"', 1);
    if (end == std::string_view::npos) return false;
    if (f(list.substr(0, end + 1), weak)) return true;
    list = trimmed(list.substr(end + 1));
    if (list.empty() || list.front() != ',') return false;
    while (!list.empty() && (list.front() == ',' || list.front() == ' ' || list.front() == '\t')) list.remove_prefix(1);
  }
  return false;
}

bool is_weak(std::string_view etag) { return etag.substr(0, 2) == "W/"; }

bool matches(std::string_view list, std::string_view etag, bool weakly) {
  if (trimmed(list) == "*") return true;
  const bool own_weak = is_weak(etag);
  if (own_weak) etag.remove_prefix(2);
  return any_tag(list, [&](std::string_view tag, bool weak) { return tag == etag && (weakly || !(weak || own_weak)); });
}

// RFC 9110, 13.1.5: only what is surely the same file may be continued. A weak tag says that it changed a moment ago,
// and then its date is not worth more.
bool may_continue(const request& r, const representation& now) {
  if (!r.if_range.data()) return true;
  if (is_weak(now.etag)) return false;
  return r.if_range == now.etag || r.if_range == now.last_modified;
}

bool parse_number(std::string_view text, std::uint64_t& n) {
  if (text.empty()) return false;
  const auto end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, n);
  if (error == std::errc::result_out_of_range) n = UINT64_MAX;  // beyond the end of every file
  return stop == end && error != std::errc::invalid_argument;
}

verdict range_of(std::string_view text, std::uint64_t size, span& which) {
  if (!same(text.substr(0, 6), "bytes=")) return verdict::whole;
  text = trimmed(text.substr(6));
  const std::size_t dash = text.find('-');
  if (dash == std::string_view::npos) return verdict::whole;
  const std::string_view from = text.substr(0, dash), to = text.substr(dash + 1);
  std::uint64_t first = 0, last = UINT64_MAX;
  if (from.empty()) {
    std::uint64_t length = 0;
    if (!parse_number(to, length)) return verdict::whole;
    if (length == 0) return verdict::unsatisfiable;
    if (size == 0) return verdict::whole;
    which.size = std::min(length, size);
    which.first = size - which.size;
    return verdict::part;
  }
  if (!parse_number(from, first) || (!to.empty() && !parse_number(to, last)) || last < first) return verdict::whole;
  if (first >= size) return verdict::unsatisfiable;
  which = {first, std::min(last, size - 1) - first + 1};
  return verdict::part;
}

}  // namespace

verdict judge(const request& r, const representation& now, span& which) {
  if (r.if_match.data()) {
    if (!matches(r.if_match, now.etag, false)) return verdict::precondition_failed;
  } else if (r.if_unmodified_since.data()) {
    const std::time_t since = parse_http_date(r.if_unmodified_since);
    if (since >= 0 && now.modified > since) return verdict::precondition_failed;
  }
  if (r.if_none_match.data()) {
    if (matches(r.if_none_match, now.etag, true)) return verdict::not_modified;
  } else if (r.if_modified_since.data()) {
    if (r.if_modified_since == now.last_modified) return verdict::not_modified;
    const std::time_t since = parse_http_date(r.if_modified_since);
    if (since >= 0 && now.modified <= since) return verdict::not_modified;
  }
  if (r.range.data() && r.method == http::verb::get && may_continue(r, now)) return range_of(r.range, now.size, which);
  return verdict::whole;
}

std::string http_date(std::time_t t) {
  char text[40];
  std::tm utc{};
  gmtime_r(&t, &utc);
  return {text, std::strftime(text, sizeof text, "%a, %d %b %Y %H:%M:%S GMT", &utc)};
}

std::time_t parse_http_date(std::string_view text) {
  char copy[64] = {};
  if (text.size() >= sizeof copy) return -1;
  std::copy(text.begin(), text.end(), copy);
  for (const char* form : {"%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"}) {
    std::tm utc{};
    if (const char* end = strptime(copy, form, &utc); end && !*end) return timegm(&utc);
  }
  return -1;
}

}  // namespace httpd
