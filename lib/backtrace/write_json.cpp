// SPDX-License-Identifier: MIT
// A snapshot as JSON (RFC 8259).
#include "people.hpp"

#include <cstdint>
#include <cstdio>
#include <ostream>

namespace greenlets {
namespace {

using namespace detail;

// Commas between, and none before the first.
class comma {
 public:
  friend std::ostream& operator<<(std::ostream& out, comma& c) {
    if (c.first_) {
      c.first_ = false;
      return out;
    }
    return out << ',';
  }

 private:
  bool first_ = true;
};

std::string address(const void* p) {
  char text[32];
  std::snprintf(text, sizeof text, "\"0x%zx\"", static_cast<std::size_t>(reinterpret_cast<std::uintptr_t>(p)));
  return text;
}

const char* truth(bool b) noexcept { return b ? "true" : "false"; }

void write_addresses(std::ostream& out, const std::vector<void*>& all) {
  comma c;
  out << '[';
  for (const void* p : all) out << c << address(p);
  out << ']';
}

void write_greenlet(std::ostream& out, const greenlet_snapshot& g) {
  out << "{\"id\":" << g.id << ",\"name\":" << json_quoted(g.name) << ",\"state\":\"" << name_of(g.state) << "\",\"parent\":";
  if (g.parent)
    out << g.parent;
  else
    out << "null";
  out << ",\"is_main\":" << truth(g.is_main) << ",\"is_hub\":" << truth(g.is_hub);
  if (g.age) out << ",\"age_ns\":" << g.age->count();
  if (g.switches) out << ",\"switches\":" << *g.switches;
  out << ",\"stack\":{\"used\":" << g.stack.used << ",\"committed\":" << g.stack.committed << ",\"reserved\":" << g.stack.reserved
      << ",\"high_water\":" << g.high_water << "},\"waits_for\":" << json_quoted(g.waits_for) << ",\"addresses\":";
  write_addresses(out, g.addresses);
  if (!g.created_at.empty()) write_addresses(out << ",\"created_at\":", g.created_at);
  out << '}';
}

void write_thread(std::ostream& out, const thread_snapshot& t) {
  out << "{\"tid\":" << t.tid << ",\"name\":" << json_quoted(t.name) << ",\"exited\":" << truth(t.exited) << ",\"current\":" << t.current
      << ",\"main\":" << t.main;
  if (t.in_turn) out << ",\"in_turn_ns\":" << t.in_turn->count();
  out << ",\"greenlets\":[";
  comma c;
  for (const greenlet_snapshot& g : t.greenlets) write_greenlet(out << c, g);
  out << "]}";
}

void write_frame(std::ostream& out, const frame& f) {
  out << "{\"function\":" << json_quoted(f.function) << ",\"offset\":" << f.offset << ",\"object\":" << json_quoted(f.object)
      << ",\"file\":" << json_quoted(f.file) << ",\"line\":" << f.line << ",\"inlined\":" << truth(f.inlined) << '}';
}

void write(std::ostream& out, const process_snapshot& s) {
  out << "{\"version\":1,\"taken\":\"" << text_of(s.taken) << "\",\"pid\":" << s.pid << ",\"threads\":[";
  comma threads;
  for (const thread_snapshot& t : s.threads) write_thread(out << threads, t);
  out << "],\"symbols\":{";
  comma symbols;
  for (const auto& [p, frames] : s.symbols) {
    out << symbols << address(p) << ":[";
    comma c;
    for (const frame& f : frames) write_frame(out << c, f);
    out << ']';
  }
  out << "},\"changing\":" << s.changing << ",\"lost\":" << s.lost << "}\n";
}

}  // namespace

void write_json(std::ostream& out, const process_snapshot& s) {
  plainly(out, [&](std::ostream& to) { write(to, s); });
}

}  // namespace greenlets
