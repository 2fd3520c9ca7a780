// SPDX-License-Identifier: MIT
// Step 3: connections.
//
// A greenlet for each connection, in blocking style: reading waits, writing waits while the other side does not keep
// up, and what the other side or the clock does is a result.
#include <greenlet/hub.hpp>

#include <cstdio>
#include <string_view>

namespace hub = greenlets::hub;
using std::chrono::seconds;

void serve(hub::connection& c) {
  hub::reader in(c);
  hub::writer out(c);
  in.flushes(out);  // before it reads more
  for (std::string_view line; in.read_line(line, seconds(60));) {
    out.write(line);
    out.write("!\n");
  }
}

int main() {
  hub::listener listener(hub::address("127.0.0.1", 0));  // the system chooses a port
  auto server = hub::spawn([&] {
    for (hub::connection c; listener.accept(c);)
      hub::spawn([c = std::move(c)]() mutable { serve(c); });
  });

  hub::connection c;
  if (!hub::connect(c, listener.local(), seconds(5))) return 1;
  c.write_all("hello\nworld\n", 12);
  hub::reader in(c);
  std::string_view line;
  for (int n = 0; n < 2 && in.read_line(line, seconds(5)); ++n)
    std::printf("%.*s\n", static_cast<int>(line.size()), line.data());

  std::printf("timed out: %d\n", in.read_line(line, std::chrono::milliseconds(1)).timed_out());
  c.shutdown_write();  // half of it: the server sees the end, and closes
  std::printf("end: %d\n", in.read_line(line, seconds(5)).end());

  listener.close();  // wakes who accepts
  server.join();
}
