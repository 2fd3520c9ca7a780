// SPDX-License-Identifier: MIT
// The places at which greenlets wait for what the system, other threads and other programs do.
#include "hub_points.hpp"

#include "hub_pool.hpp"
#include "hub_programs.hpp"

#include <csignal>
#include <memory>
#include <optional>
#include <string_view>
#include <sys/mman.h>
#include <sys/socket.h>
#include <utility>

namespace testing {
namespace {

template <class S>
point at(const char* function, const char* how, unsigned traits, bool (*wait)(S&)) {
  return {function, how, traits, [wait] {
            const auto s = std::make_shared<S>();
            return scene{[s, wait] { return wait(*s); }, [s] { s->satisfy(); }};
          }};
}
// One that another thread has to begin.
template <class S>
point at_begun(const char* function, const char* how, unsigned traits, bool (*wait)(S&)) {
  return {function, how, traits, [wait] {
            const auto s = std::make_shared<S>();
            return scene{[s, wait] { return wait(*s); }, [s] { s->satisfy(); }, [s] { return s->g.begun() > 0; }};
          }};
}

// The others' part is done by plain system calls, which work when the hub has ended too.

struct comes {
  ends both = socket_pair();
  hub::descriptor& d = both.first;
  hub::reader r{d};
  char buffer[100];
  std::vector<hub::owned_fd> fds;
  void satisfy() { static_cast<void>(::write(both.second.fd(), "ab\ncd\n", 6)); }
};

struct goes {
  ends both = socket_pair();
  hub::descriptor& d = both.first;
  hub::writer small{d, 1}, large{d};
  hub::owned_fd file{memfd_create("walk", MFD_CLOEXEC)};
  goes() {
    fill(d);
    large.write("abc");
    REQUIRE(::write(file.get(), "abc", 3) == 3);
  }
  void satisfy() { drain(both.second); }
};

struct listens {
  hub::listener l{hub::address("127.0.0.1", 0)};
  std::vector<hub::owned_fd> clients;
  const hub::address where = l.local();
  void satisfy() {
    clients.emplace_back(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    static_cast<void>(::connect(clients.back().get(), where.data(), where.size()));
  }
};

struct dispatches : listens {
  hub::dispatcher d;
  void satisfy() { l.close(); }
};

// Where nobody can be let in.
struct crowded {
  const directory dir;
  hub::listener l;
  std::vector<hub::owned_fd> waiting;
  crowded() {
    hub::listener::options one;
    one.backlog = 1;
    l = hub::listener(hub::unix_address(dir / "s"), one);
    const hub::address where = l.local();
    do
      waiting.emplace_back(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    while (::connect(waiting.back().get(), where.data(), where.size()) == 0);
  }
  void satisfy() {
    for (int fd; (fd = ::accept(l.fd(), nullptr, nullptr)) >= 0;) ::close(fd);
  }
};

struct datagrams {
  const directory dir;
  hub::datagram_socket here{hub::unix_address(dir / "here")};
  hub::datagram_socket there{AF_UNIX};
  char buffer[10];
  hub::address from;
  const hub::address where = here.local();
  void satisfy() { static_cast<void>(::sendto(there.fd(), "x", 1, 0, where.data(), where.size())); }
};

struct datagrams_held_up : datagrams {
  datagrams_held_up() {
    REQUIRE(there.connect(where));
    while (::send(there.fd(), "x", 1, 0) == 1) continue;
  }
  void satisfy() {
    while (::recv(here.fd(), buffer, sizeof buffer, 0) >= 0) continue;
  }
};

struct fifo {
  const directory dir;
  const std::string path = dir / "fifo";
  std::vector<hub::owned_fd> opened;
  fifo() { REQUIRE(mkfifo(path.c_str(), 0600) == 0); }
  void open(int how) { opened.emplace_back(::open(path.c_str(), how | O_NONBLOCK | O_CLOEXEC)); }
};
struct to_be_read : fifo {
  void satisfy() { open(O_RDONLY); }
};
struct to_be_written : fifo {
  void satisfy() {
    open(O_WRONLY);
    if (opened.back().get() >= 0) static_cast<void>(::write(opened.back().get(), "x", 1));
  }
};

struct signalled {
  hub::signals s{SIGUSR2};
  void satisfy() {
    struct sigaction now;
    sigaction(SIGUSR2, nullptr, &now);
    if (now.sa_handler != SIG_DFL) ::kill(getpid(), SIGUSR2);  // else its hub has ended, and it would be our end
  }
};

// Programs that wait for a line of the FIFO.
struct programs : fifo {
  const std::string script = "read line < " + path;
  programs() { open(O_RDWR); }
  void satisfy() { static_cast<void>(::write(opened[0].get(), "line\n", 5)); }
};
struct program : programs {
  hub::process p{shell(script)};
};

// A connection that is served until the event.
struct serves {
  hub::event e;
  ends both = socket_pair();
  std::function<void(hub::connection&)> handler = [this](hub::connection&) { e.wait(); };
  hub::server s{handler};
  void satisfy() { e.set(); }
  void connect(hub::server& to) { to.serve(hub::connection(both.first.release())); }
};
struct stops : serves {
  stops() { connect(s); }
};
struct accepts : serves {
  accepts() { s.listen(hub::listener(hub::address("127.0.0.1", 0))); }
  void satisfy() { s.stop(hub::clock::now()); }
};
struct reluctant_server : serves {
  bool leave() {
    {
      hub::server mine([this](hub::connection&) {
        const auto end = at_end([this] { e.wait(); });
        hub::sleep_for(hours(1));
      });
      mine.serve(hub::connection(both.first.is_open() ? both.first.release() : ::dup(both.second.fd())));
      hub::yield();
    }
    hub::yield();
    return true;
  }
};

struct on_threads {
  gate g;
  std::optional<hub::threads> all;
  ~on_threads() { g.open(); }
  void start() {
    all.emplace(1, [this](hub::worker&) { g.pass(); });
  }
  void satisfy() { g.open(); }
};
struct threads_run : on_threads {
  threads_run() { start(); }
};

// What is begun on the pool, or stands in line there.
struct on_pool {
  gate g;
  void satisfy() { g.open(); }
};
struct in_line {
  const directory dir;
  const std::string path = dir / "file";
  hub::listener l{hub::address("127.0.0.1", 0)};
  hub::file f{path, hub::open_mode::read | hub::open_mode::write | hub::open_mode::create};
  char buffer[3];
  std::string content;
  std::optional<pool_taken> taken;
  in_line() {
    REQUIRE(f.write_all("abcdef", 6));
    f.seek(0);
    taken.emplace();
  }
  void satisfy() { taken->release(); }
};

bool done(const hub::io_result& r) { return static_cast<bool>(r); }

}  // namespace

const std::vector<point>& points_of_system() {
  static const std::vector<point> all = {
      at<comes>("descriptor.read_some", "", alone, [](comes& s) { return done(s.d.read_some(s.buffer, 100)); }),
      at<comes>("descriptor.read_exactly", "", alone, [](comes& s) { return done(s.d.read_exactly(s.buffer, 3)); }),
      at<comes>("descriptor.wait", "to read", alone, [](comes& s) { return done(s.d.wait(hub::direction::readable)); }),
      at<comes>("hub.wait", "to read", none,
                [](comes& s) { return done(hub::wait(s.d.fd(), hub::direction::readable)); }),
      at<comes>("hub.receive_descriptors", "", alone,
                [](comes& s) { return done(hub::receive_descriptors(s.d, s.buffer, 100, s.fds)); }),
      at<comes>("reader.fill", "", alone, [](comes& s) { return done(s.r.fill()); }),
      at<comes>("reader.read_until", "", alone,
                [](comes& s) {
                  std::string_view found;
                  return done(s.r.read_until("\n", found));
                }),
      at<comes>("reader.read_line", "", alone,
                [](comes& s) {
                  std::string_view found;
                  return done(s.r.read_line(found));
                }),
      at<comes>("reader.read", "", alone,
                [](comes& s) {
                  std::string_view found;
                  return done(s.r.read(3, found));
                }),
      at<comes>("reader.read_some", "", alone, [](comes& s) { return done(s.r.read_some(s.buffer, 100)); }),
      at<comes>("reader.read_exactly", "", alone, [](comes& s) { return done(s.r.read_exactly(s.buffer, 3)); }),

      at<goes>("descriptor.write_all", "", alone, [](goes& s) { return done(s.d.write_all("abc", 3)); }),
      at<goes>("descriptor.write_pieces", "", alone,
               [](goes& s) {
                 char text[] = "abc";
                 const iovec pieces[] = {{text, 1}, {text + 1, 2}};
                 return done(s.d.write_pieces(pieces, 2));
               }),
      at<goes>("descriptor.send_file", "", alone, [](goes& s) { return done(s.d.send_file(s.file.get(), 0, 3)); }),
      at<goes>("descriptor.wait", "to write", alone, [](goes& s) { return done(s.d.wait(hub::direction::writable)); }),
      at<goes>("hub.wait", "to write", none, [](goes& s) { return done(hub::wait(s.d.fd(), hub::direction::writable)); }),
      at<goes>("hub.send_descriptors", "", alone,
               [](goes& s) { return done(hub::send_descriptors(s.d, "abc", 3, {s.file.get()})); }),
      at<goes>("writer.write", "", alone, [](goes& s) { return done(s.small.write("abc")); }),
      at<goes>("writer.flush", "", alone, [](goes& s) { return done(s.large.flush()); }),

      at<listens>("listener.wait", "", alone, [](listens& s) { return done(s.l.wait()); }),
      at<listens>("listener.accept", "", alone,
                  [](listens& s) {
                    hub::connection c;
                    return done(s.l.accept(c));
                  }),
      at<dispatches>("dispatcher.run", "", alone,
                     [](dispatches& s) {
                       s.d.run(s.l);
                       return !s.l.is_open();
                     }),
      at<crowded>("hub.connect", "to an address", none,
                  [](crowded& s) {
                    hub::connection c;
                    return done(hub::connect(c, s.l.local()));
                  }),
      at<datagrams>("datagram_socket.receive", "", alone,
                    [](datagrams& s) { return done(s.here.receive(s.buffer, 10)); }),
      at<datagrams>("datagram_socket.receive_from", "", alone,
                    [](datagrams& s) { return done(s.here.receive_from(s.buffer, 10, s.from)); }),
      at<datagrams_held_up>("datagram_socket.send", "", alone,
                            [](datagrams_held_up& s) { return done(s.there.send("x", 1)); }),
      at<datagrams_held_up>("datagram_socket.send_to", "", none,
                            [](datagrams_held_up& s) {
                              hub::datagram_socket mine(AF_UNIX);
                              return done(mine.send_to("x", 1, s.where));
                            }),
      at<to_be_written>("hub.open_fifo", "to read", none,
                        [](to_be_written& s) {
                          hub::descriptor d;
                          return done(hub::open_fifo(d, s.path, hub::direction::readable));
                        }),
      at<to_be_read>("hub.open_fifo", "to write", none,
                     [](to_be_read& s) {
                       hub::descriptor d;
                       return done(hub::open_fifo(d, s.path, hub::direction::writable));
                     }),
      at<signalled>("signals.wait", "", none, [](signalled& s) { return s.s.wait() == SIGUSR2; }),

      at<program>("process.wait", "", none,
                  [](program& s) {
                    const auto status = s.p.wait();
                    return status && status->success();
                  }),
      at<programs>("hub.run_process", "", none,
                   [](programs& s) { return static_cast<bool>(hub::run_process(shell(s.script))); }),
      at<programs>("hub.reexec", "", none,
                   [](programs& s) {
                     hub::reexec_options how;
                     how.path = "/bin/sh";
                     how.arguments = {"sh", "-c", s.script};
                     return hub::reexec({}, how).error == std::errc::no_child_process;
                   }),

      at<accepts>("server.run", "", alone,
                  [](accepts& s) {
                    s.s.run();
                    return true;
                  }),
      at<stops>("server.stop", "", none, [](stops& s) { return s.s.stop(); }),
      at<reluctant_server>("server.~server", "", held, [](reluctant_server& s) { return s.leave(); }),
      at<threads_run>("threads.join", "", none, [](threads_run& s) { return s.all->join(); }),
      at_begun<on_threads>("threads.~threads", "", held | alone,
                     [](on_threads& s) {
                       s.start();
                       s.all.reset();
                       hub::yield();
                       return true;
                     }),

      at_begun<on_pool>("hub.offload", "begun", held,
                  [](on_pool& s) {
                    hub::offload([&s] { s.g.pass(); });
                    return true;
                  }),
      at<in_line>("hub.offload", "in line", none, [](in_line&) { return hub::offload([] { return true; }); }),
      at<in_line>("file.file", "", none, [](in_line& s) { return hub::file(s.path).is_open(); }),
      at<in_line>("file.read_some", "", alone, [](in_line& s) { return done(s.f.read_some(s.buffer, 3)); }),
      at<in_line>("file.read_exactly", "", alone, [](in_line& s) { return done(s.f.read_exactly(s.buffer, 3)); }),
      at<in_line>("file.write_all", "", alone, [](in_line& s) { return done(s.f.write_all("abc", 3)); }),
      at<in_line>("file.read_at", "", none, [](in_line& s) { return done(s.f.read_at(0, s.buffer, 3)); }),
      at<in_line>("file.write_at", "", none, [](in_line& s) { return done(s.f.write_at(0, "abc", 3)); }),
      at<in_line>("file.size", "", none, [](in_line& s) { return s.f.size() == 6; }),
      at<in_line>("file.sync", "", none, [](in_line& s) { return done(s.f.sync()); }),
      at<in_line>("file.truncate", "", none, [](in_line& s) { return done(s.f.truncate(2)); }),
      at<in_line>("file.close", "", none,
                  [](in_line& s) {
                    const hub::io_result r = s.f.close();
                    return r || r.closed();  // by the one before
                  }),
      at<in_line>("hub.read_file", "", none, [](in_line& s) { return done(hub::read_file(s.content, s.path)); }),
      at<in_line>("hub.write_file", "", none, [](in_line& s) { return done(hub::write_file(s.path, "abc")); }),
      at<in_line>("hub.resolve", "a service's name", none,
                  [](in_line&) { return static_cast<bool>(hub::resolve("localhost", "80")); }),
      at<in_line>("hub.resolve", "a port's number", none,
                  [](in_line&) { return static_cast<bool>(hub::resolve("localhost", 80)); }),
      at<in_line>("hub.connect", "by name", none,
                  [](in_line& s) {
                    hub::connection c;
                    return done(hub::connect(c, "localhost", s.l.local().port()));
                  }),
  };
  return all;
}

}  // namespace testing
