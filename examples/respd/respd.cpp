// SPDX-License-Identifier: MIT
// respd: a daemon that keeps keys and values and speaks the Redis protocol: try it with redis-cli and redis-benchmark.
//
// One greenlet serves each connection, in code that reads, does and writes; protocol takes requests apart,
// commands does what they ask with what store keeps. No command waits, so that the store needs no lock.
#include "commands.hpp"

#include <greenlet/counts.hpp>
#include <greenlet/hub.hpp>
#include <greenlet/weak.hpp>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <list>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <unistd.h>
#include <utility>
#include <vector>

namespace {

namespace hub = greenlets::hub;
using std::chrono::milliseconds;
using std::chrono::seconds;

struct options {
  std::string host = "127.0.0.1", unix_path, pid_path;
  std::uint64_t port = 6380, clients = 10000, idle = 0, grace = 5, request = 64;
};

constexpr const char* usage =
    "Usage: respd [--host ADDRESS] [--port N] [--unix PATH] [--clients N] [--idle SECONDS] [--grace SECONDS]\n"
    "             [--request MIB] [--pid-file PATH]\n"
    "Keeps keys and values in memory for clients of Redis. SIGTERM or SIGINT stops it: it accepts no more, answers what\n"
    "it has been asked, and ends.\n"
    "  --host ADDRESS   a numeric address to listen on (127.0.0.1)\n"
    "  --port N         the port; 0 lets the system choose one (6380)\n"
    "  --unix PATH      a Unix domain socket to listen on as well\n"
    "  --clients N      how many connections at once; who comes then waits (10000)\n"
    "  --idle SECONDS   how long a client may be silent, or not read its answers; 0: for ever (0)\n"
    "  --grace SECONDS  how long clients may take to read their last answers after the signal (5)\n"
    "  --request MIB    the largest request, in MiB (64)\n"
    "  --pid-file PATH  where to write the number of the process, which is locked meanwhile\n"
    "  --help           this text\n"
    "Sockets that systemd passes are listened on instead of the port.\n";

constexpr std::size_t most_waiting = 64 * 1024;          // bytes of answers, before the client has to read them
constexpr std::size_t largest_reply = 512 * 1024 * 1024;  // of one command
constexpr seconds longest_parting{1};

}  // namespace

namespace respd {
namespace {

// Thrown into those who wait for a request, when the daemon stops.
struct stopping {};

// What all connections share.
struct daemon {
  options how;
  store data;
  commands known;
  std::list<session*> sessions;
  hub::server* server = nullptr;
  clock::time_point since = clock::now();
  std::uint64_t served = 0;  // commands
  std::uint64_t last_id = 0;
  bool stops = false;
};

}  // namespace

// A client, on the stack of the greenlet that serves it.
class session {
 public:
  session(daemon& d, hub::connection& c)
      : all(d), id(++d.last_id), who(greenlets::current()), connection(c), request_(d.how.request * 1024 * 1024),
        at_(all.sessions.insert(all.sessions.end(), this)) {}
  session(const session&) = delete;
  session& operator=(const session&) = delete;
  ~session() { all.sessions.erase(at_); }

  // Until the client goes, or is sent away. `stopping` is thrown in once at most, wherever it waits then.
  void run() {
    for (bool talks = !all.stops;;) {
      try {
        if (talks) converse();
        talks = false;
        return part();
      } catch (const stopping&) {
        talks = false;
      }
    }
  }
  // After the answer to what it has asked just now.
  void send_away() { leaves_ = true; }

  daemon& all;
  const std::uint64_t id;
  const greenlets::weak_greenlet who;  // weak: a handle on its own stack would keep a greenlet for ever
  hub::connection& connection;
  const clock::time_point since = clock::now();
  std::string name;

 private:
  hub::deadline patience() const { return all.how.idle ? hub::deadline(seconds(all.how.idle)) : hub::deadline(); }

  void converse() {
    // One buffer for all: nobody switches between reading into it and feeding what was read.
    static char buffer[16 * 1024];
    while (!leaves_) {
      const hub::io_result got = connection.read_some(buffer, sizeof buffer, patience());
      if (!got) {
        gone_ = true;
        return;
      }
      request_.feed(buffer, got.bytes);
      // One write for as many answers as the client has asked for at once; but who does not read gets no more.
      if (!answer_all() || !flush(patience())) return;
      // Who always has more to say takes turns with everything else that libuv knows of, signals and timers too. A
      // hub::yield() would be for those only who are ready already.
      if (got.bytes == sizeof buffer && !connection.wait(hub::direction::readable, patience())) {
        gone_ = true;
        return;
      }
    }
  }

  bool answer_all() {
    while (!leaves_ && request_.next()) {
      ++all.served;
      call c{all.data, request_, answer_, *this};
      execute(all.known, c);
      if (out_.size() > most_waiting && !flush(patience())) return false;
    }
    if (!request_.error().empty()) {
      answer_.error(request_.error());
      leaves_ = true;
    }
    return true;
  }

  // Writes what stands in out_. What has been written is known whatever is thrown into the wait.
  bool flush(hub::deadline until) {
    while (written_ < out_.size()) {
      hub::io_result r = connection.try_write(out_.data() + written_, out_.size() - written_);
      written_ += r.bytes;
      if (r && written_ < out_.size()) r = connection.wait(hub::direction::writable, until);
      if (!r) {
        gone_ = true;
        return false;
      }
    }
    out_.clear();
    written_ = 0;
    if (out_.capacity() > most_waiting) out_.shrink_to_fit();
    return true;
  }

  // The rest of the answers, and a good-bye. When one end closes while something unread is on its way to it, the other
  // may lose what it has not read yet (RFC 1122, 4.2.2.13); so who is sent away is listened to, for a while.
  void part() {
    if (gone_ || !flush(seconds(all.how.grace)) || !connection.shutdown_write()) return;
    char ignored[4096];
    const clock::time_point until = clock::now() + std::min(longest_parting, seconds(all.how.grace));
    while (clock::now() < until && connection.read_some(ignored, sizeof ignored, until) &&
           connection.wait(hub::direction::readable, until)) {
    }
  }

  request request_;
  std::string out_;
  std::size_t written_ = 0;
  reply answer_{out_, largest_reply};
  bool leaves_ = false, gone_ = false;
  std::list<session*>::iterator at_;
};

// -- Commands on connections and the daemon ----------------------------------------------------------

namespace {

void ping(call& c) {
  if (c.words.size() > 2) throw refused{"ERR wrong number of arguments for 'ping' command"};
  c.words.size() == 2 ? c.answer.bulk(c.words[1]) : c.answer.status("PONG");
}
void echo(call& c) { c.answer.bulk(c.words[1]); }

void quit(call& c) {
  c.answer.status("OK");
  c.from.send_away();
}

void select(call& c) {
  if (number(c.words[1]) != 0) throw refused{"ERR DB index is out of range"};
  c.answer.status("OK");
}

[[noreturn]] void unknown_subcommand(call& c, const char* of) {
  throw refused{"ERR unknown subcommand '" + std::string(c.words[1].substr(0, 128)) + "'. Try " + of + " HELP."};
}

// Whether it is that subcommand; with a wrong number of words it is refused.
bool subcommand(call& c, std::string_view name, std::size_t words) {
  if (!same_word(c.words[1], name)) return false;
  if (c.words.size() == words) return true;
  throw refused{"ERR wrong number of arguments for '" + std::string(c.name) + "|" + std::string(name) + "' command"};
}

void set_name(session& s, std::string_view name) {
  if (std::any_of(name.begin(), name.end(), [](char c) { return c < '!' || c > '~'; }))
    throw refused{"ERR Client names cannot contain spaces, newlines or special characters."};
  s.name = name;
}

// The reply to HELLO, and what it may ask for besides: which version of the protocol, and a name.
void hello(call& c) {
  std::size_t n = 1;
  if (c.words.size() > n) {
    long long version = 0;
    if (!parse_number(c.words[n++], version)) throw refused{"ERR Protocol version is not an integer or out of range"};
    if (version != 2) throw refused{"NOPROTO unsupported protocol version"};
  }
  for (; n < c.words.size(); n += 2) {
    if (!same_word(c.words[n], "setname") || n + 1 == c.words.size())
      throw refused{"ERR Syntax error in HELLO option '" + std::string(c.words[n]) + "'"};
    set_name(c.from, c.words[n + 1]);
  }
  c.answer.array(14);
  for (const char* word : {"server", "respd", "version", "0.1.0", "proto"}) c.answer.bulk(word);
  c.answer.integer(2);
  c.answer.bulk("id");
  c.answer.integer(static_cast<long long>(c.from.id));
  for (const char* word : {"mode", "standalone", "role", "master", "modules"}) c.answer.bulk(word);
  c.answer.array(0);
}

unsigned long long seconds_since(clock::time_point then) {
  return static_cast<unsigned long long>(std::chrono::duration_cast<seconds>(clock::now() - then).count());
}

std::string described(const session& s) {
  const auto age = seconds_since(s.since);
  std::string text = "id=" + std::to_string(s.id);
  try {
    text += " addr=" + s.connection.peer().text() + " laddr=" + s.connection.local().text();
  } catch (const std::system_error&) {
    // He has gone, and his greenlet does not know yet.
  }
  text += " fd=" + std::to_string(s.connection.fd()) + " name=" + s.name + " age=" + std::to_string(age);
  return text + " db=0 resp=2\n";
}

void client(call& c) {
  if (subcommand(c, "id", 2)) return c.answer.integer(static_cast<long long>(c.from.id));
  if (subcommand(c, "getname", 2)) return c.from.name.empty() ? c.answer.nil() : c.answer.bulk(c.from.name);
  if (subcommand(c, "info", 2)) return c.answer.bulk(described(c.from));
  if (subcommand(c, "list", 2)) {
    std::string text;
    for (const session* each : c.from.all.sessions) text += described(*each);
    return c.answer.bulk(text);
  }
  if (subcommand(c, "setname", 3))
    set_name(c.from, c.words[2]);
  else if (!subcommand(c, "setinfo", 4))  // what libraries tell about themselves
    unknown_subcommand(c, "CLIENT");
  c.answer.status("OK");
}

void config(call& c) {
  if (!subcommand(c, "get", 3)) unknown_subcommand(c, "CONFIG");
  const options& o = c.from.all.how;
  const std::pair<const char*, std::string> all[] = {
      {"appendonly", "no"}, {"databases", "1"},      {"maxclients", std::to_string(o.clients)},
      {"maxmemory", "0"},   {"port", std::to_string(o.port)}, {"save", ""},
      {"timeout", std::to_string(o.idle)},
  };
  const auto wanted = [&](const auto& each) { return matches(c.words[2], each.first); };
  c.answer.array(2 * static_cast<std::size_t>(std::count_if(std::begin(all), std::end(all), wanted)));
  for (const auto& each : all) {
    if (!wanted(each)) continue;
    c.answer.bulk(each.first);
    c.answer.bulk(each.second);
  }
}

// What redis-cli asks when people type to it. There is no documentation of commands.
void list_commands(call& c) {
  const auto& all = c.from.all.known.all();
  if (c.words.size() > 1 && subcommand(c, "count", 2)) return c.answer.integer(static_cast<long long>(all.size()));
  if (c.words.size() > 1 && same_word(c.words[1], "docs")) return c.answer.array(0);
  if (c.words.size() > 1) unknown_subcommand(c, "COMMAND");
  c.answer.array(all.size());
  for (const auto& [name, each] : all) {
    c.answer.array(6);
    c.answer.bulk(name);
    c.answer.integer(each->words);
    c.answer.array(0);
    for (int keys = 0; keys < 3; ++keys) c.answer.integer(0);
  }
}

void info(call& c) {
  const daemon& d = c.from.all;
  const hub::server_statistics connections = d.server->statistics();
  const hub::hub_statistics of_hub = hub::statistics();
  const greenlets::process_counts counts = greenlets::counts();
  std::string text;
  const auto section = [&](const char* name) { text += (text.empty() ? "# " : "\r\n# ") + std::string(name) + "\r\n"; };
  const auto line = [&](const char* name, unsigned long long n) { text += name + (":" + std::to_string(n)) + "\r\n"; };
  section("Server");
  text += "respd_version:0.1.0\r\n";
  line("process_id", static_cast<unsigned long long>(getpid()));
  line("tcp_port", d.how.port);
  line("uptime_in_seconds", seconds_since(d.since));
  section("Clients");
  line("connected_clients", d.sessions.size());
  line("maxclients", d.how.clients);
  section("Greenlets");
  line("greenlets", counts.greenlets);
  line("stacks", counts.stacks);
  line("waiting", of_hub.waiting);
  line("switches", of_hub.switches);
  section("Stats");
  line("total_connections_received", connections.accepted);
  line("total_commands_processed", d.served);
  section("Keyspace");
  if (const std::size_t keys = d.data.all().size())
    text += "db0:keys=" + std::to_string(keys) + ",expires=" + std::to_string(d.data.ending()) + "\r\n";
  c.answer.bulk(text);
}

constexpr command other_commands[] = {
    {"client", -2, client}, {"command", -1, list_commands}, {"config", -2, config}, {"echo", 2, echo}, {"hello", -1, hello},
    {"info", -1, info},     {"ping", -1, ping},             {"quit", -1, quit},     {"select", 2, select},
};


// -- The daemon ----------------------------------------------------------------------------------

// Says where it listens, one line each.
void listen_everywhere(hub::server& server, options& how) {
  const auto from = [&server](hub::listener&& l) {
    std::printf("listening on %s\n", l.local().text().c_str());
    server.listen(std::move(l));
  };
  const auto passed = hub::listen_fds();
  for (const hub::passed_socket& each : passed) from(hub::listener(each.fd));
  if (passed.empty()) {
    hub::listener l(hub::address(how.host, static_cast<std::uint16_t>(how.port)));
    how.port = l.local().port();
    from(std::move(l));
  }
  if (how.unix_path.empty()) return;
  hub::listener::options as_left;  // its file stays at the end: by then somebody else may have it
  as_left.remove_stale = true;
  from(hub::listener(hub::unix_address(how.unix_path), as_left));
}

// Those who wait for a request have nothing to lose; the others come to it when they have been answered.
void stop(daemon& d) {
  hub::notify("STOPPING=1");
  d.stops = true;
  for (const session* each : d.sessions) hub::cancel(each->who.lock(), std::make_exception_ptr(stopping()));
  d.server->stop(seconds(d.how.grace));
}

int serve(const options& how) {
  daemon d;
  d.how = how;
  add_data_commands(d.known);
  d.known.add(other_commands);

  std::optional<hub::pid_file> pid;
  if (!how.pid_path.empty()) pid.emplace(how.pid_path);
  hub::signals signals({SIGTERM, SIGINT});
  hub::server::options limits;
  limits.most = how.clients;
  hub::server server([&d](hub::connection& c) { session(d, c).run(); }, limits);
  d.server = &server;
  listen_everywhere(server, d.how);
  std::fflush(stdout);

  hub::group helpers;
  helpers.spawn([&] {
    signals.wait();
    stop(d);
  });
  // What nobody asks for any more goes too, little by little.
  const auto sweeper = hub::every(milliseconds(100), [&d] {
    while (d.data.sweep(1000)) hub::sleep_for(milliseconds(1));
  });
  const hub::watchdog alive;
  hub::notify("READY=1");
  server.run();
  helpers.wait();
  sweeper.cancel();
  sweeper.join();
  std::printf("served %llu connections, %llu commands\n", static_cast<unsigned long long>(server.statistics().accepted),
              static_cast<unsigned long long>(d.served));
  return 0;
}

}  // namespace
}  // namespace respd

namespace {

[[noreturn]] void fail_usage(const std::string& what) {
  std::fprintf(stderr, "respd: %s\n%s", what.c_str(), usage);
  std::exit(2);
}

std::uint64_t number(const std::string& option, const char* text, long long least, long long most) {
  long long n = 0;
  if (!text || !respd::parse_number(text, n) || n < least || n > most)
    fail_usage(option + " takes a number from " + std::to_string(least) + " to " + std::to_string(most));
  return static_cast<std::uint64_t>(n);
}

options parse(char** arguments) {
  options o;
  while (*++arguments) {
    const std::string name = *arguments;
    if (name == "--help") {
      std::fputs(usage, stdout);
      std::exit(0);
    }
    const char* const text = arguments[1];
    if (name == "--host" && text)
      o.host = text;
    else if (name == "--unix" && text)
      o.unix_path = text;
    else if (name == "--pid-file" && text)
      o.pid_path = text;
    else if (name == "--port")
      o.port = number(name, text, 0, 65535);
    else if (name == "--clients")
      o.clients = number(name, text, 1, 1000000);
    else if (name == "--idle")
      o.idle = number(name, text, 0, 86400);
    else if (name == "--grace")
      o.grace = number(name, text, 0, 86400);
    else if (name == "--request")
      o.request = number(name, text, 1, 512);
    else
      fail_usage("unknown or incomplete option " + name);
    ++arguments;
  }
  return o;
}

}  // namespace

int main(int, char** arguments) try {
  return respd::serve(parse(arguments));
} catch (const std::exception& e) {
  std::fprintf(stderr, "respd: %s\n", e.what());
  return 1;
}
