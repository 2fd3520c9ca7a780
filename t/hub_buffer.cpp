// SPDX-License-Identifier: MIT
// Reading ahead, gathering, pieces, files: nothing is lost or doubled, however a wait ends.
#include "hub_testing.hpp"

#include <array>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <sys/ioctl.h>
#include <vector>

using namespace greenlets;
using namespace testing;

namespace {

std::string lines(std::size_t count) {
  std::string all;
  for (std::size_t n = 0; n < count; ++n) all += std::string(n * 7 % 300, static_cast<char>('a' + n % 26)) + (n % 3 ? "\n" : "\r\n");
  return all;
}

// Writes it in pieces of odd sizes.
void trickle(hub::descriptor& to, std::string_view all) {
  for (std::size_t n = 0, step = 1; n < all.size(); n += step, step = step * 5 % 211 + 1) {
    step = std::min(step, all.size() - n);
    REQUIRE(to.write_all(all.data() + n, step, hang_guard()));
    hub::yield();
  }
}

// A file that has gone when its descriptor has.
hub::owned_fd file_with(std::string_view content) {
  hub::owned_fd fd(open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  REQUIRE(fd.get() >= 0);
  REQUIRE(write(fd.get(), content.data(), content.size()) == static_cast<ssize_t>(content.size()));
  return fd;
}

int waiting_bytes(const hub::descriptor& d) {
  int n = 0;
  REQUIRE(ioctl(d.fd(), FIONREAD, &n) == 0);
  return n;
}

void small_buffer(const hub::descriptor& d) {
  const int size = 4096;
  REQUIRE(setsockopt(d.fd(), SOL_SOCKET, SO_SNDBUF, &size, sizeof size) == 0);
}

}  // namespace

// -- reader --------------------------------------------------------------------------------------

TEST_CASE("lines are found however they were cut on the way") {
  const hub_guard end;
  auto [a, b] = socket_pair();
  const std::string all = lines(400);
  const auto writes = hub::spawn([&, &to = b] {
    trickle(to, all);
    to.close();
  });
  hub::reader in(a);
  std::string again;
  std::size_t count = 0;
  for (std::string_view line; in.read_line(line, hang_guard()); ++count) {
    CHECK(line.find_first_of("\r\n") == line.npos);
    again += std::string(line) + (count % 3 ? "\n" : "\r\n");
  }
  CHECK(count == 400);
  CHECK(again == all);
}

TEST_CASE("a delimiter of several bytes is found when it comes in two pieces, and not where it only begins") {
  const hub_guard end;
  auto [a, b] = socket_pair();
  hub::reader in(a);
  std::string_view found;
  REQUIRE(b.write_all("one\r\n\r", 6));
  CHECK(in.read_until("\r\n\r\n", found, milliseconds(1)).timed_out());
  CHECK(in.buffered() == "one\r\n\r");
  REQUIRE(b.write_all("\ntwo\r\n\r\r\n\r\nthree", 16));
  hub::io_result r = in.read_until("\r\n\r\n", found);
  CHECK(r.bytes == 7);
  CHECK(found == "one");
  REQUIRE(in.read_until("\r\n\r\n", found));
  CHECK(found == "two\r\n\r");
  CHECK(in.buffered() == "three");
  in.consume(2);
  CHECK(in.buffered() == "ree");
  b.close();
  r = in.read_until("\n", found);
  CHECK(r.end());
  CHECK(r.bytes == 0);
  CHECK(in.buffered() == "ree");
}

TEST_CASE("a line longer than the buffer may grow is an error; what there is stays") {
  const hub_guard end;
  auto [a, b] = socket_pair();
  hub::reader in(a, 10000);
  std::string_view line;
  const std::string almost(9999, 'x');
  REQUIRE(b.write_all((almost + "\n").data(), 10000));
  REQUIRE(in.read_line(line));
  CHECK(line == almost);
  REQUIRE(b.write_all((almost + "xx\n").data(), 10002));
  hub::io_result r = in.read_line(line);
  CHECK(r.error == std::errc::message_size);
  CHECK(in.buffered().size() == 10000);
  CHECK(in.fill().error == std::errc::message_size);
  in.consume(9999);
  REQUIRE(in.read_line(line));
  CHECK(line == "xx");
  CHECK(in.read(10001, line).error == std::errc::message_size);
}

TEST_CASE("after a timeout or a cancelled wait the same call goes on where it was") {
  const hub_guard end;
  auto [a, b] = socket_pair();
  hub::reader in(a);
  const std::string sent = pattern(30000);
  std::string got(sent.size(), '\0');
  const auto writes = hub::spawn([&, &to = b] { trickle(to, sent); });
  int interrupted = 0;
  while (!hub::with_timeout(hub::clock::now(), [&] { return in.read_exactly(got.data(), got.size(), hang_guard()).bytes; })) ++interrupted;
  CHECK(interrupted > 0);
  CHECK(got == sent);
  CHECK(in.buffered().empty());
}

TEST_CASE("pieces of a known size come whole, small ones from what was read ahead, large ones without a copy") {
  const hub_guard end;
  auto [a, b] = socket_pair();
  hub::reader in(a, 8192);
  const std::string sent = pattern(100000);
  const auto writes = hub::spawn([&, &to = b] {
    REQUIRE(to.write_all(sent.data(), sent.size(), hang_guard()));
    to.close();
  });
  std::string_view found;
  REQUIRE(in.read(100, found, hang_guard()));
  CHECK(found == sent.substr(0, 100));
  std::string got(sent.size() + 1, '\0');  // a byte more, so that the last read is of something
  REQUIRE(in.read_exactly(&got[100], 0));
  REQUIRE(in.read_exactly(&got[100], 50000, hang_guard()));
  hub::io_result r = in.read_some(&got[50100], 10, hang_guard());
  REQUIRE(r);
  std::size_t at = 50100 + r.bytes;
  CHECK(in.read_some(&got[at], 0).bytes == 0);
  while ((r = in.read_some(&got[at], got.size() - at, hang_guard()))) at += r.bytes;
  CHECK(r.end());
  CHECK(at == sent.size());
  CHECK(got.compare(100, at - 100, sent, 100) == 0);
  CHECK(in.read(1, found).end());
  CHECK(in.read_some(got.data(), 1).end());
  CHECK(in.read_exactly(got.data(), 10000).end());
}

TEST_CASE("a reader flushes a writer before it reads, and not before: as many lines as came at once are one write") {
  const hub_guard end;
  auto [a, b] = socket_pair();
  hub::reader in(a, 8192);
  hub::writer out(a);
  in.flushes(out);
  REQUIRE(b.write_all("1\n2\n3\n4", 7));
  std::string_view line;
  for (int n = 0; n < 3; ++n) {
    REQUIRE(in.read_line(line));
    REQUIRE(out.write("answer"));
    CHECK(waiting_bytes(b) == 0);
  }
  CHECK(in.read_line(line, milliseconds(1)).timed_out());
  CHECK(waiting_bytes(b) == 18);
  std::string block(10000, '\0');
  REQUIRE(out.write("a"));
  CHECK(in.read_exactly(block.data(), 10000, milliseconds(1)).timed_out());
  CHECK(waiting_bytes(b) == 19);
  REQUIRE(out.write("b"));
  CHECK(in.read_some(block.data(), 10000, milliseconds(1)).timed_out());
  CHECK(waiting_bytes(b) == 20);
  b.close();
  for (int n = 0; n < 3; ++n) {
    if (n == 0) REQUIRE(out.write("nobody"));
    const hub::io_result r = n == 0   ? in.read_line(line)
                             : n == 1 ? in.read_some(block.data(), 10000)
                                      : in.read_exactly(block.data(), 10000);
    CHECK(r.reset());
  }
}

// -- writer --------------------------------------------------------------------------------------

TEST_CASE("small pieces are one write; what goes past the buffer is written with it") {
  const hub_guard end;
  auto [a, b] = socket_pair();
  hub::writer out(b, 1000);
  CHECK(out.flush().bytes == 0);
  CHECK(out.write({}).bytes == 0);
  for (int n = 0; n < 10; ++n) CHECK(out.write("0123456789").bytes == 10);
  CHECK(out.buffered() == 100);
  CHECK(waiting_bytes(a) == 0);
  CHECK(out.flush().bytes == 100);
  CHECK(waiting_bytes(a) == 100);
  REQUIRE(out.write("head"));
  const std::string body = pattern(5000);
  CHECK(out.write(body).bytes == 5000);
  CHECK(out.buffered() == 0);
  CHECK(drain(a) == 100 + 4 + 5000);
  CHECK(out.write(std::string(1000, 'x')).bytes == 1000);
  CHECK(out.buffered() == 1000);
  CHECK(out.write("y").bytes == 1);
  CHECK(drain(a) == 1001);
  CHECK(out.write(std::string(2000, 'z')).bytes == 2000);
  CHECK(drain(a) == 2000);
}

TEST_CASE("what a timeout or a cancelled wait left unwritten is written by the next call, once") {
  const hub_guard end;
  auto [a, b] = socket_pair();
  small_buffer(b);
  hub::writer out(b, 700);
  std::string got;
  const auto reads = hub::spawn([&, &from = a] {
    char buffer[5000];
    std::size_t size = 1;
    while (const auto r = from.read_some(buffer, size = size * 7 % 4999 + 1, hang_guard())) {
      got.append(buffer, r.bytes);
      for (int n = 0; n < 5; ++n) hub::yield();
    }
  });
  const std::string sent = pattern(300000);
  int interrupted = 0, late = 0;
  for (std::size_t at = 0, n = 0; at < sent.size() || out.buffered(); ++n) {
    const std::size_t size = std::min(n * 97 % 701, sent.size() - at);
    // Who is interrupted in write() does not know how much was taken over: what has room in the buffer, then, which does not wait.
    if (out.buffered() + size <= 700 && size > 0) {
      CHECK(out.write(std::string_view(sent).substr(at, size)).bytes == size);
      at += size;
    } else if (interrupted % 2) {
      late += out.flush(hub::clock::now()).timed_out(), ++interrupted;
    } else {
      interrupted += !hub::with_timeout(hub::clock::now(), [&] { return out.flush(hang_guard()).bytes; });
    }
  }
  CHECK(interrupted > 10);
  CHECK(late > 0);
  b.close();
  reads.join();
  CHECK(got == sent);
}

TEST_CASE("how much of it was taken over is told with the deadline, and when the other side has gone") {
  const hub_guard end;
  auto [a, b] = socket_pair();
  small_buffer(b);
  hub::writer out(b, 100);
  const std::string sent = pattern(1 << 20);
  REQUIRE(out.write(sent.substr(0, 50)));
  const hub::io_result r = out.write(std::string_view(sent).substr(50), milliseconds(1));
  CHECK(r.timed_out());
  CHECK(r.bytes + 50 == static_cast<std::size_t>(waiting_bytes(a)));
  std::string got(50 + r.bytes, '\0');
  REQUIRE(a.read_exactly(got.data(), got.size(), hang_guard()));
  CHECK(got == sent.substr(0, got.size()));
  REQUIRE(out.write("rest"));
  a.close();
  CHECK(out.flush().reset());
  CHECK(out.buffered() == 4);
  CHECK(out.write(sent).reset());
}

// -- Pieces --------------------------------------------------------------------------------------

TEST_CASE("many pieces are written in order, some of them empty, to a socket and to a pipe") {
  const hub_guard end;
  for (const bool pipe : {false, true}) {
    CAPTURE(pipe);
    auto [a, b] = pipe ? pipe_pair() : socket_pair();
    if (!pipe) small_buffer(b);
    const std::string sent = pattern(500000);
    std::vector<iovec> pieces;
    for (std::size_t at = 0, size = 0; at < sent.size(); at += size) {
      size = std::min(pieces.size() * 97 % 5003 % (pieces.size() % 7 ? 5003 : 1), sent.size() - at);
      pieces.push_back({const_cast<char*>(sent.data()) + at, size});
    }
    pieces.push_back({nullptr, 0});
    auto reads = hub::spawn([&from = a] { return read_to_end(from, 3000); });
    const hub::io_result r = b.write_pieces(pieces.data(), pieces.size(), hang_guard());
    CHECK(r);
    CHECK(r.bytes == sent.size());
    CHECK(b.write_pieces(nullptr, 0).bytes == 0);
    b.close();
    CHECK(reads.get() == sent);
    CHECK(b.write_pieces(pieces.data(), pieces.size()).closed());
    CHECK(b.try_write_pieces(pieces.data(), pieces.size()).closed());
  }
}

TEST_CASE("pieces: how much went is told with a deadline and with a reset") {
  const hub_guard end;
  auto [a, b] = socket_pair();
  small_buffer(b);
  const std::string block(100000, 'b');
  std::array<iovec, 3> pieces;
  pieces.fill({const_cast<char*>(block.data()), block.size()});
  hub::io_result r = b.write_pieces(pieces.data(), pieces.size(), milliseconds(1));
  CHECK(r.timed_out());
  CHECK(r.bytes == static_cast<std::size_t>(waiting_bytes(a)));
  CHECK(b.try_write_pieces(pieces.data(), 3).bytes == 0);
  a.close();
  r = b.write_pieces(pieces.data(), pieces.size());
  CHECK(r.reset());
  CHECK(r.bytes == 0);
}

// -- Files ---------------------------------------------------------------------------------------

TEST_CASE("a part of a file is sent; one that is shorter says so; others run meanwhile") {
  const hub_guard end;
  auto [a, b] = socket_pair();
  const std::string content = pattern(3 << 20);
  const hub::owned_fd file = file_with(content);
  int turns = 0;
  auto reads = hub::spawn([&from = a] { return read_to_end(from); });
  const auto others = hub::spawn([&, &to = b] {
    while (to.is_open()) ++turns, hub::yield();
  });
  hub::io_result r = b.send_file(file.get(), 1000, content.size() - 2000, hang_guard());
  CHECK(r);
  CHECK(r.bytes == content.size() - 2000);
  CHECK(b.send_file(file.get(), 0, 0).bytes == 0);
  r = b.send_file(file.get(), content.size() - 1000, 5000, hang_guard());
  CHECK(r.end());
  CHECK(r.bytes == 1000);
  b.close();
  CHECK(reads.get() == content.substr(1000));
  CHECK(turns > 1);
  CHECK(b.send_file(file.get(), 0, 1).closed());
}

TEST_CASE("a large file goes to a pipe that takes much at once in several turns") {
  const hub_guard end;
  auto [a, b] = pipe_pair();
  const int room = fcntl(b.fd(), F_SETPIPE_SZ, 1 << 20);
  if (room < 1 << 20) return;  // the system's limit for users is lower
  const hub::owned_fd file = file_with(pattern(3 << 20));
  auto reads = hub::spawn([&from = a] { return read_to_end(from, 1 << 20); });
  CHECK(b.send_file(file.get(), 0, 3 << 20, hang_guard()).bytes == 3 << 20);
  b.close();
  CHECK(reads.get() == pattern(3 << 20));
}

TEST_CASE("what is no file is refused, a deadline tells how much went, and who has gone is no signal") {
  const hub_guard end;
  auto [a, b] = socket_pair();
  auto [in, out] = pipe_pair();
  CHECK(b.send_file(in.fd(), 0, 1).error.value() != 0);
  const hub::owned_fd file = file_with(pattern(3 << 20));
  const hub::io_result r = b.send_file(file.get(), 0, 3 << 20, milliseconds(1));
  CHECK(r.timed_out());
  CHECK(r.bytes == static_cast<std::size_t>(waiting_bytes(a)));
  a.close();
  CHECK(b.send_file(file.get(), 0, 1).reset());
  CHECK(out.is_open());
}

TEST_CASE("pieces to a pipe that nobody reads are a result, and no signal") {
  const hub_guard end;
  auto [a, b] = pipe_pair();
  a.close();
  const iovec piece{const_cast<char*>("x"), 1};
  CHECK(b.write_pieces(&piece, 1).reset());
}

TEST_CASE("a descriptor that is only owned is closed once") {
  hub::owned_fd first(open("/dev/null", O_RDONLY | O_CLOEXEC));
  const int fd = first.get();
  REQUIRE(fd >= 0);
  hub::owned_fd second(std::move(first));
  CHECK(first.get() == -1);
  CHECK(second.get() == fd);
  first = std::move(second);
  CHECK(fcntl(fd, F_GETFD) == FD_CLOEXEC);
  first = hub::owned_fd();
  CHECK(fcntl(fd, F_GETFD) == -1);
  CHECK(hub::owned_fd(fd).release() == fd);
}
