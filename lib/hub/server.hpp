// SPDX-License-Identifier: MIT
// What a server is, for the dispatcher too.
#ifndef LIB_HUB_SERVER_HPP
#define LIB_HUB_SERVER_HPP

#include <greenlet/hub/run.hpp>
#include <greenlet/hub/line.hpp>
#include <greenlet/hub/server.hpp>

#include "system.hpp"

#include <chrono>
#include <exception>
#include <list>
#include <memory>
#include <system_error>
#include <utility>
#include <vector>

namespace greenlets::hub {

namespace detail {

// While the system refuses to accept.
constexpr std::chrono::milliseconds first_pause(10), longest_pause(1000);
constexpr unsigned most_in_a_row = 64;  // accepted, before others have their turn

}  // namespace detail

// Hidden, though a member of an exported class.
struct __attribute__((visibility("hidden"))) server::state : std::enable_shared_from_this<state> {
  class acceptor;
  class seat;
  struct service;
  struct served {
    greenlet who;
    bool spawned = false;
    bool told = false;  // cancelled by us
  };

  struct source {
    enum class phase { fresh, accepted_from, unstarted, over };  // unstarted: there was no stack for who accepts
    listener from;
    phase at = phase::fresh;
    explicit source(listener&& l) noexcept : from(std::move(l)) {}
  };

  handler serve;
  options how;
  std::vector<std::shared_ptr<source>> sources;
  std::list<served> connections;
  detail::line ended{"end of a connection", nullptr};    // who waits for a connection's end
  detail::line changed{"server", nullptr};  // run(): a listener has come or gone, or the last connection has
  std::exception_ptr failure;  // of who accepts
  bool running = false;
  server_statistics counts{};  // but for `active`
  bool stopped = false;
  bool cancelled = false;      // not all have ended by themselves

  state(handler f, options o) : serve(std::move(f)), how(std::move(o)) {}

  // Has what make() gives served; `until_end` is kept as long.
  template <class F>
  void start(F&& make, std::shared_ptr<void> until_end);
  // The same, of an accepted descriptor, which is closed when that cannot be.
  void take(int fd, std::shared_ptr<void> until_end);
  bool stop(deadline grace);
  void run();
  void close_listeners() noexcept;
  // Connections but for the one that runs.
  std::size_t others() const;

 private:
  void cancel_others();
  void accept_all(listener& from);
  io_result accept_one(listener& from);
  void pause(std::error_code why, std::chrono::milliseconds& how_long);
};

}  // namespace greenlets::hub

#endif
