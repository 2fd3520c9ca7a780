// SPDX-License-Identifier: MIT
// The signal, its handler, and who waits for it.
//
// The handler runs wherever the thread was: it takes no lock but by trying, no memory, and little of the stack. It waits
// for nobody, so whatever lock the thread holds it gives back in its time; who has asked may wait for that one.
#include "interrupt.hpp"

#include "bell.hpp"
#include "watcher.hpp"

#include "../sanitizer.hpp"
#include "../watching.hpp"

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <fcntl.h>
#include <stdexcept>
#include <sys/syscall.h>
#include <system_error>
#include <unistd.h>

namespace greenlets::detail {
namespace {

// Of deeper stacks the innermost frames are told.
constexpr std::size_t most_bytes = 256 * 1024;

// The request. Who is asked, and how far it is, are one word: a handler that comes too late finds another there, or none.
namespace phase {
constexpr std::uint64_t asked = 1, copying = 2, copied = 3;
}
constexpr std::uint64_t state_of(pid_t tid, std::uint64_t p) noexcept { return static_cast<std::uint64_t>(tid) << 2 | p; }

std::atomic<std::uint64_t> state{0};
interruption_v1 found;  // whose turn it is to touch it, `state` says
bell answered;

// -- The handler ---------------------------------------------------------------------------------------

struct handled_signal {
  std::atomic<bool> ready{false};
  struct sigaction before = {};
};
handled_signal signals[_NSIG];
char mark;  // whose address says that a signal is ours

void answer(const ucontext_t& interrupted) noexcept {
  const auto tid = static_cast<pid_t>(syscall(SYS_gettid));
  std::uint64_t expected = state_of(tid, phase::asked);
  if (!state.compare_exchange_strong(expected, state_of(tid, phase::copying), std::memory_order_acq_rel)) return;
  sanitizer::after(&state);
  if (sanitizer::holds_signals_back()) {
    // What was interrupted may have gone on since: this is where the handler was called from.
    ucontext_t here;
    getcontext(&here);
    copy_interrupted(here, found);
  } else {
    copy_interrupted(interrupted, found);
  }
  sanitizer::before(&state);
  state.store(state_of(tid, phase::copied), std::memory_order_release);
  answered.ring();
}

// As if we were not there.
void pass_on(int number, siginfo_t* info, void* context) noexcept {
  const struct sigaction& before = signals[number].before;
  if (before.sa_flags & SA_SIGINFO) return before.sa_sigaction(number, info, context);
  if (before.sa_handler == SIG_IGN) return;
  if (before.sa_handler != SIG_DFL) return before.sa_handler(number);
  struct sigaction by_default = {};
  by_default.sa_handler = SIG_DFL;
  sigaction(number, &by_default, nullptr);
  raise(number);  // blocked until the handler returns
}

void on_signal(int number, siginfo_t* info, void* context) noexcept {
  const int error = errno;
  if (info->si_code == SI_QUEUE && info->si_value.sival_ptr == &mark && info->si_pid == getpid())
    answer(*static_cast<const ucontext_t*>(context));
  else
    pass_on(number, info, context);
  errno = error;
}

// Somebody may have taken it back since, as daemons do that reset all signals: then one that is sent could end the process.
bool is_ready(int signal) noexcept {
  struct sigaction now = {};
  return signals[signal].ready.load(std::memory_order_acquire) && sigaction(signal, nullptr, &now) == 0 && (now.sa_flags & SA_SIGINFO) && now.sa_sigaction == on_signal;
}

int unused_signal() noexcept {
  for (int n = SIGRTMAX - 3; n > SIGRTMIN; --n) {  // debuggers and valgrind have the last
    struct sigaction now = {};
    if (is_ready(n)) return n;
    if (sigaction(n, nullptr, &now) == 0 && !(now.sa_flags & SA_SIGINFO) && now.sa_handler == SIG_DFL) return n;
  }
  return 0;
}

// -- Who asks ------------------------------------------------------------------------------------------

// What the system tells of one signal and a thread.
struct acceptance {
  bool exists = true;
  bool accepts = true;  // as far as is known
};

bool has(const char* status, const char* field, int signal) noexcept {
  const char* const at = std::strstr(status, field);
  if (!at) return false;
  return std::strtoull(at + std::strlen(field), nullptr, 16) >> (signal - 1) & 1U;
}

acceptance look_up(pid_t tid, int signal) noexcept {
  char path[64];
  std::snprintf(path, sizeof path, "/proc/self/task/%d/status", static_cast<int>(tid));
  const int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return {errno != ENOENT || access("/proc/self/task", X_OK) != 0, true};
  char text[4096];
  const ssize_t n = read(fd, text, sizeof text - 1);
  close(fd);
  if (n <= 0) return {errno != ESRCH, true};
  text[n] = '\0';
  // One that has not come yet is enough.
  return {true, !has(text, "\nSigBlk:", signal) && !has(text, "\nSigPnd:", signal)};
}

// Libraries block all signals for a moment, libunwind one of them.
bool accepts(pid_t tid, int signal) noexcept {
  for (int tries = 0; tries < 5; ++tries) {
    const acceptance now = look_up(tid, signal);
    if (!now.exists) return false;
    if (now.accepts) return true;
    const timespec moment = {0, 1'000'000};
    nanosleep(&moment, nullptr);
  }
  return false;
}

bool send(pid_t tid, int signal) noexcept {
  siginfo_t info = {};
  info.si_signo = signal;
  info.si_code = SI_QUEUE;
  info.si_pid = getpid();
  info.si_uid = getuid();
  info.si_value.sival_ptr = &mark;
  return syscall(SYS_rt_tgsigqueueinfo, getpid(), tid, signal, &info) == 0;
}

// Waits for the answer, or takes the question back.
bool wait_for(pid_t tid, std::chrono::nanoseconds patience) noexcept {
  const auto until = bell::in(patience);
  for (;;) {
    const std::uint32_t seen = answered.rung();
    if (state.load(std::memory_order_acquire) == state_of(tid, phase::copied)) {
      sanitizer::after(&state);
      return true;
    }
    if (bell::clock::now() < until) {
      answered.wait(seen, until);
      continue;
    }
    std::uint64_t expected = state_of(tid, phase::asked);
    if (state.compare_exchange_strong(expected, 0, std::memory_order_acq_rel)) return false;
    // It is copying, and nothing keeps it from going on: the handler has every signal blocked.
    answered.wait(seen, bell::clock::now() + std::chrono::milliseconds(10));
  }
}

char* buffer = nullptr;  // for ever

void take(interrupted_thread& to, std::size_t most_frames) {
  to.greenlet = found.greenlet;
  to.name = found.name;
  to.is_main = found.is_main;
  to.is_hub = found.is_hub;
  suspension_v1 s;
  s.at = found.at;
  s.low = found.low;
  s.bytes.assign(found.bytes, found.bytes + found.size);
  to.places = walk(s, 0, most_frames);
}

}  // namespace

int prepare_interrupts(int signal) {
  const auto lock = watcher::agreement();
  if (signal < 0 || signal >= _NSIG || (signal != 0 && signal < SIGRTMIN))
    throw std::invalid_argument("running threads can be interrupted by real-time signals only");
  if (signal == 0) signal = unused_signal();
  if (signal == 0) throw std::invalid_argument("every real-time signal is in use");
  if (is_ready(signal)) return signal;
  struct sigaction ours = {};
  ours.sa_sigaction = on_signal;
  sigfillset(&ours.sa_mask);
  // A greenlet's stack may have no room for a signal. ThreadSanitizer calls handlers where it likes.
  ours.sa_flags = SA_SIGINFO | SA_RESTART | (sanitizer::holds_signals_back() ? 0 : SA_ONSTACK);
  if (sigaction(signal, nullptr, &signals[signal].before) != 0 || sigaction(signal, &ours, &signals[signal].before) != 0)
    throw std::system_error(errno, std::system_category(), "sigaction");
  signals[signal].ready.store(true, std::memory_order_release);
  return signal;
}

bool interrupt(pid_t tid, int signal, std::chrono::nanoseconds patience, std::size_t most_frames, interrupted_thread& to) {
  if (!machine::knows_registers || tid == static_cast<pid_t>(syscall(SYS_gettid))) return false;
  if (!accepts(tid, signal) || !is_ready(signal)) return false;
  if (!buffer) buffer = new char[most_bytes];
  found.bytes = buffer;
  found.room = most_bytes;
  sanitizer::before(&state);
  state.store(state_of(tid, phase::asked), std::memory_order_release);
  if (!send(tid, signal)) {
    state.store(0, std::memory_order_release);
    return false;
  }
  if (!wait_for(tid, patience)) return false;
  struct finally {
    ~finally() { state.store(0, std::memory_order_release); }
  } at_any_exit;
  take(to, most_frames);
  return true;
}

void forget_interrupts() noexcept { state.store(0, std::memory_order_release); }

}  // namespace greenlets::detail
