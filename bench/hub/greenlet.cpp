// SPDX-License-Identifier: MIT
// libgreenlet-hub: a greenlet for each connection. With the argument "deadline" every read has one.
#include "server.hpp"

#include <greenlet/hub.hpp>

#include <cstring>
#include <utility>
#include <vector>

namespace hub = greenlets::hub;

namespace {

bool with_deadline;

void serve(hub::connection& c) {
  static char buffer[buffer_size];
  for (;;) {
    const hub::io_result got =
        with_deadline ? c.read_some(buffer, sizeof buffer, std::chrono::seconds(30)) : c.read_some(buffer, sizeof buffer);
    if (!got) return;
    const hub::io_result sent = c.try_write(buffer, got.bytes);
    if (!sent) return;
    if (sent.bytes == got.bytes) continue;
    const std::vector<char> rest(buffer + sent.bytes, buffer + got.bytes);
    if (!c.write_all(rest.data(), rest.size())) return;
  }
}

}  // namespace

int main(int argc, char** argv) {
  with_deadline = argc > 1 && std::strcmp(argv[1], "deadline") == 0;
  hub::listener::options how;
  how.backlog = backlog;
  hub::listener listener(hub::address("127.0.0.1", 0), how);
  say_port(listener.local().port());
  for (;;) {
    hub::connection c;
    const hub::io_result r = listener.accept(c);
    if (!r) {
      std::fprintf(stderr, "accept: %s\n", r.error.message().c_str());
      return 1;
    }
    hub::spawn([c = std::move(c)]() mutable { serve(c); });
  }
}
