// SPDX-License-Identifier: MIT
// process: a child with an owner.
#include <greenlet/hub/process.hpp>

#include "child.hpp"
#include "system.hpp"

#include <greenlet/hub/run.hpp>

#include <algorithm>
#include <cstring>
#include <exception>
#include <stdexcept>
#include <utility>

namespace greenlets::hub {
namespace {

// Throws unless it may be used here.
void check_thread(const detail::child& c) {
  if (!c.home->closed() && &*c.home != detail::loop::mine_if_any())
    throw error(errc::different_thread, "a process belongs to the hub of a different thread",
                "  process " + std::to_string(c.pid));
}

// What run_process() and the greenlets of its streams share. These may be left behind, and find their streams closed:
// nobody waits for them in a destructor, for which there might be no memory.
struct conversation {
  process p;
  process_result result;
  const process_limits limits;
  const bool whole_group;
  bool lost = false;            // a stream's greenlet has ended before its stream
  std::exception_ptr thrown;    // by it
  std::exception_ptr unkilled;  // why it cannot be killed
  unsigned working = 0;         // greenlets
  detail::wait_list progress{"process", nullptr};   // run_process() waits here

  conversation(const process_options& what, const process_limits& l) : p(what), limits(l), whole_group(what.new_session) {}

  void kill() noexcept {
    try {
      whole_group ? p.kill_group(SIGKILL) : p.kill(SIGKILL);
    } catch (const std::system_error&) {
      unkilled = std::current_exception();  // EPERM: it has made itself another user's
    }
    progress.wake_one();
  }
  void stop(std::errc why) noexcept {
    if (result.error) return;
    result.error = std::make_error_code(why);
    kill();
  }
  void gather(descriptor& from, std::string& to) {
    std::string buffer(65536, '\0');
    while (const io_result got = from.read_some(buffer.data(), buffer.size())) {
      const std::size_t room = limits.output - to.size();
      to.append(buffer, 0, std::min(got.bytes, room));
      if (got.bytes > room) return stop(std::errc::value_too_large);
    }
  }
  // Whether it can be told how the program has ended.
  bool done() {
    while (working > 0 && !result.error && !lost)
      if (!progress.wait(limits.until) && working > 0) return false;
    return result.error || lost || p.wait(limits.until);
  }
};

// Held by the function of a stream's greenlet. That may never be called, when there is no memory for its stack, and
// the program would wait for us.
class errand {
 public:
  explicit errand(std::shared_ptr<conversation> c) noexcept : of_(std::move(c)) { ++of_->working; }
  errand(errand&&) noexcept = default;
  errand& operator=(errand&&) = delete;
  ~errand() {
    if (of_) end(true);
  }
  // `f` gets the conversation.
  template <class F>
  void run(F& f) {
    try {
      f(*of_);
    } catch (const std::exception&) {
      of_->thrown = std::current_exception();
    }
    end(of_->thrown != nullptr);
  }

 private:
  void end(bool lost) noexcept {
    const auto c = std::move(of_);
    --c->working;
    if (lost) {
      c->lost = true;
      c->kill();
    }
    c->progress.wake_one();
  }
  std::shared_ptr<conversation> of_;
};

template <class F>
void start(const std::shared_ptr<conversation>& c, F f) {
  spawn([e = errand(c), f]() mutable { e.run(f); });
}

}  // namespace

std::string exit_status::text() const {
  if (signal == 0) return "exited with " + std::to_string(code);
  const char* const name = strsignal(signal);
  return "killed by signal " + std::to_string(signal) + " (" + name + ")";
}

process::process() noexcept = default;
process::process(process&& other) noexcept = default;

process::process(const process_options& what) {
  descriptor ours[3];
  child_ = detail::child::start(what, ours);
  in_ = std::move(ours[0]);
  out_ = std::move(ours[1]);
  err_ = std::move(ours[2]);
}

process& process::operator=(process&& other) noexcept {
  if (this == &other) return *this;
  const process before(std::move(*this));
  child_ = std::move(other.child_);
  in_ = std::move(other.in_);
  out_ = std::move(other.out_);
  err_ = std::move(other.err_);
  return *this;
}

process::~process() {
  if (child_) child_->let_go(true);
}

pid_t process::pid() const noexcept { return child_ ? child_->pid : 0; }

std::optional<exit_status> process::status() const noexcept { return child_ ? child_->status : std::nullopt; }

std::optional<exit_status> process::wait(deadline until) {
  const auto kept = child_;  // this object may go while we wait
  if (!kept) return std::nullopt;
  check_thread(*kept);
  while (kept->runs() && !kept->home->closed() && kept->ended.wait(until, true)) {
  }
  return kept->status;
}

bool process::kill(int signal) { return send(signal, false); }

bool process::kill_group(int signal) {
  if (child_ && !child_->leads_group)
    throw std::invalid_argument("greenlets::hub::process: kill_group() of a process without a session of its own");
  return send(signal, true);
}

bool process::send(int signal, bool to_group) {
  if (!child_) return false;
  check_thread(*child_);
  if (!child_->runs()) return false;
  detail::check(::kill(to_group ? -child_->pid : child_->pid, signal), "kill");
  return true;
}

void process::detach() noexcept {
  if (const auto left = std::exchange(child_, nullptr)) left->let_go(false);
}

process_result run_process(process_options what, std::string_view input, const process_limits& limits) {
  for (process_stream* s : {&what.in, &what.out, &what.err})
    if (s->is_inherited()) *s = process_stream::piped();
  const auto c = std::make_shared<conversation>(what, limits);
  struct leave {
    conversation& c;
    ~leave() { c.p = process(); }  // `input` is the caller's
  } at_any_exit{*c};
  if (c->p.out().is_open()) start(c, [](conversation& of) { of.gather(of.p.out(), of.result.out); });
  if (c->p.err().is_open()) start(c, [](conversation& of) { of.gather(of.p.err(), of.result.err); });
  if (c->p.in().is_open())
    start(c, [input](conversation& of) {
      of.p.in().write_all(input.data(), input.size());
      of.p.in().close();
    });
  if (!c->done()) c->stop(std::errc::timed_out);
  if (c->unkilled) std::rethrow_exception(c->unkilled);
  if (c->thrown) std::rethrow_exception(c->thrown);
  if (c->lost) throw cancelled();
  c->result.status = c->p.wait().value_or(exit_status{-1, 0});  // nothing: the hub has ended
  return std::move(c->result);
}

}  // namespace greenlets::hub
