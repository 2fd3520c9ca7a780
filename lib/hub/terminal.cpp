// SPDX-License-Identifier: MIT
// Terminals, opened anew.
#include <greenlet/hub/terminal.hpp>

#include "system.hpp"

#include <fcntl.h>
#include <string>
#include <sys/ioctl.h>
#include <termios.h>

namespace greenlets::hub {
namespace {

using detail::check;

descriptor open_anew(int fd) {
  termios mode;
  check(tcgetattr(fd, &mode), "tcgetattr");
  unsigned number;
  // Opened by its path, a master would be another one, of another pseudo-terminal.
  if (ioctl(fd, TIOCGPTN, &number) == 0)
    throw std::system_error(ENOTSUP, std::generic_category(),
                            "greenlets::hub::terminal: the master of pseudo-terminal " + std::to_string(number));
  const int flags = fcntl(fd, F_GETFL);
  const std::string path = "/proc/self/fd/" + std::to_string(fd);
  const std::string call = "the terminal cannot be opened anew: open(\"" + path + "\")";
  detail::unowned_fd own(::open(path.c_str(), (flags & O_ACCMODE) | O_NONBLOCK | O_NOCTTY | O_CLOEXEC), call.c_str());
  descriptor d(own.get());
  own.taken();
  return d;
}

}  // namespace

terminal::terminal(int fd) : descriptor(open_anew(fd)) {}

window_size terminal::size() const {
  winsize s{};
  check(ioctl(fd(), TIOCGWINSZ, &s), "ioctl(TIOCGWINSZ)");
  return {s.ws_row, s.ws_col};
}

raw_mode::raw_mode(const terminal& t) : before_(std::make_unique<termios>()) {
  check(tcgetattr(t.fd(), before_.get()), "tcgetattr");
  detail::unowned_fd own(fcntl(t.fd(), F_DUPFD_CLOEXEC, 0), "fcntl(F_DUPFD_CLOEXEC)");
  termios raw = *before_;
  cfmakeraw(&raw);
  // At once: to wait until what was written has been shown would stop the thread.
  check(tcsetattr(own.get(), TCSANOW, &raw), "tcsetattr");
  fd_ = own.get();
  own.taken();
}

raw_mode::~raw_mode() {
  tcsetattr(fd_, TCSANOW, before_.get());
  ::close(fd_);
}

}  // namespace greenlets::hub
