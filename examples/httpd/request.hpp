// SPDX-License-Identifier: MIT
// What is asked for: a request as Boost.Beast's parser finds it in a connection's buffer, and what its fields say.
#ifndef HTTPD_REQUEST_HPP
#define HTTPD_REQUEST_HPP

// GCC 12 with -fsanitize=address takes boost::none, there, for something that is not set.
#pragma GCC diagnostic push
#ifndef __clang__
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <boost/beast/http/basic_parser.hpp>
#pragma GCC diagnostic pop

#include <cstddef>
#include <cstdint>
#include <ctime>
#include <forward_list>
#include <string>
#include <string_view>

namespace httpd {

namespace http = boost::beast::http;

constexpr std::size_t most_header = 8 * 1024;  // of a request line with its header
constexpr std::size_t most_target = 4 * 1024;

// Views into the buffer that was parsed: good until the next request is read.
struct request {
  http::verb method = http::verb::unknown;
  unsigned version = 0;  // 10 or 11; 0 when there is no request line yet
  std::string_view method_text, target, expect, transfer_encoding, user_agent, referer;
  std::string_view if_match, if_none_match, if_modified_since, if_unmodified_since, if_range, range;
  unsigned hosts = 0;        // Host fields that came
  bool conditional = false;  // any of the If- fields, or Range, is there
};

// Beast's parser, which calls us for each field. It takes header and body from whatever buffer holds them: nothing is
// copied, and nothing allocated but for the fields that come in several lines.
class parser final : public http::basic_parser<true> {
 public:
  parser() = default;
  // Makes it ready for the next request, with at most `most_body` bytes of body.
  void reset(std::uint64_t most_body);
  // Takes what it can of the text, which follows what it has taken so far and lies where it stays; gives how much that was.
  // Without an error the header or a piece of the body has come to its end; with need_more it wants more than there is.
  std::size_t take(const char* text, std::size_t size, boost::beast::error_code& error);
  const request& asked() const { return asked_; }
  // The status to refuse the request with: because of `error`, or of what its header says; 0: nothing is wrong.
  static unsigned refusal(const boost::beast::error_code& error);
  unsigned refusal() const;

 private:
  using error_code = boost::beast::error_code;
  using string_view = boost::beast::string_view;

  void on_request_impl(http::verb method, string_view text, string_view target, int version, error_code& error) override;
  void on_field_impl(http::field field, string_view name, string_view value, error_code& error) override;
  void on_response_impl(int, string_view, int, error_code&) override {}
  void on_header_impl(error_code&) override;
  // A body is read and forgotten.
  void on_body_init_impl(const boost::optional<std::uint64_t>&, error_code&) override {}
  std::size_t on_body_impl(string_view body, error_code&) override { return body.size(); }
  void on_chunk_header_impl(std::uint64_t, string_view, error_code&) override {}
  std::size_t on_chunk_body_impl(std::uint64_t, string_view body, error_code&) override { return body.size(); }
  void on_finish_impl(error_code&) override {}

  void single(std::string_view& field, std::string_view value, error_code& error);
  void list(std::string_view& field, std::string_view value);

  request asked_;
  const char* text_ = nullptr;  // what take() was given
  std::size_t size_ = 0;
  std::forward_list<std::string> joined_;  // values that came in several lines
  bool in_header_ = true;
};

// The path in a target: without its query, decoded, with neither "." nor ".." nor "//" in it; it begins with "/".
// False when it is none, or would leave the root. RFC 9112, 3.2; RFC 3986, 5.2.4.
bool path_of(std::string_view target, std::string& path);

// What a file is compared with, for conditions and ranges.
struct representation {
  std::string_view etag;  // in quotes, and with W/ when it is weak
  std::string_view last_modified;
  std::time_t modified;
  std::uint64_t size;
};

enum class verdict { whole, part, not_modified, precondition_failed, unsatisfiable };
struct span {
  std::uint64_t first, size;
};
// What the If- fields and the Range of a GET or HEAD make of it: RFC 9110, 13.2.2. A range that is not in bytes or is
// none, and several at once, give the whole, which is any server's right (14.2). `which` is set for a part.
verdict judge(const request& r, const representation& now, span& which);

// "Thu, 01 Jan 1970 00:00:00 GMT", and the three forms that have to be understood (RFC 9110, 5.6.7); -1: it is none.
std::string http_date(std::time_t t);
std::time_t parse_http_date(std::string_view text);

}  // namespace httpd

#endif
