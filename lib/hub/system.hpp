// SPDX-License-Identifier: MIT
// The system's calls: their failures, and descriptors that nobody owns yet.
#ifndef LIB_HUB_SYSTEM_HPP
#define LIB_HUB_SYSTEM_HPP

#include <cerrno>
#include <system_error>
#include <unistd.h>

namespace greenlets::hub::detail {

inline void check(long result, const char* call) {
  if (result < 0) throw std::system_error(errno, std::generic_category(), call);
}

// A descriptor until somebody takes it.
class unowned_fd {
 public:
  unowned_fd(int fd, const char* call) : fd_(fd) { check(fd, call); }
  unowned_fd(const unowned_fd&) = delete;
  unowned_fd& operator=(const unowned_fd&) = delete;
  ~unowned_fd() {
    if (fd_ >= 0) ::close(fd_);
  }
  int get() const noexcept { return fd_; }
  void taken() noexcept { fd_ = -1; }

 private:
  int fd_;
};

}  // namespace greenlets::hub::detail

#endif
