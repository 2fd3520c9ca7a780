// SPDX-License-Identifier: MIT
// Dumps on signals: what running threads are doing, seen from another thread.
#include "watched.hpp"

#include <greenlet/dump.hpp>
#include <greenlet/monitor.hpp>

#include <cerrno>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <mutex>
#include <poll.h>
#include <sstream>
#include <stdexcept>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <system_error>

using namespace watched;

// Not static: without debugging information only the names of exported functions are known (-rdynamic).
__attribute__((noinline)) bool t_blocks(const std::function<bool()>& until) {
  const bool came = comes(until);
  after_call();
  return came;
}
__attribute__((noinline)) bool t_blocks_otherwise(const std::function<bool()>& until) {
  const bool came = comes(until);
  after_call();
  return came;
}
__attribute__((noinline)) void t_spins(const std::atomic<bool>& until) {
  while (!until) after_call();
  after_call();
}

TEST_CASE("a signal has a dump written that tells in which function a thread is blocked") {
  const directory d;
  const std::string file = d / "dump";
  const auto dumps = dump_on_signal(SIGUSR1, file, patient());
  bool came = false;
  greenlet g(attributes().name("blocked"), [&] {
    kill(getpid(), SIGUSR1);
    came = t_blocks([&] { return has_dumps(file, 1); });
  });
  g.switch_to();
  CHECK(came);
  const std::string text = contents(file);
  INFO(text);
  CHECK(text.find("greenlet dump of process " + std::to_string(getpid()) + "\n") == 0);
  if (frames_are_there()) CHECK(count(text, name_of_blocked) == 1);
  struct stat s;
  REQUIRE(stat(file.c_str(), &s) == 0);
  CHECK((s.st_mode & 0777) == 0600);
}

TEST_CASE("also one that calls nothing, and switches neither before nor afterwards") {
  const directory d;
  const std::string file = d / "dump";
  const auto dumps = dump_on_signal(SIGUSR1, file, patient());
  std::atomic<bool> enough{false};
  std::atomic<bool> begun{false};
  std::thread other([&] {
    greenlet([&] {
      begun = true;
      t_spins(enough);
    }).switch_to();
  });
  CHECK(comes([&] { return begun.load(); }));
  const std::string text = dump_now(SIGUSR1, file);
  enough = true;
  other.join();
  INFO(text);
  if (frames_are_there()) CHECK(count(text, "t_spins(") == 1);
}

TEST_CASE("threads that are blocked are each told with their own function") {
  const directory d;
  const std::string file = d / "dump";
  const auto dumps = dump_on_signal(SIGUSR1, file, patient());
  std::atomic<int> begun{0};
  std::atomic<bool> enough{false};
  const auto until = [&] { return enough.load(); };
  std::thread one([&] { greenlet([&] { ++begun, t_blocks(until); }).switch_to(); });
  std::thread two([&] { greenlet([&] { ++begun, t_blocks_otherwise(until); }).switch_to(); });
  CHECK(comes([&] { return begun == 2; }));
  const std::string text = dump_now(SIGUSR1, file);
  enough = true;
  one.join();
  two.join();
  INFO(text);
  if (!frames_are_there()) return;
  CHECK(count(text, name_of_blocked) == 1);
  CHECK(count(text, "t_blocks_otherwise(") == 1);
}

TEST_CASE("one that blocks the signal by which it is asked is told without frames, and the others with theirs") {
  const directory d;
  const std::string file = d / "dump";
  dump_options with = patient();
  with.interrupting_signal = SIGRTMIN + 4;
  const auto dumps = dump_on_signal(SIGUSR1, file, with);
  std::atomic<int> begun{0};
  std::atomic<bool> enough{false};
  const auto until = [&] { return enough.load(); };
  std::atomic<std::uint64_t> id{0};
  bool pending = true;
  std::thread deaf([&] {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, nullptr);
    greenlet([&] {
      id = current().id();
      ++begun;
      t_blocks_otherwise(until);
    }).switch_to();
    sigpending(&all);
    pending = sigismember(&all, SIGRTMIN + 4);
  });
  std::thread other([&] { greenlet([&] { ++begun, t_blocks(until); }).switch_to(); });
  CHECK(comes([&] { return begun == 2; }));
  const std::string text = dump_now(SIGUSR1, file);
  enough = true;
  deaf.join();
  other.join();
  INFO(text);
  CHECK_FALSE(pending);  // it is not even sent, and does not wait there for ever
  CHECK(count(text, "t_blocks_otherwise(") == 0);
  CHECK(text.find(std::to_string(id)) != std::string::npos);
  if (frames_are_there()) CHECK(count(text, name_of_blocked) == 1);
}

TEST_CASE("whoever has taken the signal back by which threads are asked is not sent it; the next dump has it again") {
  const directory d;
  dump_options with = patient();
  with.interrupting_signal = SIGRTMIN + 6;
  for (int i = 0; i < 2; ++i) {
    const auto dumps = dump_on_signal(SIGUSR1, d / "dump", with);
    const bool reset = i == 0;
    if (reset) signal(SIGRTMIN + 6, SIG_DFL);  // which would end the process
    greenlet([&] {
      kill(getpid(), SIGUSR1);
      t_blocks([&] { return has_dumps(d / "dump", static_cast<std::size_t>(i) + 1); });
    }).switch_to();
    const std::string text = contents(d / "dump");
    INFO(text);
    if (frames_are_there()) CHECK(count(text, name_of_blocked) == (reset ? 0 : 1));
  }
}

TEST_CASE("times that are too long to be added to any other are for ever") {
  const directory d;
  dump_options with;
  with.apart = with.patience = std::chrono::nanoseconds::max();
  const auto once = dump_on_signal(SIGUSR1, d / "once", with);
  const auto often = dump_on_signal(SIGUSR2, d / "often");
  std::string text;
  greenlet([&] {
    kill(getpid(), SIGUSR1);
    t_blocks([&] { return has_dumps(d / "once", 1); });
  }).switch_to();
  kill(getpid(), SIGUSR1);
  dump_now(SIGUSR2, d / "often");  // the other has had its turn before
  text = contents(d / "once");
  CHECK(count(text, "greenlet dump ends\n") == 1);
  if (frames_are_there()) CHECK(count(text, name_of_blocked) == 1);
}

TEST_CASE("dumps are appended, or put in the place of the last one; signals that come too soon are one dump") {
  const directory d;
  {
    dump_options with;
    with.apart = seconds(3600);
    const auto dumps = dump_on_signal(SIGUSR1, d / "appended", with);
    dump_now(SIGUSR1, d / "appended");
    for (int i = 0; i < 100; ++i) kill(getpid(), SIGUSR1);
    with.apart = milliseconds(0);
    with.replace = true;
    with.format = dump_format::json;
    const auto others = dump_on_signal(SIGUSR2, d / "replaced", with);
    for (int i = 0; i < 3; ++i) {
      unlink((d / "replaced").c_str());
      kill(getpid(), SIGUSR2);
      REQUIRE(comes([&] { return access((d / "replaced").c_str(), F_OK) == 0; }));
      const std::string text = contents(d / "replaced");
      INFO(text);
      REQUIRE(text.size() > 2);
      CHECK(text.front() == '{');
      CHECK(text.substr(text.size() - 2) == "}\n");
    }
    struct stat s;
    REQUIRE(stat((d / "replaced").c_str(), &s) == 0);
    CHECK((s.st_mode & 0777) == 0600);
  }
  CHECK(count(contents(d / "appended"), "greenlet dump ends\n") == 1);
  CHECK(d.files().size() == 2);
}

namespace {
std::atomic<int> seen_before{0};
void before(int) { ++seen_before; }
void before_with_information(int, siginfo_t* info, void*) { seen_before += info->si_value.sival_int; }

bool is_handled_by(int signal, void (*handler)(int)) {
  struct sigaction now = {};
  sigaction(signal, nullptr, &now);
  return now.sa_handler == handler;
}
}  // namespace

TEST_CASE("it stops, and starts again: the signal is handled as before, and the library's thread has ended") {
  struct sigaction ours = {};
  ours.sa_handler = before;
  struct sigaction original = {};
  sigaction(SIGUSR1, &ours, &original);
  const std::size_t threads = threads_of_process();
  const directory d;
  for (int i = 0; i < 3; ++i) {
    auto dumps = dump_on_signal(SIGUSR1, d / "dump");
    CHECK(threads_of_process() == threads + 1);
    dump_now(SIGUSR1, d / "dump");
    CHECK_FALSE(is_handled_by(SIGUSR1, before));
    if (i == 0) dumps.stop();
    if (i == 1) dumps = signal_dump();
    if (i < 2) CHECK(is_handled_by(SIGUSR1, before));
    dumps.stop();  // does no harm
  }
  CHECK(comes([&] { return threads_of_process() == threads; }));
  CHECK(seen_before == 0);
  raise(SIGUSR1);
  CHECK(seen_before == 1);
  // Who has handled it otherwise meanwhile keeps it.
  {
    auto dumps = dump_on_signal(SIGUSR1, d / "dump");
    signal_dump moved = std::move(dumps);
    ours.sa_handler = SIG_IGN;
    sigaction(SIGUSR1, &ours, nullptr);
  }
  CHECK(is_handled_by(SIGUSR1, SIG_IGN));
  sigaction(SIGUSR1, &original, nullptr);
  seen_before = 0;
}

TEST_CASE("what is wrong is said before anything has changed") {
  const directory d;
  for (const int n : {0, -1, 1000, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGKILL, SIGSTOP})
    CHECK_THROWS_AS(static_cast<void>(dump_on_signal(n, d / "dump")), std::invalid_argument);
  CHECK_THROWS_AS(static_cast<void>(dump_on_signal(SIGUSR1, "")), std::invalid_argument);
  dump_options with;
  with.interrupting_signal = SIGUSR2;
  CHECK_THROWS_AS(static_cast<void>(dump_on_signal(SIGUSR1, d / "dump", with)), std::invalid_argument);
  with.interrupting_signal = SIGRTMIN + 4;
  CHECK_THROWS_AS(static_cast<void>(dump_on_signal(SIGRTMIN + 4, d / "dump", with)), std::invalid_argument);
  CHECK(is_handled_by(SIGUSR1, SIG_DFL));
  const auto dumps = dump_on_signal(SIGUSR1, d / "dump");
  CHECK_THROWS_AS(static_cast<void>(dump_on_signal(SIGUSR1, d / "dump")), std::invalid_argument);
  dump_now(SIGUSR1, d / "dump");
  monitor_options of;
  of.limit = std::chrono::microseconds(999);
  CHECK_THROWS_AS(monitor{of}, std::invalid_argument);
}

TEST_CASE("what others send by the signal that interrupts threads goes to who handled it before") {
  const int number = SIGRTMIN + 11;
  struct sigaction ours = {};
  ours.sa_sigaction = before_with_information;
  ours.sa_flags = SA_SIGINFO;
  sigaction(number, &ours, nullptr);
  const int plain = SIGRTMIN + 12;
  ours = {};
  ours.sa_handler = before;
  sigaction(plain, &ours, nullptr);
  const int ignored = SIGRTMIN + 13;
  ours.sa_handler = SIG_IGN;
  sigaction(ignored, &ours, nullptr);
  const directory d;
  for (const int each : {number, plain, ignored}) {
    dump_options with = patient();
    with.interrupting_signal = each;
    const auto dumps = dump_on_signal(SIGUSR1, d / "dump", with);
    bool came = false;
    greenlet([&] {
      const std::size_t n = count(contents(d / "dump"), "greenlet dump ends\n");
      kill(getpid(), SIGUSR1);
      came = t_blocks([&] { return has_dumps(d / "dump", n + 1); });
    }).switch_to();
    CHECK(came);
  }
  if (frames_are_there()) CHECK(count(contents(d / "dump"), name_of_blocked) == 3);
  CHECK(seen_before == 0);
  sigval value = {};
  value.sival_int = 7;
  sigqueue(getpid(), number, value);
  CHECK(comes([] { return seen_before == 7; }));
  kill(getpid(), plain);
  CHECK(comes([] { return seen_before == 8; }));
  kill(getpid(), ignored);
  seen_before = 0;
#ifndef T_TSAN  // in whose children nothing is sure
  // By default it ends the process, as it would have.
  const testing::child c = testing::in_child([] { raise(SIGRTMIN + 4); });
  REQUIRE(WIFSIGNALED(c.status));
  CHECK(WTERMSIG(c.status) == SIGRTMIN + 4);
#endif
}

#ifndef T_TSAN  // which allows a child no threads
TEST_CASE("a child of fork() makes its thread when it next switches, and has then been told of what came before") {
  const directory d;
  const std::string file = d / "dump";
  const auto dumps = dump_on_signal(SIGUSR1, file, patient());
  dump_now(SIGUSR1, file);
  const auto work = [&] {
    alarm(100);
    if (threads_of_process() != 1) _exit(10);  // who executes another program needs none
    kill(getpid(), SIGUSR1);
    greenlet([&] {
      if (!t_blocks([&] { return has_dumps(file, 2); })) _exit(11);
    }).switch_to();
    if (threads_of_process() != 2) _exit(12);
  };
  const testing::child c = testing::in_child(work);
  INFO(c.output);
  CHECK(c.status == 0);
  const std::string text = contents(file);
  INFO(text);
  CHECK(count(text, "greenlet dump of process ") == 2);
  CHECK(count(text, "greenlet dump of process " + std::to_string(getpid()) + "\n") == 1);
  if (frames_are_there()) CHECK(count(text, name_of_blocked) == 1);
  // A thread that has not used the library before.
  std::thread([&] {
    const testing::child other = testing::in_child([&] {
      alarm(100);
      kill(getpid(), SIGUSR1);
      greenlet([&] {
        if (!t_blocks([&] { return has_dumps(file, 3); })) _exit(11);
      }).switch_to();
    });
    CHECK(other.status == 0);
  }).join();
  CHECK(count(dump_now(SIGUSR1, file), "greenlet dump ends\n") == 4);  // and the parent goes on as it was
}

#ifndef T_ASAN  // where one child in a hundred is aborted or hangs; it is not known whether by us
TEST_CASE("children can ask for dumps, whatever other threads were doing with theirs") {
  std::atomic<bool> enough{false};
  std::vector<std::thread> others;
  for (const int n : {SIGUSR1, SIGUSR2})
    others.emplace_back([&enough, n] {
      while (!enough) dump_on_signal(n, STDERR_FILENO).stop();
    });
  for (unsigned i = 0; i < testing::times(100); ++i) {
    const testing::child c = testing::in_child([] {
      alarm(100);
      dump_on_signal(SIGRTMIN + 5, STDERR_FILENO).stop();
    });
    INFO(c.output);
    CHECK(c.status == 0);
  }
  enough = true;
  for (std::thread& t : others) t.join();
}
#endif

TEST_CASE("children can be made while dumps are, and look at frames") {
  const directory d;
  dump_options with;
  with.apart = milliseconds(0);
  const auto dumps = dump_on_signal(SIGUSR1, d / "dump", with);
  for (unsigned i = 0; i < testing::times(40); ++i) {
    kill(getpid(), SIGUSR1);
    std::this_thread::sleep_for(std::chrono::microseconds(100 * (i % 20)));  // each child at another moment of a dump
    const pid_t pid = fork();
    REQUIRE(pid >= 0);
    if (pid == 0) {
      alarm(100);
      _exit(frames(current()).empty());
    }
    int status = -1;
    waitpid(pid, &status, 0);
    CHECK(status == 0);
  }
}
#endif

#if defined(__x86_64__) && !defined(T_TSAN) && !defined(T_ASAN)
TEST_CASE("where the system forbids to read a process' memory by a call, stacks of greenlets are copied all the same") {
  const directory d;
  const std::string file = d / "dump";
  const testing::child c = testing::in_child([&] {
    alarm(100);
    sock_filter program[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_process_vm_readv, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const sock_fprog all = {sizeof program / sizeof program[0], program};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &all) != 0) _exit(77);
    const auto dumps = dump_on_signal(SIGUSR1, file, patient());
    bool came = false;
    greenlet([&] {
      kill(getpid(), SIGUSR1);
      came = t_blocks([&] { return has_dumps(file, 1); });
    }).switch_to();
    if (!came) _exit(1);
  });
  INFO(c.output);
  if (WIFEXITED(c.status) && WEXITSTATUS(c.status) == 77) return;  // an emulator, say
  CHECK(c.status == 0);
  const std::string text = contents(file);
  INFO(text);
  if (frames_are_there()) CHECK(count(text, name_of_blocked) == 1);
}
#endif

TEST_CASE("a thread that holds the dynamic linker's lock is waited for, and goes on") {
  const directory d;
  const auto dumps = dump_on_signal(SIGUSR1, d / "dump");
  greenlet([&] {
    dl_iterate_phdr(
        [](dl_phdr_info*, std::size_t, void*) {
          kill(getpid(), SIGUSR1);
          // For the dump to come to the lock, of which nobody else can see anything; if it does not, it has less to wait for.
          std::this_thread::sleep_for(milliseconds(20));
          return 1;
        },
        nullptr);
  }).switch_to();
  CHECK(comes([&] { return has_dumps(d / "dump", 1); }));
}

// -- Load ----------------------------------------------------------------------------------------------

namespace {

// Switches, creates, allocates, ends: on stacks as small as they come.
struct load {
  std::atomic<bool>& stop;
  std::uint64_t rounds = 0;

  __attribute__((noinline)) static void nested(int depth) {
    if (depth > 0) nested(depth - 1);
    switch_to_parent();
    after_call();
  }
  void operator()() {
    std::vector<greenlet> kept;
    for (unsigned n = 0; !stop; ++n, ++rounds) {
      greenlet g(attributes().stack_size(16 * 1024).name(n % 3 ? "short" : "a name that is too long to be in the string"),
                 [n] { nested(static_cast<int>(n % 8)); });
      g.switch_to();
      std::vector<std::string> memory(n % 50, std::string(n % 700, 'm'));
      if (n % 2) kept.push_back(g);
      if (kept.size() > 100) kept.erase(kept.begin(), kept.begin() + 50);  // killed
      for (std::size_t i = 0; i < kept.size(); i += 7)
        if (!kept[i].dead()) kept[i].switch_to();
      if (n % 16 == 0) greenlet([] { throw greenlet_exit(); }).switch_to();
    }
  }
};

#ifdef T_HUB
void hub_load(std::atomic<bool>& stop) {
  hub::run([&] {
    for (int i = 0; i < 8; ++i)
      hub::spawn([&, i] {
        while (!stop) {
          if (i % 2)
            hub::yield();
          else
            hub::sleep_for(milliseconds(i));  // timers are part of the load
          hub::spawn([] { hub::yield(); });
        }
      });
    while (!stop) hub::sleep_for(milliseconds(5));  // it is another thread that stops
  });
  hub::shutdown();
}
#endif

long seconds_of_load() {
  const char* const asked = std::getenv("DUMP_SECONDS");
  return asked ? std::atol(asked) : 2;
}

}  // namespace

TEST_CASE("signals, a thousand a second, during a load that switches, creates and allocates, harm nobody") {
  int ends[2];
  REQUIRE(pipe2(ends, O_CLOEXEC) == 0);
  std::atomic<bool> stop{false};
  std::uint64_t dumped = 0;
  std::uint64_t quickly = 0;
  std::uint64_t with_frames = 0;
  std::uint64_t bytes = 0;
  std::thread reader([&] {
    std::string line;
    FILE* const in = fdopen(ends[0], "r");
    char part[4096];
    bool begins = true;
    while (std::fgets(part, sizeof part, in)) {
      bytes += std::strlen(part);
      dumped += std::strcmp(part, "greenlet dump ends\n") == 0;
      quickly += begins && part[0] == '{';
      begins = part[std::strlen(part) - 1] == '\n';
      with_frames += std::strstr(part, "load::") != nullptr;
    }
    std::fclose(in);
  });
  std::uint64_t reports = 0;
  std::uint64_t sent = 0;
  load one{stop};
  load two{stop};
  {
    dump_options with;
    with.apart = milliseconds(0);
    auto dumps = dump_on_signal(SIGUSR1, ends[1], with);
    with.snapshot.symbols = false;  // which takes the most time: so there are more of these
    with.format = dump_format::json;
    auto quick = dump_on_signal(SIGUSR2, ends[1], with);
    monitor_options of;
    of.limit = milliseconds(1);  // who loses the processor is told of
    of.main_without_hub = true;
    of.report = [&](const long_run&) { ++reports; };
    monitor m(of);
    std::vector<std::thread> all;
    all.emplace_back([&] { one(); });
    all.emplace_back([&] { greenlet([&] { two(); }).switch_to(); });
#ifdef T_HUB
    all.emplace_back([&] { hub_load(stop); });
#endif
    const auto end = steady::now() + seconds(seconds_of_load());
    for (auto next = steady::now(); next < end; next += milliseconds(1), ++sent) {
      std::this_thread::sleep_until(next);
      kill(getpid(), sent % 250 == 0 ? SIGUSR1 : SIGUSR2);
    }
    stop = true;
    for (std::thread& t : all) t.join();
    m.stop();
    dumps.stop();
  }
  close(ends[1]);
  reader.join();
  std::ostringstream text;
  text << sent << " signals in " << seconds_of_load() << " s: " << dumped << " dumps and " << quickly << " without symbols, of " << bytes
       << " bytes, " << with_frames << " lines of running load; " << reports << " reports; rounds of load: " << one.rounds << ", "
       << two.rounds << '\n';
  std::fputs(text.str().c_str(), stdout);
  CHECK(dumped > 0);
  CHECK(one.rounds > 0);
  CHECK(two.rounds > 0);
}
