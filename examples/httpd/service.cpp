// SPDX-License-Identifier: MIT
// One thread's service: its start and its end, its clock, its log.
#include "service.hpp"

#include <algorithm>
#include <utility>

namespace httpd {
namespace {

thread_local service* serving = nullptr;

hub::server::options limits(const site& common) {
  hub::server::options o;
  o.most = std::max<std::size_t>(1, common.how.connections / common.how.threads);
  return o;
}

}  // namespace

service* service::here() { return serving; }

service::service(site& s, std::size_t n, hub::file&& to)
    : common(s),
      index(n),
      files(s.root, s.how.opening),
      log(std::move(to), count),
      server_([this](hub::connection& c) { serve(*this, c); }, limits(s)) {
  tell_the_time();
  const std::lock_guard locked(common.lock);
  common.threads[index] = hub::this_hub();
  serving = this;
}

service::~service() {
  serving = nullptr;
  const std::lock_guard locked(common.lock);
  common.threads[index] = {};
}

void service::run() {
  {
    hub::group helpers;  // ends them when we leave
    if (log.is_open())
      helpers.spawn([this] {
        place me(*this, "access log");
        me->state = "waiting for lines";
        log.keep_writing();
      });
    server_.run();
  }
  serving = nullptr;
  if (log.is_open()) log.flush();
}

void service::stop() {
  stopping_ = true;
  for (activity& each : activities_)
    if (each.idle) each.connection->close();
  server_.stop(common.how.grace);
}

void service::tell_the_time() {
  second_ = std::time(nullptr);
  date_ = http_date(second_);
  const std::string common_part = "Server: greenlet-httpd\r\nDate: " + date_ + "\r\n";
  tails_[static_cast<int>(after::keep)] = common_part + "\r\n";
  tails_[static_cast<int>(after::keep_1_0)] = common_part + "Connection: keep-alive\r\n\r\n";
  tails_[static_cast<int>(after::close)] = common_part + "Connection: close\r\n\r\n";
}

std::string_view service::tail(after what) {
  if (std::time(nullptr) != second_) tell_the_time();
  return tails_[static_cast<std::size_t>(what)];
}

std::string_view service::date() {
  if (std::time(nullptr) != second_) tell_the_time();
  return date_;
}

std::unique_ptr<buffer> service::take_buffer() {
  if (buffers_.empty()) return std::unique_ptr<buffer>(new buffer);  // not make_unique, which would clear it
  std::unique_ptr<buffer> b = std::move(buffers_.back());
  buffers_.pop_back();
  return b;
}

void service::give_buffer(std::unique_ptr<buffer> b) {
  if (b && buffers_.size() < 64) buffers_.push_back(std::move(b));
}

namespace {

// What clients send may not end a line, or a quoted word of it.
void append_safely(std::string& to, std::string_view text) {
  static constexpr char digits[] = "0123456789abcdef";
  for (const char c : text) {
    if (c >= ' ' && c <= '~' && c != '"' && c != '\\')
      to += c;
    else
      to.append({'\\', 'x', digits[static_cast<unsigned char>(c) >> 4], digits[c & 15]});
  }
}

void append_or_dash(std::string& to, std::string_view text) {
  to += '"';
  append_safely(to, text.empty() ? "-" : text);
  to += '"';
}

}  // namespace

// The combined format of Apache and nginx, with the time as in the Date field.
void access_log::line(std::string_view peer, std::string_view date, const request& r, unsigned status, std::uint64_t bytes) {
  if (lines_.size() > 1024 * 1024) {
    ++counters_.lost_lines;
    return;
  }
  lines_.append(peer).append(" - - [").append(date).append("] \"");
  if (r.version) {
    append_safely(lines_, r.method_text);
    lines_ += ' ';
    append_safely(lines_, r.target);
    lines_.append(r.version == 11 ? " HTTP/1.1" : " HTTP/1.0");
  } else {
    lines_ += '-';
  }
  lines_.append("\" ").append(std::to_string(status)).append(" ").append(std::to_string(bytes)).append(" ");
  append_or_dash(lines_, r.referer);
  lines_ += ' ';
  append_or_dash(lines_, r.user_agent);
  lines_ += '\n';
  if (lines_.size() > 64 * 1024) full_.set();
}

void access_log::flush() {
  if (lines_.empty()) return;
  writing_.clear();
  std::swap(writing_, lines_);
  if (!file_.write_all(writing_.data(), writing_.size()))
    counters_.lost_lines += static_cast<std::uint64_t>(std::count(writing_.begin(), writing_.end(), '\n'));
}

void access_log::keep_writing() {
  for (;;) {
    full_.wait(seconds(1));
    full_.reset();
    flush();
  }
}

}  // namespace httpd
