// SPDX-License-Identifier: MIT
// What one thread serves, and what all threads have in common.
#ifndef HTTPD_SERVICE_HPP
#define HTTPD_SERVICE_HPP

#include "files.hpp"

#include <greenlet/greenlet.hpp>
#include <greenlet/hub.hpp>

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <ctime>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

namespace httpd {

using std::chrono::milliseconds;
using std::chrono::seconds;

enum class audience { nobody, local, all };

struct options {
  std::string root, host = "127.0.0.1", access_log, user, pid_file;
  unsigned port = 8080;
  unsigned threads = 1;
  std::size_t connections = 10000;
  std::size_t most_body = 64 * 1024;
  milliseconds grace = seconds(5), idle = seconds(60), request = seconds(20), progress = seconds(30);
  directory::options opening;
  audience status = audience::local;
};

class service;

// What the threads share.
struct site {
  options how;
  int root = -1;  // the directory
  const hub::clock::time_point started = hub::clock::now();
  std::mutex lock;
  std::vector<hub::remote> threads;  // by lock: where to ask each of them for its part of the status page
};

// What a greenlet of ours does, for the status page; it is in its thread's list for as long as this lives.
struct activity {
  std::string name;
  greenlets::weak_greenlet who;
  const char* state = "new";
  std::string_view request;  // what it is about just now
  hub::clock::time_point since = hub::clock::now();
  std::uint64_t requests = 0, bytes = 0;
  hub::connection* connection = nullptr;
  bool idle = false;  // a connection that has been answered and asks nothing
};

struct counters {
  std::array<std::uint64_t, 6> answers{};  // by the first digit of their status
  std::uint64_t bytes = 0;                 // sent, headers too
  std::uint64_t lost_lines = 0;            // of the access log
};

// The access log of one thread: lines are kept and written on the hub's pool, so that no request waits for the disk.
class access_log {
 public:
  access_log(hub::file&& to, counters& count) : file_(std::move(to)), counters_(count) {}
  bool is_open() const { return file_.is_open(); }
  // When a thread's disk does not keep up for a mebibyte of lines, further ones are lost, and counted.
  void line(std::string_view peer, std::string_view date, const request& r, unsigned status, std::uint64_t bytes);
  // Writes what there is. Switches: to the hub.
  void flush();
  // Writes each second, or earlier when there is much, until it is ended.
  void keep_writing();

 private:
  hub::file file_;
  counters& counters_;
  std::string lines_, writing_;
  hub::event full_;
};

// A connection's bytes; a thread keeps the last ones that were given back.
using buffer = std::array<char, 2 * most_header>;

class service {
 public:
  service(site& common, std::size_t index, hub::file&& log);
  service(const service&) = delete;
  service& operator=(const service&) = delete;
  ~service();

  void listen(hub::listener&& l) { server_.listen(std::move(l)); }
  // Serves until stop().
  void run();
  // Accepts no more, ends the connections on which nothing is asked, gives the others the time of grace.
  void stop();
  bool stopping() const { return stopping_; }

  // This thread's, while it serves; null otherwise.
  static service* here();

  // The place of the calling greenlet in the list of those that are shown.
  class place {
   public:
    place(service& s, std::string name) : service_(s), at_(s.activities_.emplace(s.activities_.end())) {
      at_->name = std::move(name);
      at_->who = greenlets::current();
      greenlets::current().set_name(at_->name);
    }
    place(const place&) = delete;
    place& operator=(const place&) = delete;
    ~place() { service_.activities_.erase(at_); }
    activity& operator*() const { return *at_; }
    activity* operator->() const { return &*at_; }

   private:
    service& service_;
    std::list<activity>::iterator at_;
  };

  // The end of a header: Server, Date, whether the connection stays, and the empty line. Good until the next call.
  enum class after { keep, keep_1_0, close };
  std::string_view tail(after what);
  std::string_view date();

  std::unique_ptr<buffer> take_buffer();
  void give_buffer(std::unique_ptr<buffer> b);

  site& common;
  const std::size_t index;
  directory files;
  counters count;
  access_log log;

 private:
  friend struct part;
  void tell_the_time();

  hub::server server_;
  std::list<activity> activities_;
  std::vector<std::unique_ptr<buffer>> buffers_;
  std::time_t second_ = 0;
  std::string date_;
  std::array<std::string, 3> tails_;
  bool stopping_ = false;
};

// The status page, in JSON. Asks every thread, and leaves out those that do not answer in a second; with `frames` also
// in which functions the greenlets wait, of so many as fit in a glance. Switches: to the hub.
std::string status_page(service& s, bool frames);

// Serves one connection until its end.
void serve(service& s, hub::connection& c);

}  // namespace httpd

#endif
