// SPDX-License-Identifier: MIT
// libuv's streams: uv_read_start(), and uv_try_write() first, which spares uv_write()'s epoll_ctl.
#include "server.hpp"

#include <cstring>
#include <uv.h>

namespace {

char buffer[buffer_size];

struct pending {
  uv_write_t request;
  char data[buffer_size];
};

void end(uv_stream_t* s) {
  uv_close(reinterpret_cast<uv_handle_t*>(s), [](uv_handle_t* h) { delete reinterpret_cast<uv_tcp_t*>(h); });
}

void on_read(uv_stream_t* s, ssize_t got, const uv_buf_t*) {
  if (got == 0) return;  // EAGAIN
  if (got < 0) return end(s);
  const uv_buf_t data = uv_buf_init(buffer, static_cast<unsigned>(got));
  int sent = uv_try_write(s, &data, 1);
  if (sent == got) return;
  if (sent < 0 && sent != UV_EAGAIN) return end(s);
  if (sent < 0) sent = 0;
  auto* const p = new pending;
  std::memcpy(p->data, buffer + sent, static_cast<std::size_t>(got - sent));
  const uv_buf_t rest = uv_buf_init(p->data, static_cast<unsigned>(got - sent));
  p->request.data = p;
  check(uv_write(&p->request, s, &rest, 1, [](uv_write_t* r, int) { delete static_cast<pending*>(r->data); }), "uv_write");
}

void on_connection(uv_stream_t* listener, int status) {
  check(status, "uv_listen");
  auto* const c = new uv_tcp_t;
  check(uv_tcp_init(listener->loop, c), "uv_tcp_init");
  auto* const s = reinterpret_cast<uv_stream_t*>(c);
  check(uv_accept(listener, s), "uv_accept");
  check(uv_tcp_nodelay(c, 1), "uv_tcp_nodelay");
  const auto give_buffer = [](uv_handle_t*, size_t, uv_buf_t* b) { *b = uv_buf_init(buffer, sizeof buffer); };
  check(uv_read_start(s, give_buffer, on_read), "uv_read_start");
}

}  // namespace

int main() {
  uv_tcp_t listener;
  check(uv_tcp_init(uv_default_loop(), &listener), "uv_tcp_init");
  check(uv_tcp_open(&listener, listening_socket()), "uv_tcp_open");
  check(uv_listen(reinterpret_cast<uv_stream_t*>(&listener), backlog, on_connection), "uv_listen");
  return uv_run(uv_default_loop(), UV_RUN_DEFAULT);
}
