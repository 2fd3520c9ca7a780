// SPDX-License-Identifier: MIT
// Pipes and FIFOs, to programs and to others; terminals.
#include "hub_programs.hpp"

#include <cerrno>
#include <string>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <system_error>
#include <termios.h>

using namespace greenlets;
using namespace testing;
using hub::process;
using hub::run_process;

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
  const std::string path = here / "fifo";
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
  const std::string path = here / "fifo";
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
  const no_descriptors scope;
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
    const no_descriptors scope;
    CHECK(code_of(p.slave) == EMFILE);
    CHECK_THROWS_AS(hub::raw_mode{t}, std::system_error);
  }
  const child c = in_child([&] {  // as somebody who may not
    if (geteuid() == 0 && setuid(54321) != 0) _exit(2);
    _exit(geteuid() == 54321 && code_of(p.slave) != EACCES);
  });
  CHECK(c.status == 0);
}
