// SPDX-License-Identifier: MIT
// Dumps on signals: where they are written, and what happens when that cannot be.
#include "watched.hpp"

#include <atomic>
#include <csignal>
#include <cstdlib>
#include <fcntl.h>
#include <poll.h>
#include <string>
#include <sys/socket.h>
#include <sys/stat.h>
#include <thread>
#include <unistd.h>
#include <utility>
#include <vector>

using namespace watched;

TEST_CASE("what cannot be written is lost, and the next one is not") {
  const directory d;
  dump_options to_nowhere;
  to_nowhere.apart = milliseconds(0);
  int ends[2];
  REQUIRE(pipe(ends) == 0);
  REQUIRE(mkfifo((d / "fifo").c_str(), 0600) == 0);
  close(ends[0]);  // nobody reads
  {
    const auto full = dump_on_signal(SIGRTMIN + 5, "/dev/full", to_nowhere);
    const auto missing = dump_on_signal(SIGRTMIN + 6, d / "missing/file", to_nowhere);
    const auto closed = dump_on_signal(SIGRTMIN + 7, 1000000, to_nowhere);
    const auto broken = dump_on_signal(SIGRTMIN + 8, ends[1], to_nowhere);
    const auto unread = dump_on_signal(SIGRTMIN + 9, d / "fifo", to_nowhere);
    to_nowhere.replace = true;
    const auto neither = dump_on_signal(SIGRTMIN + 10, d / "missing/file", to_nowhere);
    const auto dumps = dump_on_signal(SIGUSR1, d / "dump");
    for (int n = SIGRTMIN + 5; n <= SIGRTMIN + 10; ++n) kill(getpid(), n);
    dump_now(SIGUSR1, d / "dump");  // they have had their turn before
  }
  close(ends[1]);
  CHECK(d.files().size() == 2);
}

TEST_CASE("a daemon that goes to / afterwards has its dumps where they were wanted") {
  const directory d;
  const int before = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  REQUIRE(before >= 0);
  char* const here = realpath(d.name.c_str(), nullptr);
  REQUIRE(here != nullptr);
  const std::string there = here;
  std::free(here);
  {
    dump_options anew;
    anew.replace = true;
    REQUIRE(chdir(there.c_str()) == 0);
    const auto dumps = dump_on_signal(SIGUSR1, "appended");
    const auto replaced = dump_on_signal(SIGUSR2, "./replaced", anew);
    REQUIRE(chdir("/") == 0);
    dump_now(SIGUSR1, there + "/appended");
    dump_now(SIGUSR2, there + "/replaced");
  }
  REQUIRE(fchdir(before) == 0);
  close(before);
  CHECK(d.files().size() == 2);
}

TEST_CASE("a pipe that nobody reads keeps nobody from stopping") {
  int ends[2];
  REQUIRE(pipe2(ends, O_CLOEXEC) == 0);
  const std::string much(65536, 'x');
  REQUIRE(write(ends[1], much.data(), much.size()) == 65536);
  {
    const auto dumps = dump_on_signal(SIGUSR1, ends[1]);
    kill(getpid(), SIGUSR1);
    const directory d;
    const auto next = dump_on_signal(SIGUSR2, d / "dump");
    dump_now(SIGUSR2, d / "dump");  // after two seconds the first is given up
    kill(getpid(), SIGUSR1);
    // The rest is the clock's: it may have begun, or not.
  }
  close(ends[0]);
  close(ends[1]);
}

TEST_CASE("nor does a terminal that has room for a little") {
  const int ours = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
  if (ours < 0) return;  // where there are none
  REQUIRE((grantpt(ours) == 0 && unlockpt(ours) == 0));
  const int terminal = open(ptsname(ours), O_RDWR | O_NOCTTY | O_CLOEXEC);
  REQUIRE(terminal >= 0);
  std::vector<greenlet> many;
  for (int i = 0; i < 2000; ++i) {
    many.emplace_back(attributes().name(std::string(100, 'x')), [] {});
    greenlet parent([] {});
    many.back().set_parent(parent);  // not told with the others
    many.push_back(std::move(parent));
  }
  dump_options with;
  with.format = dump_format::json;
  auto dumps = dump_on_signal(SIGUSR1, terminal, with);
  kill(getpid(), SIGUSR1);
  pollfd begun = {ours, POLLIN, 0};
  CHECK(comes([&] { return poll(&begun, 1, 0) == 1; }));
  std::atomic<bool> stopped{false};
  std::thread stopping([&] { dumps.stop(), stopped = true; });
  CHECK(comes([&] { return stopped.load(); }));
  close(ours);
  stopping.join();
  close(terminal);
  // And a socket, which cannot be opened again.
  int ends[2];
  REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
  {
    const directory d;
    const auto into = dump_on_signal(SIGUSR1, ends[1]);
    const auto next = dump_on_signal(SIGUSR2, d / "dump");
    many.clear();
    kill(getpid(), SIGUSR1);
    dump_now(SIGUSR2, d / "dump");
  }
  close(ends[1]);
  std::string text;
  char part[4096];
  for (ssize_t n; (n = read(ends[0], part, sizeof part)) > 0;) text.append(part, static_cast<std::size_t>(n));
  close(ends[0]);
  CHECK(count(text, "greenlet dump ends\n") == 1);
}
