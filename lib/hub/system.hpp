// SPDX-License-Identifier: MIT
// The system's calls: their failures, and descriptors that nobody owns yet.
#ifndef LIB_HUB_SYSTEM_HPP
#define LIB_HUB_SYSTEM_HPP

#include <greenlet/hub/address.hpp>
#include <greenlet/hub/io.hpp>
#include <greenlet/hub/run.hpp>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <ctime>
#include <sys/socket.h>
#include <system_error>
#include <unistd.h>
#include <vector>

namespace greenlets::hub::detail {

inline void check(long result, const char* call) {
  if (result < 0) throw std::system_error(errno, std::generic_category(), call);
}

// A descriptor until somebody takes it.
class unowned_fd : public owned_fd {
 public:
  unowned_fd(int fd, const char* call) : owned_fd(fd) { check(fd, call); }
  unowned_fd(const unowned_fd&) = delete;
  unowned_fd& operator=(const unowned_fd&) = delete;
  void taken() noexcept { release(); }
};

// The numbers below `limit` that are free, taken for a scope: nothing that is opened meanwhile has one of them.
// `new_one()` opens something.
class low_numbers {
 public:
  template <class F>
  low_numbers(int limit, const char* call, F&& new_one) : low_numbers() {
    taken_.reserve(static_cast<std::size_t>(limit) + 1);
    do {
      const int fd = new_one();
      check(fd, call);
      taken_.push_back(fd);
    } while (taken_.back() < limit);
    ::close(taken_.back());
    taken_.pop_back();
  }
  low_numbers(const low_numbers&) = delete;
  low_numbers& operator=(const low_numbers&) = delete;
  ~low_numbers() {
    for (int fd : taken_) ::close(fd);
  }

 private:
  low_numbers() noexcept = default;  // the destructor is for what the other constructor throws, too
  std::vector<int> taken_;
};

// getsockname(), getpeername().
template <int (*get)(int, sockaddr*, socklen_t*)>
address name_of(int fd, const char* call) {
  sockaddr_storage s{};
  socklen_t size = sizeof s;
  check(get(fd, reinterpret_cast<sockaddr*>(&s), &size), call);
  return {reinterpret_cast<const sockaddr*>(&s), size};
}

// For what no event tells: waits a little longer each time, and gives up at the deadline.
class retries {
 public:
  bool wait(deadline until) {
    if (until.at() <= clock::now()) return false;
    sleep_until(std::min(clock::now() + next_, until.at()));
    next_ = std::min<clock::duration>(2 * next_, std::chrono::milliseconds(64));
    return true;
  }

 private:
  clock::duration next_ = std::chrono::milliseconds(1);
};

// SIGPIPE of this thread, held back while a system call is made that could raise it and has no flag against it.
class sigpipe_held {
 public:
  sigpipe_held() noexcept {
    sigemptyset(&pipe_);
    sigaddset(&pipe_, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipe_, &before_);
    sigset_t pending;
    was_pending_ = sigismember(&before_, SIGPIPE) && sigpending(&pending) == 0 && sigismember(&pending, SIGPIPE);
  }
  sigpipe_held(const sigpipe_held&) = delete;
  sigpipe_held& operator=(const sigpipe_held&) = delete;
  ~sigpipe_held() {
    const int error = errno;
    constexpr timespec at_once{};
    // POSIX, write(): EPIPE comes with a SIGPIPE to the thread. One that was there before is not ours.
    if (error == EPIPE && !was_pending_) sigtimedwait(&pipe_, nullptr, &at_once);
    pthread_sigmask(SIG_SETMASK, &before_, nullptr);
    errno = error;
  }

 private:
  sigset_t pipe_, before_;
  bool was_pending_;
};

}  // namespace greenlets::hub::detail

#endif
