// SPDX-License-Identifier: MIT
// State Threads, on epoll; on poll() where it was built without: select(), which it would take, ends at 1,024.
#include "server.hpp"

#include <st.h>
#include <unistd.h>

namespace {

void* serve(void* of) {
  char buffer[1024];  // st_write() may wait, and writes the rest out of it
  auto* const s = static_cast<st_netfd_t>(of);
  ssize_t got;
  while ((got = st_read(s, buffer, sizeof buffer, ST_UTIME_NO_TIMEOUT)) > 0)
    if (st_write(s, buffer, static_cast<std::size_t>(got), ST_UTIME_NO_TIMEOUT) != got) break;
  st_netfd_close(s);
  return nullptr;
}

}  // namespace

int main(int argc, char** argv) {
  // It is told once, and only then says what it has taken.
  check(st_set_eventsys(argc > 1 ? ST_EVENTSYS_POLL : ST_EVENTSYS_ALT), "st_set_eventsys");
  if (argc == 1 && st_get_eventsys() != ST_EVENTSYS_ALT) check(execl("/proc/self/exe", argv[0], "poll", nullptr), "execl");
  check(st_init(), "st_init");
  auto* const listener = st_netfd_open_socket(listening_socket());
  for (;;) {
    auto* const s = st_accept(listener, nullptr, nullptr, ST_UTIME_NO_TIMEOUT);
    check(s ? 0 : -1, "st_accept");
    no_delay(st_netfd_fileno(s));
    check(st_thread_create(serve, s, 0, 0) ? 0 : -1, "st_thread_create");
  }
}
