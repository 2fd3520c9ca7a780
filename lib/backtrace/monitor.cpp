// SPDX-License-Identifier: MIT
// The monitor: a thread whose bit of attention is still set has not switched since that was set.
#include <greenlet/monitor.hpp>

#include "people.hpp"
#include "running.hpp"
#include "symbols.hpp"
#include "watcher.hpp"
#include "writing.hpp"

#include <greenlet/unraisable.hpp>

#include <algorithm>
#include <cstdint>
#include <exception>
#include <iterator>
#include <map>
#include <optional>
#include <ostream>
#include <sstream>
#include <stdexcept>
#include <unistd.h>
#include <utility>
#include <vector>

namespace greenlets {
namespace detail {
namespace {

constexpr std::size_t most_frames = 200;

void write(std::ostream& out, const long_run& run) {
  const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(run.lasted).count();
  out << "greenlet: greenlet ";
  if (run.id)
    out << run.id;
  else
    out << '?';
  if (!run.name.empty()) out << ' ' << quoted(run.name);
  if (run.is_main) out << " (main)";
  out << " of thread " << run.tid;
  if (!run.thread.empty()) out << ' ' << quoted(run.thread);
  out << " has been running for " << ms << " ms without a switch" << (run.frames.empty() ? "; its thread does not tell where\n" : ":\n");
}

void write_to_standard_error(const long_run& run) {
  std::ostringstream text;
  write_long_run(text, run);
  write_all(STDERR_FILENO, text.str(), [] { return false; });
}

// What is seen of threads, for all monitors: to look takes the marks away by which the next look goes.
struct history {
  const void* current = nullptr;
  std::uint64_t change = 0;  // the number of the last switch that was noticed
  std::uint64_t look = 0;    // the number of the last look
};
std::map<const void*, history>* histories = nullptr;  // by the thread's record; for ever, and only for the watching thread

std::vector<watched_thread_v1> look() {
  static std::uint64_t looks = 0;
  static std::uint64_t changes = 0;
  ++looks;
  auto threads = all_threads(true);
  if (!histories) histories = new std::map<const void*, history>;
  for (const watched_thread_v1& t : threads) {
    history& h = (*histories)[t.record];
    if (t.has_switched || t.current != h.current) h.change = ++changes;
    h.current = t.current;
    h.look = looks;
  }
  for (auto h = histories->begin(); h != histories->end();) h = h->second.look == looks ? std::next(h) : histories->erase(h);
  return threads;
}

std::uint64_t last_change(const watched_thread_v1& t) {
  const auto h = histories->find(t.record);
  return h == histories->end() ? 0 : h->second.change;
}

// One greenlet that runs, as long as it does.
struct stretch {
  std::uint64_t since_change = 0;
  std::chrono::nanoseconds lasted{0};
  bool is_told = false;
};

}  // namespace

class monitor_job final : public watcher::job {
 public:
  explicit monitor_job(monitor_options with) : with_(std::move(with)) {}
  ~monitor_job() override = default;

  void begin();
  std::optional<watcher::clock::time_point> run() override;

 private:
  bool is_of_interest(const watched_thread_v1& t) const noexcept {
    return !t.waits && (!t.is_main || t.has_hub || with_.main_without_hub);
  }
  void tell(const watched_thread_v1& t, const stretch& s);

  monitor_options with_;
  watcher::clock::duration period_ = {};
  watcher::clock::time_point last_ = watcher::clock::time_point::min();
  std::map<const void*, stretch> stretches_;  // by the thread's record
};

void monitor_job::begin() {
  if (with_.limit < std::chrono::milliseconds(1)) throw std::invalid_argument("monitor: a limit of less than a millisecond");
  with_.interrupting_signal = prepare_interrupts(with_.interrupting_signal);
  if (!with_.report) with_.report = write_to_standard_error;
  period_ = std::min<watcher::clock::duration>(with_.limit / 4, std::chrono::seconds(1));
  want_signal_stacks();
}

std::optional<watcher::clock::time_point> monitor_job::run() {
  const auto now = watcher::clock::now();
  const bool first = last_ == watcher::clock::time_point::min();
  if (!first && now < last_ + period_) return last_ + period_;
  // When it was not looked at for longer, the process was stopped, or we were: that is no time of the greenlet's.
  const auto since_last = first ? watcher::clock::duration(0) : std::min(now - last_, 2 * period_);
  last_ = now;
  std::map<const void*, stretch> going_on;
  for (const watched_thread_v1& t : look()) {
    if (!is_of_interest(t)) continue;
    const std::uint64_t change = last_change(t);
    const auto before = stretches_.find(t.record);
    stretch s;
    if (before != stretches_.end() && before->second.since_change == change) {
      s = before->second;
      s.lasted += since_last;
    }
    s.since_change = change;
    if (s.lasted >= with_.limit && !std::exchange(s.is_told, true)) tell(t, s);
    going_on.emplace(t.record, s);
  }
  stretches_.swap(going_on);
  return last_ + period_;
}

void monitor_job::tell(const watched_thread_v1& t, const stretch& s) {
  interrupted_thread where;
  interrupt(t.tid, with_.interrupting_signal, with_.patience, most_frames, where);
  look();
  if (stopped() || last_change(t) != s.since_change) return;  // it has switched just now, and that was somebody else
  long_run run;
  run.id = where.greenlet ? where.greenlet : t.id;
  run.name = where.name;
  run.is_main = t.is_main;
  run.is_hub = t.is_hub;
  run.tid = t.tid;
  run.thread = t.name;
  run.lasted = s.lasted;
  for (const place_in_code& p : where.places) describe(run.frames, p);
  try {
    with_.report(run);
  } catch (...) {
    report_unraisable(greenlet(), std::current_exception());
  }
}

}  // namespace detail

monitor::monitor(monitor_options with) : job_(std::make_shared<detail::monitor_job>(std::move(with))) {
  job_->begin();
  detail::watcher::add(job_);
}
monitor::monitor(monitor&& other) noexcept = default;
monitor& monitor::operator=(monitor&& other) noexcept {
  if (this != &other) {
    stop();
    job_ = std::move(other.job_);
  }
  return *this;
}
monitor::~monitor() { stop(); }

void monitor::stop() noexcept {
  if (const auto job = std::exchange(job_, nullptr)) detail::watcher::remove(job);
}

void write_long_run(std::ostream& out, const long_run& run) {
  detail::plainly(out, [&](std::ostream& to) { detail::write(to, run); });
  write_frames(out, run.frames);
}

}  // namespace greenlets
