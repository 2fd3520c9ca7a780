// SPDX-License-Identifier: MIT
// httpd: a daemon that serves files, and a page about itself, over HTTP/1.1. One greenlet for each connection, one hub
// for each thread; requests are parsed by Boost.Beast, whose I/O is not used.
//
//   httpd.cpp     options, sockets, threads, signals
//   service.*     what one thread serves
//   session.cpp   one connection
//   request.*     what is asked for
//   files.*       what there is
//   status.cpp    the page about itself
#include "service.hpp"

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <fcntl.h>
#include <optional>
#include <sys/resource.h>
#include <system_error>
#include <unistd.h>
#include <utility>

namespace {

namespace hub = greenlets::hub;
using httpd::milliseconds;

constexpr const char* usage =
    "Usage: httpd [OPTION...] DIRECTORY\n"
    "Serves the files of a directory over HTTP/1.1, and /status, which says in JSON what it does (/status?frames also\n"
    "in which functions). SIGTERM or SIGINT stops it: it accepts no more, and gives those who ask something the time of\n"
    "grace. SIGHUP restarts it: a new process takes over its sockets, and nobody is refused.\n"
    "  --host ADDRESS     a numeric address to listen on (127.0.0.1); sockets that systemd passes are used instead\n"
    "  --port N           the port; 0 lets the system choose one (8080)\n"
    "  --threads N        how many threads serve, each with a hub of its own; 0: one a processor (1)\n"
    "  --connections N    at once, in all threads; who comes then waits (10000)\n"
    "  --body N           bytes of a request's body that are read and forgotten; more is refused (65536)\n"
    "  --request SECONDS  how long a request may take to come, whole (20)\n"
    "  --idle SECONDS     how long a connection stays on which nothing is asked (60)\n"
    "  --progress SECONDS how long an answer may be stuck before it is given up (30)\n"
    "  --grace SECONDS    how long requests may go on after the signal (5)\n"
    "  --cache SECONDS    how long a file is not looked at again (1)\n"
    "  --no-links         follow no symbolic link; otherwise those are that stay in the directory\n"
    "  --status WHO       who may read /status: nobody, local, all (local)\n"
    "  --access-log FILE  a line for each request, appended\n"
    "  --user NAME        whom to become, when started by root\n"
    "  --pid-file FILE    where to write the process's number\n"
    "  --help             this text\n";

[[noreturn]] void fail_usage(const std::string& what) {
  std::fprintf(stderr, "httpd: %s\n%s", what.c_str(), usage);
  std::exit(2);
}

double number(const std::string& option, const char* text, double least, double most) {
  char* end = nullptr;
  const double n = text ? std::strtod(text, &end) : 0;
  if (!text || *text < '0' || *text > '9' || *end || !(n >= least && n <= most))
    fail_usage(option + " takes a number from " + std::to_string(static_cast<long>(least)) + " to " +
               std::to_string(static_cast<long>(most)));
  return n;
}

unsigned whole(const std::string& option, const char* text, unsigned least, unsigned most) {
  if (text && std::strspn(text, "0123456789") != std::strlen(text)) text = "";
  return static_cast<unsigned>(number(option, text, least, most));
}

milliseconds time(const std::string& option, const char* text) {
  return milliseconds(static_cast<long>(number(option, text, 0, 86400) * 1000));
}

httpd::audience audience(const std::string& text) {
  if (text == "nobody") return httpd::audience::nobody;
  if (text == "local") return httpd::audience::local;
  if (text == "all") return httpd::audience::all;
  fail_usage("--status takes nobody, local or all");
}

// One that takes a value.
void take(httpd::options& o, const std::string& name, const char* text) {
  if (name == "--port") o.port = whole(name, text, 0, 65535);
  else if (name == "--threads") o.threads = whole(name, text, 0, 1024);
  else if (name == "--connections") o.connections = whole(name, text, 1, 10000000);
  else if (name == "--body") o.most_body = whole(name, text, 0, 1u << 30);
  else if (name == "--request") o.request = time(name, text);
  else if (name == "--idle") o.idle = time(name, text);
  else if (name == "--progress") o.progress = time(name, text);
  else if (name == "--grace") o.grace = time(name, text);
  else if (name == "--cache") o.opening.fresh = time(name, text);
  else if (!text) fail_usage("unknown or incomplete option " + name);
  else if (name == "--host") o.host = text;
  else if (name == "--status") o.status = audience(text);
  else if (name == "--access-log") o.access_log = text;
  else if (name == "--user") o.user = text;
  else if (name == "--pid-file") o.pid_file = text;
  else fail_usage("unknown or incomplete option " + name);
}

httpd::options parse(char** arguments) {
  httpd::options o;
  while (*++arguments) {
    const std::string name = *arguments;
    if (name == "--help") {
      std::fputs(usage, stdout);
      std::exit(0);
    }
    if (name == "--no-links") {
      o.opening.links = false;
    } else if (name.compare(0, 1, "-") != 0) {
      if (!o.root.empty()) fail_usage("one directory only");
      o.root = name;
    } else {
      take(o, name, arguments[1]);
      ++arguments;
    }
  }
  if (o.root.empty()) fail_usage("which DIRECTORY?");
  if (o.threads == 0) o.threads = static_cast<unsigned>(hub::usable_processors());
  return o;
}

// What this process listens on, and its pid file, whether made here or passed to it; for whoever comes after it.
struct inheritance {
  std::vector<hub::owned_fd> sockets;
  std::optional<hub::pid_file> pid;

  explicit inheritance(const httpd::options& o) {
    hub::owned_fd locked;
    for (const hub::passed_socket& each : hub::listen_fds())
      (each.name == "pid" ? locked : sockets.emplace_back()) = hub::owned_fd(each.fd);
    if (sockets.empty()) {
      hub::listener::options how;
      how.share_port = o.threads > 1;
      hub::address where(o.host, static_cast<std::uint16_t>(o.port));
      for (unsigned i = 0; i < o.threads; ++i) {
        hub::listener l(where, how);
        where = l.local();  // the first socket finds the port, when the system is to choose
        sockets.emplace_back(l.release());
      }
    }
    if (o.pid_file.empty()) return;
    if (locked.get() < 0) {
      pid.emplace(o.pid_file);
    } else {
      pid.emplace(o.pid_file, locked.get());
      locked.release();
    }
  }

  // For the thread `n` of `count`: its share of the sockets, or with others one that there are too few of.
  std::vector<hub::listener> share(std::size_t n, std::size_t count) const {
    std::vector<hub::listener> own;
    for (std::size_t i = n % sockets.size(); i < sockets.size(); i += count) {
      hub::owned_fd copy(fcntl(sockets[i].get(), F_DUPFD_CLOEXEC, 0));
      if (copy.get() < 0) throw std::system_error(errno, std::generic_category(), "fcntl(F_DUPFD_CLOEXEC)");
      own.emplace_back(copy.get());
      copy.release();
    }
    return own;
  }

  hub::reexec_result pass_on() const {
    std::vector<hub::passed_socket> all;
    for (const hub::owned_fd& each : sockets) all.push_back({each.get(), "http"});
    if (pid) all.push_back({pid->fd(), "pid"});
    return hub::reexec(all);
  }
};

void work(hub::worker& self, httpd::site& site, const inheritance& from, hub::file&& log) {
  httpd::service s(site, self.index(), std::move(log));
  for (hub::listener& each : from.share(self.index(), site.how.threads)) s.listen(std::move(each));
  self.on_stop([&s] { s.stop(); });
  s.run();
}

// Waits for a signal that ends this process, or for one that puts another in its place.
void wait_for_end(hub::signals& signals, const inheritance& ours) {
  while (const auto number = signals.wait()) {
    if (*number != SIGHUP) {
      hub::notify("STOPPING=1");
      return;
    }
    const hub::reexec_result next = ours.pass_on();
    if (next) return;
    std::fprintf(stderr, "httpd: cannot restart, and goes on: %s\n", next.error.message().c_str());
  }
}

// As many connections as this process may have.
void raise_limit() {
  rlimit most{};
  if (getrlimit(RLIMIT_NOFILE, &most) == 0 && most.rlim_cur < most.rlim_max) {
    most.rlim_cur = most.rlim_max;
    setrlimit(RLIMIT_NOFILE, &most);
  }
}

}  // namespace

int main(int, char** arguments) try {
  httpd::site site;
  site.how = parse(arguments);
  const httpd::options& o = site.how;
  hub::signals signals({SIGTERM, SIGINT, SIGHUP});
  std::signal(SIGPIPE, SIG_IGN);  // standard output may be a pipe that has gone
  raise_limit();

  const hub::owned_fd root(open(o.root.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (root.get() < 0) throw std::system_error(errno, std::generic_category(), "cannot serve " + o.root);
  site.root = root.get();
  const inheritance ours(o);
  std::vector<hub::file> logs(o.threads);
  if (!o.access_log.empty())
    for (hub::file& each : logs) each = hub::file(o.access_log, hub::open_mode::append | hub::open_mode::create, 0640);
  if (!o.user.empty() && getuid() == 0) hub::drop_privileges(o.user);

  site.threads.resize(o.threads);
  hub::threads all(o.threads, [&](hub::worker& self) { work(self, site, ours, std::move(logs[self.index()])); });
  std::printf("listening on %s\n", hub::listener(fcntl(ours.sockets[0].get(), F_DUPFD_CLOEXEC, 0)).local().text().c_str());
  std::fflush(stdout);
  const hub::watchdog alive;
  hub::notify("READY=1");
  {
    hub::group control;  // ends it, when the threads have failed
    control.spawn([&] {
      wait_for_end(signals, ours);
      all.stop();
    });
    all.join();
  }
  std::printf("stopped\n");
  return 0;
} catch (const std::exception& e) {
  std::fprintf(stderr, "httpd: %s\n", e.what());
  return 1;
}
