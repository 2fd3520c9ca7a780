// SPDX-License-Identifier: MIT
// load: a client that sends a file through an echo daemon over many connections at once, a greenlet
// for each, and compares every byte that comes back.
#include <greenlet/hub.hpp>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <fstream>
#include <iterator>
#include <string>
#include <unistd.h>
#include <vector>

namespace {

namespace hub = greenlets::hub;

struct options {
  std::string host = "127.0.0.1", file;
  unsigned port = 7000, connections = 100, chunk = 16 * 1024, daemon = 0;
};

constexpr const char* usage =
    "Usage: load [--host ADDRESS] [--port N] [--connections N] [--chunk BYTES] [--daemon PID] FILE\n"
    "Sends FILE through an echo daemon over each of N connections at once, a chunk at a time, and\n"
    "compares what comes back. Exits 1 when anything differs or fails.\n"
    "  --host ADDRESS   a numeric address (127.0.0.1)\n"
    "  --port N         the daemon's port (7000)\n"
    "  --connections N  how many at once (100)\n"
    "  --chunk BYTES    bytes sent before they are awaited, at most 65536 (16384)\n"
    "  --daemon PID     the daemon's process, on this machine, whose memory is to be measured\n"
    "  --help           this text\n";

[[noreturn]] void fail_usage(const std::string& what) {
  std::fprintf(stderr, "load: %s\n%s", what.c_str(), usage);
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
    if (name.rfind("--", 0) != 0) {
      if (!o.file.empty()) fail_usage("one FILE only");
      o.file = name;
      continue;
    }
    const char* text = arguments[1];
    if (name == "--host" && text)
      o.host = text;
    else if (name == "--port")
      o.port = number(name, text, 1, 65535);
    else if (name == "--connections")
      o.connections = number(name, text, 1, 1000000);
    else if (name == "--chunk")
      o.chunk = number(name, text, 1, 65536);
    else if (name == "--daemon")
      o.daemon = number(name, text, 1, 1u << 30);
    else
      fail_usage("unknown or incomplete option " + name);
    ++arguments;
  }
  if (o.file.empty()) fail_usage("which FILE?");
  return o;
}

// Resident memory of a process, in bytes; 0 when it cannot be told.
double resident(unsigned pid) {
  std::ifstream statm("/proc/" + std::to_string(pid) + "/statm");
  double total = 0, pages = 0;
  statm >> total >> pages;
  return pages * static_cast<double>(sysconf(_SC_PAGESIZE));
}

struct shared {
  const options& o;
  const std::string& data;
  hub::event connected, go;
  unsigned open = 0, failed = 0;
  unsigned long long round_trips = 0;
  std::string first_error;
};

void note(shared& s, const char* doing, const std::string& what) {
  if (++s.failed == 1) s.first_error = std::string(doing) + ": " + what;
}

std::string text_of(const hub::io_result& r) { return r.end() ? "the daemon has closed it" : r.error.message(); }

// Everything there and back, a chunk at a time. All connections share the buffer that is read into:
// what is in it is compared before anybody else runs.
void exchange(shared& s, hub::connection& c) {
  static char buffer[65536];
  for (std::size_t at = 0; at < s.data.size();) {
    const std::size_t size = std::min<std::size_t>(s.o.chunk, s.data.size() - at);
    if (const auto r = c.write_all(s.data.data() + at, size); !r) return note(s, "write", text_of(r));
    for (std::size_t back = 0; back < size;) {
      const auto r = c.read_some(buffer, size - back);
      if (!r) return note(s, "read", text_of(r));
      if (std::memcmp(buffer, s.data.data() + at + back, r.bytes) != 0) return note(s, "compare", "other bytes came back");
      back += r.bytes;
    }
    at += size;
    ++s.round_trips;
  }
  c.shutdown_write();
  char more;
  if (const auto r = c.read_some(&more, 1); !r.end()) note(s, "end", r.bytes ? "more came back than was sent" : text_of(r));
}

void one_connection(shared& s, const hub::address& where) {
  hub::connection c;
  hub::io_result r = hub::connect(c, where, std::chrono::seconds(60));
  if (!r) note(s, "connect", text_of(r));
  // A byte there and back: now the daemon has a greenlet for us.
  char byte = '?';
  if (r && (!(r = c.write_all("!", 1)) || !(r = c.read_some(&byte, 1)))) note(s, "first byte", text_of(r));
  if (++s.open == s.o.connections) s.connected.set();
  s.go.wait();
  if (r) exchange(s, c);
}

void row(const char* what, double value, int digits) { std::printf("  %-42s %14.*f\n", what, digits, value); }

}  // namespace

int main(int, char** arguments) try {
  const options o = parse(arguments);
  std::signal(SIGPIPE, SIG_IGN);
  std::ifstream file(o.file, std::ios::binary);
  if (!file) throw std::runtime_error("cannot read " + o.file);
  const std::string data{std::istreambuf_iterator<char>(file), {}};
  if (data.empty()) throw std::runtime_error(o.file + " is empty");
  const hub::address where(o.host, static_cast<std::uint16_t>(o.port));

  shared s{o, data, {}, {}, 0, 0, 0, {}};
  const double before = o.daemon ? resident(o.daemon) : 0;
  std::vector<hub::task<void>> tasks;
  for (unsigned n = 0; n < o.connections; ++n) tasks.push_back(hub::spawn([&] { one_connection(s, where); }));
  s.connected.wait();
  const double idle = o.daemon ? resident(o.daemon) : 0;

  const auto start = hub::clock::now();
  s.go.set();
  for (auto& t : tasks) t.get();
  const double seconds = std::chrono::duration<double>(hub::clock::now() - start).count();

  constexpr double mib = 1024 * 1024;
  const double moved = 2.0 * static_cast<double>(data.size()) * (o.connections - s.failed);
  row("connections at once", o.connections, 0);
  row("MiB there and back", moved / mib, 1);
  row("seconds", seconds, 2);
  row("MiB per second", moved / mib / seconds, 1);
  row("round trips per second", static_cast<double>(s.round_trips) / seconds, 0);
  row("switches (this side)", static_cast<double>(hub::statistics().switches), 0);
  if (before > 0 && idle > 0)
    row("daemon: resident MiB per 1,000 connections", (idle - before) / mib / o.connections * 1000, 2);
  tasks.clear();
  hub::shutdown();
  if (s.failed == 0) return 0;
  std::fprintf(stderr, "load: %u of %u connections failed; the first: %s\n", s.failed, o.connections, s.first_error.c_str());
  return 1;
} catch (const std::exception& e) {
  std::fprintf(stderr, "load: %s\n", e.what());
  return 1;
}
