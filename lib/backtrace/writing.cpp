// SPDX-License-Identifier: MIT
// To files and descriptors, without hanging for ever.
#include "writing.hpp"

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utility>

namespace greenlets::detail {
namespace {

constexpr int step_ms = 100;
constexpr int patience_ms = 2000;

enum class kind { file, socket, other };

kind kind_of(int descriptor) noexcept {
  struct stat s;
  if (fstat(descriptor, &s) != 0) return kind::other;
  return S_ISREG(s.st_mode) ? kind::file : S_ISSOCK(s.st_mode) ? kind::socket : kind::other;
}

// Room for a byte is no room for all: a terminal that nobody reads would block whoever writes, and others may fill a pipe
// after it was asked. O_NONBLOCK is the open file's, which the program's other descriptors share, so it is opened again.
// -1: that cannot be done.
int open_without_blocking(int fd) noexcept {
  char path[32];
  std::snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  return open(path, O_WRONLY | O_APPEND | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
}

bool wait_for_room(int descriptor, const std::function<bool()>& stopped) {
  for (int waited = 0; waited < patience_ms; waited += step_ms) {
    pollfd p = {descriptor, POLLOUT, 0};
    const int n = poll(&p, 1, step_ms);
    if (n > 0) return !(p.revents & (POLLERR | POLLNVAL)) && p.revents & POLLOUT;
    if (n < 0 && errno != EINTR) return false;
    if (stopped()) return false;
  }
  return false;
}

class descriptor {
 public:
  explicit descriptor(int fd) noexcept : fd_(fd) {}
  descriptor(const descriptor&) = delete;
  descriptor& operator=(const descriptor&) = delete;
  ~descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  int number() const noexcept { return fd_; }
  // Some file systems say only now that there was no room.
  bool close() noexcept { return ::close(std::exchange(fd_, -1)) == 0; }

 private:
  int fd_;
};

}  // namespace

bool write_all(int fd, std::string_view text, const std::function<bool()>& stopped) {
  const kind what = kind_of(fd);
  const descriptor own(what == kind::other ? open_without_blocking(fd) : -1);
  const int to = own.number() >= 0 ? own.number() : fd;
  // Where there was no other way: a blocking pipe that has room at all takes so much without blocking.
  const std::size_t at_once = what == kind::file ? text.size() : std::size_t{PIPE_BUF};
  while (!text.empty()) {
    if (!wait_for_room(to, stopped)) return false;
    const std::size_t size = std::min(at_once, text.size());
    const ssize_t n = what == kind::socket ? send(to, text.data(), size, MSG_DONTWAIT | MSG_NOSIGNAL) : write(to, text.data(), size);
    if (n < 0 && errno != EINTR && errno != EAGAIN) return false;
    if (n > 0) text.remove_prefix(static_cast<std::size_t>(n));
  }
  return true;
}

bool append_to(const std::string& file, std::string_view text, const std::function<bool()>& stopped) {
  // A FIFO that nobody reads is not waited for.
  descriptor d(open(file.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0600));
  return d.number() >= 0 && write_all(d.number(), text, stopped) && d.close();
}

bool replace(const std::string& file, std::string_view text, const std::function<bool()>& stopped) {
  std::string beside = file + ".XXXXXX";
  descriptor d(mkostemp(beside.data(), O_CLOEXEC));  // 0600
  if (d.number() < 0) return false;
  const bool done = write_all(d.number(), text, stopped) && d.close() && rename(beside.c_str(), file.c_str()) == 0;
  if (!done) unlink(beside.c_str());
  return done;
}

}  // namespace greenlets::detail
