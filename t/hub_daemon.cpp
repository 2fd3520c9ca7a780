// SPDX-License-Identifier: MIT
// Daemons: sockets that are passed, news for the service manager, rights given up, pid files.
#include "hub_service.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <functional>
#include <grp.h>
#include <stdexcept>
#include <string>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <system_error>
#include <thread>

using namespace greenlets;
using namespace testing;

namespace {

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
  for (const std::string& name : {d / "socket", abstract_name()}) {
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
  for (const std::string& wrong : {std::string(), std::string("/"), std::string("@"), std::string("relative"),
                                   std::string("vsock:2:1"), "/" + std::string(107, 'x'), "@" + std::string(108, 'x')}) {
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
    const limited none(RLIMIT_NOFILE, 0);
    std::error_code e;
    NEED(!hub::notify("READY=1", e) && e == std::errc::too_many_files_open);
  }));
}

TEST_CASE("who was started with reexec() tells the one that did, once, and no descriptor that is not meant") {
  int ends[2];
  REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) == 0);
  const std::string good = std::to_string(ends[1]) + ":" + own_pid();
  const variable ready("GREENLET_READY", nullptr), none("NOTIFY_SOCKET", nullptr), pid("LISTEN_PID", nullptr);
  char byte = 0;
  const std::string number = std::to_string(ends[1]);
  for (const std::string& wrong : {std::string(), std::string("x"), number, number + ":1", number + ":", "x:" + own_pid(),
                                   "2:" + own_pid(), ":" + own_pid()}) {
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

TEST_CASE("a pid file has the number, keeps a second process out and tells it whom, and goes with its object") {
  const directory d;
  const std::string path = d / "pid";
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
  const std::string path = d / "pid";
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
    auto* copied = new hub::pid_file(d / "link");
    CHECK_CHILD(in_child([&] { delete copied; }));
    CHECK(access((d / "link").c_str(), F_OK) == 0);
    delete copied;
    CHECK(access((d / "link").c_str(), F_OK) != 0);
  }
}

TEST_CASE("a pid file is handed on with its lock: who had it leaves it then") {
  const directory d;
  const std::string path = d / "pid";
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
  const std::string path = d / "pid", link = d / "link";
  CHECK_THROWS_AS(hub::pid_file(d / "not/there"), std::system_error);
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
