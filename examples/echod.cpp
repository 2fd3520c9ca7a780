// SPDX-License-Identifier: MIT
// echod: a TCP daemon that sends back what it gets. One greenlet per connection, and with --threads
// one hub and one tree of greenlets per thread, which share the port.
#include <greenlet/hub.hpp>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <list>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace {

namespace hub = greenlets::hub;
using std::chrono::milliseconds;

struct options {
  std::string host = "127.0.0.1";
  unsigned port = 7000;
  unsigned threads = 1;
  unsigned grace = 5;  // seconds
};

constexpr const char* usage =
    "Usage: echod [--host ADDRESS] [--port N] [--threads N] [--grace SECONDS]\n"
    "Sends back what each TCP connection sends. SIGTERM or SIGINT stops it: it accepts no more, gives\n"
    "the connections it has the time of grace to finish, and then ends them.\n"
    "  --host ADDRESS   a numeric address to listen on (127.0.0.1)\n"
    "  --port N         the port; 0 lets the system choose one (7000)\n"
    "  --threads N      how many threads serve, each with a hub of its own, 1 to 1024 (1)\n"
    "  --grace SECONDS  how long connections may go on after the signal (5)\n"
    "  --help           this text\n";

[[noreturn]] void fail_usage(const std::string& what) {
  std::fprintf(stderr, "echod: %s\n%s", what.c_str(), usage);
  std::exit(2);
}

unsigned number(const std::string& option, const char* text, unsigned least, unsigned most) {
  char* end = nullptr;
  const unsigned long n = text ? std::strtoul(text, &end, 10) : 0;
  if (!text || *text < '0' || *text > '9' || *end || n < least || n > most)
    fail_usage(option + " takes a number from " + std::to_string(least) + " to " + std::to_string(most));
  return static_cast<unsigned>(n);
}

options parse(char** arguments) {
  options o;
  while (*++arguments) {
    const std::string name = *arguments;
    if (name == "--help") {
      std::fputs(usage, stdout);
      std::exit(0);
    }
    const char* text = arguments[1];
    if (name == "--host" && text)
      o.host = text;
    else if (name == "--port")
      o.port = number(name, text, 0, 65535);
    else if (name == "--threads")
      o.threads = number(name, text, 1, 1024);
    else if (name == "--grace")
      o.grace = number(name, text, 0, 86400);
    else
      fail_usage("unknown or incomplete option " + name);
    ++arguments;
  }
  return o;
}

struct totals {
  unsigned long long connections = 0, bytes = 0, switches = 0;
};

// What one thread serves.
class server {
 public:
  server(const hub::address& where, const hub::listener::options& how) : listener_(where, how) {}

  hub::address where() const { return listener_.local(); }
  const totals& result() const { return totals_; }

  // Serves until stop().
  void run(unsigned grace) {
    while (listener_.is_open()) accept_one();
    // Those who still talk may finish.
    const hub::deadline end = std::chrono::seconds(grace);
    while (!connections_.empty() && gone_.wait(end)) gone_.reset();
    // The rest are ended wherever they wait; their destructors run.
    for (const greenlets::greenlet& g : connections_) hub::cancel(g);
    while (!connections_.empty()) {
      gone_.reset();
      gone_.wait();
    }
    totals_.switches = hub::statistics().switches;
  }

  void stop() { listener_.close(); }

 private:
  // A connection's place among those that are served, from its acceptance to its end.
  class place {
   public:
    explicit place(server& s) : server_(&s), at_(s.connections_.emplace(s.connections_.end())) {}
    place(place&& other) noexcept : server_(std::exchange(other.server_, nullptr)), at_(other.at_) {}
    place(const place&) = delete;
    place& operator=(const place&) = delete;
    ~place() {
      if (!server_) return;
      server_->connections_.erase(at_);
      server_->gone_.set();
    }
    greenlets::greenlet& who() { return *at_; }

   private:
    server* server_;
    std::list<greenlets::greenlet>::iterator at_;
  };

  void accept_one() {
    hub::connection c;
    const hub::io_result r = listener_.accept(c);
    if (r) {
      ++totals_.connections;
      place p(*this);
      greenlets::greenlet& who = p.who();
      who = hub::spawn([this, p = std::move(p), c = std::move(c)]() mutable { serve(c); }).handle();
    } else if (!r.closed()) {
      // No descriptors or memory for another. Those we have go on, and some will finish.
      hub::sleep_for(milliseconds(20));
    }
  }

  void serve(hub::connection& c) {
    // One buffer for all connections of the thread: nobody switches between a read and the write
    // that follows, unless the other side does not keep up.
    static thread_local char buffer[64 * 1024];
    while (const hub::io_result got = c.read_some(buffer, sizeof buffer)) {
      const hub::io_result sent = c.try_write(buffer, got.bytes);
      if (!sent) break;
      totals_.bytes += got.bytes;
      if (sent.bytes < got.bytes) {
        const std::vector<char> rest(buffer + sent.bytes, buffer + got.bytes);
        if (!c.write_all(rest.data(), rest.size())) break;
      }
    }
  }

  hub::listener listener_;
  std::list<greenlets::greenlet> connections_;
  hub::event gone_;  // set whenever one has ended
  totals totals_;
};

// A thread that serves, as the main thread sees it. All but `thread` is told by posted functions.
struct worker {
  std::thread thread;
  hub::event started;
  hub::remote reach;
  server* serving = nullptr;
  hub::address where;
  std::string error;
  totals result;
};

void work(worker& w, const hub::remote& main, const hub::address& where, const options& o) {
  try {
    hub::listener::options how;
    how.share_port = o.threads > 1;
    server s(where, how);
    main.post([&w, &s, reach = hub::this_hub(), at = s.where()] {
      w.reach = reach;
      w.serving = &s;
      w.where = at;
      w.started.set();
    });
    s.run(o.grace);
    w.result = s.result();  // read after join()
  } catch (const std::exception& e) {
    main.post([&w, text = std::string(e.what())] {
      w.error = text;
      w.started.set();
    });
  }
}

void stop_and_join(std::vector<worker>& workers) {
  for (worker& w : workers)
    if (w.serving) w.reach.post([s = w.serving] { s->stop(); });
  for (worker& w : workers)
    if (w.thread.joinable()) w.thread.join();
}

}  // namespace

int main(int, char** arguments) try {
  const options o = parse(arguments);
  hub::signals stop({SIGTERM, SIGINT});
  std::signal(SIGPIPE, SIG_IGN);  // standard output may be a pipe that has gone

  std::vector<worker> workers(o.threads);
  hub::address where(o.host, static_cast<std::uint16_t>(o.port));
  std::string error;
  for (worker& w : workers) {
    w.thread = std::thread(work, std::ref(w), hub::this_hub(), where, std::cref(o));
    w.started.wait();
    if (!(error = w.error).empty()) break;
    where = w.where;  // the first socket finds the port, when the system is to choose
  }
  if (error.empty()) {
    std::printf("listening on %s\n", where.text().c_str());
    std::fflush(stdout);
    stop.wait();
  }
  stop_and_join(workers);
  if (!error.empty()) {
    std::fprintf(stderr, "echod: cannot serve %s: %s\n", where.text().c_str(), error.c_str());
    return 1;
  }

  totals sum;
  for (const worker& w : workers) {
    sum.connections += w.result.connections;
    sum.bytes += w.result.bytes;
    sum.switches += w.result.switches;
  }
  std::printf("served %llu connections, %llu bytes, %llu switches\n", sum.connections, sum.bytes, sum.switches);
  return 0;
} catch (const std::exception& e) {
  std::fprintf(stderr, "echod: %s\n", e.what());
  return 1;
}
