// SPDX-License-Identifier: MIT
// Terminals in blocking style.
//
//   hub::terminal screen(0);
//   hub::raw_mode raw(screen);               // until the scope ends
//   char key;
//   while (screen.read_some(&key, 1) && key != 'q') ...
#ifndef GREENLET_HUB_TERMINAL_HPP
#define GREENLET_HUB_TERMINAL_HPP

#include <greenlet/hub/io.hpp>

#include <memory>

struct termios;

namespace greenlets::hub {

/// In characters; 0 when nobody has said.
struct window_size {
  unsigned rows;
  unsigned columns;
};

/// A terminal, opened anew. A descriptor on the one that was inherited would make that non-blocking for the shell and
/// all others who share it, and leave it so. Reading and writing are descriptor's.
class GREENLET_API terminal : public descriptor {
 public:
  terminal() noexcept = default;
  /// Opens, through /proc, the terminal that `fd` is open on, for what `fd` is open for. `fd` stays the caller's, and as
  /// it is. Throws: std::system_error: it is no terminal (ENOTTY), or the master's side of a pseudo-terminal
  /// (ENOTSUP), for which there is descriptor; or it cannot be opened again (EACCES, when it is another user's, as
  /// after su(1)): what is left then is descriptor, which makes it non-blocking for all. std::bad_alloc.
  /// Switches: no, once the thread has a hub.
  explicit terminal(int fd);
  /// Switches: no. Throws: std::system_error, when it is closed for instance.
  window_size size() const;
};

/// Keys come as they are typed, without echo, lines, signals or changed output (cfmakeraw(3)), from when it is made
/// to when it goes; then the terminal is as it was. It must go before the program ends: exit() does not unwind. It may
/// outlive the terminal object. A process in the background is stopped by SIGTTOU, as with tcsetattr(3).
/// Switches: no. Thread: any.
class GREENLET_API raw_mode {
 public:
  /// Throws: std::system_error, when it is closed for instance; std::bad_alloc.
  explicit raw_mode(const terminal& t);
  raw_mode(const raw_mode&) = delete;
  raw_mode& operator=(const raw_mode&) = delete;
  ~raw_mode();

 private:
  std::unique_ptr<termios> before_;
  int fd_;  // our own
};

}  // namespace greenlets::hub

#endif
