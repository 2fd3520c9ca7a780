// SPDX-License-Identifier: MIT
// Pipes and FIFOs in blocking style.
#ifndef GREENLET_HUB_PIPE_HPP
#define GREENLET_HUB_PIPE_HPP

#include <greenlet/hub/io.hpp>

#include <string>

namespace greenlets::hub {

/// The two ends of a pipe.
struct pipe_ends {
  descriptor read;
  descriptor write;
};

/// A new pipe: pipe(2), both ends in this thread's hub and closed in programs that are started.
/// Switches: no, once the thread has a hub. Thread: any; the ends are this one's. Throws: std::system_error
/// (pipe2, uv_poll_init), std::bad_alloc.
GREENLET_API pipe_ends make_pipe();

/// Opens a FIFO, which has a path and two ends for whoever knows it. On success `to` is open; otherwise it is
/// what it was. A path that cannot be opened is a result, and so is one that is no FIFO (EINVAL).
///
/// To write: waits until somebody has opened it to read. The system tells nobody when that is; it is asked again
/// and again, after at most 64 ms. To read: waits until something has been written, or somebody had it open to write
/// and has gone; so an end() means that they have gone, and not that they have not come yet. open(2) by itself waits
/// only until they come.
/// Switches: to the hub. Thread: as make_pipe(). Throws: as descriptor's constructor, and what is thrown into the
/// caller meanwhile.
GREENLET_API io_result open_fifo(descriptor& to, const std::string& path, direction d, deadline until = {});

}  // namespace greenlets::hub

#endif
