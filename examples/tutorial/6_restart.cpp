// SPDX-License-Identifier: MIT
// Step 6: a daemon that restarts, and nobody who connects is refused.
//
// On SIGHUP it starts its program anew, which may be a newer one, and hands it the listening socket. When the new process
// is ready the old one accepts no more, ends what it has begun, and goes. When the new one fails, nothing has happened.
//
//   Usage: 6_restart [PORT]
#include <greenlet/hub.hpp>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <unistd.h>

namespace hub = greenlets::hub;
using std::chrono::seconds;

void serve(hub::connection& c) {
  char buffer[4096];
  while (const auto got = c.read_some(buffer, sizeof buffer, seconds(60)))
    if (!c.write_all(buffer, got.bytes, seconds(60))) break;
}

int main(int count, char** arguments) {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  hub::server server(serve);
  const auto passed = hub::listen_fds();
  hub::listener listener = passed.empty()
                               ? hub::listener(hub::address("127.0.0.1", static_cast<std::uint16_t>(count > 1 ? std::atoi(arguments[1]) : 7000)))
                               : hub::listener(passed[0].fd);
  std::printf("process %d listens on %s\n", static_cast<int>(getpid()), listener.local().text().c_str());
  server.listen(std::move(listener));

  hub::signals signals({SIGHUP, SIGTERM, SIGINT});
  auto control = hub::spawn([&] {
    while (const auto number = signals.wait()) {
      if (*number == SIGHUP) {
        const auto next = hub::reexec({{server.listening()[0], "echo"}});
        if (!next) {
          std::printf("process %d goes on: %s\n", static_cast<int>(getpid()), next.error.message().c_str());
          continue;
        }
        std::printf("process %d hands over to %d\n", static_cast<int>(getpid()), static_cast<int>(next.pid));
      }
      server.stop(seconds(60));
      break;
    }
  });

  hub::notify("READY=1");
  server.run();
  control.join();
  std::printf("process %d ends\n", static_cast<int>(getpid()));
}
