// SPDX-License-Identifier: MIT
// Boost.Asio's stackful coroutines, told that there is one thread. It reads from inside its reactor, before the
// coroutine runs: each has a buffer of its own.
#define BOOST_COROUTINES_NO_DEPRECATION_WARNING
#include "server.hpp"

#include <boost/asio.hpp>
#include <boost/asio/spawn.hpp>

#include <utility>

using boost::asio::ip::tcp;

namespace {

void serve(tcp::socket& s, const boost::asio::yield_context& yield) {
  char buffer[1024];
  boost::system::error_code failed;
  for (;;) {
    const std::size_t got = s.async_read_some(boost::asio::buffer(buffer), yield[failed]);
    if (failed) return;
    boost::asio::async_write(s, boost::asio::buffer(buffer, got), yield[failed]);
    if (failed) return;
  }
}

}  // namespace

int main() {
  boost::asio::io_context io(BOOST_ASIO_CONCURRENCY_HINT_UNSAFE);
  tcp::acceptor acceptor(io, tcp::v4(), listening_socket());
  boost::asio::spawn(io, [&](const boost::asio::yield_context& yield) {
    for (;;) {
      tcp::socket s(io);
      acceptor.async_accept(s, yield);
      s.set_option(tcp::no_delay(true));
      boost::asio::spawn(io, [s = std::move(s)](const boost::asio::yield_context& y) mutable { serve(s, y); });
    }
  });
  io.run();
}
