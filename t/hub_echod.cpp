// SPDX-License-Identifier: MIT
// echod against clients that misbehave: none of them harms the others, and it always ends well.
#include "exit_testing.hpp"
#include "hub_testing.hpp"

#include <algorithm>
#include <climits>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <sys/resource.h>

using namespace greenlets;
using namespace testing;

namespace {

#if defined(T_TSAN) || defined(__SANITIZE_ADDRESS__)
constexpr bool slow = true;
#else
constexpr bool slow = false;
#endif

// The daemon as a child process; killed if it is still there at the end.
class daemon_process {
 public:
  explicit daemon_process(std::vector<std::string> options = {}, rlim_t descriptors = 0) {
    const char* const build = std::getenv("builddir");
    const std::string program = std::string(build ? build : ".") + "/examples/echod";
    options.insert(options.begin(), {program, "--port", "0"});
    const events under = run_under();
    options.insert(options.begin(), under.begin(), under.end());
    std::vector<char*> arguments;
    for (std::string& o : options) arguments.push_back(o.data());
    arguments.push_back(nullptr);
    int fd[2];
    REQUIRE(pipe2(fd, O_CLOEXEC) == 0);
    pid_ = fork();
    REQUIRE(pid_ >= 0);
    if (pid_ == 0) {
      dup2(fd[1], 1);
      if (descriptors != 0) {
        const rlimit limit{descriptors, descriptors};
        setrlimit(RLIMIT_NOFILE, &limit);
      }
      execvp(arguments[0], arguments.data());
      std::perror(arguments[0]);
      _exit(127);
    }
    ::close(fd[1]);
    output_ = hub::descriptor(fd[0]);
    std::string line;
    for (char c; output_.read_some(&c, 1, hang_guard()) && c != '\n';) line += c;
    INFO(line);
    REQUIRE(line.find("listening on 127.0.0.1:") == 0);
    where_ = hub::address("127.0.0.1", static_cast<std::uint16_t>(std::atoi(line.c_str() + line.rfind(':') + 1)));
  }
  daemon_process(const daemon_process&) = delete;
  daemon_process& operator=(const daemon_process&) = delete;
  ~daemon_process() {
    if (pid_ <= 0) return;
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }

  const hub::address& where() const { return where_; }
  void signal(int number) const { kill(pid_, number); }

  // Waits until it has ended, and checks that it has ended well.
  void ends_well() {
    last_words_ = read_to_end(output_);
    int status = -1;
    waitpid(pid_, &status, 0);
    pid_ = -1;
    CHECK(WIFEXITED(status));
    CHECK(WEXITSTATUS(status) == 0);
    INFO(last_words_);
    CHECK(std::sscanf(last_words_.c_str(), "served %llu connections, %llu bytes, %llu switches\n", &connections, &bytes,
                      &switches) == 3);
  }
  void stop(int number = SIGTERM) {
    signal(number);
    ends_well();
  }

  double resident() const {
    std::ifstream statm("/proc/" + std::to_string(pid_) + "/statm");
    double total = 0, pages = 0;
    statm >> total >> pages;
    return pages * static_cast<double>(sysconf(_SC_PAGESIZE));
  }

  unsigned long long connections = 0, bytes = 0, switches = 0;

 private:
  pid_t pid_ = -1;
  hub::descriptor output_;
  hub::address where_;
  std::string last_words_;
};

hub::connection connect_to(const daemon_process& d) {
  hub::connection c;
  const hub::io_result r = hub::connect(c, d.where(), hang_guard());
  if (!r) throw std::system_error(r.error, "connect");
  return c;
}

constexpr std::size_t exchanged = 1000;  // bytes

bool exchange(hub::connection& c) {
  const std::string sent = pattern(exchanged);
  std::string back(sent.size(), '\0');
  return c.write_all(sent.data(), sent.size(), hang_guard()) && c.read_exactly(back.data(), back.size(), hang_guard()) &&
         back == sent;
}

// One who behaves: a few exchanges, a half close, and nothing more comes.
bool behaves(const daemon_process& d) {
  hub::connection c = connect_to(d);
  for (int n = 0; n < 3; ++n)
    if (!exchange(c)) return false;
  char more;
  return c.shutdown_write() && c.read_some(&more, 1, hang_guard()).end();
}

void vanish(hub::connection& c) {
  const linger now{1, 0};
  setsockopt(c.fd(), SOL_SOCKET, SO_LINGER, &now, sizeof now);
  c.close();
}

// Raises the limit of descriptors for a scope.
struct many_descriptors {
  rlimit before;
  many_descriptors() {
    getrlimit(RLIMIT_NOFILE, &before);
    const rlimit most{before.rlim_max, before.rlim_max};
    setrlimit(RLIMIT_NOFILE, &most);
  }
  ~many_descriptors() { setrlimit(RLIMIT_NOFILE, &before); }
};

}  // namespace

TEST_CASE("echod sends back what it gets, and counts it") {
  hub_guard guard;
  daemon_process d;
  CHECK(behaves(d));
  CHECK(behaves(d));
  d.stop();
  CHECK(d.connections == 2);
  CHECK(d.bytes == 6 * exchanged);
  CHECK(d.switches >= 4);
}

TEST_CASE("clients that disappear harm nobody: before they send, after, and with answers on their way") {
  hub_guard guard;
  daemon_process d;
  const std::string much = pattern(200'000);
  for (int n = 0; n < 10; ++n) {
    hub::connection silent = connect_to(d), talked = connect_to(d), deaf = connect_to(d);
    CHECK(exchange(talked));
    deaf.write_all(much.data(), much.size(), hang_guard());
    for (auto* c : {&silent, &talked, &deaf}) vanish(*c);
    CHECK(behaves(d));
  }
  d.stop();
  CHECK(d.connections >= 30);  // one who vanishes early may never have been accepted
  CHECK(d.connections <= 40);
}

TEST_CASE("clients that send nothing are waited for, and ended when the grace is over") {
  hub_guard guard;
  daemon_process d({"--grace", "0"});
  std::vector<hub::connection> silent;
  for (int n = 0; n < 50; ++n) {
    silent.push_back(connect_to(d));
    if (n % 2) CHECK(exchange(silent.back()));
  }
  CHECK(behaves(d));
  CHECK(exchange(silent[1]));
  d.stop(SIGINT);
  char c;
  for (auto& s : silent) CHECK_FALSE(s.read_some(&c, 1, hang_guard()));
  CHECK(d.connections == 51);
}

TEST_CASE("one that sends very much without reading gets it all when it reads, from a daemon that stays small") {
  hub_guard guard;
  daemon_process d;
  constexpr std::size_t total = slow ? 32 << 20 : 256 << 20;
  const std::string block = pattern(1 << 16);
  const double before = d.resident();
  hub::connection c = connect_to(d);
  std::size_t sent = 0;
  auto writes = hub::spawn([&] {
    for (; sent < total; sent += block.size())
      if (!c.write_all(block.data(), block.size(), hang_guard())) return false;
    return static_cast<bool>(c.shutdown_write());
  });
  // Until it gets no further: every buffer is full.
  std::size_t last = 1;
  while (last != sent) {
    last = sent;
    CHECK(behaves(d));
  }
  CHECK(sent < total);
  CHECK(d.resident() - before < 16 << 20);
  std::vector<char> buffer(1 << 16);
  std::size_t received = 0, wrong = 0;
  while (const auto r = c.read_some(buffer.data(), buffer.size(), hang_guard())) {
    for (std::size_t at = 0; at < r.bytes;) {
      const std::size_t in_block = (received + at) % block.size(), size = std::min(r.bytes - at, block.size() - in_block);
      if (std::memcmp(buffer.data() + at, block.data() + in_block, size) != 0) ++wrong;
      at += size;
    }
    received += r.bytes;
  }
  CHECK(writes.get());
  CHECK(received == total);
  CHECK(wrong == 0);
  CHECK(behaves(d));
  d.stop();
}

TEST_CASE("one that closes its half gets the rest of its answer, and the end") {
  hub_guard guard;
  daemon_process d;
  const std::string sent = pattern(300'000);
  for (int n = 0; n < 5; ++n) {
    hub::connection c = connect_to(d);
    auto writes = hub::spawn([&] { return c.write_all(sent.data(), sent.size(), hang_guard()) && c.shutdown_write(); });
    CHECK(read_to_end(c) == sent);
    CHECK(writes.get());
  }
  hub::connection nothing = connect_to(d);
  nothing.shutdown_write();
  CHECK(read_to_end(nothing).empty());
  CHECK(behaves(d));
  d.stop();
  CHECK(d.bytes == 5 * sent.size() + 3 * exchanged);
}

TEST_CASE("thousands of connections at once") {
  hub_guard guard;
  const many_descriptors raised;
  for (const int threads : {1, 4}) {
    CAPTURE(threads);
    const std::size_t connections =
        std::min<std::size_t>(slow || threads > 1 ? 300 : 2000, raised.before.rlim_max - 100);
    daemon_process d({"--threads", std::to_string(threads)});
    hub::event all;
    std::size_t open = 0, right = 0;
    std::vector<hub::task<void>> tasks;
    for (std::size_t n = 0; n < connections; ++n)
      tasks.push_back(hub::spawn([&] {
        hub::connection c = connect_to(d);
        bool good = exchange(c);
        if (++open == connections) all.set();
        all.wait(hang_guard());
        good = exchange(c) && good;
        if (good) ++right;
      }));
    CHECK(behaves(d));
    for (auto& t : tasks) t.get();
    CHECK(right == connections);
    d.stop();
    CHECK(d.connections == connections + 1);
    CHECK(d.bytes == (2 * connections + 3) * exchanged);
  }
}

TEST_CASE("without descriptors left it serves those it has, and accepts again when they leave") {
  hub_guard guard;
  daemon_process d({}, 64);
  constexpr std::size_t connections = 150;
  hub::event leave;
  std::size_t served = 0, wrong = 0;
  std::vector<hub::task<void>> tasks;
  for (std::size_t n = 0; n < connections; ++n)
    tasks.push_back(hub::spawn([&] {
      hub::connection c = connect_to(d);
      if (!exchange(c)) ++wrong;
      ++served;
      while (!leave.wait(milliseconds(5)))
        if (!exchange(c)) ++wrong;
    }));
  // It has no place for more; the others wait in the kernel's queue. That nothing happens has no event to wait
  // for: the wait is over when it has tried three times in vain, and is longer, never wrong, on a slow machine.
  for (std::size_t last = 0; served < 30 || last != served;) {
    last = served;
    hub::sleep_for(milliseconds(60));  // three of its attempts
  }
  CHECK(served < 64);
  CHECK(wrong == 0);
  leave.set();
  for (auto& t : tasks) t.get();
  CHECK(served == connections);
  CHECK(wrong == 0);
  CHECK(behaves(d));
  d.stop();
  CHECK(d.connections == connections + 1);
}

TEST_CASE("told to stop it accepts no more, lets those finish who talk, and ends as soon as they have") {
  hub_guard guard;
  for (const char* threads : {"1", "3"}) {
    CAPTURE(std::string(threads));
    daemon_process d({"--grace", "60", "--threads", threads});
    std::vector<hub::connection> talking;
    for (int n = 0; n < 20; ++n) {
      talking.push_back(connect_to(d));
      CHECK(exchange(talking.back()));
    }
    d.signal(SIGTERM);
    // From some moment on nobody is let in.
    for (hub::connection c; hub::connect(c, d.where(), hang_guard());) c.close();
    for (auto& c : talking) CHECK(exchange(c));
    talking.clear();
    d.ends_well();  // a test that waits for the grace to be over is noticed by its time
    CHECK(d.bytes == 40 * exchanged);
  }
}

TEST_CASE("told to stop under load it ends the rest when the grace is over") {
  hub_guard guard;
  for (const char* threads : {"1", "4"}) {
    CAPTURE(std::string(threads));
    daemon_process d({"--grace", "0", "--threads", threads});
    std::size_t round_trips = 0, ended = 0;
    std::vector<hub::task<void>> tasks;
    for (int n = 0; n < 100; ++n)
      tasks.push_back(hub::spawn([&] {
        hub::connection c = connect_to(d);
        while (exchange(c)) ++round_trips;
        ++ended;
      }));
    yield_until([&] { return round_trips >= 1000; });
    d.stop();
    for (auto& t : tasks) t.get();
    CHECK(ended == 100);
    CHECK(d.bytes >= round_trips * exchanged);
  }
}
