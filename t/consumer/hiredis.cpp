// SPDX-License-Identifier: MIT
// A program of somebody else's that speaks with Redis: here with one that says that it is full, and hangs up.
#include <greenlet/hub.hpp>
#include <greenlet/hub/hiredis.hpp>

#include <chrono>
#include <cstdio>

namespace hub = greenlets::hub;

int main() {
  hub::listener listener(hub::address("127.0.0.1", 0));
  hub::spawn([&listener] {
    hub::connection c;
    char command[100];
    if (listener.accept(c) && c.read_some(command, sizeof command)) c.write_all("-ERR full\r\n", 11);
  });
  hub::hiredis::connection redis;
  if (!connect(redis, listener.local(), std::chrono::seconds(10))) return 1;
  const auto r = redis.command({"PING"}, std::chrono::seconds(10));
  std::printf("%s\n", r.is_error() ? r.text().c_str() : r.message().c_str());
  hub::shutdown();
}
