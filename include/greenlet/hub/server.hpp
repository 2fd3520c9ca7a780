// SPDX-License-Identifier: MIT
// server: listeners, and a greenlet for each connection that comes.
//
//   hub::server s([](hub::connection& c) {
//     char buffer[4096];
//     while (auto got = c.read_some(buffer, sizeof buffer))
//       if (!c.write_all(buffer, got.bytes)) break;
//   });
//   s.listen(hub::listener(hub::address("127.0.0.1", 7000)));
//   hub::spawn([&s] {
//     hub::signals({SIGTERM, SIGINT}).wait();
//     s.stop(std::chrono::seconds(5));
//   });
//   s.run();
#ifndef GREENLET_HUB_SERVER_HPP
#define GREENLET_HUB_SERVER_HPP

#include <greenlet/attributes.hpp>
#include <greenlet/detail/api.hpp>
#include <greenlet/hub/deadline.hpp>
#include <greenlet/hub/tcp.hpp>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <system_error>
#include <utility>
#include <vector>

namespace greenlets::hub {

/// What a server has done so far.
struct server_statistics {
  std::uint64_t accepted;   ///< connections, those too that failed
  std::uint64_t failed;     ///< of these: closed for want of memory, or what the handler threw was reported
  std::uint64_t limited;    ///< times that accepting had to wait at the limit
  std::uint64_t shortages;  ///< times that accepting had to pause because the system refused
  std::size_t active;       ///< connections now
};

/// Accepts connections from its listeners and calls a function for each, in a greenlet of its own. Thread: one, and
/// any greenlet of it.
class GREENLET_API server {
 public:
  /// Called for each connection, which is closed when it returns (unless it has moved it away). It may throw
  /// greenlet_exit; anything else goes to the unraisable handler, and the server goes on.
  using handler = std::function<void(connection&)>;

  struct options {
    /// Connections at once. At the limit nobody is accepted: who comes waits in the listeners' backlog.
    std::size_t most = std::numeric_limits<std::size_t>::max();
    /// Called once when accepting begins to fail (no descriptors, no memory), and again only when it has worked in
    /// between. It must not wait. What it throws goes to the unraisable handler.
    std::function<void(std::error_code)> on_shortage = nullptr;
    /// Of the greenlet of each connection: its name, the size of its stack, as spawn()'s.
    std::optional<attributes> each = std::nullopt;
  };

  /// Throws: std::bad_alloc, std::invalid_argument (no handler, a limit of 0,
  /// or attributes that spawn() refuses).
  explicit server(handler serve) : server(std::move(serve), options()) {}
  server(handler serve, options how);
  server(const server&) = delete;
  server& operator=(const server&) = delete;
  /// Stops accepting, cancels the connections that are left, and waits until they have ended (except for the one whose
  /// greenlet runs this). What is thrown into the greenlet meanwhile is thrown at its next wait. Switches: to the hub,
  /// unless all have ended.
  ~server();

  /// Accepts from this one too, from now on or when run() is called; after stop() it is closed at once.
  /// Switches: no. Throws: std::bad_alloc.
  void listen(listener&& from);

  /// Accepts until stop() is called, and returns when that is over and the last connection has ended. Goes on
  /// accepting, with pauses that double from 10 ms to a second or until one of its connections ends, when there are no
  /// descriptors or no memory for another one.
  /// Switches: to the hub. Throws: error(already_waiting) when another greenlet runs it; std::bad_alloc, when there is
  /// no memory even to wait, and what is thrown into the caller meanwhile: then nobody is accepted any more, the
  /// connections go on, the listeners stay open, and run() may be called again.
  void run();

  /// Stops accepting for good and closes the listeners, at once. Waits until the connections have ended by themselves
  /// (except for the one that calls this), and cancels those that have not at the end of the grace period, and waits
  /// for them. Returns whether none was cancelled. Called again, before the first has returned, the shorter grace counts.
  /// Switches: to the hub, unless all have ended. Throws: std::bad_alloc, and what is thrown into the caller meanwhile.
  bool stop(deadline grace = {});

  /// Stops accepting from its listeners and gives them back, open, with what has come in their backlogs. Switches: no.
  /// Throws: std::bad_alloc, std::system_error; those that it could not give are closed.
  std::vector<listener> take_listeners();

  /// The descriptors of its listeners, which it still owns: for reexec().
  std::vector<int> listening() const;

  /// Serves a connection that it has not accepted itself, as if it had; the limit is not looked at. Switches: may unwind.
  /// After stop() it is closed. Throws: std::bad_alloc, and what making the hub throws (std::system_error); the
  /// connection is then closed.
  void serve(connection&& c);

  server_statistics statistics() const noexcept;

 private:
  friend class dispatcher;
  struct state;
  std::shared_ptr<state> state_;
};

}  // namespace greenlets::hub

#endif
