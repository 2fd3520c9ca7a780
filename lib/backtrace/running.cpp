// SPDX-License-Identifier: MIT
// Interrupting the threads that run, and putting what they were doing where a snapshot has it.
#include "running.hpp"

#include "symbols.hpp"

#include <algorithm>
#include <utility>

namespace greenlets::detail {
namespace {

using answers = std::map<pid_t, interrupted_thread>;

answers ask(const std::vector<watched_thread_v1>& threads, const interrupting& how, std::size_t most_frames) {
  answers all;
  for (const watched_thread_v1& t : threads) {
    if (t.waits) continue;
    interrupted_thread one;
    if (interrupt(t.tid, how.signal, how.patience, most_frames, one)) all.emplace(t.tid, std::move(one));
  }
  return all;
}

void add_symbols(process_snapshot& s, const std::vector<place_in_code>& places) {
  for (const place_in_code& p : places) {
    auto& frames = s.symbols[p.address];
    if (frames.empty()) describe(frames, p);
  }
}

greenlet_snapshot* current_of(thread_snapshot& t) noexcept {
  const auto g = std::find_if(t.greenlets.begin(), t.greenlets.end(), [&](const auto& each) { return each.id == t.current; });
  return g == t.greenlets.end() ? nullptr : &*g;
}

// When it is still that which runs: else it is in the snapshot as it was later.
bool attach(process_snapshot& s, thread_snapshot& t, const interrupted_thread& from, bool symbols) {
  greenlet_snapshot* const g = current_of(t);
  if (!g || from.greenlet != t.current) return false;
  g->addresses.clear();
  for (const place_in_code& p : from.places) g->addresses.push_back(p.address);
  if (symbols) add_symbols(s, from.places);
  return true;
}

}  // namespace

std::vector<watched_thread_v1> all_threads(bool note) {
  constexpr std::size_t begun_meanwhile = 16;  // more than these have their turn the next time
  std::vector<watched_thread_v1> all(watch_threads(nullptr, 0, false) + begun_meanwhile);
  all.resize(std::min(all.size(), watch_threads(all.data(), all.size(), note)));
  return all;
}

std::optional<std::chrono::nanoseconds> time_in_turn(const watched_thread_v1& t) noexcept {
  if (!t.has_hub || t.waits) return std::nullopt;
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  const auto then = std::chrono::milliseconds(t.polled_at);
  return std::max<std::chrono::nanoseconds>(now - then, std::chrono::nanoseconds(0));
}

process_snapshot snapshot_with_running(const snapshot_options& with, const interrupting& how) {
  const auto threads = all_threads(false);
  answers known;
  if (with.frames) known = ask(threads, how, with.most_frames);
  process_snapshot s = snapshot(with);
  for (thread_snapshot& t : s.threads) {
    const auto seen = std::find_if(threads.begin(), threads.end(), [&](const auto& each) { return each.tid == t.tid; });
    if (t.exited || seen == threads.end()) continue;
    if (seen->waits) {
      greenlet_snapshot* const hub = current_of(t);
      if (hub && hub->is_hub && hub->waits_for.empty()) hub->waits_for = "events";
      continue;
    }
    if (!t.in_turn) t.in_turn = time_in_turn(*seen);
    const auto answer = known.find(t.tid);
    if (answer == known.end() || attach(s, t, answer->second, with.symbols)) continue;
    // It has switched since. One that does so all the time has no frames that would mean anything.
    interrupted_thread again;
    if (interrupt(t.tid, how.signal, how.patience, with.most_frames, again)) attach(s, t, again, with.symbols);
  }
  return s;
}

}  // namespace greenlets::detail
