// SPDX-License-Identifier: MIT
// The monitor: greenlets that run for long without a switch.
#include "watched.hpp"

#include <greenlet/dump.hpp>
#include <greenlet/monitor.hpp>

#include <algorithm>
#include <fcntl.h>
#include <mutex>
#include <poll.h>
#include <sstream>
#include <stdexcept>
#include <sys/wait.h>

using namespace watched;

namespace {

struct reports {
  std::mutex lock;
  std::vector<long_run> all;
  std::size_t count() {
    const std::lock_guard guard(lock);
    return all.size();
  }
  monitor_options options(milliseconds limit) {
    monitor_options o;
    o.limit = limit;
    o.patience = seconds(30);
    o.report = [this](const long_run& r) {
      const std::lock_guard guard(lock);
      all.push_back(r);
    };
    return o;
  }
};

bool has(const std::vector<frame>& all, const char* name) {
  return std::any_of(all.begin(), all.end(), [&](const frame& f) { return f.function.find(name) == 0; });
}

}  // namespace

TEST_CASE("the monitor tells of a greenlet that runs for long, once, and where it is") {
  reports seen;
  const monitor m(seen.options(milliseconds(20)));
  bool came = false;
  greenlet g(attributes().name("long"), [&] {
    came = t_blocks([&] { return seen.count() > 0; });
    std::this_thread::sleep_for(milliseconds(100));  // five times the limit, and it is not told again
    switch_to_parent();
    came = came && t_blocks_otherwise([&] { return seen.count() > 1; });  // another stretch is
  });
  g.switch_to();
  CHECK(seen.count() == 1);
  g.switch_to();
  CHECK(came);
  CHECK(seen.count() == 2);
  for (std::size_t i = 0; i < seen.all.size(); ++i) {
    const long_run& r = seen.all[i];
    std::ostringstream text;
    write_long_run(text, r);
    INFO(text.str());
    CHECK(r.tid == getpid());
    CHECK_FALSE(r.is_main);
    CHECK_FALSE(r.is_hub);
    CHECK(r.lasted >= milliseconds(20));
    CHECK(r.id == g.id());
    if (!frames_are_there()) continue;
    CHECK(r.name == "long");
    CHECK(has(r.frames, i == 0 ? "t_blocks(" : "t_blocks_otherwise("));
    CHECK(text.str().find("greenlet " + std::to_string(g.id()) + " \"long\" of thread " + std::to_string(getpid())) != std::string::npos);
    CHECK(text.str().find(" ms without a switch:\n  0x") != std::string::npos);
  }
}

TEST_CASE("one that switches, though always from the same place to the same one, does not run for long") {
  reports seen;
  const monitor m(seen.options(milliseconds(200)));
  std::atomic<bool> enough{false};
  // Nearly all the time it is this one that runs.
  greenlet other([&] {
    while (!enough) switch_to_parent();
  });
  greenlet busy([&] {
    const auto end = steady::now() + seconds(1);
    while (steady::now() < end) {
      const auto next = steady::now() + milliseconds(2);
      while (steady::now() < next) continue;
      other.set_parent(current());
      other.switch_to();
    }
  });
  busy.switch_to();
  enough = true;
  other.set_parent(main_greenlet());
  other.switch_to();
  CHECK(seen.count() == 0);
}

TEST_CASE("main greenlets of threads without a hub are told of only when that is asked for") {
  reports seen;
  reports others;
  auto with = others.options(milliseconds(20));
  with.main_without_hub = true;
  const monitor m(seen.options(milliseconds(5)));
  monitor n(with);
  current();
  CHECK(t_blocks([&] { return others.count() > 0; }));
  n.stop();
  CHECK(seen.count() == 0);
  REQUIRE(others.count() == 1);
  CHECK(others.all[0].is_main);
  CHECK(others.all[0].id == current().id());
  if (frames_are_there()) CHECK(has(others.all[0].frames, name_of_blocked));
}

TEST_CASE("a thread that blocks the signal is told without frames") {
  reports seen;
  auto with = seen.options(milliseconds(20));
  with.interrupting_signal = SIGRTMIN + 4;
  const monitor m(with);
  bool came = false;
  sigset_t all;
  sigset_t mask;
  sigemptyset(&all);
  sigaddset(&all, SIGRTMIN + 4);
  greenlet g([&] {
    pthread_sigmask(SIG_BLOCK, &all, &mask);
    came = t_blocks([&] { return seen.count() > 0; });
    pthread_sigmask(SIG_SETMASK, &mask, nullptr);
  });
  g.switch_to();
  CHECK(came);
  REQUIRE(seen.count() >= 1);
  CHECK(seen.all[0].frames.empty());
  CHECK(seen.all[0].id == g.id());
  std::ostringstream text;
  write_long_run(text, seen.all[0]);
  CHECK(text.str().find("; its thread does not tell where\n") != std::string::npos);
}

TEST_CASE("a report may stop its monitor, and what it throws goes to the unraisable handler") {
  std::atomic<int> calls{0};
  std::atomic<int> caught{0};
  const auto before = set_unraisable_handler([&](const greenlet& g, std::exception_ptr) { caught += g.empty() ? 1 : 100; });
  monitor m = [&] {
    monitor_options o;
    o.limit = milliseconds(5);
    o.report = [&](const long_run&) {
      m.stop();
      ++calls;
      throw std::runtime_error("reported");
    };
    return monitor(o);
  }();
  greenlet([&] { t_blocks([&] { return calls > 0; }); }).switch_to();
  const monitor next;  // on a thread of its own: that one is ending
  CHECK(comes([&] { return caught > 0; }));
  CHECK(calls == 1);
  CHECK(caught == 1);
  set_unraisable_handler(before);
}

TEST_CASE("without anything to call, reports go to standard error") {
  int ends[2];
  REQUIRE(pipe2(ends, O_CLOEXEC) == 0);
  const int standard_error = dup(STDERR_FILENO);
  dup2(ends[1], STDERR_FILENO);
  {
    monitor m;
    m = monitor([] {
      monitor_options o;
      o.limit = milliseconds(5);
      o.patience = seconds(30);
      return o;
    }());
    greenlet([&] {
      t_blocks([&] {
        pollfd p = {ends[0], POLLIN, 0};
        return poll(&p, 1, 0) == 1;
      });
    }).switch_to();
  }
  dup2(standard_error, STDERR_FILENO);
  close(standard_error);
  close(ends[1]);
  std::string text;
  char part[4096];
  for (ssize_t n; (n = read(ends[0], part, sizeof part)) > 0;) text.append(part, static_cast<std::size_t>(n));
  close(ends[0]);
  INFO(text);
  CHECK(text.find("greenlet: greenlet ") == 0);
  if (frames_are_there()) CHECK(count(text, name_of_blocked) == 1);
}

TEST_CASE("a report is one line and its frames, whatever the names are") {
  long_run run;
  run.id = 12345;
  run.name = "a\"b\nc\x1b[31m";
  run.thread = "\xff";
  run.tid = 67890;
  std::ostringstream out;
  out << std::hex;
  write_long_run(out, run);
  CHECK(out.str() == "greenlet: greenlet 12345 \"a\\\"b\\x0ac\\x1b[31m\" of thread 67890 \"\\xff\" has been running for 0 ms without a"
                     " switch; its thread does not tell where\n");
}

#ifdef T_HUB
TEST_CASE("a hub that waits for events is not told of; who blocks its loop is, in a dump with how long") {
  struct guard {
    ~guard() { hub::shutdown(); }
  } at_end;
  const directory d;
  reports seen;
  const auto dumps = dump_on_signal(SIGUSR1, d / "dump", patient());
  const monitor m(seen.options(milliseconds(100)));
  bool came = false;
  std::uint64_t id = 0;
  hub::run([&] {
    hub::sleep_for(milliseconds(500));
    CHECK(seen.count() == 0);
    auto t = hub::spawn([&] {
      id = current().id();
      came = t_blocks([&] { return seen.count() > 0; });
      kill(getpid(), SIGUSR1);
      came = came && t_blocks([&] { return has_dumps(d / "dump", 1); });
    });
    t.join();
    hub::sleep_for(milliseconds(300));
  });
  CHECK(came);
  REQUIRE(seen.count() >= 1);
  CHECK(seen.all[0].id == id);
  CHECK_FALSE(seen.all[0].is_hub);
  const std::string text = contents(d / "dump");
  INFO(text);
  CHECK(text.find(", in this turn of its hub for ") != std::string::npos);
  if (!frames_are_there()) return;
  CHECK(has(seen.all[0].frames, name_of_blocked));
  CHECK(count(text, name_of_blocked) == 1);
}

TEST_CASE("a hub that waits for events is told so, and its thread is not interrupted") {
  struct guard {
    ~guard() { hub::shutdown(); }
  } at_end;
  const directory d;
  std::atomic<bool> enough{false};
  std::atomic<bool> begun{false};
  std::thread other([&] {
    hub::run([&] {
      hub::event woken;
      hub::spawn([&] {
        while (!enough) hub::sleep_for(milliseconds(100));
        woken.set();
      });
      begun = true;
      woken.wait();
    });
    hub::shutdown();
  });
  CHECK(comes([&] { return begun.load(); }));
  std::this_thread::sleep_for(milliseconds(50));  // when it takes longer, another dump has it
  const auto dumps = dump_on_signal(SIGUSR1, d / "dump");
  CHECK(comes([&] { return count(dump_now(SIGUSR1, d / "dump"), "waits for events") >= 1; }));
  enough = true;
  other.join();
}
#endif
