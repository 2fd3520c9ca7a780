// SPDX-License-Identifier: MIT
// The generator of the load, the same for all servers and made of none of their libraries: it starts a server, gives it
// work from one thread of its own, and prints what that took. Whatever goes wrong makes it fail: another byte than was
// sent, a connection that was refused, ended or not served, a server that is gone.
//
//   load WORK CONNECTIONS [ACTIVE] -- SERVER [ARGUMENT...]
//
//   pingpong   each connection has one message of 64 bytes on its way, or only the first ACTIVE of them
//   accept     CONNECTIONS at once are opened, have one message sent back, and are ended
//   memory     of a connection that is open and idle, and has had one message sent back
//   calls      of the system, for each round trip of pingpong
//
// Prints "FIGURE CPU BUSY LOAD": round trips (or connections) a second, KiB or calls; the server's time of the processor
// for each, in us; which part of the time it ran, and which part the generator did. Those that say nothing are "-".
// From the environment: SECONDS_TO_MEASURE (1), SERVER_CPU and LOAD_CPU.
#include "process.hpp"

#include <algorithm>
#include <arpa/inet.h>
#include <array>
#include <cmath>
#include <deque>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>

namespace {

constexpr std::size_t message_size = 64;
constexpr std::size_t most_at_once = 256;  // that are being opened
constexpr int patience = 20000;            // ms that no event comes for

using message = std::array<std::uint64_t, message_size / 8>;

[[noreturn]] void fail(const std::string& what) { throw std::runtime_error(what); }

// No two are alike.
void write_message(message& m, std::uint64_t connection, std::uint64_t number) {
  const std::uint64_t x = connection << 40 ^ number;
  for (std::size_t i = 0; i < m.size(); ++i) m[i] = (x + i) * 0x9e3779b97f4a7c15u;
}

struct connection {
  int fd = -1;
  std::size_t id = 0;
  std::uint64_t sent = 0;    // messages
  std::uint64_t before = 0;  // of those, sent back before it was measured
  std::size_t back = 0;      // bytes of the last one
  bool connecting = false;
};

// A sample of what all is counted against.
struct sample {
  double at = 0, server = 0, load = 0;
  std::uint64_t done = 0;
};

class generator {
 public:
  generator(const server_process& s, double seconds) : server_(s), seconds_(seconds) {
    epoll_ = static_cast<int>(check(epoll_create1(EPOLL_CLOEXEC), "epoll_create1"));
  }
  generator(const generator&) = delete;
  generator& operator=(const generator&) = delete;
  ~generator() {
    for (const connection& c : all_)
      if (c.fd >= 0) abort_connection(c.fd);
    ::close(epoll_);
  }

  // Has so many open, each with one message sent back.
  void open(std::size_t count) {
    for (std::size_t id = 0; id < count; ++id) {
      begin(id);
      while (on_way_ >= most_at_once) turn();
    }
    drain();
    for (const connection& c : all_)
      if (c.sent != 1) fail("connection " + std::to_string(c.id) + " was not served");
  }

  // The first `active` of them, all the time; from one sample to the other it is measured.
  void ping_pong(std::size_t active) {
    going_ = true;
    for (std::size_t i = 0; i < active; ++i) send_next(all_[i]);
    measure([&] {
      for (connection& c : all_) c.before = c.sent - (c.back < message_size);
    });
    std::uint64_t least = UINT64_MAX;
    for (std::size_t i = 0; i < active; ++i) least = std::min(least, all_[i].sent - (all_[i].back < message_size) - all_[i].before);
    going_ = false;
    drain();
    const double mean = static_cast<double>(last_.done - first_.done) / static_cast<double>(active);
    if (mean >= 10 && least == 0) fail("a connection was not served while others were " + std::to_string(mean) + " times");
  }

  // So many at once, each used once.
  void accept(std::size_t at_once) {
    const std::size_t descriptors = server_.descriptors();
    once_ = going_ = true;
    for (std::size_t id = 0; id < at_once; ++id) begin(id);
    measure([] {});
    going_ = false;
    drain();
    // It has closed each of them, when it is right.
    for (const double until = now() + 10; server_.descriptors() > descriptors; usleep(1000))
      if (now() > until) fail("the server has " + std::to_string(server_.descriptors()) + " descriptors, had " + std::to_string(descriptors));
  }

  std::uint64_t done() const { return done_; }
  void print() const {
    const double time = last_.at - first_.at, n = static_cast<double>(last_.done - first_.done);
    if (n < 1) fail("nothing came back while it was measured");
    std::printf("%.1f %.4f %.3f %.3f\n", n / time, (last_.server - first_.server) / n * 1e6, (last_.server - first_.server) / time,
                (last_.load - first_.load) / time);
  }

 private:
  // Sources of its own for those that end: each leaves its port in TIME_WAIT. Each address has some 28,000.
  void begin(std::size_t id) {
    if (id >= all_.size()) all_.resize(id + 1);
    connection& c = all_[id];
    c.id = id;
    c.back = 0;
    c.fd = static_cast<int>(check(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), "socket"));
    const int on = 1;
    check(setsockopt(c.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on), "setsockopt(TCP_NODELAY)");
    sockaddr_in where{};
    where.sin_family = AF_INET;
    if (once_) {
      check(setsockopt(c.fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on), "setsockopt(IP_BIND_ADDRESS_NO_PORT)");
      where.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1 + static_cast<std::uint32_t>(begun_++ % 64));
      check(bind(c.fd, reinterpret_cast<sockaddr*>(&where), sizeof where), "bind");
    }
    where.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    where.sin_port = htons(server_.port());
    if (connect(c.fd, reinterpret_cast<sockaddr*>(&where), sizeof where) < 0 && errno != EINPROGRESS) check(-1, "connect");
    c.connecting = true;
    ++on_way_;
    // Mostly it is there already, when both ends are on one machine.
    try_first(c);
    epoll_event e{};
    e.events = c.connecting ? EPOLLOUT : EPOLLIN;
    e.data.u64 = id;
    check(epoll_ctl(epoll_, EPOLL_CTL_ADD, c.fd, &e), "epoll_ctl");
  }

  // Sends the first message, if it is connected.
  void try_first(connection& c) {
    message m;
    write_message(m, c.id, c.sent + 1);
    const ssize_t n = send(c.fd, m.data(), message_size, MSG_NOSIGNAL);
    if (n < 0 && errno == EAGAIN) return;
    check(n, "connect, or send");
    if (n != message_size) fail("a part of a message was sent");
    ++c.sent;
    c.connecting = false;
  }

  void send_next(connection& c) {
    message m;
    write_message(m, c.id, ++c.sent);
    c.back = 0;
    ++on_way_;
    if (check(send(c.fd, m.data(), message_size, MSG_NOSIGNAL), "send") != message_size) fail("a part of a message was sent");
  }

  void turn() {
    static epoll_event events[1024];
    const int n = epoll_wait(epoll_, events, 1024, patience);
    if (n < 0 && errno == EINTR) return;
    check(n, "epoll_wait");
    if (n == 0) fail(std::to_string(on_way_) + " messages did not come back");
    for (int i = 0; i < n; ++i) on_event(all_[events[i].data.u64]);
  }

  void on_event(connection& c) {
    if (c.connecting) {
      try_first(c);
      if (c.connecting) return;
      epoll_event e{};
      e.events = EPOLLIN;
      e.data.u64 = c.id;
      check(epoll_ctl(epoll_, EPOLL_CTL_MOD, c.fd, &e), "epoll_ctl");
      return;
    }
    char buffer[4096];
    const ssize_t got = recv(c.fd, buffer, sizeof buffer, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    check(got, "recv");
    if (got == 0) fail("the server has ended a connection");
    const auto size = static_cast<std::size_t>(got);
    if (c.back + size > message_size) fail("more came back than was sent");
    message m;
    write_message(m, c.id, c.sent);
    if (std::memcmp(reinterpret_cast<const char*>(m.data()) + c.back, buffer, size) != 0) fail("other bytes came back than were sent");
    c.back += size;
    if (c.back == message_size) on_back(c);
  }

  void on_back(connection& c) {
    ++done_;
    --on_way_;
    if (once_) {
      ::close(c.fd);
      c.fd = -1;
      if (going_) begin(c.id);
    } else if (going_) {
      send_next(c);
    }
  }

  // Until all that are on their way have come back.
  void drain() {
    while (on_way_ > 0) turn();
  }

  sample take() const { return {now(), server_.cpu_seconds(), seconds_of(CLOCK_PROCESS_CPUTIME_ID), done_}; }

  // Warm for a fifth of the time, and until each of them has had its turn.
  template <class F>
  void measure(F at_start) {
    const std::uint64_t each = done_ + on_way_;
    for (const double until = now() + seconds_ / 5; now() < until || done_ < each;) turn();
    at_start();
    first_ = take();
    while (now() < first_.at + seconds_) turn();
    last_ = take();
    if (!server_.running()) fail("the server has ended");
  }

  static void abort_connection(int fd) {
    const linger none{1, 0};  // no TIME_WAIT
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &none, sizeof none);
    ::close(fd);
  }

  const server_process& server_;
  double seconds_;
  int epoll_;
  std::deque<connection> all_;
  std::size_t on_way_ = 0;  // messages that have not come back
  std::uint64_t done_ = 0, begun_ = 0;
  bool going_ = false, once_ = false;
  sample first_, last_;
};

void memory(generator& g, const server_process& s, std::size_t count) {
  s.settle();
  const double before = s.private_dirty_kib();
  g.open(count);
  s.settle();
  std::printf("%.3f - - -\n", (s.private_dirty_kib() - before) / static_cast<double>(count));
}

void calls(generator& g, const server_process& s, std::size_t count) {
  g.open(count);
  s.settle();
  const std::uint64_t before = g.done();
  call_counter counter(s);
  g.ping_pong(count);
  const double n = counter.calls();
  std::fprintf(stderr, "counted by %s\n", counter.how());
  std::printf("%.3f - - -\n", n / static_cast<double>(g.done() - before));
}

double number(const char* name, double otherwise) {
  const char* const text = getenv(name);
  return text && *text ? std::atof(text) : otherwise;
}

// Both sides have as many, and some besides.
void allow_descriptors(std::size_t connections) {
  rlimit l{};
  check(getrlimit(RLIMIT_NOFILE, &l), "getrlimit");
  const rlim_t needed = connections + 64;
  if (l.rlim_max < needed) fail("the hard limit of descriptors is " + std::to_string(l.rlim_max) + ", not " + std::to_string(needed));
  l.rlim_cur = l.rlim_max;
  check(setrlimit(RLIMIT_NOFILE, &l), "setrlimit");
}

}  // namespace

int main(int argc, char** argv) try {
  std::vector<std::string> words(argv + 1, argv + argc);
  const auto dashes = std::find(words.begin(), words.end(), "--");
  if (dashes == words.end() || dashes + 1 == words.end() || dashes - words.begin() < 2) fail("usage: load WORK CONNECTIONS [ACTIVE] -- SERVER [ARGUMENT...]");
  const std::string work = words[0];
  const std::size_t count = std::stoul(words[1]);
  const std::size_t active = dashes - words.begin() > 2 ? std::stoul(words[2]) : count;
  if (count == 0 || active == 0 || active > count) fail("at least one connection is to be active");
  allow_descriptors(count);
  const server_process server({dashes + 1, words.end()}, static_cast<int>(number("SERVER_CPU", -1)));
  pin(static_cast<int>(number("LOAD_CPU", -1)));
  generator g(server, number("SECONDS_TO_MEASURE", 1));
  if (work == "pingpong") {
    g.open(count);
    g.ping_pong(active);
    g.print();
  } else if (work == "accept") {
    g.accept(count);
    g.print();
  } else if (work == "memory") {
    memory(g, server, count);
  } else if (work == "calls") {
    calls(g, server, count);
  } else {
    fail("no work \"" + work + "\"");
  }
  if (!server.running()) fail("the server has ended");
  return 0;
} catch (const std::exception& e) {
  std::fprintf(stderr, "load: %s\n", e.what());
  return 1;
}
