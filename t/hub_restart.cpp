// SPDX-License-Identifier: MIT
// Restarts under load, of this very program.
#include "hub_service.hpp"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <stdexcept>
#include <string>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <system_error>
#include <vector>

using namespace greenlets;
using namespace testing;

namespace {

hub::address any_port() { return hub::address("127.0.0.1", 0); }

// This program anew, as the daemon below; what kind is in the environment.
hub::reexec_options daemon(const std::string& mode) {
  hub::reexec_options how;
  how.arguments = {"hub_restart", "--test-case=(the daemon)", "--no-skip", "--quiet"};
  how.environment = {"T_HUB_DAEMON=" + mode, "T_HUB_DAEMON_GENERATION=1"};
  how.ready_within = seconds(60);
  return how;
}

// Its number, as it says.
std::string ask(const hub::address& where) {
  hub::connection c;
  if (!hub::connect(c, where, hang_guard())) return "refused";
  c.write_all("?", 1);
  return read_to_end(c);
}

pid_t pid_of(const std::string& answer) {
  const pid_t pid = std::atoi(answer.c_str());
  REQUIRE(pid > 0);  // 0 would be a signal to all of us
  return pid;
}

int end_of(pid_t pid) {
  int status = -1;
  CHECK(waitpid(pid, &status, 0) == pid);
  return status;
}

// What it serves: "number generation names".
void serve_until_restarted(std::vector<hub::passed_socket> passed) {
  const int generation = std::atoi(std::getenv("T_HUB_DAEMON_GENERATION"));
  std::string names;
  for (const auto& each : passed) names += " " + each.name;
  hub::server s([&](hub::connection& c) {
    char byte;
    if (!c.read_exactly(&byte, 1, hang_guard())) return;
    hub::yield();
    const std::string answer = own_pid() + " " + std::to_string(generation) + names;
    c.write_all(answer.data(), answer.size());
  });
  for (const auto& each : passed) s.listen(hub::listener(each.fd));
  auto runs = hub::spawn([&] { s.run(); });
  hub::signals told({SIGHUP, SIGTERM});
  hub::notify("READY=1");
  for (bool over = false; !over;) {
    const auto number = told.wait();
    if (!number) _exit(3);
    hub::reexec_options how;
    how.environment = {"T_HUB_DAEMON_GENERATION=" + std::to_string(generation + 1)};
    if (*number == SIGHUP && std::strcmp(std::getenv("T_HUB_DAEMON"), "fails") == 0) {
      how.environment = {"T_HUB_DAEMON=exits"};
      if (hub::reexec(passed, how)) _exit(4);
      continue;
    }
    over = *number == SIGTERM || hub::reexec(passed, how);
  }
  if (!s.stop(hang_guard())) _exit(5);
  runs.get();
}

}  // namespace

TEST_CASE("(the daemon)" * doctest::skip() * doctest::description("leaves what it pleases")) {
  const hub_guard end;
  const char* const found = std::getenv("T_HUB_DAEMON");
  if (!found) return;
  const std::string mode = found;
  const auto passed = hub::listen_fds();
  if (mode == "exits") _exit(7);
  if (mode == "dies") kill(getpid(), SIGKILL);
  if (mode == "silent") pause();
  if (mode == "descriptors") {
    // Those that were passed are in their order, and nowhere else.
    for (std::size_t n = 0; n < passed.size(); ++n)
      if (passed[n].fd != 3 + static_cast<int>(n)) _exit(8);
    std::string text;
    struct stat s;
    for (const auto& each : passed) {
      fstat(each.fd, &s);
      text += std::to_string(s.st_ino) + " ";
    }
    for (int fd = 4 + static_cast<int>(passed.size()); fd < 200; ++fd)
      if (fstat(fd, &s) == 0 && S_ISSOCK(s.st_mode) &&
          (" " + text).find(" " + std::to_string(s.st_ino) + " ") != std::string::npos)
        _exit(9);
    const char* const watched = std::getenv("WATCHDOG_PID");
    text += watched && watched == own_pid() ? "watched" : "";
    const std::string to = std::getenv("T_HUB_DAEMON_FILE");
    std::ofstream(to) << text;
    hub::notify("READY=1");
    _exit(0);
  }
  serve_until_restarted(passed);
}

TEST_CASE("through three restarts under load no connection is refused and no request is lost") {
  const hub_guard end;
  REQUIRE(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0);  // those whose parent has ended are ours to wait for
  hub::listener l(any_port()), control(any_port());
  const hub::address where = l.local();
  const auto first = hub::reexec({{l.fd(), "http"}, {control.fd(), "control"}}, daemon("serves"));
  REQUIRE(first);
  l.close();  // if they do not listen, nobody does
  control.close();

  std::map<std::string, int> answers;
  std::string last;
  bool over = false;
  hub::group load;
  for (int n = 0; n < 8; ++n)
    load.spawn([&] {
      while (!over) ++answers[last = ask(where)];
    });
  std::vector<pid_t> generations{first.pid};
  for (int generation = 1; generation <= 4; ++generation) {
    const std::string now = " " + std::to_string(generation) + " http control";
    yield_until([&] { return last.find(now) != std::string::npos && answers[last] >= 200; });
    if (generation > 1) generations.push_back(pid_of(last));
    if (generation == 4) break;
    kill(generations.back(), SIGHUP);
  }
  over = true;
  load.wait();
  kill(generations.back(), SIGTERM);
  for (const pid_t each : generations) CHECK(end_of(each) == 0);
  CHECK(generations.size() == 4);
  int total = 0;
  for (const auto& each : answers) {
    CAPTURE(each.first);
    CHECK(each.first.find(" http control") != std::string::npos);
    total += each.second;
  }
  CHECK(answers.size() == 4);
  MESSAGE(total << " requests in three restarts");
  CHECK(ask(where) == "refused");
  prctl(PR_SET_CHILD_SUBREAPER, 0);
}

TEST_CASE("a restart that fails changes nothing: the old process goes on serving") {
  const hub_guard end;
  hub::listener l(any_port());
  const hub::address where = l.local();
  const auto first = hub::reexec({{l.fd(), "http"}}, daemon("fails"));
  REQUIRE(first);
  l.close();
  const std::string before = ask(where);
  CHECK(pid_of(before) == first.pid);
  for (int n = 0; n < 3; ++n) {
    kill(first.pid, SIGHUP);
    CHECK(ask(where) == before);
  }
  kill(first.pid, SIGTERM);
  CHECK(end_of(first.pid) == 0);
}

TEST_CASE("a new process that ends, dies, is silent, or cannot be: each is told, none is left") {
  const hub_guard end;
  hub::listener l(any_port());
  auto r = hub::reexec({{l.fd(), ""}}, daemon("exits"));
  CHECK_FALSE(r);
  CHECK(r.pid == -1);
  CHECK(r.error == std::errc::no_child_process);
  CHECK(WEXITSTATUS(r.status) == 7);
  r = hub::reexec({}, daemon("dies"));
  CHECK(r.error == std::errc::no_child_process);
  CHECK(WIFSIGNALED(r.status));
  auto how = daemon("silent");
  how.ready_within = milliseconds(20);
  r = hub::reexec({}, how);
  CHECK(r.error == std::errc::timed_out);
  CHECK(WTERMSIG(r.status) == SIGKILL);
  how = daemon("silent");
  how.path = "/no/such/program";
  r = hub::reexec({}, how);
  CHECK(r.error == std::errc::no_such_file_or_directory);
  CHECK(WEXITSTATUS(r.status) == 127);
  how.path = "/dev/null";
  CHECK(hub::reexec({}, how).error == std::errc::permission_denied);
  r = hub::reexec({{l.fd(), ""}, {9999, ""}}, daemon("silent"));
  CHECK(r.error == std::errc::bad_file_descriptor);
  CHECK(wait(nullptr) < 0);
  CHECK(errno == ECHILD);
  CHECK(l.is_open());
}

TEST_CASE("who is cancelled, or has a timeout, while the new process starts leaves none") {
  const hub_guard end;
  auto starts = hub::spawn([] { return hub::reexec({}, daemon("silent")); });
  yield_until_waiting(1);
  starts.cancel();
  CHECK_THROWS_AS(starts.get(), hub::cancelled);
  CHECK(wait(nullptr) < 0);
  auto shut = hub::spawn([] { hub::reexec({}, daemon("silent")); });
  yield_until_waiting(1);
  hub::shutdown();
  CHECK(shut.ready());
  CHECK(wait(nullptr) < 0);
}

TEST_CASE("the new process has the descriptors that were passed, in their order, and no others; and is watched instead") {
  const hub_guard end;
  const directory d;
  const std::string file = d / "pid";
  const manager m(abstract_name());
  const variable usec("WATCHDOG_USEC", "1000000"), pid("WATCHDOG_PID", own_pid().c_str());
  hub::listener a(any_port()), b(any_port()), c(any_port());
  // In the places where they are to be, and crossed.
  std::vector<hub::passed_socket> sockets{{c.fd(), "c"}, {a.fd(), "a"}, {b.fd(), "b"}, {a.fd(), "again"}};
  std::string expected;
  for (const auto& each : sockets) {
    struct stat s;
    REQUIRE(fstat(each.fd, &s) == 0);
    expected += std::to_string(s.st_ino) + " ";
  }
  auto how = daemon("descriptors");
  how.environment.push_back("T_HUB_DAEMON_FILE=" + file);
  const auto r = hub::reexec(sockets, how);
  REQUIRE(r);
  CHECK(end_of(r.pid) == 0);
  CHECK(content(file) == expected + "watched");
  const std::string heard[] = {m.heard(), m.heard()};  // the new one's own word, and this one's
  CHECK(std::count(heard, heard + 2, "READY=1") == 1);
  CHECK(std::count(heard, heard + 2, "MAINPID=" + std::to_string(r.pid)) == 1);
  CHECK(is_close_on_exec(a.fd()));
}

TEST_CASE("what is passed to a new process is looked at first") {
  const hub_guard end;
  auto how = daemon("silent");
  CHECK_THROWS_AS(hub::reexec({{0, "a:b"}}, how), std::invalid_argument);
  CHECK_THROWS_AS(hub::reexec({{0, "a\n"}}, how), std::invalid_argument);
  how.environment.push_back(std::string("A=\0B", 4));
  CHECK_THROWS_AS(hub::reexec({}, how), std::invalid_argument);
  CHECK_CHILD(in_child([] {
    hub::this_hub();
    try {
      const limited none(RLIMIT_NOFILE, 0);
      hub::reexec({}, daemon("silent"));
      NEED(false);
    } catch (const std::system_error& e) {  // without the limit: UBSan opens pipes to look at what it is called on
      NEED(std::string(e.what()).find("socketpair") != std::string::npos);
    }
    hub::shutdown();
  }));
}

TEST_CASE("without a path it is the program's own file, and after an upgrade the one in its place") {
  const directory d;
  const std::string program = d / "program";
  const auto copy = [&](const char* from) {
    ::unlink(program.c_str());
    std::ofstream(program, std::ios::binary) << std::ifstream(from, std::ios::binary).rdbuf();
    REQUIRE(chmod(program.c_str(), 0755) == 0);
  };
  copy("/proc/self/exe");
  hub::listener l(any_port());
  const hub::address where = l.local();
  auto how = daemon("serves");
  how.path = program;
  const auto first = hub::reexec({{l.fd(), "http"}}, how);
  REQUIRE(first);
  CHECK(ask(where) == std::to_string(first.pid) + " 1 http");
  // The file has gone: the running program itself.
  ::unlink(program.c_str());
  REQUIRE(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0);
  kill(first.pid, SIGHUP);
  CHECK(end_of(first.pid) == 0);
  const std::string second = ask(where);
  CHECK(second.find(" 2 http") != std::string::npos);
  // /proc/self/exe leads to what has been deleted, and there is a new file: not one that serves.
  copy("/bin/false");
  kill(pid_of(second), SIGHUP);
  for (int n = 0; n < 3; ++n) CHECK(ask(where) == second);
  copy("/proc/self/exe");
  kill(pid_of(second), SIGHUP);
  CHECK(end_of(pid_of(second)) == 0);
  l.close();
  const std::string third = ask(where);
  CHECK(third.find(" 3 http") != std::string::npos);
  kill(pid_of(third), SIGTERM);
  CHECK(end_of(pid_of(third)) == 0);
  prctl(PR_SET_CHILD_SUBREAPER, 0);
  hub::shutdown();
}
