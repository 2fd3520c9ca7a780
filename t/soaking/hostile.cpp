// SPDX-License-Identifier: MIT
// Those that misbehave, and a system that refuses.
#include "soak.hpp"

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <fcntl.h>
#include <memory>
#include <netdb.h>
#include <netinet/in.h>
#include <new>
#include <poll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <system_error>
#include <thread>
#include <unistd.h>
#include <utility>

namespace soak {
namespace {
std::atomic<bool> none_left{false};  // descriptors, to the calls below
}
}  // namespace soak

// A function of the program takes the place of one of the C library, also for the library under test.
#define INSTEAD extern "C" __attribute__((visibility("default")))
#define REAL(name) reinterpret_cast<decltype(&name)>(dlsym(RTLD_NEXT, #name))

#if T_SANITIZED
// UBSan opens pipes to look at objects, and takes those it cannot look at for wrong. So it keeps its descriptors, and only
// these calls are refused.
INSTEAD int accept4(int fd, sockaddr* from, socklen_t* size, int flags) {
  static const auto real = REAL(accept4);
  return soak::none_left ? (errno = EMFILE, -1) : real(fd, from, size, flags);
}
INSTEAD int socket(int domain, int type, int protocol) noexcept {
  static const auto real = REAL(socket);
  return soak::none_left ? (errno = EMFILE, -1) : real(domain, type, protocol);
}
INSTEAD int pipe2(int* ends, int flags) noexcept {
  static const auto real = REAL(pipe2);
  return soak::none_left ? (errno = EMFILE, -1) : real(ends, flags);
}
#endif

#if T_TSAN
// As in t/hub_programs.hpp: libuv's pipes while it starts a program are closed where the sanitizer does not see it.
INSTEAD const char* __tsan_default_suppressions() { return "race:uv_pipe\nrace:uv_spawn\n"; }
#endif

// A name whose server never answers: the look-up ends when the C library gives up, here after a second.
INSTEAD int getaddrinfo(const char* host, const char* service, const addrinfo* hints, addrinfo** list) {
  static const auto real = REAL(getaddrinfo);
  if (!host || std::strcmp(host, "silent.test") != 0) return real(host, service, hints, list);
  if (hints->ai_flags & AI_NUMERICHOST) return EAI_NONAME;
  std::this_thread::sleep_for(std::chrono::seconds(1));
  return EAI_AGAIN;
}

namespace soak {
namespace {

// Whoever goes then goes with a reset.
void close_by_reset(hub::connection& c) {
  const linger at_once{1, 0};
  setsockopt(c.fd(), SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
  c.close();
}

void drip(world& w, dice& d) {
  hub::connection c;
  if (!find_server(w, d, c)) return;
  const std::string sent = frame_of(d, roll(d, 4));
  for (const char& each : sent) {
    if (!c.write_all(&each, 1, seconds(1))) return;
    hub::sleep_for(seconds(1));
  }
  std::string got(sent.size(), '\0');
  if (!c.read_exactly(got.data(), got.size(), starved_after))
    w.count("hostile: a byte a second, and was given up");  // a machine that has much else to do is slower still
  else if (got != sent)
    w.complain("a slow client got wrong bytes");
}

void say_nothing(world& w, dice& d) {
  hub::connection c;
  if (!find_server(w, d, c)) return;
  // Of a connection that is made while the backlog is full the server may never hear: the kernel then drops what the
  // client has not said. That the server gives up who is silent, it knows itself.
  char byte;
  if (c.read_some(&byte, 1, starved_after).timed_out()) w.count("hostile: nothing, to a server that does not know");
}

void talk_garbage(world& w, dice& d) {
  hub::connection c;
  if (!find_server(w, d, c)) return;
  std::string garbage(1 + roll(d, 10000), '\0');
  for (char& each : garbage) each = static_cast<char>(d());
  c.write_all(garbage.data(), garbage.size(), seconds(1));
  char answer[1000];
  while (c.read_some(answer, sizeof answer, seconds(1))) continue;
  hub::sleep_for(some_time(d, 20));
}

// A gibibyte, in frames, as fast as it goes; read by some and by some not.
void send_a_gibibyte(world& w, dice& d) {
  hub::connection c;
  if (!find_server(w, d, c)) return;
  const std::string frame = frame_of(d, largest_frame);
  const bool reads = roll(d, 2);
  std::size_t sent = 0;
  {
    hub::group reading;
    if (reads)
      reading.spawn([&c] {
        std::string buffer(largest_frame, '\0');
        while (c.read_some(buffer.data(), buffer.size(), seconds(10))) continue;
      });
    while (sent < std::size_t{1} << 30 && !w.over()) {
      const hub::io_result r = c.write_all(frame.data(), frame.size(), seconds(10));
      sent += r.bytes;
      if (!r) break;
    }
    c.shutdown_write();
  }
  w.count("bytes sent by who sends a gibibyte", sent);
  if (sent >= std::size_t{1} << 30) w.count("who sends a gibibyte: all of it");
}

void reset(world& w, dice& d) {
  hub::connection c;
  if (!find_server(w, d, c)) return;
  const std::string frame = frame_of(d, 1000 + roll(d, largest_frame - 1000));
  const auto write = [&](std::size_t size) { c.write_all(frame.data(), size, seconds(1)); };
  char byte;
  const auto state = roll(d, 7);
  switch (state) {
    case 0: break;                                                       // not accepted yet, perhaps
    case 1: hub::sleep_for(milliseconds(2)); break;                      // accepted
    case 2: write(2); break;                                             // in a header
    case 3: write(500); hub::sleep_for(milliseconds(1)); break;          // in a frame
    case 4: write(frame.size()); break;                                  // while it is answered
    case 5: write(frame.size()); c.read_some(&byte, 1, seconds(1)); break;  // with an answer half read
    default: write(frame.size()); c.shutdown_write();                    // after a half-close
  }
  close_by_reset(c);
  w.count("resets in state " + std::to_string(state));
  hub::sleep_for(some_time(d, 20));
}

void flood(world& w, dice& d, hub::descriptor& flooder) {
  hub::sleep_for(some_time(d, 500));
  const sockaddr_in at = *reinterpret_cast<const sockaddr_in*>(w.where[roll(d, 2)].data());
  const bool is_short = w.end - hub::clock::now() < seconds(8);
  const std::uint32_t order[] = {is_short ? 1000U : 10000U, at.sin_port};
  std::uint32_t answered = 0;
  if (!flooder.write_all(order, sizeof order, starved_after) ||
      !flooder.read_exactly(&answered, sizeof answered, seconds(90))) {
    w.complain("the process that connects at once has gone");
    hub::sleep_for(hours(1));
  }
  w.count("connected at once", order[0]);
  w.count("connected at once, and answered", answered);
  if (!is_short) hub::sleep_for(seconds(10));
}

// As many descriptors as there are, and no more, for a while.
void take_descriptors(world& w, dice& d) {
  rlimit before;
  getrlimit(RLIMIT_NOFILE, &before);
  const int lowest = ::dup(0);
  if (lowest < 0) return;
  ::close(lowest);
  struct shortage {
    world& w;
    rlimit before;
    shortage(world& of, const rlimit& was, rlim_t most) : w(of), before(was) {
      const rlimit now{most, was.rlim_max};
      ++w.shortages;
      none_left = true;
      if (!T_SANITIZED) setrlimit(RLIMIT_NOFILE, &now);
    }
    ~shortage() {
      setrlimit(RLIMIT_NOFILE, &before);
      none_left = false;
      ++w.shortages;
    }
  };
  {
    const shortage now(w, before, static_cast<rlim_t>(lowest));
    hub::sleep_for(some_time(d, 200));
  }
  hub::sleep_for(seconds(1) + some_time(d, 2000));
}

// In a forked process, which may not use the hubs there are, but has one of its own in a new thread. Gives what is wrong,
// for the exit status.
int talk_in_child() {
  hub::pipe_ends ends = hub::make_pipe();
  char byte = 0;
  auto reads = hub::spawn([&] { return ends.read.read_exactly(&byte, 1, seconds(20)); });
  ends.write.write_all("!", 1);
  return reads.get() && byte == '!' ? 0 : 10;
}

// Greenlets until there is no memory for their stacks; those that there are go on.
int exhaust_stacks_in_child() {
  long pages = 0;
  std::FILE* const f = std::fopen("/proc/self/statm", "re");
  if (!f || std::fscanf(f, "%ld", &pages) != 1) return 11;
  std::fclose(f);
  const rlim_t most = static_cast<rlim_t>(pages) * 4096 + (32 << 20);
  const rlimit now{most, most};
  unsigned refused = 0, served = 0;
  greenlets::set_unraisable_handler([&refused](const greenlets::greenlet&, std::exception_ptr) { ++refused; });
  setrlimit(RLIMIT_AS, &now);
  hub::event go;
  std::vector<hub::task<void>> all;
  try {
    while (refused == 0 && all.size() < 100000) {
      all.push_back(hub::spawn([&] {
        go.wait();
        ++served;
      }));
      if (all.size() % 50 == 0) hub::yield();
    }
  } catch (const std::bad_alloc&) {
    ++refused;
  }
  if (refused == 0) return 12;
  const std::size_t begun = hub::statistics().waiting;
  go.set();
  for (unsigned n = 0; n < 1000 && hub::statistics().waiting > 0; ++n) hub::yield();
  return served < begun || begun == 0 ? 13 : 0;
}

int run_in_child(bool limited) {
  int wrong = 0;
  std::thread([&] {
    try {
      wrong = talk_in_child();
      if (limited && wrong == 0) wrong = exhaust_stacks_in_child();
    } catch (const std::exception&) {
      wrong = 14;  // no descriptors, for instance, which whoever forked it knows
    }
  }).join();
  return wrong;
}

void fork_one(world& w, dice& d) {
  // What an emulator of another processor does without memory is another matter.
  const bool limited = !T_SANITIZED && !std::getenv("GREENLET_TEST_EMULATED") && roll(d, 2);
  const unsigned before = w.shortages;
  const pid_t pid = ::fork();
  if (pid == 0) {
    alarm(60);
    _exit(run_in_child(limited));
  }
  if (pid < 0) return;
  w.count(limited ? "forked without memory for stacks" : "forked");
  int status = -1;
  const auto give_up = hub::clock::now() + seconds(70);
  while (::waitpid(pid, &status, WNOHANG) == 0) {
    if (hub::clock::now() > give_up) {
      ::kill(pid, SIGKILL);
      w.complain("a forked process hangs");
    }
    hub::sleep_for(milliseconds(5));
  }
  if (status != 0 && (before & 1) == 0 && before == w.shortages)
    w.complain("a forked process ended with status " + std::to_string(status));
  hub::sleep_for(some_time(d, 500));
}

void fill_disk(world& w, dice& d) {
  hub::file full("/dev/full", hub::open_mode::write);
  const std::string data = frame_of(d, 5000);
  const hub::io_result r = full.write_all(data.data(), data.size());
  if (r.error != std::errc::no_space_on_device) w.complain("a full disk took something");
  full.close();
  hub::sleep_for(some_time(d, 50));
}

void ask_in_vain(world& w, dice& d) {
  const hub::resolution r = hub::resolve("silent.test", 80, some_time(d, 200));
  if (r || !r.error) w.complain("a name was found that there is not");
  if (r.timed_out()) w.count("look-ups that were given up");
}

// Something to wait for at random, in a greenlet that is cancelled at random.
struct victims {
  hub::mutex m;
  hub::semaphore s{1};
  hub::queue<std::string> q{1};
  hub::condition changed;
  unsigned inside = 0;

  void suffer(world& w, dice& d) {
    switch (roll(d, 11)) {
      case 0: {
        const std::lock_guard lock(m);
        if (inside++ != 0) w.complain("two have a mutex");
        struct leaver {
          unsigned& n;
          ~leaver() { --n; }
        } at_any_exit{inside};
        hub::sleep_for(some_time(d, 3));
        break;
      }
      case 1:
        if (s.acquire()) {
          const std::shared_ptr<void> back(nullptr, [this](void*) { s.release(); });
          hub::yield();
        }
        break;
      case 2: q.push(std::string(100, 'q'), milliseconds(20)); break;
      case 3: q.pop(milliseconds(20)); break;
      case 4: changed.wait(some_time(d, 10)); break;
      case 5: changed.notify_all(); break;
      case 6: hub::offload([] { std::this_thread::sleep_for(milliseconds(1)); }); break;
      case 7: {
        hub::connection c;
        if (!find_server(w, d, c)) break;
        const std::string frame = frame_of(d, roll(d, 100000));
        c.write_all(frame.data(), frame.size(), seconds(1));
        std::string got(frame.size(), '\0');
        if (c.read_exactly(got.data(), got.size(), seconds(10)) && got != frame) w.complain("a victim got wrong bytes");
        close_by_reset(c);
        break;
      }
      case 8: hub::run_process({"sh", {"-c", "sleep 0.02"}}); break;
      case 9: {
        hub::group g;
        for (int n = 0; n < 3; ++n) g.spawn([&d] { hub::sleep_for(some_time(d, 5)); });
        g.wait();
        break;
      }
      default: {
        std::string got;
        hub::read_file(got, "/proc/self/status");
      }
    }
  }
};

void cancel_at_random(world& w, dice& d, victims& v) {
  auto one = hub::spawn([&] {
    try {
      hub::timeout limit(some_time(d, 30));
      for (int n = 0; n < 5; ++n) v.suffer(w, d);
    } catch (const hub::timed_out&) {
      w.count("victims: timeouts");
    } catch (const std::system_error&) {
      w.count("victims: refused by the system");
    }
  });
  hub::sleep_for(some_time(d, 20));
  one.cancel();
  if (!one.join(starved_after)) {
    w.complain("a cancelled greenlet did not end");
    hub::sleep_for(hours(1));
  }
  try {
    one.get();
    w.count("victims: ended by themselves");
  } catch (const hub::cancelled&) {
    w.count("victims: cancelled");
  }
}

}  // namespace

void misbehave(world& w, hub::group& in, hub::descriptor& flooder) {
  again_and_again(w, in, 20, "hostile: a byte a second", [&w](dice& d) { drip(w, d); });
  again_and_again(w, in, 20, "hostile: nothing", [&w](dice& d) { say_nothing(w, d); });
  again_and_again(w, in, 4, "hostile: garbage", [&w](dice& d) { talk_garbage(w, d); });
  again_and_again(w, in, 2, "hostile: a gibibyte", [&w](dice& d) { send_a_gibibyte(w, d); });
  again_and_again(w, in, 4, "hostile: resets", [&w](dice& d) { reset(w, d); });
  again_and_again(w, in, 1, "hostile: thousands at once", [&w, &flooder](dice& d) { flood(w, d, flooder); });
  again_and_again(w, in, 1, "no descriptors", [&w](dice& d) { take_descriptors(w, d); });
  if (!T_TSAN)  // which knows too little of a process that was forked from one with several threads
    again_and_again(w, in, 1, "forks", [&w](dice& d) { fork_one(w, d); });
  again_and_again(w, in, 1, "full disks", [&w](dice& d) { fill_disk(w, d); });
  again_and_again(w, in, 3, "a name server that never answers", [&w](dice& d) { ask_in_vain(w, d); });
  const auto v = std::make_shared<victims>();
  again_and_again(w, in, 10, "victims", [&w, v](dice& d) { cancel_at_random(w, d, *v); });
}

// -- The process that connects ----------------------------------------------------------------------

namespace {

// All at once; then each has to be answered. Reset at the end, that no port is kept.
std::uint32_t connect_all(std::uint32_t count, in_port_t port) {
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  to.sin_port = port;
  std::vector<pollfd> all;
  for (std::uint32_t n = 0; n < count; ++n) {
    const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) break;
    const linger at_once{1, 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    ::connect(fd, reinterpret_cast<sockaddr*>(&to), sizeof to);
    all.push_back({fd, POLLOUT, 0});
  }
  constexpr char frame[] = {1, 0, 0, 0, '!'};
  std::uint32_t answered = 0;
  std::size_t left = all.size();
  const auto give_up = hub::clock::now() + seconds(T_SANITIZED ? 60 : 20);
  while (left > 0 && hub::clock::now() < give_up) {
    ::poll(all.data(), all.size(), 100);
    for (pollfd& each : all) {
      if (each.fd < 0 || each.revents == 0) continue;
      char answer[sizeof frame];
      if (each.events == POLLOUT && ::send(each.fd, frame, sizeof frame, MSG_NOSIGNAL) == sizeof frame) {
        each.events = POLLIN;
        continue;
      }
      if (each.events == POLLIN && ::recv(each.fd, answer, sizeof answer, 0) == sizeof answer) ++answered;
      each.fd = ~each.fd;  // it stays open, with the others, until all are there
      --left;
    }
  }
  for (const pollfd& each : all) ::close(each.fd < 0 ? ~each.fd : each.fd);
  return answered;
}

}  // namespace

flooder_process start_flooder() {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
    throw std::system_error(errno, std::generic_category(), "socketpair");
  const pid_t pid = ::fork();
  if (pid < 0) throw std::system_error(errno, std::generic_category(), "fork");
  if (pid > 0) {
    ::close(ends[1]);
    return {pid, ends[0]};
  }
  ::close(ends[0]);
  std::uint32_t order[2];
  while (::recv(ends[1], order, sizeof order, MSG_WAITALL) == sizeof order) {
    const std::uint32_t answered = connect_all(order[0], static_cast<in_port_t>(order[1]));
    if (::send(ends[1], &answered, sizeof answered, MSG_NOSIGNAL) < 0) break;
  }
  _exit(0);
}

}  // namespace soak
