// SPDX-License-Identifier: MIT
// Descriptors in blocking style: results, deadlines, closing, and what is refused.
#include "hub_testing.hpp"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <memory>
#include <sys/resource.h>
#include <thread>

using namespace greenlets;
using namespace testing;

namespace {

int flags_of(int fd) { return fcntl(fd, F_GETFL); }

bool is_open(int fd) { return fcntl(fd, F_GETFD) >= 0; }

template <class F>
int system_error_of(F&& f) {
  try {
    f();
  } catch (const std::system_error& e) {
    return e.code().value();
  }
  return 0;
}

const auto past = hub::clock::time_point();

}  // namespace

// -- Results -------------------------------------------------------------------------------------

TEST_CASE("read_some gives what is there, or waits until something is") {
  hub_guard guard;
  for (const auto make : {socket_pair, pipe_pair}) {
    auto [in, out] = make();
    char buffer[8] = "";
    CHECK(out.write_all("hello", 5).bytes == 5);
    const auto before = hub::statistics().switches;
    hub::io_result r = in.read_some(buffer, sizeof buffer);
    CHECK(r);
    CHECK(r.bytes == 5);
    CHECK(std::string(buffer, 5) == "hello");
    CHECK(hub::statistics().switches == before);  // it was there: no switch

    bool read = false;
    auto t = hub::spawn([&, &in = in] {
      const auto got = in.read_some(buffer, sizeof buffer);
      read = true;
      return got;
    });
    hub::yield();
    CHECK_FALSE(read);
    out.write_all("xy", 2);
    CHECK(t.get().bytes == 2);

    out.close();
    r = in.read_some(buffer, sizeof buffer);
    CHECK_FALSE(r);
    CHECK(r.end());
    CHECK_FALSE(r.error);
    CHECK(in.read_some(buffer, sizeof buffer).end());  // and again
  }
}

TEST_CASE("what comes between a short read and the next wait is not lost") {
  hub_guard guard;
  auto [in, out] = socket_pair();
  char buffer[16];
  for (int n = 0; n < 200; ++n) {
    out.write_all("ab", 2);
    CHECK(in.read_some(buffer, sizeof buffer).bytes == 2);
    if (n % 3 == 0) hub::yield();
    out.write_all("c", 1);
    CHECK(in.read_some(buffer, sizeof buffer, hang_guard()).bytes == 1);
  }
  // In pieces smaller than what is there, with an end behind it.
  out.write_all("0123456789", 10);
  out.close();
  CHECK(read_to_end(in, 3) == "0123456789");
}

TEST_CASE("read_exactly collects, and says how far it came") {
  hub_guard guard;
  auto [in, out] = socket_pair();
  char buffer[6];
  auto t = hub::spawn([&, &in = in] { return in.read_exactly(buffer, 6); });
  for (const char* piece : {"ab", "c", "def"}) {
    hub::yield();
    CHECK_FALSE(t.ready());
    out.write_all(piece, std::char_traits<char>::length(piece));
  }
  CHECK(t.get().bytes == 6);
  CHECK(std::string(buffer, 6) == "abcdef");

  out.write_all("xyz", 3);
  hub::io_result r = in.read_exactly(buffer, 6, milliseconds(1));
  CHECK(r.timed_out());
  CHECK(r.bytes == 3);
  out.write_all("1234", 4);
  out.close();
  r = in.read_exactly(buffer, 6);
  CHECK(r.end());
  CHECK(r.bytes == 4);
  CHECK(std::string(buffer, 4) == "1234");
}

TEST_CASE("write_all writes everything to one who reads slowly; try_write what fits") {
  hub_guard guard;
  const std::string sent = pattern(1'500'000);
  for (const auto make : {socket_pair, pipe_pair}) {
    auto [in, out] = make();
    auto writes = hub::spawn([&, &out = out] {
      const auto r = out.write_all(sent.data(), sent.size());
      out.close();
      return r;
    });
    CHECK(read_to_end(in, 10'001) == sent);
    CHECK(writes.get());
    CHECK(writes.get().bytes == sent.size());
  }
  auto [in, out] = socket_pair();
  CHECK(fill(out) > 0);
  const auto switches = hub::statistics().switches;
  const hub::io_result none = out.try_write("x", 1);
  CHECK(none);
  CHECK(none.bytes == 0);
  CHECK(hub::statistics().switches == switches);
  CHECK(drain(in) > 0);
  CHECK(out.try_write("x", 1).bytes == 1);
}

TEST_CASE("nothing to move is done at once") {
  hub_guard guard;
  auto [in, out] = socket_pair();
  fill(out);
  CHECK(in.read_some(nullptr, 0));
  CHECK(in.read_exactly(nullptr, 0));
  CHECK(out.write_all(nullptr, 0));
  CHECK(out.try_write(nullptr, 0));
  CHECK_FALSE(in.read_some(nullptr, 0).end());
}

TEST_CASE("deadlines: a wait gives up, and what needs no wait does not ask for the time") {
  hub_guard guard;
  auto [in, out] = socket_pair();
  char c;
  const auto start = hub::clock::now();
  hub::io_result r = in.read_some(&c, 1, milliseconds(3));
  CHECK(r.timed_out());
  CHECK_FALSE(r.closed());
  CHECK_FALSE(r.end());
  CHECK(hub::clock::now() - start >= milliseconds(3));
  CHECK(in.read_some(&c, 1, past).timed_out());
  CHECK(in.wait(hub::direction::readable, milliseconds(1)).timed_out());
  out.write_all("z", 1, past);
  CHECK(in.read_some(&c, 1, past));
  CHECK(c == 'z');

  const std::string much(4'000'000, 'm');
  r = out.write_all(much.data(), much.size(), milliseconds(2));
  CHECK(r.timed_out());
  CHECK(r.bytes > 0);
  CHECK(r.bytes < much.size());
  CHECK(out.wait(hub::direction::writable, past).timed_out());
  // It has written exactly what it says.
  out.close();
  CHECK(read_to_end(in).size() == r.bytes);
}

TEST_CASE("wait says when it is worth trying") {
  hub_guard guard;
  auto [in, out] = socket_pair();
  CHECK(out.wait(hub::direction::writable));
  auto t = hub::spawn([&in = in] { return in.wait(hub::direction::readable); });
  hub::yield();
  out.write_all("!", 1);
  CHECK(t.get());
  fill(out);
  auto room = hub::spawn([&out = out] { return out.wait(hub::direction::writable); });
  hub::yield();
  CHECK_FALSE(room.ready());
  drain(in);
  CHECK(room.get());
}

TEST_CASE("a pipe without a reader is a result, and no signal but one that was there before") {
  hub_guard guard;
  auto [in, out] = pipe_pair();
  in.close();
  CHECK(out.write_all("x", 1).reset());  // SIGPIPE would kill us
  CHECK(out.try_write("x", 1).reset());
  sigset_t only, before, now;
  sigemptyset(&only);
  sigaddset(&only, SIGPIPE);
  pthread_sigmask(SIG_BLOCK, &only, &before);
  CHECK_FALSE(sigismember(&before, SIGPIPE));
  CHECK(out.write_all("x", 1).reset());
  sigpending(&now);
  CHECK_FALSE(sigismember(&now, SIGPIPE));
  raise(SIGPIPE);
  CHECK(out.write_all("x", 1).reset());
  sigpending(&now);
  CHECK(sigismember(&now, SIGPIPE));
  const timespec at_once{};
  CHECK(sigtimedwait(&only, nullptr, &at_once) == SIGPIPE);
  pthread_sigmask(SIG_SETMASK, &before, &now);
  CHECK(sigismember(&now, SIGPIPE));
}

TEST_CASE("one who has gone is a result, for reader and writer, and no signal") {
  hub_guard guard;
  auto [a, b] = socket_pair();
  b.write_all("never read", 10);
  a.close();
  hub::io_result r = b.write_all("x", 1);  // SIGPIPE would kill us
  CHECK(r.reset());
  CHECK(b.try_write("x", 1).reset());
  char c;
  r = b.read_some(&c, 1);
  CHECK((r.end() || r.reset()));

  // While they wait.
  auto [p, q] = socket_pair();
  fill(q);
  auto reads = hub::spawn([&q = q] {
    char got;
    return q.read_some(&got, 1);
  });
  auto writes = hub::spawn([&q = q] { return q.write_all("x", 1); });
  hub::yield();
  p.close();
  CHECK(writes.get().reset());
  CHECK_FALSE(reads.get());
}

// -- Refused -------------------------------------------------------------------------------------

TEST_CASE("what cannot be waited for is a system_error, and its owner keeps it") {
  hub_guard guard;
  char name[] = "/tmp/greenlet-hub-io-XXXXXX";
  const int file = mkstemp(name);
  REQUIRE(file >= 0);
  unlink(name);
  CHECK(system_error_of([&] { hub::descriptor d(file); }) == EPERM);
  CHECK(system_error_of([&] { hub::wait(file, hub::direction::readable); }) == EPERM);
  CHECK(is_open(file));
  ::close(file);
  CHECK(system_error_of([&] { hub::descriptor d(file); }) == EBADF);
  CHECK(system_error_of([&] { hub::wait(file, hub::direction::readable); }) == EBADF);
  CHECK(system_error_of([&] { hub::descriptor d(-1); }) == EBADF);
}

TEST_CASE("two readers, and two writers, are refused; a reader and a writer are not") {
  hub_guard guard;
  auto [a, b] = socket_pair();
  fill(a);
  char first, second;
  auto reads = hub::spawn([&, &a = a] { return a.read_some(&first, 1); });
  auto writes = hub::spawn([&a = a] { return a.write_all("w", 1); });
  hub::yield();
  std::string what;
  CHECK(error_of([&, &a = a] { a.read_some(&second, 1); }, &what) == errc::already_waiting);
  CHECK(what.find("another greenlet already waits to read") == 0);
  CHECK(what.find("greenlet " + std::to_string(reads.handle().id())) != std::string::npos);
  CHECK(error_of([&, &a = a] { a.wait(hub::direction::readable); }) == errc::already_waiting);
  CHECK(error_of([&, &a = a] { a.write_all("x", 1); }, &what) == errc::already_waiting);
  CHECK(what.find("another greenlet already waits to write") == 0);
  hub::yield();
  CHECK_FALSE(reads.ready());
  CHECK_FALSE(writes.ready());

  // Both at once: their events come together.
  drain(b);
  b.write_all("r", 1);
  CHECK(reads.get());
  CHECK(first == 'r');
  CHECK(writes.get());
}

TEST_CASE("a descriptor is refused on another thread, with a hub there or without") {
  hub_guard guard;
  auto [a, b] = socket_pair();
  b.write_all("x", 1);
  const auto try_all = [&, &d = a] {
    char c;
    std::string what;
    CHECK(error_of([&] { d.read_some(&c, 1); }, &what) == errc::different_thread);
    CHECK(what.find("a descriptor belongs to the hub of a different thread") == 0);
    CHECK(error_of([&] { d.read_exactly(&c, 1); }) == errc::different_thread);
    CHECK(error_of([&] { d.write_all("x", 1); }) == errc::different_thread);
    CHECK(error_of([&] { d.try_write("x", 1); }) == errc::different_thread);
    CHECK(error_of([&] { d.wait(hub::direction::writable); }) == errc::different_thread);
  };
  std::thread([&] {
    try_all();
    CHECK(hub::statistics().turns == 0);
    hub::run([&] { try_all(); });
  }).join();
  char c;
  CHECK(a.read_some(&c, 1));
}

// -- Closing -------------------------------------------------------------------------------------

TEST_CASE("closing a descriptor wakes who waits on it, and what comes later finds it closed") {
  hub_guard guard;
  auto [a, b] = socket_pair();
  fill(a);
  const int number = a.fd();
  char c;
  auto reads = hub::spawn([&, &a = a] { return a.read_exactly(&c, 1, hours(1)); });
  auto writes = hub::spawn([&a = a] { return a.write_all("xx", 2); });
  hub::yield();
  const auto switches = hub::statistics().switches;
  a.close();
  CHECK(hub::statistics().switches == switches);
  CHECK_FALSE(is_open(number));
  CHECK(reads.get().closed());
  CHECK(writes.get().closed());
  CHECK(a.fd() == -1);
  CHECK_FALSE(a.is_open());
  CHECK(a.read_some(&c, 1).closed());
  CHECK(a.read_exactly(&c, 1).closed());
  CHECK(a.write_all("x", 1).closed());
  CHECK(a.try_write("x", 1).closed());
  CHECK(a.wait(hub::direction::readable).closed());
  a.close();
  CHECK(hub::descriptor().read_some(&c, 1).closed());
  CHECK(hub::descriptor().fd() == -1);
}

TEST_CASE("a descriptor's number may be used again as soon as it is closed") {
  hub_guard guard;
  for (int n = 0; n < 50; ++n) {
    auto [a, b] = socket_pair();
    const int number = a.fd();
    auto waits = hub::spawn([&a = a] { return a.wait(hub::direction::readable).closed(); });
    hub::yield();
    a.close();
    auto [c, d] = socket_pair();
    CHECK(c.fd() == number);
    char got;
    auto reads = hub::spawn([&, &c = c] { return c.read_some(&got, 1, hang_guard()).bytes; });
    CHECK(waits.get());
    d.write_all("x", 1);
    CHECK(reads.get() == 1);
  }
}

TEST_CASE("who closes may destroy the object as well") {
  hub_guard guard;
  auto both = std::make_unique<ends>(socket_pair());
  fill(both->first);
  char c;
  auto reads = hub::spawn([&, d = &both->first] { return d->read_exactly(&c, 1); });
  auto writes = hub::spawn([d = &both->first] { return d->write_all("x", 1); });
  auto sibling = hub::spawn([&] { both.reset(); });
  CHECK(reads.get().closed());
  CHECK(writes.get().closed());
  sibling.get();
}

// Who goes on first closes it; the other is ready, but has not gone on yet.
TEST_CASE("one that is ready already, when its descriptor is destroyed, finds it closed") {
  hub_guard guard;
  for (const auto d : {hub::direction::readable, hub::direction::writable}) {
    auto both = std::make_unique<ends>(socket_pair());
    auto& [a, b] = *both;
    fill(a);
    const auto destroy = [&both, end = std::make_shared<hub::descriptor>()] {
      *end = std::move(both->second);  // the other side stays
      both.reset();
    };
    char c;
    auto reads = hub::spawn([&, &a = a] {
      const auto r = a.read_some(&c, 1);
      if (d == hub::direction::readable) destroy();
      return r;
    });
    auto writes = hub::spawn([&, &a = a] {
      const auto r = a.write_all("xx", 2);
      if (d == hub::direction::writable) destroy();
      return r;
    });
    hub::yield();
    hub::yield();
    drain(b);
    b.write_all("r", 1);
    const auto got = reads.get(), sent = writes.get();
    if (d == hub::direction::readable) {
      CHECK(got);
      CHECK(sent.closed());
    } else {
      CHECK(sent);
      CHECK((got || got.closed()));  // whoever of them was first
    }
  }
}

TEST_CASE("descriptors move, and a moved-from one is closed") {
  hub_guard guard;
  auto [a, b] = socket_pair();
  const int number = a.fd();
  hub::descriptor moved = std::move(a);
  CHECK_FALSE(a.is_open());
  CHECK(moved.fd() == number);
  b.write_all("x", 1);
  char c;
  CHECK(moved.read_some(&c, 1));
  moved = std::move(b);
  CHECK_FALSE(is_open(number));
  CHECK(moved.read_some(&c, 1).end());
  hub::descriptor& same = moved;
  moved = std::move(same);
  CHECK(moved.is_open());
}

// -- Somebody else's -----------------------------------------------------------------------------

TEST_CASE("hub::wait leaves somebody else's descriptor as it was: open, blocking, watched by nobody") {
  hub_guard guard;
  int fd[2];
  REQUIRE(pipe2(fd, O_CLOEXEC) == 0);
  CHECK((flags_of(fd[0]) & O_NONBLOCK) == 0);
  CHECK(hub::wait(fd[0], hub::direction::readable, milliseconds(1)).timed_out());
  CHECK(hub::wait(fd[1], hub::direction::writable));
  auto t = hub::spawn([&] { return hub::wait(fd[0], hub::direction::readable); });
  auto also = hub::spawn([&] { return hub::wait(fd[0], hub::direction::readable); });  // any number
  hub::yield();
  CHECK((flags_of(fd[0]) & O_NONBLOCK) == 0);
  CHECK(::write(fd[1], "x", 1) == 1);
  CHECK(t.get());
  CHECK(also.get());
  CHECK((flags_of(fd[0]) & O_NONBLOCK) == 0);
  CHECK((flags_of(fd[1]) & O_NONBLOCK) == 0);
  char c;
  CHECK(::read(fd[0], &c, 1) == 1);

  // Its owner closes it, and the number becomes another's: nothing happens.
  auto waits = hub::spawn([&] { return hub::wait(fd[0], hub::direction::readable, milliseconds(5)); });
  hub::yield();
  ::close(fd[0]);
  int other[2];
  REQUIRE(pipe2(other, O_CLOEXEC) == 0);
  hub::descriptor ours(other[0]);
  CHECK(::write(other[1], "y", 1) == 1);
  CHECK(ours.read_some(&c, 1));
  CHECK(waits.get().timed_out());
  ::close(other[1]);
  ::close(fd[1]);
}

// -- Turns ---------------------------------------------------------------------------------------

// A level that nobody consumes would wake the loop for ever.
TEST_CASE("data, an end or room that nobody waits for does not keep the loop turning") {
  hub_guard guard;
  const auto turns_while_idle = [] {
    hub::sleep_for(milliseconds(1));  // what was armed is noticed
    const auto before = hub::statistics().turns;
    hub::sleep_for(milliseconds(20));
    return hub::statistics().turns - before;
  };
  char c;
  auto [a, b] = socket_pair();
  b.write_all("12", 2);
  CHECK(a.read_some(&c, 1));
  auto waits = hub::spawn([&, &a = a] {
    a.read_some(&c, 1);
    return a.read_some(&c, 1);  // really waits: armed
  });
  hub::yield();
  b.write_all("34567", 5);
  CHECK(waits.get());
  CHECK(turns_while_idle() < 20);  // data
  CHECK(a.read_exactly(&c, 1));
  CHECK(a.wait(hub::direction::writable));
  CHECK(turns_while_idle() < 20);  // room
  b.close();
  CHECK(turns_while_idle() < 20);  // the end
  auto [p, q] = pipe_pair();
  auto reads = hub::spawn([&, &p = p] { return p.read_some(&c, 1); });
  hub::yield();
  q.write_all("xy", 2);
  CHECK(reads.get());
  q.close();
  CHECK(turns_while_idle() < 20);  // data and a hang-up
  CHECK(p.read_some(&c, 1));
  CHECK(p.read_some(&c, 1).end());
}

TEST_CASE("hundreds of pairs talk at once, and everyone's bytes are their own") {
  hub_guard guard;
  constexpr std::size_t pairs = 450;  // within the usual limit of 1,024 descriptors
  std::size_t right = 0;
  std::vector<hub::task<void>> tasks;
  for (std::size_t n = 0; n < pairs; ++n) {
    auto both = std::make_shared<ends>(socket_pair());
    tasks.push_back(hub::spawn([both] {
      char buffer[64];
      while (const auto r = both->first.read_some(buffer, sizeof buffer))
        if (!both->first.write_all(buffer, r.bytes)) break;
      both->first.close();
    }));
    tasks.push_back(hub::spawn([both, n, &right] {
      for (int round = 0; round < 5; ++round) {
        const std::string sent = std::to_string(n) + ":" + std::to_string(round);
        char back[64] = "";
        if (!both->second.write_all(sent.data(), sent.size())) return;
        if (!both->second.read_exactly(back, sent.size(), hang_guard()) || back != sent) return;
      }
      ++right;
      both->second.close();
    }));
  }
  for (auto& t : tasks) t.get();
  CHECK(right == pairs);
}

// With more ready than libuv asks for at once, those that were left for later were polled again 47 times each turn.
TEST_CASE("thousands that are ready all the time are resumed at once, and the others have their turns meanwhile") {
  hub_guard guard;
  constexpr std::size_t count = 1300;
  rlimit limit{};
  REQUIRE(getrlimit(RLIMIT_NOFILE, &limit) == 0);
  const rlimit before = limit;
  const auto restored = at_end([&] { setrlimit(RLIMIT_NOFILE, &before); });
  limit.rlim_cur = std::max<rlim_t>(limit.rlim_cur, count + 100);
  if (limit.rlim_max < limit.rlim_cur) return;  // not here
  REQUIRE(setrlimit(RLIMIT_NOFILE, &limit) == 0);

  auto [in, out] = pipe_pair();
  std::vector<std::size_t> woken(count);
  std::vector<hub::task<void>> tasks;
  std::size_t all = 0, yields = 0;
  hub::event enough;
  bool stop = false;
  for (std::size_t& times : woken)
    tasks.push_back(hub::spawn([&, d = std::make_shared<hub::descriptor>(dup(in.fd()))] {
      while (!stop) {
        if (!d->wait(hub::direction::readable)) return;
        ++times;
        if (++all == 20 * count) enough.set();
      }
    }));
  yield_until_waiting(count);
  REQUIRE(out.write_all("x", 1));  // and nobody takes it
  tasks.push_back(hub::spawn([&] {
    while (!stop) ++yields, hub::yield();
  }));
  hub::clock::time_point slept;
  tasks.push_back(hub::spawn([&] {
    hub::sleep_for(milliseconds(1));
    slept = hub::clock::now();
  }));
  hub::yield();
  const auto turns = hub::statistics().turns;
  enough.wait();
  CHECK(hub::statistics().turns - turns < 5);
  CHECK(yields > 10);
  stop = true;
  for (auto& t : tasks) t.get();
  CHECK(*std::min_element(woken.begin(), woken.end()) > 10);
  CHECK(slept > hub::clock::time_point());
}
