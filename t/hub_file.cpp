// SPDX-License-Identifier: MIT
// Files, whose calls are done on the pool.
#include "hub_pool.hpp"

#include <cerrno>
#include <csignal>
#include <memory>
#include <stdexcept>
#include <string>
#include <sys/resource.h>
#include <sys/stat.h>
#include <system_error>
#include <thread>
#include <utility>

using namespace greenlets;
using namespace testing;

extern "C" {
EXPORTED int fsync(int fd) {
  if (fails_now(call::fsync)) return -1;
  static auto* const real = original(static_cast<int (*)(int)>(nullptr), "fsync");
  return real(fd);
}
EXPORTED int fchmod(int fd, mode_t mode) noexcept {
  if (fails_now(call::fchmod)) return -1;
  static auto* const real = original(static_cast<int (*)(int, mode_t)>(nullptr), "fchmod");
  return real(fd, mode);
}
EXPORTED int close(int fd) {
  static auto* const real = original(static_cast<int (*)(int)>(nullptr), "close");
  if (fails_now(call::close)) {
    const int code = errno;
    real(fd);
    errno = code;
    return -1;
  }
  return real(fd);
}
EXPORTED ssize_t pwrite64(int fd, const void* data, std::size_t size, off64_t at) {
  if (fails_now(call::pwrite)) return with == 0 ? 0 : -1;
  static auto* const real = original(static_cast<ssize_t (*)(int, const void*, std::size_t, off64_t)>(nullptr), "pwrite64");
  return real(fd, data, size, at);
}
}

namespace {

unsigned permissions(const std::string& path) {
  struct stat s {};
  REQUIRE(stat(path.c_str(), &s) == 0);
  return s.st_mode & 07777;
}

}  // namespace

TEST_CASE("a file is written, read back at its position, and anywhere, and tells its end") {
  const hub_guard end;
  const directory dir;
  const std::string sent = pattern(100'000);
  using m = hub::open_mode;
  hub::file f(dir / "f", m::read | m::write | m::create);
  CHECK(f.is_open());
  CHECK((fcntl(f.fd(), F_GETFD) & FD_CLOEXEC));
  const hub::io_result w = f.write_all(sent.data(), sent.size());
  CHECK(w);
  CHECK(w.bytes == sent.size());
  CHECK(f.position() == sent.size());
  CHECK(f.size() == sent.size());
  CHECK(f.sync());

  std::string got(sent.size() + 10, '\0');
  f.seek(0);
  CHECK(f.read_some(got.data(), 10).bytes == 10);
  CHECK(f.position() == 10);
  CHECK(f.read_exactly(got.data() + 10, sent.size() - 10));
  CHECK(got.compare(0, sent.size(), sent) == 0);
  CHECK(f.read_some(got.data(), 1).end());
  CHECK(f.read_some(got.data(), 0));  // of nothing there is no end
  f.seek(sent.size() - 3);
  const hub::io_result less = f.read_exactly(got.data(), 10);
  CHECK(less.end());
  CHECK(less.bytes == 3);
  CHECK(f.position() == sent.size());

  CHECK(f.write_at(5, "hello", 5));
  CHECK(f.read_at(4, got.data(), 7));
  CHECK(got.substr(0, 7) == sent[4] + std::string("hello") + sent[10]);
  CHECK(f.read_at(sent.size() + 5, got.data(), 1).end());
  CHECK(f.position() == sent.size());
  CHECK(f.truncate(8));
  CHECK(f.size() == 8);
  CHECK(f.close());
  CHECK_FALSE(f.is_open());
}

TEST_CASE("how a file is opened: what there is, created, only created, emptied, at its end") {
  const hub_guard end;
  const directory dir;
  using m = hub::open_mode;
  std::string what, got;
  CHECK(system_error_of([&] { hub::file(dir / "f"); }, &what) == std::errc::no_such_file_or_directory);
  CHECK(what.find("open \"" + (dir / "f") + "\"") != std::string::npos);
  CHECK(system_error_of([&] { hub::file(dir / "f", m::write); }) == std::errc::no_such_file_or_directory);
  CHECK(system_error_of([&] { hub::file(dir / "f" + std::string("\0x", 2)); }) == std::errc::invalid_argument);

  const mode_t mask = umask(027);
  {
    hub::file f(dir / "f", m::write | m::exclusive);
    CHECK(permissions(dir / "f") == 0640);
    CHECK(f.write_all("first", 5));
    CHECK(f.read_some(what.data(), 1).error == std::errc::bad_file_descriptor);
    hub::file secret(dir / "secret", m::write | m::create, 0600);
    CHECK(permissions(dir / "secret") == 0600);
  }
  umask(mask);
  CHECK(system_error_of([&] { hub::file(dir / "f", m::write | m::exclusive); }) == std::errc::file_exists);
  {
    hub::file f(dir / "f", m::append | m::read);
    char first;
    CHECK(f.read_some(&first, 1));
    CHECK(f.write_all(", second", 8));
    CHECK(f.write_at(0, "!", 1));  // as POSIX has it not, and Linux has
    CHECK(f.position() == 1);
    CHECK(f.read_some(&first, 1));
    CHECK(first == 'i');
  }
  CHECK(hub::read_file(got, dir / "f"));
  CHECK(got == "first, second!");
  hub::file(dir / "f", m::write).write_all("F", 1);
  CHECK(hub::read_file(got, dir / "f"));
  CHECK(got == "First, second!");
  hub::file(dir / "f", m::write | m::truncate);
  CHECK(hub::read_file(got, dir / "f"));
  CHECK(got.empty());
  hub::file reads(dir / "f");
  CHECK(reads.write_all("x", 1).error == std::errc::bad_file_descriptor);
  CHECK(reads.truncate(0).error == std::errc::invalid_argument);

  CHECK_THROWS_AS(hub::file(dir / "f", m::create), std::invalid_argument);
  CHECK_THROWS_AS(hub::file(dir / "f", m::read | m::truncate), std::invalid_argument);
}

TEST_CASE("a file moves, and one that is closed, moved from or never opened says so") {
  const hub_guard end;
  const directory dir;
  char c;
  hub::file a(dir / "f", hub::open_mode::write | hub::open_mode::create), b;
  const int fd = a.fd();
  b = std::move(a);
  hub::file d(std::move(b));
  CHECK(d.fd() == fd);
  hub::file never;
  hub::file closed(dir / "f");
  CHECK(closed.close());
  for (hub::file* f : {&a, &b, &never, &closed}) {
    CHECK_FALSE(f->is_open());
    CHECK(f->fd() == -1);
    f->seek(7);
    CHECK(f->position() == 0);
    CHECK(f->read_some(&c, 1).closed());
    CHECK(f->read_exactly(&c, 1).closed());
    CHECK(f->write_all(&c, 1).closed());
    CHECK(f->read_at(0, &c, 1).closed());
    CHECK(f->write_at(0, &c, 1).closed());
    CHECK(f->sync().closed());
    CHECK(f->truncate(0).closed());
    CHECK(f->close().closed());
    CHECK(system_error_of([&] { f->size(); }) == std::errc::bad_file_descriptor);
  }
}

TEST_CASE("a full disk is a result: nothing is written, and so is a limit: what went before is told") {
  const hub_guard end;
  hub::file full("/dev/full", hub::open_mode::write);
  const hub::io_result none = full.write_all("data", 4);
  CHECK(none.error == std::errc::no_space_on_device);
  CHECK(none.bytes == 0);
  CHECK(full.position() == 0);

  const directory dir;
  const child c = in_child([&] {
    std::signal(SIGXFSZ, SIG_IGN);
    const limited size(RLIMIT_FSIZE, 5000);  // and then again what it was: for what a build with --enable-coverage writes
    hub::file f(dir / "f", hub::open_mode::write | hub::open_mode::create);
    const std::string much(8000, 'm');
    const hub::io_result some = f.write_all(much.data(), much.size());
    if (some.error != std::errc::file_too_large || some.bytes != 5000 || f.position() != 5000) _exit(3);
    if (!hub::write_file(dir / "whole", "old content")) _exit(4);
    if (hub::write_file(dir / "whole", much).error != std::errc::file_too_large) _exit(5);
    std::string got;
    if (!hub::read_file(got, dir / "whole") || got != "old content") _exit(6);
    f.close();
    hub::shutdown();
  });
#ifndef T_TSAN  // its runtime starts no threads in a child of a process that has some
  INFO(c.output);
  CHECK(c.status == 0);
  CHECK(dir.names() == events{"f", "whole"});
#endif
}

TEST_CASE("errors of closing, syncing, cutting and asking are told, and the file is closed all the same") {
  const hub_guard end;
  const directory dir;
  hub::file f(dir / "f", hub::open_mode::write | hub::open_mode::create);
  {
    const failing sync(call::fsync, EIO);
    CHECK(f.sync().error == std::errc::io_error);
  }
  {
    const failing sync(call::fsync, EINTR);  // which a signal brings: again
    CHECK(f.sync());
    CHECK(sync.has_failed());
  }
  {
    const failing write(call::pwrite, 0);
    CHECK(f.write_all("x", 1).error == std::errc::io_error);
  }
  CHECK(f.truncate(~0ull >> 1).error);
  const int fd = f.fd();
  const failing close(call::close, ENOSPC);
  CHECK(f.close().error == std::errc::no_space_on_device);
  CHECK_FALSE(f.is_open());
  CHECK(fcntl(fd, F_GETFD) == -1);
}

TEST_CASE("at the position one greenlet at a time; elsewhere many at once") {
  const hub_guard end;
  const directory dir;
  hub::file f(dir / "f", hub::open_mode::read | hub::open_mode::write | hub::open_mode::create);
  const std::string all = pattern(64 * 100);
  hub::group writers;
  for (std::size_t n = 0; n < 64; ++n)
    writers.spawn([&, n] { CHECK(f.write_at(n * 100, all.data() + n * 100, 100)); });
  writers.wait();
  CHECK(f.size() == all.size());

  pool_taken taken;
  std::string got(all.size(), '\0');
  auto reads = hub::spawn([&] { return f.read_exactly(got.data(), got.size()); });
  yield_until_waiting(1);
  char c;
  std::string what;
  CHECK(error_of([&] { f.read_some(&c, 1); }, &what) == errc::already_waiting);
  CHECK(what.find("descriptor " + std::to_string(f.fd())) != std::string::npos);
  CHECK(error_of([&] { f.write_all(&c, 1); }) == errc::already_waiting);
  auto also = hub::spawn([&] { return f.read_at(5, &c, 1); });
  yield_until_waiting(2);
  taken.release();
  CHECK(reads.get());
  CHECK(also.get());
  CHECK(got == all);
  CHECK(c == all[5]);
}

TEST_CASE("what is thrown in comes out when the call has ended, and the position is where that got") {
  const hub_guard end;
  const directory dir;
  hub::file f(dir / "f", hub::open_mode::write | hub::open_mode::create);
  pool_taken taken;
  auto never = hub::spawn([&] { f.write_all("never", 5); });
  yield_until_waiting(1);
  never.cancel();
  never.join();
  CHECK(f.position() == 0);
  taken.release();
  // Cancelled when it has been done, and before it knows.
  auto done = hub::spawn([&] { f.write_all("done", 4); });
  auto thrower = hub::spawn([&] {
    struct stat now {};
    const auto give_up = hub::clock::now() + seconds(60);
    while (fstat(f.fd(), &now) == 0 && now.st_size != 4 && hub::clock::now() < give_up) continue;
    done.handle().throw_in(greenlet_exit());
  });
  CHECK_THROWS_AS(done.get(), hub::cancelled);
  thrower.cancel();
  CHECK(f.position() == 4);
  CHECK(f.write_all("!", 1));
  std::string got;
  CHECK(hub::read_file(got, dir / "f"));
  CHECK(got == "done!");
}

TEST_CASE("closing waits for those who are at it, and the object may go while they are") {
  const hub_guard end;
  const directory dir;
  auto f = std::make_unique<hub::file>(dir / "f", hub::open_mode::write | hub::open_mode::create);
  const int fd = f->fd();
  pool_taken taken;
  auto writes = hub::spawn([&] { return f->write_all("written", 7); });
  yield_until_waiting(1);
  auto closes = hub::spawn([&] { return f->close(); });
  yield_until_waiting(2);
  CHECK_FALSE(f->is_open());
  CHECK(fcntl(fd, F_GETFD) != -1);
  CHECK(f->write_all("late", 4).closed());
  f.reset();
  taken.release();
  CHECK(writes.get());
  CHECK(closes.get());
  CHECK(fcntl(fd, F_GETFD) == -1);
}

TEST_CASE("a close that is cancelled closes, at whatever it was; and so does an opening") {
  const hub_guard end;
  const directory dir;
  hub::file f(dir / "f", hub::open_mode::write | hub::open_mode::create);
  hub::file g(dir / "g", hub::open_mode::write | hub::open_mode::create);
  const int fd = f.fd(), gd = g.fd();
  pool_taken taken;
  auto writes = hub::spawn([&] { return f.write_all("written", 7); });
  auto closes_f = hub::spawn([&] { f.close(); });
  auto closes_g = hub::spawn([&] { g.close(); });
  auto opens = hub::spawn([&] { hub::file(dir / "h", hub::open_mode::write | hub::open_mode::create); });
  yield_until_waiting(4);
  for (auto* t : {&closes_f, &closes_g, &opens}) t->cancel();
  for (auto* t : {&closes_f, &closes_g, &opens}) CHECK(t->join(hang_guard()));
  CHECK(fcntl(fd, F_GETFD) != -1);  // not under the writer's feet
  CHECK(fcntl(gd, F_GETFD) == -1);
  taken.release();
  CHECK(writes.get());
  CHECK(fcntl(fd, F_GETFD) == -1);
  CHECK(dir.names() == events{"f", "g"});
}

TEST_CASE("a file has no hub: it outlives one, and may go to another thread") {
  const directory dir;
  hub::file f(dir / "f", hub::open_mode::read | hub::open_mode::write | hub::open_mode::create);
  CHECK(f.write_all("one", 3));
  hub::shutdown();
  CHECK(f.write_all("two", 3));
  hub::shutdown();
  std::thread([&, f = std::move(f)]() mutable {
    CHECK(f.write_all("three", 5));
    CHECK(f.close());
  }).join();
  const hub_guard end;
  std::string got;
  CHECK(hub::read_file(got, dir / "f"));
  CHECK(got == "onetwothree");
}

TEST_CASE("without descriptors left an opening is an error with the path, and reading a file a result") {
  const directory dir;
  const child c = in_child([&] {
    hub::write_file(dir / "f", "content");
    const no_descriptors scope;
    if (system_error_of([&] { hub::file(dir / "f"); }) != std::errc::too_many_files_open) _exit(2);
    std::string got = "as it was";
    if (hub::read_file(got, dir / "f").error != std::errc::too_many_files_open || got != "as it was") _exit(3);
    if (hub::write_file(dir / "f", "x").error != std::errc::too_many_files_open) _exit(4);
    hub::shutdown();
  });
#ifndef T_TSAN
  INFO(c.output);
  CHECK(c.status == 0);
#endif
}

TEST_CASE("read_file reads all of it, also what says nothing of its size; failing, it leaves the string as it was") {
  const hub_guard end;
  const directory dir;
  std::string got = "before";
  CHECK(hub::read_file(got, dir / "none").error == std::errc::no_such_file_or_directory);
  CHECK(hub::read_file(got, dir.path).error == std::errc::is_a_directory);
  CHECK(got == "before");
  for (const std::size_t size : {0, 1, 4095, 4096, 4097, 1'000'000}) {
    const std::string sent = pattern(size);
    const hub::io_result w = hub::write_file(dir / "f", sent);
    CHECK(w);
    CHECK(w.bytes == size);
    const hub::io_result r = hub::read_file(got, dir / "f");
    CHECK(r);
    CHECK(r.bytes == size);
    CHECK(got == sent);
  }
  CHECK(hub::read_file(got, "/proc/self/smaps"));
  CHECK(got.size() > 5000);
}

TEST_CASE("write_file replaces a file whole: permissions stay, links lead to it, and nothing is left beside it") {
  const hub_guard end;
  const directory dir;
  const mode_t mask = umask(027);
  CHECK(hub::write_file(dir / "f", "first"));
  umask(mask);
  CHECK(permissions(dir / "f") == 0640);
  chmod((dir / "f").c_str(), 0604);
  const int old = open((dir / "f").c_str(), O_RDONLY | O_CLOEXEC);
  REQUIRE(symlink("f", (dir / "link").c_str()) == 0);
  CHECK(hub::write_file(dir / "link", "second"));
  CHECK(permissions(dir / "f") == 0604);
  std::string got;
  CHECK(hub::read_file(got, dir / "f"));
  CHECK(got == "second");
  char before[6] = "";
  CHECK(read(old, before, 5) == 5);  // who had it open has what it was
  CHECK(std::string(before) == "first");
  ::close(old);
  CHECK(dir.names() == events{"f", "link"});

  // A name that a dead process of this number has left.
  const std::string last = std::to_string(getpid());
  for (int n = 0; n < 200; ++n)
    hub::file(dir / ".greenlet-" + last + "-" + std::to_string(n), hub::open_mode::write | hub::open_mode::create);
  CHECK(hub::write_file(dir / "f", "third"));
  CHECK(hub::read_file(got, dir / "f"));
  CHECK(got == "third");

  // In the directory that the process is in.
  char here[4096];
  REQUIRE(getcwd(here, sizeof here));
  REQUIRE(chdir(dir.path.c_str()) == 0);
  CHECK(hub::write_file("g", "relative"));
  CHECK(chdir(here) == 0);
  CHECK(hub::read_file(got, dir / "g"));
  CHECK(got == "relative");
}

TEST_CASE("write_file that fails changes nothing, and leaves nothing") {
  const hub_guard end;
  const directory dir;
  CHECK(hub::write_file(dir / "f", "old"));
  REQUIRE(mkdir((dir / "directory").c_str(), 0700) == 0);
  REQUIRE(symlink("nowhere", (dir / "broken").c_str()) == 0);
  const events before = dir.names();
  const auto error = [&](const std::string& path) { return hub::write_file(path, "new").error; };
  CHECK(error(dir / "none" + "/f") == std::errc::no_such_file_or_directory);
  CHECK(error(dir / "f" + "/f") == std::errc::not_a_directory);
  CHECK(error(dir / "broken") == std::errc::no_such_file_or_directory);
  CHECK(error(dir / "directory") == std::errc::invalid_argument);
  CHECK(error("/dev/null") == std::errc::invalid_argument);
  CHECK(error(dir / "f" + std::string("\0x", 2)) == std::errc::invalid_argument);
  CHECK(error(dir / "new/") == std::errc::no_such_file_or_directory);
  for (const call c : {call::pwrite, call::fchmod, call::fsync, call::close}) {
    const failing f(c, EIO);
    CHECK(error(dir / "f") == std::errc::io_error);
    CHECK(f.has_failed());
  }
  CHECK(dir.names() == before);
  std::string got;
  CHECK(hub::read_file(got, dir / "f"));
  CHECK(got == "old");
  {
    const failing directory(call::fsync, EIO, 1);
    CHECK(error(dir / "f") == std::errc::io_error);
  }
  CHECK(hub::read_file(got, dir / "f"));
  CHECK(got == "new");  // but for this one, as the manual says
  {
    const failing cannot(call::fsync, EINVAL, 1);  // some file systems cannot
    CHECK_FALSE(error(dir / "f"));
    CHECK(cannot.has_failed());
  }
}

TEST_CASE("a write_file that is cancelled when it has begun is whole") {
  const hub_guard end;
  const directory dir;
  CHECK(hub::write_file(dir / "f", "old"));
  for (int n = 0; n < 50; ++n) {
    auto t = hub::spawn([&] { hub::write_file(dir / "f", std::string(1000, 'n')); });
    for (int turns = 0; turns < n % 5; ++turns) hub::yield();
    t.cancel();
    t.join();
    std::string got;
    CHECK(hub::read_file(got, dir / "f"));
    CHECK((got == "old" || got == std::string(1000, 'n')));
    CHECK(dir.names() == events{"f"});
  }
}
