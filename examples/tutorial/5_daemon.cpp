// SPDX-License-Identifier: MIT
// Step 5: a daemon.
//
// It listens on sockets that systemd gives it, or on its own; says when it is ready, and that it lives; and on SIGTERM
// accepts no more, gives its connections five seconds, and ends.
//
//   Usage: 5_daemon [PORT]
#include <greenlet/hub.hpp>

#include <csignal>
#include <cstdio>
#include <cstdlib>

namespace hub = greenlets::hub;
using std::chrono::seconds;

void serve(hub::connection& c) {
  char buffer[4096];
  while (const auto got = c.read_some(buffer, sizeof buffer, seconds(60)))
    if (!c.write_all(buffer, got.bytes, seconds(60))) break;
}

int main(int count, char** arguments) {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  hub::server::options limits;
  limits.most = 10000;
  hub::server server(serve, limits);

  const auto passed = hub::listen_fds();
  for (const auto& each : passed) server.listen(hub::listener(each.fd));
  if (passed.empty()) {
    hub::listener own(hub::address("127.0.0.1", static_cast<std::uint16_t>(count > 1 ? std::atoi(arguments[1]) : 7000)));
    std::printf("listening on %s\n", own.local().text().c_str());
    server.listen(std::move(own));
  }

  hub::signals stop({SIGTERM, SIGINT});
  auto stopper = hub::spawn([&] {
    stop.wait();
    hub::notify("STOPPING=1");
    std::printf("stopping\n");
    server.stop(seconds(5));
  });

  const hub::watchdog alive;
  hub::notify("READY=1");
  server.run();
  stopper.join();
  std::printf("served %llu connections\n", static_cast<unsigned long long>(server.statistics().accepted));
}
