// SPDX-License-Identifier: MIT
// Programs that end, are killed or detached, and what run_process() allows them.
#include "hub_programs.hpp"

#include <algorithm>
#include <csignal>
#include <memory>
#include <optional>
#include <stdexcept>
#include <system_error>
#include <thread>
#include <vector>

// Under ThreadSanitizer the end of a child is sometimes not told: t/fault_hub.cpp.
#ifndef T_TSAN

using namespace greenlets;
using namespace testing;
using hub::process;
using hub::process_options;
using hub::process_stream;
using hub::run_process;

namespace {

// Whether it is a process of ours that runs, or a zombie.
bool is_our_child(pid_t pid) {
  siginfo_t info;
  return waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOHANG | WNOWAIT) == 0;
}

bool exists(pid_t pid) { return kill(pid, 0) == 0; }

}  // namespace

// -- Ends ------------------------------------------------------------------------------------------

TEST_CASE("signals are sent to what runs, and to nobody when it has been reaped") {
  hub_guard guard;
  process p(endless());
  CHECK(p.kill(0));
  CHECK_THROWS_AS(p.kill(10000), std::system_error);
  CHECK_THROWS_AS(p.kill_group(), std::invalid_argument);
  CHECK(p.kill());
  const auto status = p.wait(hang_guard());
  REQUIRE(status);
  CHECK(status->signal == SIGTERM);
  CHECK(status->code == 0);
  CHECK(status->text() == "killed by signal 15 (Terminated)");
  CHECK_FALSE(is_our_child(p.pid()));
  CHECK_FALSE(p.kill());

  // Somebody else kills it.
  process q(endless());
  REQUIRE(kill(q.pid(), SIGKILL) == 0);
  CHECK(q.wait(hang_guard())->signal == SIGKILL);
}

TEST_CASE("an object that goes kills and reaps, and one that is assigned to does") {
  hub_guard guard;
  pid_t pid;
  {
    process p(with_pipes(endless()));
    pid = p.pid();
    REQUIRE(kill(pid, SIGSTOP) == 0);
  }
  yield_until([&] { return !is_our_child(pid); });
  process p(endless()), q(endless());
  pid = p.pid();
  const pid_t other = q.pid();
  p = std::move(q);
  CHECK(p.pid() == other);
  CHECK(q.pid() == 0);
  yield_until([&] { return !is_our_child(pid); });
  process& same = p;
  p = std::move(same);
  CHECK(p.kill(0));
  p = process();
  yield_until([&] { return !is_our_child(other); });
}

TEST_CASE("with a session of its own the whole group is killed") {
  hub_guard guard;
  process_options o = shell("sleep 1000 & echo started; wait");
  o.new_session = true;
  o.out = process_stream::piped();
  hub::descriptor out;
  {
    process p(o);
    out = std::move(p.out());
    CHECK(read_line(out) == "started");
  }
  CHECK(read_to_end(out).empty());  // sleep has it, too
  process p(o);
  CHECK(read_line(p.out()) == "started");
  CHECK(p.kill_group());
  CHECK(p.wait(hang_guard())->signal == SIGTERM);
  CHECK(read_to_end(p.out()).empty());
  CHECK_FALSE(p.kill_group());
}

TEST_CASE("what is detached goes on, and is reaped when it ends") {
  hub_guard guard;
  pid_t pid;
  process p(with_pipes({"cat"}));
  pid = p.pid();
  p.detach();
  CHECK(p.pid() == 0);
  CHECK_FALSE(p.kill());
  CHECK_FALSE(p.wait().has_value());
  p.detach();
  REQUIRE(p.in().write_all("still\n", 6));
  CHECK(read_line(p.out()) == "still");
  p.in().close();
  yield_until([&] { return !is_our_child(pid); });
}

TEST_CASE("any number of greenlets wait: some until a deadline, one is cancelled, and the object may go") {
  hub_guard guard;
  auto p = std::make_unique<process>(endless());
  std::vector<hub::task<std::optional<hub::exit_status>>> waiting;
  for (int n = 0; n < 10; ++n) waiting.push_back(hub::spawn([&] { return p->wait(hang_guard()); }));
  auto late = hub::spawn([&] { return p->wait(milliseconds(1)); });
  auto cancelled = hub::spawn([&] { return p->wait(); });
  yield_until_waiting(12);
  CHECK_FALSE(late.get().has_value());
  cancelled.cancel();
  CHECK_THROWS_AS(cancelled.get(), hub::cancelled);
  CHECK_FALSE(p->status().has_value());
  p.reset();
  for (auto& w : waiting) CHECK(w.get()->signal == SIGKILL);
}

TEST_CASE("no process, another thread, and a forked process") {
  hub_guard guard;
  process none;
  CHECK(none.pid() == 0);
  CHECK_FALSE(none.wait().has_value());
  CHECK_FALSE(none.status().has_value());
  CHECK_FALSE(none.kill());
  CHECK_FALSE(none.kill_group());

  process p(endless());
  std::thread([&] {
    CHECK(error_of([&] { p.wait(); }) == errc::different_thread);
    CHECK(error_of([&] { p.kill(); }) == errc::different_thread);
  }).join();

  const child c = in_child([&] {
    if (p.kill(SIGKILL) || p.wait().has_value()) _exit(2);
    p = process();  // it is the parent's
  });
  CHECK(c.status == 0);
  hub::sleep_for(milliseconds(1));
  CHECK_FALSE(p.status().has_value());
  CHECK(p.kill(0));
}

TEST_CASE("waiting for an end is no deadlock, and ends with the hub") {
  std::optional<process> p;
  bool unwound = false;
  {
    hub_guard guard;
    CHECK(process({"true"}).wait()->success());
    p.emplace(endless());
    const pid_t pid = p->pid();
    auto waits = hub::spawn([&, at_exit = at_end([&] { unwound = true; })] { p->wait(); });
    yield_until_waiting(1);
    hub::shutdown();
    CHECK(unwound);
    // It runs on, and has its owner.
    CHECK(exists(pid));
    CHECK_FALSE(p->wait().has_value());
    CHECK(p->kill(0));
    p.reset();
    CHECK_FALSE(is_our_child(pid));
  }
  CHECK(hub::statistics().turns == 0);
}

TEST_CASE("a hub that ends reaps what has been killed, and leaves what was detached to a later one") {
  pid_t killed, left;
  std::string what = "cat";
  hub::this_hub();
  {
    process p(endless()), q(with_pipes({"cat"})), owned({"true"});
    killed = p.pid();
    left = q.pid();
    q.detach();
    p = process();
    hub::shutdown();
    CHECK_FALSE(is_our_child(killed));
    CHECK(is_our_child(left));
    CHECK_FALSE(q.in().write_all("x", 1));  // closed: and cat ends when it goes
  }
  siginfo_t info;
  REQUIRE(waitid(P_PID, static_cast<id_t>(left), &info, WEXITED | WNOWAIT) == 0);
  CHECK(is_our_child(left));  // a zombie
  {
    hub_guard guard;
    CHECK(run_process({"true"}));
    CHECK_FALSE(is_our_child(left));
  }
  // The next start finds one that still runs, and lets it.
  hub::this_hub();
  int to_cat;
  {
    process q(with_pipes({"cat"}));
    left = q.pid();
    to_cat = dup(q.in().fd());
    q.detach();
    hub::shutdown();
  }
  {
    hub_guard guard;
    CHECK(run_process({"true"}));
    CHECK(is_our_child(left));
    close(to_cat);
    REQUIRE(waitid(P_PID, static_cast<id_t>(left), &info, WEXITED | WNOWAIT) == 0);
    CHECK(run_process({"true"}));
    CHECK_FALSE(is_our_child(left));
  }
}

TEST_CASE("a thread may end with processes, and each of several hubs is told of its own") {
  hub_guard guard;
  pid_t left[4];
  std::size_t right[4] = {};
  std::vector<std::thread> threads;
  for (std::size_t n = 0; n < 4; ++n)
    threads.emplace_back([&, n] {
      hub::spawn([&, n] {
        process p(endless());
        left[n] = p.pid();
        hub::sleep_for(hours(1));
      });
      for (int round = 0; round < 25; ++round)
        if (process(shell("exit " + std::to_string(n))).wait(hang_guard())->code == static_cast<int>(n)) ++right[n];
    });
  for (int round = 0; round < 25; ++round) CHECK(process(shell("exit 9")).wait(hang_guard())->code == 9);
  for (auto& t : threads) t.join();
  for (std::size_t n = 0; n < 4; ++n) {
    CHECK(right[n] == 25);
    CHECK_FALSE(is_our_child(left[n]));
  }
}

TEST_CASE("a thousand in sequence, and fifty at once") {
  hub_guard guard;
  unsigned right = 0;
  const unsigned sequence = times(freed_memory_is_kept() ? 200 : 1000);
  for (unsigned n = 0; n < sequence; ++n) {
    process p({"true"});
    if (p.wait(hang_guard())->success()) ++right;
  }
  CHECK(right == sequence);
  std::vector<hub::task<bool>> tasks;
  for (int n = 0; n < 50; ++n)
    tasks.push_back(hub::spawn([n] {
      const auto text = std::to_string(n);
      const auto r = run_process(shell("read line; echo $line; exit " + text), text + "\n");
      return r.out == text + "\n" && r.status.code == n;
    }));
  for (auto& t : tasks) CHECK(t.get());
  CHECK_FALSE(has_children());
}

// -- run_process: limits ---------------------------------------------------------------------------

TEST_CASE("more output than allowed kills the program, and what is allowed is kept") {
  hub_guard guard;
  hub::process_limits limits;
  limits.output = 100'000;
  auto r = run_process({"yes"}, {}, limits);
  CHECK(r.error == std::errc::value_too_large);
  CHECK_FALSE(r);
  CHECK(r.status.signal == SIGKILL);
  CHECK(r.out.size() == 100'000);
  process_options both = shell("yes & yes >&2");
  both.new_session = true;
  r = run_process(both, {}, limits);
  CHECK(r.error == std::errc::value_too_large);
  CHECK(std::max(r.out.size(), r.err.size()) == 100'000);
  limits.output = 3;
  CHECK(run_process({"echo", {"ab"}}, {}, limits));
}

TEST_CASE("a deadline kills the program; others that have its output open are waited for until then") {
  hub_guard guard;
  hub::process_limits limits;
  limits.until = milliseconds(50);
  auto r = run_process(shell("exec sleep 1000"), {}, limits);
  CHECK(r.timed_out());
  CHECK(r.status.signal == SIGKILL);
  // With its outputs closed.
  limits.until = milliseconds(50);
  r = run_process(shell("exec sleep 1000 >&- 2>&-"), {}, limits);
  CHECK(r.timed_out());
  CHECK(r.status.signal == SIGKILL);
  // Whose child has them.
  limits.until = seconds(1);
  r = run_process(shell("sleep 1000 & echo $!"), {}, limits);
  CHECK(r.timed_out());
  CHECK(r.status.success());
  const pid_t grandchild = std::stoi(r.out);
  CHECK(exists(grandchild));
  CHECK(kill(grandchild, SIGKILL) == 0);
}

TEST_CASE("one that has become another user's and cannot be killed does not keep who waits for it") {
  if (geteuid() != 0) return;
  const child c = in_child([] {
    hub_guard guard;
    hub::process_limits limits;
    limits.until = milliseconds(50);
    auto runs = hub::spawn([&] { run_process({"sleep", {"1"}}, {}, limits); });
    yield_until_waiting(3);  // it, and one for each output
    if (setresuid(54321, 54321, 0) != 0) _exit(2);
    try {
      runs.get();
      _exit(3);
    } catch (const std::system_error& e) {
      if (e.code() != std::errc::operation_not_permitted || !says(e, "kill")) _exit(4);
    }
    if (setresuid(0, 0, 0) != 0) _exit(5);
  });
  CHECK(c.status == 0);
}

TEST_CASE("who is cancelled while a program runs has it killed and reaped") {
  hub_guard guard;
  const std::string much(1'000'000, 'x');
  auto runs = hub::spawn([&] { run_process(endless(), much); });
  yield_until_waiting(4);  // it, and one for each stream
  runs.cancel();
  CHECK_THROWS_AS(runs.get(), hub::cancelled);
  yield_until([] { return !has_children(); });
}

#endif
