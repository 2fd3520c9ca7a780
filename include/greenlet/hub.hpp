// SPDX-License-Identifier: MIT
// The hub: I/O in blocking style for greenlets, on libuv. This header brings all of it.
//
//   #include <greenlet/hub.hpp>
//   namespace hub = greenlets::hub;
//
//   void serve(hub::connection& c) {
//     char buffer[4096];
//     while (auto got = c.read_some(buffer, sizeof buffer))
//       if (!c.write_all(buffer, got.bytes)) break;
//   }
//
//   int main() {
//     hub::listener listener(hub::address("127.0.0.1", 7000));
//     for (hub::connection c; listener.accept(c); )
//       hub::spawn([c = std::move(c)]() mutable { serve(c); });
//   }
#ifndef GREENLET_HUB_HPP
#define GREENLET_HUB_HPP

#include <greenlet/hub/address.hpp>
#include <greenlet/hub/buffer.hpp>
#include <greenlet/hub/datagram.hpp>
#include <greenlet/hub/daemon.hpp>
#include <greenlet/hub/deadline.hpp>
#include <greenlet/hub/event.hpp>
#include <greenlet/hub/file.hpp>
#include <greenlet/hub/group.hpp>
#include <greenlet/hub/io.hpp>
#include <greenlet/hub/mutex.hpp>
#include <greenlet/hub/names.hpp>
#include <greenlet/hub/offload.hpp>
#include <greenlet/hub/pipe.hpp>
#include <greenlet/hub/process.hpp>
#include <greenlet/hub/queue.hpp>
#include <greenlet/hub/restart.hpp>
#include <greenlet/hub/result.hpp>
#include <greenlet/hub/run.hpp>
#include <greenlet/hub/semaphore.hpp>
#include <greenlet/hub/server.hpp>
#include <greenlet/hub/signals.hpp>
#include <greenlet/hub/tcp.hpp>
#include <greenlet/hub/terminal.hpp>
#include <greenlet/hub/threads.hpp>
#include <greenlet/hub/timeout.hpp>
#include <greenlet/hub/unix.hpp>
#include <greenlet/hub/wait_any.hpp>

#endif
