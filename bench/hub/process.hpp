// SPDX-License-Identifier: MIT
// server_process: a server as the generator of its load sees it: started on a processor of its own, its port, the time
// of the processor that it has taken, its memory, its system calls.
#ifndef BENCH_HUB_PROCESS_HPP
#define BENCH_HUB_PROCESS_HPP

#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dirent.h>
#include <fcntl.h>
#include <fstream>
#include <linux/perf_event.h>
#include <poll.h>
#include <sched.h>
#include <stdexcept>
#include <string>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <system_error>
#include <time.h>
#include <unistd.h>
#include <vector>

inline long check(long result, const char* call) {
  if (result < 0) throw std::system_error(errno, std::generic_category(), call);
  return result;
}

inline double seconds_of(clockid_t id) {
  timespec t{};
  check(clock_gettime(id, &t), "clock_gettime");
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}
inline double now() { return seconds_of(CLOCK_MONOTONIC); }

// The calling process, to one processor; a negative one: wherever it may run.
inline void pin(int processor) {
  if (processor < 0) return;
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<unsigned>(processor), &set);
  check(sched_setaffinity(0, sizeof set, &set), "sched_setaffinity");
}

// A child that ends with this process, whatever ends that. Its standard output, or error, comes by a pipe.
class child {
 public:
  child(const std::vector<std::string>& command, int processor, int piped) {
    int ends[2];
    check(pipe2(ends, O_CLOEXEC), "pipe2");
    pid_ = static_cast<pid_t>(check(fork(), "fork"));
    if (pid_ == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      pin(processor);
      dup2(ends[1], piped);
      std::vector<char*> arguments;
      for (const std::string& a : command) arguments.push_back(const_cast<char*>(a.c_str()));
      arguments.push_back(nullptr);
      execvp(arguments[0], arguments.data());
      std::perror(arguments[0]);
      _exit(127);
    }
    ::close(ends[1]);
    pipe_ = ends[0];
  }
  child(const child&) = delete;
  child& operator=(const child&) = delete;
  ~child() {
    if (pid_ > 0) end(SIGKILL);
    ::close(pipe_);
  }

  pid_t pid() const { return pid_; }
  // Its next line; throws when none comes.
  std::string line(double seconds) {
    std::string text;
    const double until = now() + seconds;
    for (char c; text.empty() || text.back() != '\n'; text += c) {
      pollfd p{pipe_, POLLIN, 0};
      const double left = until - now();
      if (left <= 0 || poll(&p, 1, static_cast<int>(left * 1000) + 1) <= 0) throw std::runtime_error("it says nothing");
      if (read(pipe_, &c, 1) != 1) throw std::runtime_error("it ended, or could not be started");
    }
    return text;
  }
  bool running() const {
    siginfo_t info{};
    return waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == 0;
  }
  void end(int signal) {
    kill(pid_, signal);
    while (waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
    }
    pid_ = 0;
  }

 private:
  pid_t pid_;
  int pipe_;
};

class server_process : public child {
 public:
  server_process(const std::vector<std::string>& command, int processor) : child(command, processor, STDOUT_FILENO) {
    port_ = static_cast<std::uint16_t>(std::stoul(line(30)));
    if (const int e = clock_getcpuclockid(pid(), &clock_)) throw std::system_error(e, std::generic_category(), "clock_getcpuclockid");
  }

  std::uint16_t port() const { return port_; }
  // Of all its threads, in the kernel as well.
  double cpu_seconds() const { return seconds_of(clock_); }
  // What is its own and has been written to.
  double private_dirty_kib() const {
    std::ifstream smaps(of_proc("smaps_rollup"));
    for (std::string name; smaps >> name;)
      if (name == "Private_Dirty:") {
        double kib = 0;
        smaps >> kib;
        return kib;
      }
    throw std::runtime_error("no Private_Dirty in " + of_proc("smaps_rollup"));
  }
  std::vector<int> entries(const char* of) const {
    std::vector<int> numbers;
    DIR* const d = opendir(of_proc(of).c_str());
    if (!d) throw std::system_error(errno, std::generic_category(), of_proc(of));
    while (const dirent* e = readdir(d))
      if (e->d_name[0] != '.') numbers.push_back(std::atoi(e->d_name));
    closedir(d);
    return numbers;
  }
  std::size_t descriptors() const { return entries("fd").size(); }
  std::vector<int> threads() const { return entries("task"); }
  // Returns when it has had nothing to do for a while.
  void settle() const {
    const double until = now() + 10;
    for (double before = -1, after; now() < until; before = after) {
      after = cpu_seconds();
      if (after - before < 1e-4) return;
      usleep(50000);
    }
    throw std::runtime_error("it never rests");
  }

 private:
  std::string of_proc(const std::string& what) const { return "/proc/" + std::to_string(pid()) + "/" + what; }

  std::uint16_t port_;
  clockid_t clock_{};
};

// Counts its system calls from when it is made: by the kernel's tracepoint, which costs next to nothing, or else,
// for who is not allowed to, by strace, under which everything is slower.
class call_counter {
 public:
  explicit call_counter(const server_process& of) {
    long id = 0;
    for (const char* root : {"/sys/kernel/tracing", "/sys/kernel/debug/tracing"})
      if (!id) std::ifstream(std::string(root) + "/events/raw_syscalls/sys_enter/id") >> id;
    if (!id || getenv("BENCH_HUB_STRACE") || !by_tracepoint(of, id)) by_strace(of);
  }
  call_counter(const call_counter&) = delete;
  call_counter& operator=(const call_counter&) = delete;
  ~call_counter() {
    for (const int fd : events_) ::close(fd);
    delete strace_;
  }

  const char* how() const { return strace_ ? "strace" : "tracepoint"; }
  // Ends the count.
  double calls() {
    double sum = 0;
    for (const int fd : events_) {
      std::uint64_t n = 0;
      if (read(fd, &n, sizeof n) != sizeof n) throw std::system_error(errno, std::generic_category(), "read of a perf event");
      sum += static_cast<double>(n);
    }
    if (!strace_) return sum;
    // It detaches, and prints its table: "100.00 SECONDS USECS CALLS [ERRORS] total" is the last line.
    kill(strace_->pid(), SIGINT);
    for (std::string text = strace_->line(10);; text = strace_->line(10)) {
      if (text.find(" total\n") == std::string::npos) continue;
      if (std::sscanf(text.c_str(), "%*s %*s %*s %lf", &sum) != 1) throw std::runtime_error("strace says: " + text);
      return sum;
    }
  }

 private:
  bool by_tracepoint(const server_process& of, long id) {
    perf_event_attr what{};
    what.size = sizeof what;
    what.type = PERF_TYPE_TRACEPOINT;
    what.config = static_cast<std::uint64_t>(id);
    what.inherit = 1;  // threads that come later
    for (const int thread : of.threads()) {
      const int fd = static_cast<int>(syscall(SYS_perf_event_open, &what, thread, -1, -1, PERF_FLAG_FD_CLOEXEC));
      if (fd < 0) {
        for (const int other : events_) ::close(other);
        events_.clear();
        return false;
      }
      events_.push_back(fd);
    }
    return true;
  }
  void by_strace(const server_process& of) {
    strace_ = new child({"strace", "-c", "-f", "-p", std::to_string(of.pid())}, -1, STDERR_FILENO);
    for (std::size_t left = of.threads().size(); left;) {
      const std::string text = strace_->line(10);
      // "Process 1 attached", or "Process 1 attached with 5 threads"
      if (text.find(" attached") == std::string::npos) throw std::runtime_error("strace says: " + text);
      left = text.find(" with ") == std::string::npos ? left - 1 : 0;
    }
  }

  std::vector<int> events_;
  child* strace_ = nullptr;
};

#endif
