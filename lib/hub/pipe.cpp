// SPDX-License-Identifier: MIT
// Pipes and FIFOs.
#include <greenlet/hub/pipe.hpp>

#include "system.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <utility>

namespace greenlets::hub {

pipe_ends make_pipe() {
  int fds[2];
  detail::check(::pipe2(fds, O_CLOEXEC), "pipe2");
  detail::unowned_fd read(fds[0], "pipe2"), write(fds[1], "pipe2");
  pipe_ends ends;
  ends.read = descriptor(read.get());
  read.taken();
  ends.write = descriptor(write.get());
  write.taken();
  return ends;
}

io_result open_fifo(descriptor& to, const std::string& path, direction d, deadline until) {
  const int flags = (d == direction::readable ? O_RDONLY : O_WRONLY) | O_NONBLOCK | O_CLOEXEC | O_NOCTTY;
  int fd;
  for (detail::retries pause; (fd = ::open(path.c_str(), flags)) < 0;) {
    if (errno == EINTR) continue;
    if (errno != ENXIO) return io_result::failed(errno);  // that: nobody has it open to read
    if (!pause.wait(until)) return io_result::failed(std::errc::timed_out);
  }
  detail::unowned_fd opened(fd, "open");
  struct stat s;
  detail::check(fstat(fd, &s), "fstat");
  if (!S_ISFIFO(s.st_mode)) return io_result::failed(std::errc::invalid_argument);
  descriptor mine(fd);
  opened.taken();
  // Linux says nothing while no writer has been there yet, and POLLHUP when they have gone.
  if (d == direction::readable)
    if (const io_result r = mine.wait(d, until); !r) return r;
  to = std::move(mine);
  return io_result::done(0);
}

}  // namespace greenlets::hub
