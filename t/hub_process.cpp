// SPDX-License-Identifier: MIT
// Programs that are started: their streams and surroundings, and what is refused.
#include "hub_programs.hpp"

#include <algorithm>
#include <csignal>
#include <cstring>
#include <sstream>
#include <stdexcept>
#include <sys/resource.h>
#include <system_error>

// Under ThreadSanitizer the end of a child is sometimes not told: t/fault_hub.cpp.
#ifndef T_TSAN

using namespace greenlets;
using namespace testing;
using hub::process;
using hub::process_options;
using hub::process_stream;
using hub::run_process;

namespace {

std::system_error system_error_of(const process_options& o) {
  try {
    const process p(o);
  } catch (const std::system_error& e) {
    return e;
  }
  FAIL("was started");
  return {0, std::generic_category()};
}

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

#endif
