// SPDX-License-Identifier: MIT
// Programs that are started, pipes and FIFOs, terminals.
#include "hub_testing.hpp"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <future>
#include <sstream>
#include <stdexcept>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <system_error>
#include <termios.h>
#include <thread>

using namespace greenlets;
using namespace testing;
using hub::process;
using hub::process_options;
using hub::process_stream;
using hub::run_process;

#ifdef T_TSAN
// libuv has a pipe while it starts a program, and closes it by system calls that the sanitizer does not see. To it the
// next thread that gets the number races with the one that had it.
extern "C" __attribute__((visibility("default"))) const char* __tsan_default_suppressions() {
  return "race:uv_pipe\nrace:uv_spawn\n";
}
#endif

namespace {

process_options shell(const std::string& script) { return {"sh", {"-c", script}}; }

process_options with_pipes(process_options o) {
  o.in = o.out = o.err = process_stream::piped();
  return o;
}

// Waits for something that is not to come before what is tested ends it.
process_options endless() { return {"sleep", {"1000"}}; }

// Whether it is a process of ours that runs, or a zombie.
bool is_our_child(pid_t pid) {
  siginfo_t info;
  return waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOHANG | WNOWAIT) == 0;
}

bool has_children() {
  siginfo_t info;
  return waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0;
}

bool exists(pid_t pid) { return kill(pid, 0) == 0; }

std::string read_line(hub::descriptor& d) {
  std::string line;
  for (char c; d.read_some(&c, 1, hang_guard()) && c != '\n';) line += c;
  return line;
}

std::system_error system_error_of(const process_options& o) {
  try {
    const process p(o);
  } catch (const std::system_error& e) {
    return e;
  }
  FAIL("was started");
  return {0, std::generic_category()};
}

bool says(const std::exception& e, const std::string& what) { return std::string(e.what()).find(what) != std::string::npos; }

// A limit of this process, for a scope.
struct limited {
  limited(__rlimit_resource which, rlim_t most) : which_(which) {
    getrlimit(which, &before_);
    rlimit now = before_;
    now.rlim_cur = most;
    REQUIRE(setrlimit(which, &now) == 0);
  }
  ~limited() { setrlimit(which_, &before_); }
  __rlimit_resource which_;
  rlimit before_;
};

int lowest_free() {
  const int fd = dup(0);
  close(fd);
  return fd;
}

// A directory with nothing in it, removed with what is in it then.
struct directory {
  std::string path = "/tmp/hub_process.XXXXXX";
  directory() {
    REQUIRE(mkdtemp(path.data()));
  }
  ~directory() {
    unlink((path + "/fifo").c_str());
    rmdir(path.c_str());
  }
};

}  // namespace

// -- Starting, and the streams ---------------------------------------------------------------------

TEST_CASE("a program is given its input, its output comes back, and its end is told") {
  hub_guard guard;
  const hub::process_result r = run_process({"sort", {"-n"}}, "3\n1\n2\n");
  CHECK(r);
  CHECK(r.out == "1\n2\n3\n");
  CHECK(r.err.empty());
  const hub::process_result failed = run_process(shell("echo no >&2; exit 3"));
  CHECK_FALSE(failed);
  CHECK_FALSE(failed.error);
  CHECK(failed.status.code == 3);
  CHECK(failed.out.empty());
  CHECK(failed.err == "no\n");
}

TEST_CASE("an end is told to people") {
  CHECK(hub::exit_status{3, 0}.text() == "exited with 3");
  CHECK(hub::exit_status{0, 9}.text() == "killed by signal 9 (Killed)");
  CHECK(hub::exit_status{}.success());
  CHECK_FALSE(hub::exit_status{0, 9}.success());
  CHECK_FALSE(hub::exit_status{1, 0}.success());
}

TEST_CASE("a conversation by pipes, while other greenlets go on") {
  hub_guard guard;
  process p(with_pipes({"cat"}));
  CHECK(p.pid() > 0);
  CHECK_FALSE(p.status().has_value());
  int others = 0;
  auto counting = hub::spawn([&] {
    for (;; hub::yield()) ++others;
  });
  for (const char* line : {"one\n", "two\n", "three\n"}) {
    REQUIRE(p.in().write_all(line, std::strlen(line), hang_guard()));
    CHECK(read_line(p.out()) + "\n" == line);
  }
  CHECK_FALSE(p.wait(milliseconds(5)).has_value());
  CHECK(others > 0);
  counting.cancel();
  p.in().close();
  CHECK(read_to_end(p.out()).empty());
  const auto status = p.wait(hang_guard());
  REQUIRE(status);
  CHECK(status->success());
  CHECK(p.status()->success());
  CHECK(p.wait(hub::clock::time_point())->success());
}

TEST_CASE("megabytes in all three streams at once are no deadlock") {
  hub_guard guard;
  const std::string sent = pattern(4'000'000);
  const hub::process_result r = run_process({"tee", {"/dev/stderr"}}, sent);
  CHECK(r);
  CHECK(r.out == sent);
  CHECK(r.err == sent);
  CHECK(run_process({"head", {"-c", "10485760", "/dev/zero"}}).out == std::string(10485760, '\0'));
  // Who does not read is no error.
  CHECK(run_process({"true"}, sent));
}

TEST_CASE("streams are inherited as they are, and not made to block") {
  std::fflush(stdout);
  const child c = in_child([] {
    hub_guard guard;
    int ends[2];
    if (pipe(ends) != 0 || write(ends[1], "from here", 9) != 9) _exit(2);
    close(ends[1]);
    dup2(ends[0], 0);
    for (int fd : {0, 1}) fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    process p({"cat"});
    if (p.in().is_open() || p.out().is_open() || p.err().is_open()) _exit(3);
    if (!p.wait(hang_guard())->success()) _exit(4);
    for (int fd : {0, 1})
      if (!(fcntl(fd, F_GETFL) & O_NONBLOCK)) _exit(5);
  });
  CHECK(c.status == 0);
  CHECK(c.output == "from here");
}

TEST_CASE("in a program without standard streams pipes work, and what is inherited is /dev/null") {
  const child c = in_child([] {
    for (int fd : {0, 1, 2}) close(fd);
    hub_guard guard;
    const auto r = run_process(shell("cat; echo error >&2"), "input");
    if (!r || r.out != "input" || r.err != "error\n") _exit(2);
    process p(shell("cat && echo lost && echo lost >&2 && exit 7"));
    if (p.wait(hang_guard())->code != 7) _exit(3);
    if (fcntl(0, F_GETFD) >= 0) _exit(4);
  });
  CHECK(c.status == 0);
  CHECK(c.output.empty());
}

TEST_CASE("/dev/null, a given descriptor, and errors where the output goes") {
  hub_guard guard;
  process_options o = shell("cat; echo out; echo err >&2");
  o.in = process_stream::null();
  o.err = process_stream::as_out();
  CHECK(run_process(o).out == "out\nerr\n");

  auto [here, there] = socket_pair();  // non-blocking, which a program does not expect
  o = {"cat"};
  o.in = o.out = process_stream::of(there.fd());
  o.err = process_stream::null();
  process p(o);
  CHECK_FALSE((fcntl(there.fd(), F_GETFL) & O_NONBLOCK));
  there.close();
  REQUIRE(here.write_all("hello\n", 6));
  CHECK(read_line(here) == "hello");
  here.close();
  CHECK(p.wait(hang_guard())->success());

  // The other way round: neither may overwrite the other.
  auto [out, to_out] = pipe_pair();
  auto [err, to_err] = pipe_pair();
  const int low[] = {dup(to_out.fd()), dup(to_err.fd())};
  o = shell("echo out; echo err >&2");
  o.out = process_stream::of(std::max(low[0], low[1]));
  o.err = process_stream::of(std::min(low[0], low[1]));
  CHECK(process(o).wait(hang_guard())->success());
  for (int fd : low) close(fd);
  to_out.close();
  to_err.close();
  const std::string from_out = read_to_end(out), from_err = read_to_end(err);
  CHECK((low[0] > low[1] ? from_out : from_err) == "out\n");
  CHECK((low[0] > low[1] ? from_err : from_out) == "err\n");
}

TEST_CASE("more descriptors are handed on by number, and nothing else is") {
  hub_guard guard;
  for (int fd = 3; fd < 1024; ++fd) fcntl(fd, F_SETFD, FD_CLOEXEC);  // what this program was given
  auto [a, to_a] = pipe_pair();
  auto [b, to_b] = pipe_pair();
  process_options o = shell("echo three >&3; echo nine >&9; ls /proc/self/fd");
  o.descriptors = {{9, to_b.fd()}, {3, to_a.fd()}};
  const auto r = run_process(o);
  CHECK(r);
  CHECK(r.out == "0\n1\n2\n3\n4\n9\n");  // 4: ls's own
  to_a.close();
  to_b.close();
  CHECK(read_to_end(a) == "three\n");
  CHECK(read_to_end(b) == "nine\n");

  // libuv's own pipe, by which it is told that nothing could be executed, is not overwritten.
  o.program = "/nonexistent/program";
  o.descriptors.clear();
  for (int number = 3; number < 40; ++number) o.descriptors.emplace_back(number, a.fd());
  CHECK(system_error_of(o).code() == std::errc::no_such_file_or_directory);
}

TEST_CASE("the environment is inherited, added to, or replaced") {
  hub_guard guard;
  setenv("HUB_PROCESS_A", "inherited", 1);
  setenv("HUB_PROCESS_AB", "longer", 1);
  const std::string print = "echo ${HUB_PROCESS_A-none} ${HUB_PROCESS_AB-none} ${HUB_PROCESS_B-none}";
  process_options o = shell(print);
  CHECK(run_process(o).out == "inherited longer none\n");
  o.additions = {"HUB_PROCESS_B=b=b", "HUB_PROCESS_A=mine"};
  CHECK(run_process(o).out == "mine longer b=b\n");
  o.environment = {"HUB_PROCESS_A=first", "HUB_PROCESS_A=second"};
  o.additions.clear();
  CHECK(run_process(o).out == "second none none\n");
  o = {"/usr/bin/env"};
  o.environment.emplace();
  CHECK(run_process(o).out.empty());
  o.additions = {"ONLY="};
  CHECK(run_process(o).out == "ONLY=\n");
  // The PATH it will have is searched.
  o = {"sh", {"-c", "true"}};
  o.additions = {"PATH=/nonexistent"};
  CHECK(system_error_of(o).code() == std::errc::no_such_file_or_directory);
  unsetenv("HUB_PROCESS_A");
  unsetenv("HUB_PROCESS_AB");
}

TEST_CASE("the directory, the session and the user are chosen") {
  hub_guard guard;
  process_options o{"pwd"};
  o.directory = "/";
  CHECK(run_process(o).out == "/\n");
  o = shell("cut -d' ' -f5,6 /proc/self/stat; echo $$");  // of cut: its group and session
  o.new_session = true;
  std::istringstream in(run_process(o).out);
  pid_t group, session, leader;
  in >> group >> session >> leader;
  CHECK(group == leader);
  CHECK(session == leader);
  o = shell("id -u; id -g; id -G");
  o.user = 12345;
  o.group = 23456;
  if (geteuid() == 0)
    CHECK(run_process(o).out == "12345\n23456\n23456\n");
  else
    CHECK(system_error_of(o).code() == std::errc::operation_not_permitted);
}

TEST_CASE("a program begins with default dispositions and no signal blocked") {
  hub_guard guard;
  sigset_t some, before;
  sigemptyset(&some);
  sigaddset(&some, SIGUSR1);
  sigaddset(&some, SIGTERM);
  sigaddset(&some, SIGRTMIN);
  pthread_sigmask(SIG_BLOCK, &some, &before);
  const auto pipe_before = std::signal(SIGPIPE, SIG_IGN), hup_before = std::signal(SIGHUP, SIG_IGN);
  const auto r = run_process({"grep", {"-E", "^Sig(Blk|Ign):", "/proc/self/status"}});
  std::signal(SIGPIPE, pipe_before);
  std::signal(SIGHUP, hup_before);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  // The C library's posix_spawn() has its own signals, 32 and 33, ignored in what it starts, and that is inherited: by
  // what make starts, for instance.
  const bool ours = r.out == "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n";
  const bool with_theirs = r.out == "SigBlk:\t0000000000000000\nSigIgn:\t0000000180000000\n";
  CHECK_MESSAGE((ours || with_theirs), r.out);
}

// -- What is refused -------------------------------------------------------------------------------

TEST_CASE("what cannot be started is an error with its name, and leaves nothing") {
  hub_guard guard;
  auto e = system_error_of(with_pipes({"no-such-program-here"}));
  CHECK(e.code() == std::errc::no_such_file_or_directory);
  CHECK(says(e, "\"no-such-program-here\""));
  e = system_error_of({"/etc/passwd"});
  CHECK(e.code() == std::errc::permission_denied);
  process_options o{"true"};
  o.directory = "/nonexistent";
  e = system_error_of(o);
  CHECK(e.code() == std::errc::no_such_file_or_directory);
  CHECK(says(e, "\"/nonexistent\""));
  hub::yield();
  CHECK_FALSE(has_children());
}

TEST_CASE("options that cannot be are refused") {
  hub_guard guard;
  using invalid = std::invalid_argument;
  using namespace std::string_literals;
  CHECK_THROWS_AS(process{process_options()}, invalid);
  CHECK_THROWS_AS(process{process_options("a\0b"s)}, invalid);
  CHECK_THROWS_AS(process({"true", {"a\0b"s}}), invalid);
  process_options o{"true"};
  for (const std::string& bad : {"NAME"s, "=value"s, ""s, "NAME=a\0b"s}) {
    o.additions = {bad};
    CHECK_THROWS_AS(process{o}, invalid);
  }
  o.additions.clear();
  for (const int number : {-1, 0, 2, 256}) {
    o.descriptors = {{number, 0}};
    CHECK_THROWS_AS(process{o}, invalid);
  }
  o.descriptors = {{3, 1}, {3, 2}};
  CHECK_THROWS_AS(process{o}, invalid);
  o.descriptors = {{3, lowest_free()}};
  CHECK(system_error_of(o).code() == std::errc::bad_file_descriptor);
  o.descriptors.clear();
  o.out = process_stream::as_out();
  CHECK_THROWS_AS(process{o}, invalid);
  o.out = process_stream::of(lowest_free());
  CHECK(system_error_of(o).code() == std::errc::bad_file_descriptor);
}

TEST_CASE("without descriptors it is an error, at every step, and nothing is left") {
  hub_guard guard;
  hub::this_hub();
  const int free = lowest_free();
  int refused = 0;
  for (int most = free;; ++most) {
    REQUIRE(most < free + 40);
    try {
      const limited descriptors(RLIMIT_NOFILE, static_cast<rlim_t>(most));
      process p(with_pipes({"cat"}));
      p.in().close();
      CHECK(p.wait(hang_guard())->success());
      break;
    } catch (const std::system_error& e) {
      CHECK(e.code() == std::errc::too_many_files_open);
      ++refused;
    }
    hub::yield();
    CHECK(lowest_free() == free);
  }
  CHECK(refused >= 8);
  const limited descriptors(RLIMIT_NOFILE, static_cast<rlim_t>(free + 1));
  CHECK_THROWS_AS(hub::make_pipe(), std::system_error);
}

TEST_CASE("without processes it is an error, and nothing is left") {
  // As somebody who has one already: the limit does not bind root.
  const child c = in_child([] {
    const rlimit none{0, 0};
    setrlimit(RLIMIT_NPROC, &none);
    if (geteuid() == 0 && setuid(54321) != 0) _exit(2);
    hub_guard guard;
    hub::this_hub();
    const int free = lowest_free();
    try {
      process p(with_pipes({"cat"}));
      _exit(3);
    } catch (const std::system_error& e) {
      if (e.code() != std::errc::resource_unavailable_try_again || !says(e, "uv_spawn(\"cat\")")) _exit(4);
    }
    if (lowest_free() != free) _exit(5);
  });
  CHECK(c.status == 0);
}

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

// -- Pipes -----------------------------------------------------------------------------------------

TEST_CASE("what is written at one end of a pipe is read at the other") {
  hub_guard guard;
  hub::pipe_ends ends = hub::make_pipe();
  for (const int fd : {ends.read.fd(), ends.write.fd()}) CHECK((fcntl(fd, F_GETFD) & FD_CLOEXEC));
  auto reads = hub::spawn([&] { return read_to_end(ends.read); });
  const std::string sent = pattern(300'000);
  CHECK(ends.write.write_all(sent.data(), sent.size(), hang_guard()));
  ends.write.close();
  CHECK(reads.get() == sent);
  ends = hub::make_pipe();
  ends.read.close();
  CHECK(ends.write.write_all("x", 1).reset());
}

TEST_CASE("a program that closes its input, or ends, is a result for who writes") {
  hub_guard guard;
  process p(with_pipes(shell("exec <&-; echo closed; exec sleep 1000")));
  CHECK(read_line(p.out()) == "closed");
  CHECK(p.in().write_all("x", 1).reset());
  // While it waits.
  process q(with_pipes(endless()));
  fill(q.in());
  auto writes = hub::spawn([&] { return q.in().write_all("x", 1); });
  yield_until_waiting(1);
  q.kill();
  CHECK(writes.get().reset());
}

TEST_CASE("a FIFO to write waits for a reader, and one to read for what a writer writes") {
  hub_guard guard;
  const directory here;
  const std::string path = here.path + "/fifo";
  REQUIRE(mkfifo(path.c_str(), 0600) == 0);
  hub::descriptor to, from;
  CHECK(hub::open_fifo(to, path, hub::direction::writable, milliseconds(5)).timed_out());
  CHECK(hub::open_fifo(from, path, hub::direction::readable, milliseconds(5)).timed_out());
  CHECK_FALSE(to.is_open());
  CHECK_FALSE(from.is_open());

  auto writes = hub::spawn([&] {
    CHECK(hub::open_fifo(to, path, hub::direction::writable, hang_guard()));
    CHECK(to.write_all("through", 7));
  });
  yield_until_waiting(1);
  CHECK(hub::open_fifo(from, path, hub::direction::readable, hang_guard()));
  char text[7];
  CHECK(from.read_exactly(text, sizeof text, hang_guard()));
  CHECK(std::string(text, 7) == "through");
  writes.get();
  to.close();
  CHECK(read_to_end(from).empty());

  // A writer who says nothing, and goes.
  from = {};
  auto reads = hub::spawn([&] {
    const auto r = hub::open_fifo(from, path, hub::direction::readable, hang_guard());
    return r && read_to_end(from).empty();
  });
  yield_until_waiting(1);
  CHECK(run_process(shell(": >" + path)));
  CHECK(reads.get());
}

TEST_CASE("what cannot be opened as a FIFO is a result, and a wait for one can be cancelled") {
  hub_guard guard;
  const directory here;
  const std::string path = here.path + "/fifo";
  hub::descriptor d;
  CHECK(hub::open_fifo(d, path, hub::direction::readable).error == std::errc::no_such_file_or_directory);
  CHECK(hub::open_fifo(d, "/dev/null", hub::direction::writable).error == std::errc::invalid_argument);
  REQUIRE(mkfifo(path.c_str(), 0600) == 0);
  for (const auto way : {hub::direction::readable, hub::direction::writable}) {
    auto waits = hub::spawn([&] { hub::open_fifo(d, path, way); });
    yield_until_waiting(1);
    waits.cancel();
    CHECK_THROWS_AS(waits.get(), hub::cancelled);
  }
  const limited descriptors(RLIMIT_NOFILE, static_cast<rlim_t>(lowest_free()));
  CHECK(hub::open_fifo(d, path, hub::direction::readable).error == std::errc::too_many_files_open);
}

// -- Terminals -------------------------------------------------------------------------------------

namespace {

// A pseudo-terminal: our side, and the number of the one for programs.
struct pseudo_terminal {
  hub::descriptor master;
  int slave = -1;
  pseudo_terminal() {
    const int fd = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    REQUIRE(fd >= 0);
    REQUIRE(grantpt(fd) == 0);
    REQUIRE(unlockpt(fd) == 0);
    slave = open(ptsname(fd), O_RDWR | O_NOCTTY | O_CLOEXEC);
    REQUIRE(slave >= 0);
    master = hub::descriptor(fd);
  }
  ~pseudo_terminal() {
    if (slave >= 0) close(slave);
  }
  tcflag_t local_modes() const {
    termios t;
    REQUIRE(tcgetattr(slave, &t) == 0);
    return t.c_lflag;
  }
};

}  // namespace

TEST_CASE("a terminal is read and written without the one that is shared being made non-blocking") {
  hub_guard guard;
  pseudo_terminal p;
  hub::terminal t(p.slave);
  CHECK_FALSE((fcntl(p.slave, F_GETFL) & O_NONBLOCK));
  CHECK((fcntl(t.fd(), F_GETFL) & O_NONBLOCK));
  CHECK((fcntl(t.fd(), F_GETFD) & FD_CLOEXEC));
  auto reads = hub::spawn([&] { return read_line(t); });
  yield_until_waiting(1);
  REQUIRE(p.master.write_all("typed\n", 6));
  CHECK(reads.get() == "typed");
  CHECK(read_line(p.master) == "typed\r");  // the echo
  REQUIRE(t.write_all("shown\n", 6));
  CHECK(read_line(p.master) == "shown\r");
  // For what it was open for.
  const int read_only = open(ptsname(p.master.fd()), O_RDONLY | O_NOCTTY);
  hub::terminal keys(read_only);
  close(read_only);
  CHECK(keys.try_write("x", 1).error == std::errc::bad_file_descriptor);
  // Hung up.
  p.master.close();
  char c;
  CHECK_FALSE(t.read_some(&c, 1, hang_guard()));
}

TEST_CASE("a window's size is the terminal's") {
  hub_guard guard;
  const pseudo_terminal p;
  hub::terminal t(p.slave);
  const winsize set{24, 80, 0, 0};
  REQUIRE(ioctl(p.slave, TIOCSWINSZ, &set) == 0);
  CHECK(t.size().rows == 24);
  CHECK(t.size().columns == 80);
  t.close();
  CHECK_THROWS_AS(t.size(), std::system_error);
}

TEST_CASE("raw mode is for a scope, whatever ends it, and when the terminal is closed before") {
  hub_guard guard;
  pseudo_terminal p;
  hub::terminal t(p.slave);
  const tcflag_t before = p.local_modes();
  CHECK((before & ICANON));
  auto types = hub::spawn([&] {
    const hub::raw_mode raw(t);
    CHECK_FALSE((p.local_modes() & (ICANON | ECHO | ISIG)));
    char key;
    CHECK(t.read_some(&key, 1, hang_guard()));
    CHECK(key == '\x03');  // and no SIGINT
    t.read_some(&key, 1);
  });
  yield_until_waiting(1);
  REQUIRE(p.master.write_all("\x03", 1));
  hub::sleep_for(milliseconds(1));
  yield_until_waiting(1);
  types.cancel();
  types.join();
  CHECK(p.local_modes() == before);
  {
    const hub::raw_mode raw(t);
    t.close();
    CHECK_FALSE((p.local_modes() & ICANON));
  }
  CHECK(p.local_modes() == before);
  CHECK_THROWS_AS(hub::raw_mode{t}, std::system_error);
}

TEST_CASE("what is no terminal, or cannot be opened anew, is said to be so") {
  hub_guard guard;
  pseudo_terminal p;
  const auto code_of = [](int fd) {
    try {
      const hub::terminal t(fd);
    } catch (const std::system_error& e) {
      if (e.code().value() == EIO) CHECK(says(e, "the terminal cannot be opened anew: open(\"/proc/self/fd/"));
      return e.code().value();
    }
    return 0;
  };
  auto [a, b] = pipe_pair();
  CHECK(code_of(a.fd()) == ENOTTY);
  CHECK(code_of(-1) == EBADF);
  CHECK(code_of(p.master.fd()) == ENOTSUP);
  hub::terminal t(p.slave);
  {
    const limited descriptors(RLIMIT_NOFILE, static_cast<rlim_t>(lowest_free()));
    CHECK(code_of(p.slave) == EMFILE);
    CHECK_THROWS_AS(hub::raw_mode{t}, std::system_error);
  }
  const child c = in_child([&] {  // as somebody who may not
    if (geteuid() == 0 && setuid(54321) != 0) _exit(2);
    _exit(geteuid() == 54321 && code_of(p.slave) != EACCES);
  });
  CHECK(c.status == 0);
}
