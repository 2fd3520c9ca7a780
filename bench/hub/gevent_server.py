# SPDX-License-Identifier: MIT
"""gevent, on the loop that is its default (libev)."""
import socket

from gevent.server import StreamServer


def serve(s, _):
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        while True:
            got = s.recv(16384)
            if not got:
                return
            s.sendall(got)
    except ConnectionError:
        pass


server = StreamServer(("127.0.0.1", 0), serve, backlog=4096)
server.start()
print(server.server_port, flush=True)
server.serve_forever()
