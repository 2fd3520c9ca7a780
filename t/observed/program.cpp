// SPDX-License-Identifier: MIT
// A program to be looked at: greenlets in two threads that wait, with the hub for all kinds of things.
//
//   program [GREENLETS]      so many in all, 100 if it is not said
//   program --refuse COMMAND [ARGUMENT...]
//                            runs that where the system refuses process_vm_readv(); exit status 77: it cannot be had so
//
// It says "ready PID" when each waits, and then does what it reads, a line each:
//   snapshot FILE   writes its own snapshot as JSON, taken in a thread that has no greenlets; says "written"
//   turn            switches to some in each thread and back; says "went on N times"
//   spin            each thread does nothing but switch to two and back; says "spinning"
//   still           no more; says "still"
//   handle          has a greenlet of the first thread be in a handler, on a stack for signals, until "still"
//   abort           dies of it
// At the end of its input it ends all greenlets, and says "ended N", which is how many had been started.
#include <greenlet/greenlet.hpp>
#ifdef T_HUB
#include <greenlet/hub.hpp>
#include <sys/socket.h>
#endif
#ifdef T_SNAPSHOT
#include <greenlet/snapshot.hpp>
#endif

#include <atomic>
#include <cerrno>
#include <csignal>
#include <condition_variable>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <iostream>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <mutex>
#include <pthread.h>
#include <string>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <thread>
#include <unistd.h>
#include <utility>
#include <vector>

using greenlets::greenlet;

namespace observed {

// Functions whose names are looked for in what is told.
__attribute__((noinline)) void wait_for_a_switch(int deep) {
  if (deep > 0)
    wait_for_a_switch(deep - 1);
  else
    greenlets::switch_to_parent();
  __asm__ volatile("");  // so that no call is the last thing
}

std::atomic<bool> spins{false};

template <int number>
__attribute__((noinline)) void spin_here() {
  greenlets::switch_to_parent();
  __asm__ volatile("");
}
template <int number>
greenlet spinner() {
  return greenlet(greenlets::attributes().name("spins " + std::to_string(number)), [] {
    for (;;) spin_here<number>();
  });
}
__attribute__((noinline)) void spin_in_main(const greenlet& one, const greenlet& other) {
  while (spins.load(std::memory_order_relaxed)) {
    one.switch_to();
    other.switch_to();
  }
}

std::function<void()> in_handler;
__attribute__((noinline)) void spin_in_handler(int) {
  in_handler();
  while (spins.load(std::memory_order_relaxed)) continue;
}
__attribute__((noinline)) void raise_on_another_stack() {
  std::vector<char> room(64 * 1024);
  stack_t other = {}, before;
  other.ss_sp = room.data();
  other.ss_size = room.size();
  struct sigaction on = {};
  on.sa_handler = spin_in_handler;
  on.sa_flags = SA_ONSTACK;
  sigaltstack(&other, &before);
  sigaction(SIGUSR2, &on, nullptr);
  pthread_kill(pthread_self(), SIGUSR2);
  sigaltstack(&before, nullptr);
}

struct count_end {
  std::size_t& n;
  ~count_end() { ++n; }
};

// Those of one thread, and what they wait for. All of it is used in that thread only.
struct crew {
  std::vector<greenlet> plain, unstarted;
  std::size_t started = 0, ended = 0;

  void begin(std::size_t n) {
    using namespace std::literals;
    unstarted.emplace_back(greenlets::attributes().name("unstarted\n\0\"\x1b[31m"s), [] {});
    for (std::size_t i = 1; i < n; ++i) begin_one(i);
  }
  void begin_plain(const std::string& name, int deep) {
    ++started;
    plain.emplace_back(greenlets::attributes().name(name), [this, deep] {
      const count_end at_end{ended};
      for (;;) wait_for_a_switch(deep);
    });
    plain.back().switch_to();
  }
  std::size_t turn_plain() const {
    for (const greenlet& g : plain) g.switch_to();
    return plain.size();
  }

#ifndef T_HUB
  void begin_one(std::size_t i) { begin_plain("deep " + std::to_string(i), static_cast<int>(i % 5)); }
  void settle() {}
  std::size_t turn() { return turn_plain(); }
  void end() { plain.clear(); }
#else
  static constexpr std::size_t most_readers = 20;
  greenlets::hub::mutex locked;
  greenlets::hub::queue<int> empty, full{1};
  greenlets::hub::event never;
  greenlets::hub::semaphore none{0};
  std::vector<greenlets::hub::task<void>> tasks;
  std::vector<greenlets::hub::owned_fd> far_ends;
  std::size_t bytes = 0;

  template <class F>
  void spawn(const std::string& name, F wait) {
    ++started;
    tasks.push_back(greenlets::hub::spawn([this, name, wait] {
      const count_end at_end{ended};
      greenlets::current().set_name(name);
      wait();
      __asm__ volatile("");
    }));
  }
  void spawn_reader(const std::string& name) {
    int both[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, both) != 0) std::abort();
    far_ends.emplace_back(both[0]);
    spawn(name, [this, fd = both[1]] { read_for_ever(fd); });
  }
  __attribute__((noinline)) void read_for_ever(int fd) {
    greenlets::hub::descriptor near(fd);
    char byte;
    while (near.read_exactly(&byte, 1)) ++bytes;
  }
  __attribute__((noinline)) void wait_in_queue() { empty.pop(); }
  __attribute__((noinline)) void wait_for_room() { full.push(1); }
  __attribute__((noinline)) void wait_for_lock() { locked.lock(); }

  void begin_one(std::size_t i) {
    const std::string number = ' ' + std::to_string(i);
    switch (i % 8) {
      case 1: return far_ends.size() < most_readers ? spawn_reader("reader" + number) : begin_plain("deep" + number, 1);
      case 2: return spawn("sleeper" + number, [] { greenlets::hub::sleep_for(std::chrono::hours(10)); });
      case 3: return spawn("locker" + number, [this] { wait_for_lock(); });
      case 4: return spawn("taker" + number, [this] { wait_in_queue(); });
      case 5: return spawn("giver" + number, [this] { wait_for_room(); });
      case 6: return spawn("waiter" + number, [this] { never.wait(std::chrono::hours(20)); });
      case 7: return spawn("acquirer" + number, [this] { none.acquire(); });
      default: return begin_plain("deep" + number, static_cast<int>(i % 5));
    }
  }
  void settle() {
    locked.lock();
    full.push(0);
    while (greenlets::hub::statistics().waiting < tasks.size()) greenlets::hub::yield();
  }
  std::size_t turn() {
    const std::size_t before = bytes;
    for (auto& fd : far_ends)
      if (write(fd.get(), "x", 1) != 1) std::abort();
    while (bytes < before + far_ends.size()) greenlets::hub::yield();
    return far_ends.size() + turn_plain();
  }
  void end() {
    plain.clear();
    for (auto& t : tasks) t.cancel();
    for (auto& t : tasks) t.join();
  }
#endif
};

// A thread with a crew, which waits in the kernel until it is told what to do.
class worker {
 public:
  explicit worker(std::size_t greenlets) {
    thread_ = std::thread([this, greenlets] { work(greenlets); });
    answer();
  }
  worker(const worker&) = delete;
  worker& operator=(const worker&) = delete;

  std::size_t turn() {
    tell([this] { reply(crew_->turn()); });
    return answer();
  }
  void spin() {
    tell([this] {
      const greenlet one = spinner<0>(), other = spinner<1>();
      one.switch_to();
      other.switch_to();
      reply(0);
      spin_in_main(one, other);
      reply(0);
    });
    answer();
  }
  void still() { answer(); }
  // It has been suspended before, somewhere else.
  void handle() {
    tell([this] {
      in_handler = [this] { reply(0); };
      const greenlet one(greenlets::attributes().name("handles"), [] {
        wait_for_a_switch(0);
        raise_on_another_stack();
      });
      one.switch_to();
      one.switch_to();
      reply(0);
    });
    answer();
  }
  std::size_t end() {
    tell([this] { over_ = true; });
    const std::size_t ended = answer();
    thread_.join();
    return ended;
  }

 private:
  // In main greenlets, for that is where the others switch to.
  void work(std::size_t greenlets) {
#ifdef T_HUB
    hub_ = greenlets::hub::this_hub();
#endif
    crew mine;
    crew_ = &mine;
    mine.begin(greenlets);
    mine.settle();
    reply(0);
    while (!over_) next()();
    mine.end();
    reply(mine.ended);
  }

#ifdef T_HUB
  void tell(std::function<void()> f) {
    hub_.post([this, f = std::move(f)] { told_.push(f); });
  }
  std::function<void()> next() { return *told_.pop(); }

  greenlets::hub::queue<std::function<void()>> told_;
  greenlets::hub::remote hub_;
#else
  void tell(std::function<void()> f) {
    const std::lock_guard lock(mutex_);
    told_ = std::move(f);
    changed_.notify_all();
  }
  std::function<void()> next() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return static_cast<bool>(told_); });
    return std::exchange(told_, nullptr);
  }

  std::function<void()> told_;
#endif

  void reply(std::size_t n) {
    const std::lock_guard lock(mutex_);
    answer_ = n;
    answered_ = true;
    changed_.notify_all();
  }
  std::size_t answer() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return answered_; });
    answered_ = false;
    return answer_;
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::size_t answer_ = 0;
  bool answered_ = false, over_ = false;
  crew* crew_ = nullptr;
  std::thread thread_;
};

bool write_snapshot(const std::string& path) {
#ifdef T_SNAPSHOT
  std::ofstream to(path);
  greenlets::write_json(to, greenlets::snapshot());
  return static_cast<bool>(to.flush());
#else
  return path.empty();
#endif
}

}  // namespace observed

static int refuse_and_run(char** command) {
  sock_filter rules[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, static_cast<__u32>(offsetof(seccomp_data, nr))),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_process_vm_readv, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog program = {sizeof rules / sizeof *rules, rules};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) return 77;
  execvp(command[0], command);
  std::perror(command[0]);
  return 1;
}

int main(int, char** arguments) {
  if (arguments[1] && std::string(arguments[1]) == "--refuse") return refuse_and_run(arguments + 2);
  const std::size_t greenlets = arguments[1] ? std::strtoul(arguments[1], nullptr, 10) : 100;
  observed::worker first(greenlets / 2), second(greenlets - greenlets / 2);
  std::cout << "ready " << getpid() << std::endl;
  for (std::string line; std::getline(std::cin, line);) {
    if (line == "turn")
      std::cout << "went on " << first.turn() + second.turn() << " times" << std::endl;
    else if (line == "spin") {
      observed::spins = true;
      first.spin();
      second.spin();
      std::cout << "spinning" << std::endl;
    } else if (line == "handle") {
      observed::spins = true;
      first.handle();
      std::cout << "handling" << std::endl;
    } else if (line == "still") {
      observed::spins = false;
      first.still();
      if (!observed::in_handler) second.still();
      observed::in_handler = nullptr;
      std::cout << "still" << std::endl;
    } else if (line == "abort")
      std::abort();
    else if (line.rfind("snapshot ", 0) == 0)
      std::cout << (observed::write_snapshot(line.substr(9)) ? "written" : "no snapshot") << std::endl;
    else
      return 2;
  }
  const std::size_t ended = first.end();
  std::cout << "ended " << ended + second.end() << std::endl;
}
