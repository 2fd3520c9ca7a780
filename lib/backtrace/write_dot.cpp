// SPDX-License-Identifier: MIT
// A snapshot as a graph, for Graphviz.
#include "people.hpp"
#include "tree.hpp"

#include <ostream>
#include <string>

namespace greenlets {
namespace {

using namespace detail;

const char* colour_of(greenlet_state s) noexcept {
  switch (s) {
    case greenlet_state::unstarted: return "white";
    case greenlet_state::current: return "#f6c28b";
    case greenlet_state::suspended: return "#cfe2f3";
    default: return "#dddddd";
  }
}

// A quoted string of DOT: only quotes are escaped there; a backslash begins an escape of labels.
std::string label(const std::vector<std::string>& lines) {
  std::string text = "\"";
  for (const std::string& line : lines) {
    for (const char c : line) {
      if (c == '"' || c == '\\') text += '\\';
      text += c;
    }
    text += "\\l";
  }
  return text + '"';
}

std::string shortened(const std::string& text, std::size_t most = 60) {
  if (text.size() <= most) return text;
  std::size_t at = 0;
  while (at < most) {
    const std::size_t n = length_of_character(text.data() + at, text.size() - at);
    at += n ? n : 1;
  }
  return text.substr(0, at) + "...";
}

// A box has room for little, and this says least.
std::string without_anonymous(std::string name) {
  const std::string part = "(anonymous namespace)::";
  for (std::size_t at; (at = name.find(part)) != std::string::npos;) name.erase(at, part.size());
  return name;
}

// The innermost functions that are the program's own.
std::vector<std::string> functions_of(const process_snapshot& s, const greenlet_snapshot& g) {
  constexpr std::size_t most = 3;
  std::vector<std::string> names;
  for (const frame& f : of_waiting(frames_at(s, g.addresses))) {
    if (names.size() == most) break;
    if (f.function.empty() || f.function.rfind("greenlets::", 0) == 0) continue;
    names.push_back(shortened(without_anonymous(f.function)));
  }
  return names;
}

void write_node(std::ostream& out, const process_snapshot& s, const fold& f, const std::string& name) {
  const greenlet_snapshot& first = *f.members[0];
  std::vector<std::string> lines = {shortened(who_of(f)), name_of(first.state)};
  if (!first.waits_for.empty()) {
    const bool alone = f.members.size() == 1;
    lines.push_back(shortened("waits for " + first.waits_for + (alone ? "" : ", ...")));
  }
  for (std::string& function : functions_of(s, first)) lines.push_back(std::move(function));
  out << "    " << name << " [label=" << label(lines) << ", fillcolor=\"" << colour_of(first.state) << '"';
  if (f.members.size() > 1) out << ", peripheries=2";
  out << "];\n";
}

void write_thread(std::ostream& out, const process_snapshot& s, const thread_snapshot& t, std::size_t number) {
  const std::string prefix = "g" + std::to_string(number) + "_";
  std::string title = t.tid ? "thread " + std::to_string(t.tid) : "no thread";
  if (!t.name.empty()) title += " " + quoted(t.name);
  if (t.exited) title += " (exited)";
  if (t.in_turn) title += ", in this turn for " + text_of(*t.in_turn);
  const std::vector<fold> all = folded(t);
  out << "  subgraph cluster_" << number << " {\n    label=" << label({title}) << ";\n";
  for (std::size_t i = 0; i < all.size(); ++i) write_node(out, s, all[i], prefix + std::to_string(i));
  out << "  }\n";
  for (std::size_t i = 0; i < all.size(); ++i)
    if (all[i].parent != i) {
      out << "  " << prefix << all[i].parent << " -> " << prefix << i;
      if (all[i].members.size() > 1) out << " [label=\"" << all[i].members.size() << "\"]";
      out << ";\n";
    }
}

void write(std::ostream& out, const process_snapshot& s) {
  // The margin: dot takes letters for narrower than they are drawn.
  out << "digraph greenlets {\n  label=" << label({"process " + std::to_string(s.pid) + " at " + text_of(s.taken)})
      << ";\n  labelloc=t;\n  rankdir=LR;\n"
         "  node [shape=box, style=filled, fontname=\"sans-serif\", fontsize=10, margin=\"0.2,0.055\"];\n"
         "  edge [fontname=\"sans-serif\", fontsize=9];\n  graph [fontname=\"sans-serif\", fontsize=11];\n";
  for (std::size_t i = 0; i < s.threads.size(); ++i) write_thread(out, s, s.threads[i], i);
  out << "}\n";
}

}  // namespace

void write_dot(std::ostream& out, const process_snapshot& s) {
  plainly(out, [&](std::ostream& to) { write(to, s); });
}

}  // namespace greenlets
