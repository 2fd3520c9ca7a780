// SPDX-License-Identifier: MIT
// A snapshot as text.
#include "people.hpp"
#include "tree.hpp"

#include <algorithm>
#include <ostream>
#include <utility>

namespace greenlets {
namespace {

using namespace detail;

// Deeper ones say how deep they are.
constexpr std::size_t most_indented = 12;

std::string indentation(std::size_t depth) { return std::string(2 * std::min(depth, most_indented) + 2, ' '); }

void write_frames_at(std::ostream& out, const process_snapshot& s, const std::vector<void*>& addresses, const std::string& before) {
  for (const frame& f : of_waiting(frames_at(s, addresses))) print(out << before, f) << '\n';
}

void write_fold(std::ostream& out, const process_snapshot& s, const fold& f) {
  const greenlet_snapshot& first = *f.members[0];
  const std::string before = indentation(f.depth);
  out << before;
  if (f.depth > most_indented) out << "[" << f.depth << "] ";
  out << who_of(f) << ": " << name_of(first.state);
  for (const std::string& fact : facts_of(f)) out << ", " << fact;
  out << '\n';
  write_frames_at(out, s, first.addresses, before + "    ");
  const auto made = of_creation(frames_at(s, first.created_at));
  if (!made.empty()) out << before << "  made by\n";
  for (const frame& each : made) print(out << before << "    ", each) << '\n';
}

void write_thread(std::ostream& out, const process_snapshot& s, const thread_snapshot& t) {
  if (t.tid == 0)
    out << "no thread";
  else
    out << "thread " << t.tid;
  if (!t.name.empty()) out << ' ' << quoted(t.name);
  if (t.exited) out << " (exited)";
  out << ": " << t.greenlets.size() << (t.greenlets.size() == 1 ? " greenlet" : " greenlets");
  if (t.current) out << ", running greenlet " << t.current;
  if (t.in_turn) out << ", in this turn of its hub for " << text_of(*t.in_turn);
  out << '\n';
  for (const fold& f : folded(t)) write_fold(out, s, f);
}

void write(std::ostream& out, const process_snapshot& s) {
  std::size_t n = 0;
  for (const thread_snapshot& t : s.threads) n += t.greenlets.size();
  out << "process " << s.pid << " at " << text_of(s.taken) << ": " << n << (n == 1 ? " greenlet" : " greenlets") << " in "
      << s.threads.size() << (s.threads.size() == 1 ? " thread" : " threads") << '\n';
  if (s.changing) out << s.changing << " went on each time they were looked at, and are told without frames\n";
  if (s.lost) out << s.lost << " could not be read\n";
  for (const thread_snapshot& t : s.threads) write_thread(out << '\n', s, t);
}

}  // namespace

void write_text(std::ostream& out, const process_snapshot& s) {
  plainly(out, [&](std::ostream& to) { write(to, s); });
}

}  // namespace greenlets
