// SPDX-License-Identifier: MIT
// Dumps on signals.
#include <greenlet/dump.hpp>

#include "running.hpp"
#include "watcher.hpp"
#include "writing.hpp"

#include <atomic>
#include <cerrno>
#include <csignal>
#include <filesystem>
#include <locale>
#include <sstream>
#include <stdexcept>
#include <system_error>
#include <unistd.h>
#include <utility>

namespace greenlets {
namespace detail {
namespace {

// All that a handler touches.
std::atomic<bool> asked_for[_NSIG];

void on_signal(int number) noexcept {
  asked_for[number].store(true, std::memory_order_release);
  watcher::wake();
}

bool in_use[_NSIG];  // by agreement

bool is_of_a_fault(int signal) noexcept {
  return signal == SIGSEGV || signal == SIGBUS || signal == SIGFPE || signal == SIGILL || signal == SIGTRAP;
}

void check(int signal) {
  if (signal <= 0 || signal >= _NSIG) throw std::invalid_argument("dump_on_signal: " + std::to_string(signal) + " is no signal");
  if (is_of_a_fault(signal) || signal == SIGKILL || signal == SIGSTOP)
    throw std::invalid_argument("dump_on_signal: signal " + std::to_string(signal) + " cannot be handled and then forgotten");
}

std::string written(const process_snapshot& s, dump_format format) {
  std::ostringstream out;
  out.imbue(std::locale::classic());  // else it is the program's global one
  switch (format) {
    case dump_format::json: write_json(out, s); break;
    case dump_format::dot: write_dot(out, s); break;
    case dump_format::text:
      out << "greenlet dump of process " << s.pid << '\n';  // for who looks for them in a log
      write_text(out, s);
      out << "greenlet dump ends\n\n";
  }
  std::string text = out.str();
  if (!text.empty() && text.back() != '\n') text += '\n';
  return text;
}

}  // namespace

class signal_job final : public watcher::job {
 public:
  signal_job(int signal, std::string file, int descriptor, const dump_options& with)
      : signal_(signal), file_(std::move(file)), descriptor_(descriptor), with_(with) {}
  ~signal_job() override = default;

  static signal_dump start(int signal, std::string file, int descriptor, const dump_options& with);
  void begin();
  void end() noexcept;
  std::optional<watcher::clock::time_point> run() override;

 private:
  void dump();

  const int signal_;
  const std::string file_;
  const int descriptor_;  // without a file
  dump_options with_;
  struct sigaction before_ = {};
  watcher::clock::time_point next_ = watcher::clock::time_point::min();
};

// Claims the signal, then handles it: one that comes at once finds somebody who waits for it.
void signal_job::begin() {
  check(signal_);
  with_.interrupting_signal = prepare_interrupts(with_.interrupting_signal);
  if (with_.interrupting_signal == signal_) throw std::invalid_argument("dump_on_signal: one signal for two purposes");
  want_signal_stacks();
  const auto lock = watcher::agreement();
  if (in_use[signal_])
    throw std::invalid_argument("dump_on_signal: there is a dump on signal " + std::to_string(signal_) + " already");
  asked_for[signal_].store(false, std::memory_order_relaxed);
  struct sigaction ours = {};
  ours.sa_handler = on_signal;
  sigfillset(&ours.sa_mask);
  ours.sa_flags = SA_RESTART | SA_ONSTACK;
  if (sigaction(signal_, &ours, &before_) != 0) throw std::system_error(errno, std::system_category(), "sigaction");
  in_use[signal_] = true;
}

void signal_job::end() noexcept {
  const auto lock = watcher::agreement();
  struct sigaction now = {};
  if (sigaction(signal_, nullptr, &now) == 0 && !(now.sa_flags & SA_SIGINFO) && now.sa_handler == on_signal)
    sigaction(signal_, &before_, nullptr);
  in_use[signal_] = false;
}

signal_dump signal_job::start(int signal, std::string file, int descriptor, const dump_options& with) {
  auto job = std::make_shared<signal_job>(signal, std::move(file), descriptor, with);
  job->begin();
  try {
    watcher::add(job);
  } catch (...) {
    job->end();
    throw;
  }
  return signal_dump(std::move(job));
}

std::optional<watcher::clock::time_point> signal_job::run() {
  if (!asked_for[signal_].load(std::memory_order_acquire)) return std::nullopt;
  if (watcher::clock::now() < next_) return next_;
  asked_for[signal_].store(false, std::memory_order_release);  // what comes from here on is another one
  dump();
  next_ = bell::in(with_.apart);
  return asked_for[signal_].load(std::memory_order_acquire) ? std::optional(next_) : std::nullopt;
}

void signal_job::dump() {
  const auto s = snapshot_with_running(with_.snapshot, {with_.interrupting_signal, with_.patience});
  const std::string text = written(s, with_.format);
  const auto stopped = [this] { return this->stopped(); };
  if (file_.empty())
    write_all(descriptor_, text, stopped);
  else if (with_.replace)
    replace(file_, text, stopped);
  else
    append_to(file_, text, stopped);
}

}  // namespace detail

signal_dump::signal_dump() noexcept = default;
signal_dump::signal_dump(std::shared_ptr<detail::signal_job> job) noexcept : job_(std::move(job)) {}
signal_dump::signal_dump(signal_dump&& other) noexcept = default;
signal_dump& signal_dump::operator=(signal_dump&& other) noexcept {
  if (this != &other) {
    stop();
    job_ = std::move(other.job_);
  }
  return *this;
}
signal_dump::~signal_dump() { stop(); }

void signal_dump::stop() noexcept {
  if (const auto job = std::exchange(job_, nullptr)) {
    job->end();
    detail::watcher::remove(job);
  }
}

signal_dump dump_on_signal(int signal, std::string file, dump_options with) {
  if (file.empty()) throw std::invalid_argument("dump_on_signal: a file without a name");
  return detail::signal_job::start(signal, std::filesystem::absolute(file).string(), -1, with);  // daemons go to /
}

signal_dump dump_on_signal(int signal, int descriptor, dump_options with) {
  return detail::signal_job::start(signal, {}, descriptor, with);
}

}  // namespace greenlets
