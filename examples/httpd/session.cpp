// SPDX-License-Identifier: MIT
// One connection: request by request, read, judged and answered.
#include "service.hpp"

#include <algorithm>
#include <cstring>
#include <netinet/in.h>
#include <sys/uio.h>
#include <utility>

namespace httpd {
namespace {

using boost::beast::error_code;

const char* reason(unsigned status) {
  switch (status) {
    case 206: return "Partial Content";
    case 301: return "Moved Permanently";
    case 304: return "Not Modified";
    case 400: return "Bad Request";
    case 403: return "Forbidden";
    case 404: return "Not Found";
    case 405: return "Method Not Allowed";
    case 408: return "Request Timeout";
    case 412: return "Precondition Failed";
    case 413: return "Content Too Large";
    case 414: return "URI Too Long";
    case 416: return "Range Not Satisfiable";
    case 417: return "Expectation Failed";
    case 431: return "Request Header Fields Too Large";
    case 500: return "Internal Server Error";
    case 501: return "Not Implemented";
    case 503: return "Service Unavailable";
    case 505: return "HTTP Version Not Supported";
    default: return "OK";
  }
}

// Address without port, as logs have it.
std::string host_of(const hub::address& a) {
  if (a.family() == AF_UNIX) return "unix";
  const std::string text = a.text();
  return text.substr(0, text.rfind(':'));
}

bool is_local(const hub::address& a) {
  if (a.family() == AF_INET) return (ntohl(reinterpret_cast<const sockaddr_in*>(a.data())->sin_addr.s_addr) >> 24) == 127;
  if (a.family() == AF_INET6) {
    const in6_addr& ip = reinterpret_cast<const sockaddr_in6*>(a.data())->sin6_addr;
    return IN6_IS_ADDR_LOOPBACK(&ip) || (IN6_IS_ADDR_V4MAPPED(&ip) && ip.s6_addr[12] == 127);
  }
  return a.family() == AF_UNIX;
}

class session {
 public:
  session(service& s, hub::connection& c, const hub::address& peer)
      : service_(s), how_(s.common.how), c_(c), local_(is_local(peer)), host_(host_of(peer)), me_(s, peer.text()) {
    me_->connection = &c;
  }
  session(const session&) = delete;
  session& operator=(const session&) = delete;
  ~session() { service_.give_buffer(std::move(buffer_)); }

  void run() {
    for (unsigned in_a_row = 1; one_request(); ++in_a_row)
      if (in_a_row % 64 == 0) hub::yield();  // who sends faster than we answer is not served alone
  }

 private:
  enum class input { complete, none, refused };

  // -- Reading

  // Waits for the first byte of a request, without a buffer: those who ask nothing cost little.
  bool await_request() {
    me_->request = {};
    if (begin_ == end_) {
      service_.give_buffer(std::move(buffer_));
      const bool first = me_->requests == 0;
      if (!first) me_->since = hub::clock::now();
      me_->state = first ? "new" : "idle";
      me_->idle = !first;
      const hub::io_result r = c_.wait(hub::direction::readable, me_->since + (first ? how_.request : how_.idle));
      me_->idle = false;
      if (!r) return false;
      buffer_ = service_.take_buffer();
      begin_ = end_ = 0;
    }
    me_->since = hub::clock::now();
    me_->state = "reading";
    until_ = me_->since + how_.request;
    return true;
  }

  // More of it into what is free; false when it does not come.
  bool read_more() {
    if (end_ == buffer_->size()) return refuse(400);  // one line of a body's chunks that is longer than all this
    const hub::io_result r = c_.read_some(buffer_->data() + end_, buffer_->size() - end_, until_);
    end_ += r.bytes;
    if (r) return true;
    if (r.timed_out() && parser_.got_some()) refuse(408);
    return false;
  }

  bool refuse(unsigned status) {
    refused_ = status;
    return false;
  }

  // A header, whole, at `header_`. It stays where it is until it is answered: the parser's views lead there.
  bool read_header() {
    if (buffer_->size() - begin_ < most_header) {
      std::memmove(buffer_->data(), buffer_->data() + begin_, end_ - begin_);
      end_ -= std::exchange(begin_, 0);
    }
    parser_.reset(how_.most_body);
    header_ = begin_;
    for (;;) {
      // RFC 9112, 2.2: an empty line before a request is passed over.
      while (begin_ == header_ && read().substr(0, 2) == "\r\n") header_ = begin_ += 2;
      const bool half_empty = begin_ == header_ && read() == "\r";
      error_code error = http::error::need_more;
      if (begin_ != end_ && !half_empty) begin_ += parser_.take(buffer_->data() + begin_, end_ - begin_, error);
      // The parser's limit is for what it is given at once.
      if (!error) return begin_ - header_ <= most_header || refuse(status_of(http::error::header_limit));
      if (error != http::error::need_more) return refuse(status_of(error));
      if (end_ - header_ >= most_header) return refuse(status_of(http::error::header_limit));
      if (!read_more()) return false;
    }
  }

  // What has been read and not been taken yet.
  std::string_view read() const { return {buffer_->data() + begin_, end_ - begin_}; }

  // What is wrong with a header. For what comes piece by piece the parser looks at the first line last: we do here.
  unsigned status_of(const error_code& error) const {
    std::string_view line(buffer_->data() + header_, end_ - header_);
    line = line.substr(0, line.find("\r\n"));
    if (error == http::error::header_limit) return line.size() > most_target ? 414 : 431;
    // "GET / HTTP/2.0", say.
    const std::size_t at = line.rfind(" HTTP/");
    const bool is_version = at != std::string_view::npos && line.size() == at + 9 && line[at + 7] == '.';
    return is_version && line.substr(at + 6, 2) != "1." ? 505 : parser_.refusal(error);
  }

  // Reads the body and forgets it, behind the header in the buffer.
  bool read_body() {
    const std::size_t from = begin_;
    while (!parser_.is_done()) {
      error_code error = http::error::need_more;
      if (begin_ != end_) begin_ += parser_.take(buffer_->data() + begin_, end_ - begin_, error);
      if (error && error != http::error::need_more) return refuse(parser_.refusal(error));
      if (!error) continue;
      std::memmove(buffer_->data() + from, buffer_->data() + begin_, end_ - begin_);
      end_ -= begin_ - from;
      begin_ = from;
      if (!read_more()) return false;
    }
    return true;
  }

  // The whole request. What is refused is answered, and the last on its connection.
  input read_request() {
    if (!await_request()) return input::none;
    refused_ = 0;
    if (!read_header()) return refused_ ? input::refused : input::none;
    me_->request = parser_.asked().target;
    if (const unsigned status = parser_.refusal(); status && !refuse(status)) return input::refused;
    if (parser_.is_done()) return input::complete;
    if (parser_.asked().expect.data() && parser_.asked().version >= 11) {
      // Who waits to be told before he sends a body is told the end of it, unless we want it.
      if (const unsigned status = status_of_method(); status && !refuse(status)) return input::refused;
      static constexpr std::string_view go_on = "HTTP/1.1 100 Continue\r\n\r\n";
      if (begin_ == end_ && !c_.write_all(go_on.data(), go_on.size(), until_)) return input::none;
    }
    me_->state = "reading the body";
    if (read_body()) return input::complete;
    return refused_ ? input::refused : input::none;
  }

  unsigned status_of_method() const {
    const http::verb m = parser_.asked().method;
    return m == http::verb::get || m == http::verb::head ? 0 : m == http::verb::unknown ? 501 : 405;
  }

  // -- Answering

  // False when it was the last on this connection.
  bool one_request() {
    const input got = read_request();
    if (got == input::none) return false;
    ++me_->requests;
    me_->state = "sending";
    close_ = got == input::refused || service_.stopping() || !parser_.keep_alive();
    if (got == input::refused)
      answer(refused_);
    else
      answer();
    if (close_ && c_.is_open()) linger();
    return !close_;
  }

  void answer() {
    if (const unsigned status = status_of_method()) return answer(status);
    if (!path_of(parser_.asked().target, path_)) return answer(400);
    if (path_ == "/status" && (how_.status == audience::all || (how_.status == audience::local && local_)))
      return answer_status();
    const std::shared_ptr<const file> f = service_.files.find(path_, me_->since);
    if (f->status == 301) return answer(301, "Location: " + location() + "\r\n");
    if (f->status != 200) return answer(f->status);
    if (!parser_.asked().conditional) return send_file(200, *f, f->head, {0, f->size()});
    answer_judged(*f);
  }

  void answer_judged(const file& f) {
    span which{0, f.size()};
    switch (judge(parser_.asked(), f.as_represented(), which)) {
      case verdict::whole: return send_file(200, f, f.head, which);
      case verdict::not_modified: return send(304, "HTTP/1.1 304 Not Modified\r\n" + f.validators(), {});
      case verdict::precondition_failed: return answer(412);
      case verdict::unsatisfiable: return answer(416, "Content-Range: bytes */" + std::to_string(f.size()) + "\r\n");
      case verdict::part: break;
    }
    std::string head = "HTTP/1.1 206 Partial Content\r\nContent-Type: " + f.type + "\r\n" + f.validators();
    head += "Content-Length: " + std::to_string(which.size) + "\r\n";
    head += "Content-Range: bytes " + std::to_string(which.first) + "-" + std::to_string(which.first + which.size - 1) + "/" +
            std::to_string(f.size()) + "\r\n";
    send_file(206, f, head, which);
  }

  // The target of a directory that lacks its "/": as it was written, for it may be encoded.
  std::string location() const {
    std::string_view target = parser_.asked().target;
    const std::size_t end = target.find_first_of("?#");
    std::string to(target.substr(0, end));
    to += '/';
    // "//host" would be another place: RFC 3986, 4.2.
    if (const std::size_t from = to.find_first_not_of('/'); to[0] == '/') to.erase(0, from - 1);
    return end == std::string_view::npos ? to : to.append(target.substr(end));
  }

  void answer_status() {
    const std::string body = status_page(service_, parser_.asked().target.find("?frames") != std::string_view::npos);
    send(200, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nCache-Control: no-store\r\nContent-Length: " +
                  std::to_string(body.size()) + "\r\n", body);
  }

  // With a line of text that says it.
  void answer(unsigned status, const std::string& fields = {}) {
    const std::string name = std::to_string(status) + " " + reason(status);
    std::string head = "HTTP/1.1 " + name + "\r\nContent-Type: text/plain\r\n" + fields +
                       "Content-Length: " + std::to_string(name.size() + 1) + "\r\n";
    if (status == 405) head += "Allow: GET, HEAD\r\n";
    send(status, head, name + "\n");
  }

  void send(unsigned status, std::string_view head, std::string_view body) {
    const std::uint64_t sent = send_pieces(head, parser_.asked().method == http::verb::head ? std::string_view() : body);
    account(status, sent, sent);
  }

  // A file, or a part of it: with its header in one write when it is in memory, otherwise by sendfile(2).
  void send_file(unsigned status, const file& f, std::string_view head, span which) {
    const bool without = parser_.asked().method == http::verb::head;
    if (f.fd.get() < 0 || without)
      return send(status, head, without ? std::string_view() : std::string_view(f.content).substr(which.first, which.size));
    std::uint64_t sent = send_pieces(head, {});
    for (const std::uint64_t end = which.first + which.size; which.first < end && c_.is_open();) {
      const hub::io_result r = c_.send_file(f.fd.get(), which.first, end - which.first, how_.progress);
      which.first += r.bytes;
      me_->bytes += r.bytes;
      sent += r.bytes;
      if (r.timed_out() && r.bytes > 0) continue;
      if (!r) c_.close();  // he does not read, or has gone; or the file is shorter than it was
    }
    account(status, sent, 0);
  }

  // Head, the fields that are always there, and body, in one write where that takes all; gives how much went.
  std::uint64_t send_pieces(std::string_view head, std::string_view body) {
    using after = service::after;
    const std::string_view tail =
        service_.tail(close_ ? after::close : parser_.asked().version == 10 ? after::keep_1_0 : after::keep);
    const auto piece = [](std::string_view s) { return iovec{const_cast<char*>(s.data()), s.size()}; };
    iovec pieces[] = {piece(head), piece(tail), piece(body)};
    const std::size_t all = head.size() + tail.size() + body.size();
    hub::io_result r = c_.try_write_pieces(pieces, body.empty() ? 2 : 3);
    if (r && r.bytes == all) return all;
    const std::string kept(tail);  // in a second it is another one
    pieces[1] = piece(kept);
    return r ? send_rest(pieces, r.bytes, all) : (c_.close(), r.bytes);
  }

  std::uint64_t send_rest(iovec (&pieces)[3], std::size_t sent, const std::size_t all) {
    for (std::size_t moved = sent;;) {
      for (iovec& each : pieces) {
        const std::size_t n = std::min(moved, each.iov_len);
        each = {static_cast<char*>(each.iov_base) + n, each.iov_len - n};
        moved -= n;
      }
      if (sent == all) return sent;
      const hub::io_result r = c_.write_pieces(pieces, 3, how_.progress);
      sent += moved = r.bytes;
      if (r || (r.timed_out() && r.bytes > 0)) continue;
      c_.close();  // he does not read, or has gone
      return sent;
    }
  }

  // `unaccounted`: what the list of greenlets has not been told yet.
  void account(unsigned status, std::uint64_t sent, std::uint64_t unaccounted) {
    if (!c_.is_open()) close_ = true;
    me_->bytes += unaccounted;
    ++service_.count.answers[status / 100];
    service_.count.bytes += sent;
    if (service_.log.is_open()) service_.log.line(host_, service_.date(), parser_.asked(), status, sent);
  }

  // What he still sends is read for a while: if it found the connection closed the answer would be lost, for the
  // system would say "connection reset" (RFC 9112, 9.6).
  void linger() {
    if (begin_ == end_ && parser_.is_done() && !refused_) return;  // he has said all
    me_->state = "closing";
    const hub::deadline end = std::min(how_.progress, milliseconds(seconds(2)));
    if (!c_.shutdown_write()) return;
    while (c_.read_some(buffer_->data(), buffer_->size(), end)) {
    }
  }

  service& service_;
  const options& how_;
  hub::connection& c_;
  const bool local_;
  const std::string host_;
  service::place me_;
  parser parser_;
  std::string path_;  // that is asked for; here, so that it need not be allocated for each request
  std::unique_ptr<buffer> buffer_;
  std::size_t begin_ = 0, end_ = 0;  // of read()
  std::size_t header_ = 0;           // where the request begins
  hub::deadline until_;              // when the request has to be there, whole
  unsigned refused_ = 0;
  bool close_ = false;
};

}  // namespace

void serve(service& s, hub::connection& c) {
  hub::address peer;
  try {
    peer = c.peer();
  } catch (const std::system_error&) {
    return;  // gone before we could ask who it is
  }
  session(s, c, peer).run();
}

}  // namespace httpd
