// SPDX-License-Identifier: MIT
// Daemons: sockets that are passed, news for the service manager, rights given up, pid files; and restarts under load, of
// this very program.
#include "hub_testing.hpp"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstring>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <grp.h>
#include <iterator>
#include <map>
#include <optional>
#include <stdexcept>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <system_error>
#include <thread>
#include <vector>

using namespace greenlets;
using namespace testing;

namespace {

// A variable of the environment, for a scope.
struct variable {
  std::string name;
  std::optional<std::string> before;

  variable(const char* n, const char* text) : name(n) {
    if (const char* was = std::getenv(n)) before = was;
    set(text);
  }
  variable(const variable&) = delete;
  variable& operator=(const variable&) = delete;
  ~variable() { set(before ? before->c_str() : nullptr); }
  void set(const char* text) const {
    if (text)
      setenv(name.c_str(), text, 1);
    else
      unsetenv(name.c_str());
  }
};

std::string own_pid() { return std::to_string(getpid()); }

struct directory {
  std::string path = "/tmp/hub_daemon.XXXXXX";
  directory() { REQUIRE(mkdtemp(path.data()) != nullptr); }
  directory(const directory&) = delete;
  directory& operator=(const directory&) = delete;
  ~directory() {
    for (const char* each : {"/socket", "/pid", "/link", "/program"}) ::unlink((path + each).c_str());
    ::rmdir(path.c_str());
  }
};

// The service manager's end of notify().
struct manager {
  int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  variable where{"NOTIFY_SOCKET", nullptr};

  explicit manager(const std::string& name) {
    sockaddr_un to{};
    to.sun_family = AF_UNIX;
    std::memcpy(to.sun_path, name.data(), name.size());
    if (name[0] == '@') to.sun_path[0] = '\0';
    const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + name.size() + (name[0] == '/'));
    REQUIRE(bind(fd, reinterpret_cast<sockaddr*>(&to), size) == 0);
    where.set(name.c_str());
  }
  ~manager() { ::close(fd); }
  std::string heard() const {
    char text[500];
    const ssize_t size = ::recv(fd, text, sizeof text, 0);
    return size < 0 ? "" : std::string(text, static_cast<std::size_t>(size));
  }
};

std::string abstract_name() { return "@hub_daemon." + own_pid(); }

bool is_close_on_exec(int fd) { return fcntl(fd, F_GETFD) & FD_CLOEXEC; }

// In a process of its own, where 3 and what follows are free, or are what is passed.
child with_passed(int count, const std::function<void()>& f) {
  return in_child([&] {
    const variable pid("LISTEN_PID", own_pid().c_str()), fds("LISTEN_FDS", std::to_string(count).c_str());
    const int some = open("/dev/null", O_RDWR);
    for (int n = 0; n < count; ++n)
      if (some != 3 + n) dup2(some, 3 + n);
    ::close(3 + count);
    f();
  });
}

void check_ended_well(const child& c, int line) {
  CAPTURE(line);
  INFO(c.output);
  CHECK(c.status == 0);
}
#define CHECK_CHILD(...) check_ended_well((__VA_ARGS__), __LINE__)

void need(bool so, int line) {
  if (so) return;
  dprintf(2, "line %d is not so\n", line);
  _exit(99);
}
#define NEED(...) need((__VA_ARGS__), __LINE__)

}  // namespace

// -- Sockets that are passed -----------------------------------------------------------------------

TEST_CASE("passed descriptors are found with their names, are close-on-exec, and are found once") {
  CHECK_CHILD(with_passed(3, [] {
    const variable names("LISTEN_FDNAMES", "http::control");
    const auto all = hub::listen_fds(false);
    NEED(all.size() == 3 && all[0].fd == 3 && all[2].fd == 5);
    NEED(all[0].name == "http" && all[1].name.empty() && all[2].name == "control");
    for (const auto& each : all) NEED(is_close_on_exec(each.fd));
    NEED(hub::listen_fds().size() == 3);
    NEED(hub::listen_fds().empty());
    NEED(!std::getenv("LISTEN_PID") && !std::getenv("LISTEN_FDS") && !std::getenv("LISTEN_FDNAMES"));
  }));
  CHECK_CHILD(with_passed(1, [] {
    unsetenv("LISTEN_FDNAMES");
    const auto all = hub::listen_fds();
    NEED(all.size() == 1 && all[0].name == "unknown");
  }));
  CHECK_CHILD(with_passed(0, [] { NEED(hub::listen_fds().empty()); }));
}

TEST_CASE("without LISTEN_PID, for another process, or without a count there are none") {
  std::error_code error;
  const variable pid("LISTEN_PID", nullptr), fds("LISTEN_FDS", "1"), names("LISTEN_FDNAMES", nullptr);
  CHECK(hub::listen_fds(error, false).empty());
  CHECK_FALSE(error);
  pid.set("1");
  CHECK(hub::listen_fds(error, false).empty());
  CHECK_FALSE(error);
  pid.set(own_pid().c_str());
  fds.set(nullptr);
  CHECK(hub::listen_fds(error, false).empty());
  CHECK_FALSE(error);
}

TEST_CASE("wrong variables are an error, and are forgotten; so is a descriptor that is not open") {
  std::error_code error;
  const variable pid("LISTEN_PID", nullptr), fds("LISTEN_FDS", nullptr), names("LISTEN_FDNAMES", nullptr);
  for (const char* wrong : {"", "x", "12x", " 1", "-1", "0", "99999999999999999999", "0x10", "+1"}) {
    CAPTURE(std::string(wrong));
    pid.set(wrong);
    fds.set("1");
    CHECK(hub::listen_fds(error).empty());
    CHECK(error == std::errc::invalid_argument);
    CHECK(std::getenv("LISTEN_PID") == nullptr);
  }
  for (const char* wrong : {"", "x", "1x", "-1", "-0", "2147483647", "2147483645", "99999999999", "1 "}) {
    CAPTURE(std::string(wrong));
    pid.set(own_pid().c_str());
    fds.set(wrong);
    CHECK(hub::listen_fds(error).empty());
    CHECK(error == std::errc::invalid_argument);
  }
  CHECK_CHILD(with_passed(2, [] {
    const variable few("LISTEN_FDNAMES", "one");
    std::error_code e;
    NEED(hub::listen_fds(e, false).empty() && e == std::errc::invalid_argument);
    few.set("one:two:three");
    NEED(hub::listen_fds(e, false).empty() && e == std::errc::invalid_argument);
    few.set("one:two");
    NEED(hub::listen_fds(e, false).size() == 2 && !e);
    ::close(4);
    NEED(hub::listen_fds(e, false).empty() && e == std::errc::bad_file_descriptor);
    try {
      hub::listen_fds();
      NEED(false);
    } catch (const std::system_error& thrown) {
      NEED(std::strstr(thrown.what(), "LISTEN_FDS") != nullptr);
    }
    NEED(!std::getenv("LISTEN_PID"));
  }));
}

// -- News ------------------------------------------------------------------------------------------

TEST_CASE("news goes to a path, or an abstract name, as one datagram; nowhere when nobody wants it") {
  {
    const variable none("NOTIFY_SOCKET", nullptr);
    std::error_code error = std::make_error_code(std::errc::io_error);
    CHECK_FALSE(hub::notify("READY=1", error));
    CHECK_FALSE(error);
  }
  const directory d;
  for (const std::string& name : {d.path + "/socket", abstract_name()}) {
    CAPTURE(name);
    const manager m(name);
    CHECK(hub::notify("READY=1"));
    CHECK(hub::notify("STATUS=two\nSTOPPING=1"));
    CHECK(m.heard() == "READY=1");
    CHECK(m.heard() == "STATUS=two\nSTOPPING=1");
    CHECK(m.heard().empty());
  }
}

TEST_CASE("news that cannot be sent is false, with the reason, and nobody waits") {
  std::error_code error;
  const variable to("NOTIFY_SOCKET", nullptr);
  for (const std::string& wrong : {std::string(), std::string("/"), std::string("@"), std::string("relative"), std::string("vsock:2:1"),
                                   "/" + std::string(107, 'x'), "@" + std::string(108, 'x')}) {
    CAPTURE(wrong);
    to.set(wrong.c_str());
    CHECK_FALSE(hub::notify("READY=1", error));
    CHECK(error == std::errc::invalid_argument);
  }
  to.set(("/" + std::string(106, 'x')).c_str());  // fits, and is not there
  CHECK_FALSE(hub::notify("READY=1", error));
  CHECK(error == std::errc::no_such_file_or_directory);
  to.set(("@" + std::string(107, 'x')).c_str());
  CHECK_FALSE(hub::notify("READY=1", error));
  CHECK(error == std::errc::connection_refused);
  const manager m(abstract_name());
  CHECK_FALSE(hub::notify("", error));
  CHECK(error == std::errc::invalid_argument);
  int sent = 0;
  while (hub::notify("STATUS=many", error)) ++sent;
  CHECK(sent > 0);
  CHECK(error == std::errc::operation_would_block);
  CHECK_CHILD(in_child([] {
    rlimit before;
    getrlimit(RLIMIT_NOFILE, &before);
    const rlimit none{0, before.rlim_max};
    setrlimit(RLIMIT_NOFILE, &none);
    std::error_code e;
    NEED(!hub::notify("READY=1", e) && e == std::errc::too_many_files_open);
    setrlimit(RLIMIT_NOFILE, &before);
  }));
}

TEST_CASE("who was started with reexec() tells the one that did, once, and no descriptor that is not meant") {
  int ends[2];
  REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) == 0);
  const std::string good = std::to_string(ends[1]) + ":" + own_pid();
  const variable ready("GREENLET_READY", nullptr), none("NOTIFY_SOCKET", nullptr), pid("LISTEN_PID", nullptr);
  char byte = 0;
  for (const std::string& wrong : {std::string(), std::string("x"), std::to_string(ends[1]), std::to_string(ends[1]) + ":1", std::to_string(ends[1]) + ":",
                                   "x:" + own_pid(), "2:" + own_pid(), ":" + own_pid()}) {
    CAPTURE(wrong);
    ready.set(wrong.c_str());
    hub::notify("READY=1");
    CHECK(fcntl(ends[1], F_GETFD) >= 0);
  }
  ready.set(good.c_str());
  for (const char* other : {"STATUS=READY=1", "READY=10", "XREADY=1", "READY=0"}) hub::notify(other);
  CHECK(::recv(ends[0], &byte, 1, 0) < 0);
  fcntl(ends[1], F_SETFD, 0);
  hub::listen_fds();
  CHECK(is_close_on_exec(ends[1]));
  hub::notify("STATUS=up\nREADY=1\nX=2");
  CHECK(::recv(ends[0], &byte, 1, 0) == 1);
  CHECK(::recv(ends[0], &byte, 1, 0) == 0);  // and closed it
  CHECK(std::getenv("GREENLET_READY") == nullptr);
  ::close(ends[0]);
}

TEST_CASE("the watchdog's interval: none, another's, or wrong") {
  const variable usec("WATCHDOG_USEC", nullptr), pid("WATCHDOG_PID", nullptr);
  CHECK_FALSE(hub::watchdog_interval().has_value());
  CHECK_FALSE(hub::watchdog().active());
  usec.set("3000000");
  CHECK(hub::watchdog_interval() == std::chrono::seconds(3));
  pid.set(own_pid().c_str());
  CHECK(hub::watchdog_interval() == std::chrono::seconds(3));
  pid.set("1");
  CHECK_FALSE(hub::watchdog_interval().has_value());
  for (const char* wrong : {"", "x", "0", "-5", "3s", "99999999999999999999999"}) {
    CAPTURE(std::string(wrong));
    pid.set(nullptr);
    usec.set(wrong);
    CHECK_THROWS_AS(hub::watchdog_interval(), std::system_error);
    usec.set("1");
    pid.set(wrong);
    std::error_code error;
    CHECK_FALSE(hub::watchdog_interval(error).has_value());
    CHECK(error == std::errc::invalid_argument);
  }
}

TEST_CASE("a watchdog tells that it is alive, twice in each interval, until it goes; a hub that hangs does not") {
  const hub_guard end;
  const manager m(abstract_name());
  const variable usec("WATCHDOG_USEC", "20000"), pid("WATCHDOG_PID", own_pid().c_str());
  const auto begin = hub::clock::now();
  {
    const hub::watchdog alive;
    CHECK(alive.active());
    for (int pings = 0; pings < 4;) {
      CHECK(hub::wait(m.fd, hub::direction::readable, hang_guard()));
      CHECK(m.heard() == "WATCHDOG=1");
      ++pings;
    }
    CHECK(hub::clock::now() - begin >= milliseconds(30));
    while (!m.heard().empty()) continue;
    for (const auto until = hub::clock::now() + milliseconds(15); hub::clock::now() < until;) continue;  // hangs
    CHECK(m.heard().empty());
  }
  hub::sleep_for(milliseconds(15));
  CHECK(m.heard().empty());
  CHECK_THROWS_AS(hub::watchdog(std::chrono::microseconds(0)), std::invalid_argument);
}

// -- Rights ----------------------------------------------------------------------------------------

namespace {

bool may_become_others(const char* what) {
  if (geteuid() == 0) return true;
  MESSAGE("not root here, so not shown: " << std::string(what));
  return false;
}

constexpr uid_t somebody = 54321;

}  // namespace

TEST_CASE("rights are given up in all threads and cannot be had again") {
  if (!may_become_others("rights that are given up")) return;
  CHECK_CHILD(in_child([] {
    std::atomic<int> step{0};
    uid_t there = 0;
    std::thread other([&] {
      step = 1;
      while (step != 2) std::this_thread::yield();
      there = static_cast<uid_t>(syscall(SYS_geteuid));
    });
    while (step != 1) std::this_thread::yield();
    hub::drop_privileges(somebody, somebody + 1, {somebody + 3, somebody + 2, somebody + 3});
    step = 2;
    other.join();
    NEED(there == somebody);
    uid_t r, e, s;
    gid_t gr, ge, gs;
    NEED(getresuid(&r, &e, &s) == 0 && r == somebody && e == somebody && s == somebody);
    NEED(getresgid(&gr, &ge, &gs) == 0 && gr == somebody + 1 && ge == somebody + 1 && gs == somebody + 1);
    gid_t groups[5];
    NEED(getgroups(5, groups) >= 2);
    NEED(setuid(0) < 0 && setgid(0) < 0 && setgroups(0, nullptr) < 0);
    try {
      hub::drop_privileges(somebody + 1, somebody);
      NEED(false);
    } catch (const std::system_error& error) {
      NEED(error.code() == std::errc::operation_not_permitted);
      NEED(std::string(error.what()).find("setgroups") != std::string::npos);
      NEED(std::string(error.what()).find("already") == std::string::npos);
    }
    NEED(geteuid() == somebody);
  }));
}

TEST_CASE("rights are given up to a user and a group by name; the supplementary groups are the user's") {
  CHECK_THROWS_AS(hub::drop_privileges("no such user here"), std::invalid_argument);
  CHECK_THROWS_AS(hub::drop_privileges("daemon", "no such group here"), std::invalid_argument);
  CHECK_THROWS_AS(hub::drop_privileges("root"), std::invalid_argument);
  CHECK_THROWS_AS(hub::drop_privileges(static_cast<uid_t>(-1), 1), std::invalid_argument);
  CHECK_THROWS_AS(hub::drop_privileges(1, static_cast<gid_t>(-1)), std::invalid_argument);
  if (!may_become_others("rights that are given up")) return;
  for (const char* group : {"", "nogroup"}) {
    CAPTURE(std::string(group));
    CHECK_CHILD(in_child([&] {
      const gid_t wanted = *group ? getgrnam(group)->gr_gid : 1;
      hub::drop_privileges("daemon", group);
      NEED(geteuid() == 1 && getegid() == wanted);
      gid_t groups[64];
      const int count = getgroups(64, groups);
      NEED(std::find(groups, groups + count, 0u) == groups + count);
    }));
  }
}

TEST_CASE("rights that could be had again, or were given up in part, are told") {
  if (!may_become_others("rights that are given up in part")) return;
#ifdef T_TSAN
  return;  // capabilities are a thread's, its runtime has one more, and the C library aborts when their results differ
#endif
  CHECK_CHILD(in_child([] {
    // What setuid() leaves of the capabilities, and then root's way back.
    constexpr unsigned long no_setuid_fixup = 4;
    if (prctl(PR_SET_SECUREBITS, no_setuid_fixup) < 0) return;
    try {
      hub::drop_privileges(somebody, somebody);
      NEED(false);
    } catch (const std::system_error& error) {
      NEED(std::string(error.what()).find("can become root again") != std::string::npos);
      NEED(std::string(error.what()).find("already") != std::string::npos);
    }
    NEED(geteuid() == somebody);
  }));
#ifdef T_TSAN
  return;  // it has a thread of its own, whose capabilities stay: the C library ends a process whose threads differ
#endif
  struct capabilities {  // of capset(2), version 3
    std::uint32_t version = 0x20080522;
    int pid = 0;
    std::uint32_t sets[6] = {};
  };
  for (const int missing : {6, 7}) {  // CAP_SETGID, CAP_SETUID
    CAPTURE(missing);
    CHECK_CHILD(in_child([&] {
      capabilities c;
      NEED(syscall(SYS_capget, &c, &c.sets) == 0);
      c.sets[0] &= ~(1u << missing);
      c.sets[1] &= ~(1u << missing);
      NEED(syscall(SYS_capset, &c, &c.sets) == 0);
      try {
        hub::drop_privileges(somebody, somebody);
        NEED(false);
      } catch (const std::system_error& error) {
        const std::string text = error.what();
        NEED(text.find(missing == 6 ? "setgroups" : "setresuid") != std::string::npos);
        NEED((text.find("already") != std::string::npos) == (missing == 7));
      }
    }));
  }
}

// -- Pid files -------------------------------------------------------------------------------------

namespace {

std::string content(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace

TEST_CASE("a pid file has the number, keeps a second process out and tells it whom, and goes with its object") {
  const directory d;
  const std::string path = d.path + "/pid";
  {
    const hub::pid_file mine(path);
    CHECK(content(path) == own_pid() + "\n");
    CHECK(is_close_on_exec(mine.fd()));
    const pid_t pid = getpid();
    CHECK_CHILD(in_child([&] {
      try {
        hub::pid_file second(path);
        NEED(false);
      } catch (const hub::already_running& e) {
        NEED(e.pid() == pid);
        NEED(std::string(e.what()).find("process " + std::to_string(pid)) != std::string::npos);
      }
    }));
    REQUIRE(::ftruncate(mine.fd(), 0) == 0);  // as long as it has not written
    try {
      hub::pid_file second(path);
      FAIL("two have it");
    } catch (const hub::already_running& e) {
      CHECK(e.pid() == 0);
    }
    REQUIRE(::pwrite(mine.fd(), (own_pid() + "\n").data(), own_pid().size() + 1, 0) > 0);
  }
  CHECK(access(path.c_str(), F_OK) != 0);
}

TEST_CASE("what a process left that died is taken over; a forked child removes nothing") {
  const directory d;
  const std::string path = d.path + "/pid";
  const child dead = in_child([&] {
    const hub::pid_file left(path);
    kill(getpid(), SIGKILL);
  });
  CHECK(WIFSIGNALED(dead.status));
  CHECK_FALSE(content(path).empty());
  std::ofstream(path, std::ios::app) << "and more text than a number";
  {
    const hub::pid_file mine(path);
    CHECK(content(path) == own_pid() + "\n");
    auto* copied = new hub::pid_file(d.path + "/link");
    CHECK_CHILD(in_child([&] { delete copied; }));
    CHECK(access((d.path + "/link").c_str(), F_OK) == 0);
    delete copied;
    CHECK(access((d.path + "/link").c_str(), F_OK) != 0);
  }
}

TEST_CASE("a pid file is handed on with its lock: who had it leaves it then") {
  const directory d;
  const std::string path = d.path + "/pid";
  {
    const hub::pid_file mine(path);
    int ends[2];
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
    const pid_t next = fork();
    if (next == 0) {
      const hub::pid_file taken(path, dup(mine.fd()));
      char byte;
      (void)!::write(ends[1], "x", 1);
      (void)!::read(ends[1], &byte, 1);
      _exit(0);  // without a word
    }
    char byte;
    REQUIRE(::read(ends[0], &byte, 1) == 1);
    CHECK(content(path) == std::to_string(next) + "\n");
    REQUIRE(::write(ends[0], "x", 1) == 1);
    waitpid(next, nullptr, 0);
    ::close(ends[0]);
    ::close(ends[1]);
  }
  CHECK(access(path.c_str(), F_OK) == 0);
  CHECK_THROWS_AS(hub::pid_file(path, -1), std::system_error);
}

TEST_CASE("a pid file that cannot be made is a system_error; a link is not followed; one that was removed is made anew") {
  const directory d;
  const std::string path = d.path + "/pid", link = d.path + "/link";
  CHECK_THROWS_AS(hub::pid_file(d.path + "/not/there"), std::system_error);
  REQUIRE(symlink(path.c_str(), link.c_str()) == 0);
  CHECK_THROWS_AS(hub::pid_file{link}, std::system_error);
  CHECK(access(path.c_str(), F_OK) != 0);
  CHECK_THROWS_AS(hub::pid_file("/dev/full"), std::system_error);
  const hub::pid_file first(path);
  ::unlink(path.c_str());
  const hub::pid_file second(path);  // another file
  CHECK(content(path) == own_pid() + "\n");
  // Many that come and go at once: of those that have it at a time there is one.
  CHECK_CHILD(in_child([&] {
    for (int n = 0; n < 4; ++n)
      if (fork() == 0) {
        for (int got = 0; got < 50;) try {
            const hub::pid_file f(link + "2");
            NEED(content(link + "2") == own_pid() + "\n");
            ++got;
          } catch (const hub::already_running&) {
          }
        _exit(0);
      }
    for (int n = 0, status; n < 4; ++n) NEED(wait(&status) > 0 && status == 0);
    NEED(access((link + "2").c_str(), F_OK) != 0);
  }));
}

// -- Restarts --------------------------------------------------------------------------------------

namespace {

hub::address any_port() { return hub::address("127.0.0.1", 0); }

// This program anew, as the daemon below; what kind is in the environment.
hub::reexec_options daemon(const std::string& mode) {
  hub::reexec_options how;
  how.arguments = {"hub_daemon", "--test-case=(the daemon)", "--no-skip", "--quiet"};
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
      if (fstat(fd, &s) == 0 && S_ISSOCK(s.st_mode) && (" " + text).find(" " + std::to_string(s.st_ino) + " ") != std::string::npos)
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
  const std::string file = d.path + "/pid";
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
    rlimit before;
    getrlimit(RLIMIT_NOFILE, &before);
    const rlimit none{0, before.rlim_max};
    setrlimit(RLIMIT_NOFILE, &none);
    try {
      hub::reexec({}, daemon("silent"));
      NEED(false);
    } catch (const std::system_error& e) {
      setrlimit(RLIMIT_NOFILE, &before);  // UBSan opens pipes to look at what it is called on
      NEED(std::string(e.what()).find("socketpair") != std::string::npos);
    }
    hub::shutdown();
  }));
}

TEST_CASE("without a path it is the program's own file, and after an upgrade the one in its place") {
  const directory d;
  const std::string program = d.path + "/program";
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
