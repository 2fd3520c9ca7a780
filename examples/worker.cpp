// SPDX-License-Identifier: MIT
// worker: jobs from a stream of Redis, done by any number of workers on any number of machines. Each job is a greenlet,
// and waits as if it were alone.
//
//   worker add 'a job' 'another'                        # or a job per line of standard input
//   worker run --exec 'convert-video "$JOB"'            # here, there, and once more
//
// What a job's author must know: a job is done at least once. A worker takes a job, does it, and only then says so;
// when it dies in between, or cannot reach Redis for longer than --idle, another one does the job again, from its
// beginning, perhaps while the first is still at it. So what a job does must be right when it is done twice: set and not
// add, write a file under the job's name and rename it, give JOB_ID to whom it pays as the payment's number. A job that
// fails is tried again when --idle has passed, and after --deliveries tries it goes to the stream STREAM:dead, with
// its id and how often it was tried; `worker add` brings it back.
#include <greenlet/hub.hpp>
#include <greenlet/hub/hiredis.hpp>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <mutex>
#include <random>
#include <set>
#include <stdexcept>
#include <string>
#include <unistd.h>
#include <vector>

namespace {

namespace hub = greenlets::hub;
namespace redis = greenlets::hub::hiredis;
using std::chrono::milliseconds;
using std::chrono::seconds;

struct options {
  std::string host = "127.0.0.1", socket;
  unsigned port = 6379;
  std::string stream = "jobs", group = "workers", exec;
  unsigned jobs = 16, idle = 30000, deliveries = 5, grace = 30, work = 0;
  std::vector<std::string> texts;
};

constexpr const char* usage =
    "Usage: worker add [OPTION...] [JOB...]    adds jobs; without any, each line of standard input is one\n"
    "       worker run [OPTION...]             does jobs until SIGTERM or SIGINT; then finishes what it has begun\n"
    "  --host NAME, --port N   where Redis is (127.0.0.1, 6379)\n"
    "  --socket PATH           its Unix domain socket, instead\n"
    "  --stream KEY            the stream of jobs (jobs); those that failed too often go to KEY:dead\n"
    "  --group NAME            the consumer group that the workers are (workers)\n"
    "run:\n"
    "  --exec COMMAND          what sh(1) does with a job: it is in JOB and on standard input, its id in JOB_ID; the job\n"
    "                          is done when it exits with 0. Without it, a job is added to the set KEY:done\n"
    "  --work MS               how long that takes, to try things out (0)\n"
    "  --jobs N                so many at once (16)\n"
    "  --idle MS               after so long without a sign of life a worker's jobs are others' (30000)\n"
    "  --deliveries N          so many tries (5)\n"
    "  --grace SECONDS         how long jobs may go on after the signal (30); others do the rest\n";

[[noreturn]] void fail_usage(const std::string& what) {
  std::fprintf(stderr, "worker: %s\n%s", what.c_str(), usage);
  std::exit(2);
}

unsigned number(const std::string& option, const std::string& text, unsigned least) {
  char* end = nullptr;
  const unsigned long n = std::strtoul(text.c_str(), &end, 10);
  if (text.empty() || text[0] < '0' || text[0] > '9' || *end || n < least || n > 1000000000)
    fail_usage(option + " takes a number from " + std::to_string(least) + " on");
  return static_cast<unsigned>(n);
}

options parse(char** arguments) {
  options o;
  for (; *arguments; ++arguments) {
    const std::string name = *arguments;
    if (name.rfind("--", 0) != 0) {
      o.texts.push_back(name);
      continue;
    }
    if (!arguments[1]) fail_usage("unknown or incomplete option " + name);
    const std::string text = *++arguments;
    if (name == "--host") o.host = text;
    else if (name == "--port") o.port = std::min(number(name, text, 1), 65535u);
    else if (name == "--socket") o.socket = text;
    else if (name == "--stream") o.stream = text;
    else if (name == "--group") o.group = text;
    else if (name == "--exec") o.exec = text;
    else if (name == "--work") o.work = number(name, text, 0);
    else if (name == "--jobs") o.jobs = number(name, text, 1);
    else if (name == "--idle") o.idle = number(name, text, 10);
    else if (name == "--deliveries") o.deliveries = number(name, text, 1);
    else if (name == "--grace") o.grace = number(name, text, 0);
    else fail_usage("unknown or incomplete option " + name);
  }
  return o;
}

bool begins(const redis::reply& r, const char* with) { return r.is_error() && r.text().rfind(with, 0) == 0; }

// A connection that comes back when Redis does. Any number of greenlets ask; each goes on asking until it has an answer,
// so that what it asks may be done twice.
class client {
 public:
  explicit client(const options& o) : options_(o) {}

  redis::reply ask(const redis::request& what, milliseconds patience = seconds(5)) {
    return insist([&] { return connection_.command(what, patience); });
  }
  // All or nothing; the answer is EXEC's.
  redis::reply ask_all(const redis::pipeline& transaction, milliseconds patience = seconds(5)) {
    return insist([&] { return connection_.run(transaction, patience).back(); });
  }
  long long id() const { return id_; }  // of CLIENT ID
  unsigned connections() const { return connections_; }

 private:
  template <class F>
  redis::reply insist(F once) {
    for (;;) {
      const unsigned by = connections_;
      redis::reply r = once();
      if (begins(r, "LOADING"))
        hub::sleep_for(milliseconds(100));
      else if (r.lost() || r.timed_out())
        connect_again(by);
      else
        return r;
    }
  }

  // Unless somebody else has done so meanwhile.
  void connect_again(unsigned instead_of) {
    const std::lock_guard one(turn_);
    if (connections_ != instead_of) return;
    milliseconds pause(25);
    for (int failures = 0;; ++failures) {
      const hub::deadline until = seconds(5);
      const hub::io_result r = options_.socket.empty()
                                   ? connect(connection_, options_.host, static_cast<std::uint16_t>(options_.port), until)
                                   : connect(connection_, hub::unix_address(options_.socket), until);
      const redis::reply own = r ? connection_.command({"CLIENT", "ID"}, until) : redis::reply::failed(r.error);
      if (own) {
        if (failures > 0) std::fprintf(stderr, "worker: Redis is there\n");
        id_ = own.integer();
        ++connections_;
        return;
      }
      if (failures == 0) std::fprintf(stderr, "worker: cannot reach Redis (%s), trying again\n", own.message().c_str());
      // Not all workers at once.
      hub::sleep_for(pause / 2 + milliseconds(random_() % static_cast<unsigned>(pause.count())));
      pause = std::min(pause * 2, milliseconds(5000));
    }
  }

  const options& options_;
  redis::connection connection_;
  hub::mutex turn_;
  unsigned connections_ = 0;
  long long id_ = 0;
  std::minstd_rand random_{std::random_device{}()};
};

struct job {
  std::string id, text;
};

class worker {
 public:
  explicit worker(const options& o) : options_(o), blocking_(o), shared_(o), free_(o.jobs), name_(own_name()) {}

  // Until a signal; false when something went wrong.
  bool run() {
    hub::signals signals({SIGTERM, SIGINT});
    const auto watches = hub::spawn([&] {
      signals.wait();
      stop_.set();
    });
    hub::group all;
    all.spawn([this] { guarded([this] { take(); }); });
    const auto renews = hub::every(idle() / 3, [this] { guarded([this] { renew(); }); });
    std::printf("%s takes jobs from %s\n", name_.c_str(), options_.stream.c_str());
    all_ = &all;
    stop_.wait();

    std::printf("stopping, %zu jobs at work\n", running_.size());
    const bool in_time = hub::with_timeout(seconds(options_.grace), [&] {
      // It may be just about to ask.
      while (taking_ && !done_taking_.wait(milliseconds(50))) shared_.ask({"CLIENT", "UNBLOCK", blocking_.id()});
      all.wait();
      leave();
    });
    if (!in_time) std::printf("leaves %zu jobs to others\n", running_.size());
    renews.cancel();
    watches.cancel();
    all.cancel();
    while (all.size() > 0) all.wait();
    renews.join();
    std::printf("did %llu jobs, %llu failed\n", done_, failures_);
    return !wrong_ && in_time;
  }

 private:
  milliseconds idle() const { return milliseconds(options_.idle); }

  static std::string own_name() {
    char host[256] = "";
    gethostname(host, sizeof host - 1);
    return std::string(host) + '-' + std::to_string(getpid()) + '-' + std::to_string(std::random_device{}() % 1000000);
  }

  // What goes wrong for good stops the worker.
  template <class F>
  void guarded(F f) {
    try {
      f();
    } catch (const std::exception& e) {
      std::fprintf(stderr, "worker: %s\n", e.what());
      wrong_ = true;
      stop_.set();
    }
  }
  static const redis::reply& checked(const redis::reply& r) {
    if (!r) throw std::runtime_error(r.message());
    return r;
  }

  // --- Taking jobs: one greenlet, and a connection of its own, where Redis lets it wait.

  void take() {
    struct told {
      worker& w;
      ~told() {
        w.taking_ = false;
        w.done_taking_.set();
      }
    } at_exit{*this};
    make_group();
    hub::clock::time_point sweep{};  // when to look for jobs of dead workers, and for those that failed
    for (;;) {
      const bool room = free_.acquire(1, milliseconds(50));  // no longer, to hear of a stop meanwhile
      if (room) free_.release();
      if (stop_.is_set()) return;
      if (!room) continue;
      if (const auto now = hub::clock::now(); now < sweep)
        take_new(std::chrono::ceil<milliseconds>(sweep - now));
      else if (take_over())
        sweep = now + idle() / 2;
    }
  }

  void make_group() {
    const redis::reply r = shared_.ask({"XGROUP", "CREATE", options_.stream, options_.group, 0, "MKSTREAM"});
    if (!begins(r, "BUSYGROUP")) checked(r);
  }

  void take_new(milliseconds at_most) {
    const milliseconds block = std::clamp(at_most, milliseconds(1), milliseconds(5000));  // 0 were for ever
    const redis::reply r = blocking_.ask({"XREADGROUP", "GROUP", options_.group, name_, "COUNT", free_.free(), "BLOCK",
                                          block.count(), "STREAMS", options_.stream, ">"},
                                         block + seconds(5));
    if (begins(r, "NOGROUP") || begins(r, "UNBLOCKED")) return make_group();  // somebody has deleted it
    for (const redis::reply& stream : checked(r))
      for (const redis::reply& entry : stream[1]) begin(entry, 1);
  }

  // Whether that was all there is.
  bool take_over() {
    const redis::reply r = blocking_.ask({"XAUTOCLAIM", options_.stream, options_.group, name_, options_.idle, cursor_,
                                          "COUNT", free_.free()});
    if (begins(r, "NOGROUP")) return make_group(), false;
    cursor_ = checked(r)[0].text();
    for (const redis::reply& entry : r[1]) {
      if (entry.size() != 2) continue;  // deleted from the stream meanwhile
      const redis::reply p = shared_.ask({"XPENDING", options_.stream, options_.group, entry[0].text(), entry[0].text(), 1});
      if (checked(p).size() == 1) begin(entry, p[0][3].integer());
    }
    if (cursor_ != "0-0") return false;
    forget_the_dead();
    return true;
  }

  // Names of workers that died, and have no jobs any more. By a script, so that none gets one at that moment.
  void forget_the_dead() {
    checked(shared_.ask({"EVAL",
                         "for _, c in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do local is = {} "
                         "for n = 1, #c, 2 do is[c[n]] = c[n + 1] end "
                         "if is.pending == 0 and is.idle > tonumber(ARGV[2]) then "
                         "redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], is.name) end end return 1",
                         1, options_.stream, options_.group, 10ull * std::max(options_.idle, 6000u)}));
  }

  // --- Doing them: a greenlet each, on one connection.

  // A job's place, and its name among those that are renewed.
  class place {
   public:
    place(worker& w, std::string id) : worker_(&w), id_(std::move(id)) { w.running_.insert(id_); }
    place(place&& other) noexcept : worker_(std::exchange(other.worker_, nullptr)), id_(std::move(other.id_)) {}
    place(const place&) = delete;
    place& operator=(const place&) = delete;
    ~place() {
      if (!worker_) return;
      worker_->running_.erase(id_);
      worker_->free_.release();
    }

   private:
    worker* worker_;
    std::string id_;
  };

  void begin(const redis::reply& entry, long long deliveries) {
    job j;
    j.id = entry[0].text();
    for (std::size_t n = 0; n + 1 < entry[1].size(); n += 2)
      if (entry[1][n].text() == "job") j.text = entry[1][n + 1].text();
    if (running_.count(j.id)) return;  // it was thought dead, and is here
    free_.acquire();
    all_->spawn([this, p = place(*this, j.id), j, deliveries] {
      guarded([&] {
        if (deliveries > options_.deliveries) return bury(j, deliveries);
        if (!perform(j)) {
          ++failures_;  // still ours for Redis: when it has been idle long enough, somebody tries again
          return;
        }
        redis::pipeline end;
        finish(end, j);
        checked(shared_.ask_all(end));
        ++done_;
      });
    });
  }

  // Replace this by what your jobs are.
  bool perform(const job& j) {
    if (options_.exec.empty()) {
      if (options_.work > 0) hub::sleep_for(milliseconds(options_.work));
      checked(shared_.ask({"SADD", options_.stream + ":done", j.text}));
      return true;
    }
    hub::process_options sh("sh", {"-c", options_.exec});
    sh.additions = {"JOB=" + j.text, "JOB_ID=" + j.id};
    sh.out = hub::process_stream::of(STDOUT_FILENO);
    sh.err = hub::process_stream::of(STDERR_FILENO);
    try {
      const hub::process_result r = hub::run_process(sh, j.text);
      if (!r) std::fprintf(stderr, "worker: job %s: %s\n", j.id.c_str(), r.status.text().c_str());
      return static_cast<bool>(r);
    } catch (const std::exception& e) {  // no more processes, for instance, or a zero byte in the text
      std::fprintf(stderr, "worker: job %s: %s\n", j.id.c_str(), e.what());
      return false;
    }
  }

  // Nobody will have it again. With nobody else's command between, on a connection that all jobs share.
  void finish(redis::pipeline& transaction, const job& j) const {
    if (transaction.size() == 0) transaction.add({"MULTI"});
    transaction.add({"XACK", options_.stream, options_.group, j.id});
    transaction.add({"XDEL", options_.stream, j.id});
    transaction.add({"EXEC"});
  }

  void bury(const job& j, long long deliveries) {
    redis::pipeline end;
    end.add({"MULTI"});
    end.add({"XADD", options_.stream + ":dead", "*", "job", j.text, "id", j.id, "deliveries", deliveries - 1});
    finish(end, j);
    checked(shared_.ask_all(end));
    std::fprintf(stderr, "worker: job %s failed too often\n", j.id.c_str());
  }

  // Says that what runs here is alive, or others would take it over. It does not count as a delivery (JUSTID).
  void renew() {
    if (running_.empty()) return;
    std::vector<std::string> words{"XCLAIM", options_.stream, options_.group, name_, "0"};
    words.insert(words.end(), running_.begin(), running_.end());
    words.emplace_back("JUSTID");
    checked(shared_.ask(words));
  }

  // Redis forgets the name, and with it what it had: only when that is nothing, and nothing can come any more, as
  // to a connection that was lost while Redis let it wait.
  void leave() {
    const redis::reply p = shared_.ask({"XPENDING", options_.stream, options_.group, "-", "+", 1, name_});
    if (p && p.size() == 0 && blocking_.connections() <= 1)
      shared_.ask({"XGROUP", "DELCONSUMER", options_.stream, options_.group, name_});
  }

  const options& options_;
  client blocking_, shared_;
  hub::semaphore free_;
  const std::string name_;
  std::set<std::string> running_;
  std::string cursor_ = "0-0";
  hub::event stop_, done_taking_;
  hub::group* all_ = nullptr;
  bool taking_ = true, wrong_ = false;
  unsigned long long done_ = 0, failures_ = 0;
};

// Says how many Redis has taken; those after a failure may be there or not.
int add(const options& o) {
  redis::connection c;
  const hub::io_result r = o.socket.empty() ? connect(c, o.host, static_cast<std::uint16_t>(o.port), seconds(5))
                                            : connect(c, hub::unix_address(o.socket), seconds(5));
  if (!r) throw std::runtime_error("cannot reach Redis: " + r.error.message());
  unsigned long long added = 0;
  redis::pipeline many;
  const auto send = [&] {
    for (const redis::reply& each : c.run(many, seconds(60))) {
      if (!each) throw std::runtime_error(each.message() + ", after " + std::to_string(added) + " jobs");
      ++added;
    }
    many.clear();
  };
  const auto take = [&](const std::string& text) {
    many.add({"XADD", o.stream, "*", "job", text});
    if (many.size() == 1000) send();
  };
  for (const std::string& text : o.texts) take(text);
  if (o.texts.empty())
    for (std::string line; std::getline(std::cin, line);) take(line);
  send();
  std::printf("added %llu jobs\n", added);
  return 0;
}

}  // namespace

int main(int, char** arguments) try {
  const std::string what = arguments[1] ? arguments[1] : "";
  if (what == "--help") return std::fputs(usage, stdout) < 0;
  if (what != "add" && what != "run") fail_usage("add or run?");
  const options o = parse(arguments + 2);
  if (what == "add") return add(o);
  if (!o.texts.empty()) fail_usage("run takes no jobs");
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  std::signal(SIGPIPE, SIG_IGN);  // standard output may be a pipe that has gone
  return worker(o).run() ? 0 : 1;
} catch (const std::exception& e) {
  std::fprintf(stderr, "worker: %s\n", e.what());
  return 1;
}
