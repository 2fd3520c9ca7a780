// SPDX-License-Identifier: MIT
// The server, and those that behave well: clients, producers and consumers, sleepers, files, programs, the pool. Each
// knows what it has to get.
#include "soak.hpp"

#include <cstring>
#include <memory>
#include <numeric>
#include <string_view>
#include <system_error>

namespace soak {

// Gives up who is silent, or does not read, for long. A server that did not would be had by those that misbehave.
void serve(world& w, hub::connection& c) {
  constexpr auto patience = seconds(T_SANITIZED ? 30 : 10);  // longer than this process, overloaded, leaves a client alone
  hub::reader in(c, header_size + largest_frame);
  hub::writer out(c);
  in.flushes(out);
  std::string_view part;
  std::string answer;
  for (;;) {
    const auto began = hub::clock::now();
    if (!in.read(header_size, part, patience)) {
      w.lasted("waiting for a frame, in the server", hub::clock::now() - began);
      if (hub::clock::now() - began > patience + starved_after) w.complain("a silent client was kept");
      break;
    }
    const std::size_t size = size_in(part.data());
    if (size > largest_frame) {
      w.count("server: closed for a frame too large");
      return;
    }
    answer.assign(part);
    if (!in.read(size, part, patience)) {
      w.count("server: a frame that did not come whole");
      return;
    }
    answer.append(part);
    if (!out.write(answer, patience)) {
      w.count("server: gave up one who did not read");
      return;
    }
  }
  static_cast<void>(out.flush(patience));
}

namespace {

// Sends a frame, and compares what comes back.
bool exchange(world& w, dice& d, hub::connection& c) {
  const std::string sent = frame_of(d, roll(d, 8) ? roll(d, 2000) : roll(d, largest_frame));
  std::string got(sent.size(), '\0');
  const auto began = hub::clock::now();
  hub::io_result wrote, read;
  {
    hub::group both;
    both.spawn([&] { wrote = c.write_all(sent.data(), sent.size(), starved_after); });
    read = c.read_exactly(got.data(), got.size(), starved_after);
    both.wait();
  }
  w.lasted("an answer", hub::clock::now() - began);
  if (wrote && read && got == sent) {
    w.count("bytes of answers compared", got.size());
    return true;
  }
  if (wrote.timed_out() || read.timed_out())
    w.complain("a client was starved");
  else if (!wrote || !read)
    w.complain("a client was cut off: " + (wrote ? read : wrote).error.message() + (read.end() ? " (end)" : ""));
  else
    w.complain("a client got wrong bytes");
  return false;
}

void talk(world& w, dice& d) {
  hub::connection c;
  if (!find_server(w, d, c)) return;
  for (auto left = 1 + roll(d, 50); left > 0 && !w.over(); --left) {
    if (!exchange(w, d, c)) return;
    w.count("client: exchanges");
    if (roll(d, 4) == 0) hub::sleep_for(some_time(d, 20));
  }
}

// Ends its half, and gets what it is owed, and the end.
void talk_and_end(world& w, dice& d) {
  hub::connection c;
  if (!find_server(w, d, c)) return;
  std::string sent;
  for (auto left = 1 + roll(d, 5); left > 0; --left) sent += frame_of(d, roll(d, 3000));
  std::string got(sent.size() + 1, '\0');
  hub::io_result wrote = c.write_all(sent.data(), sent.size(), starved_after);
  c.shutdown_write();
  const hub::io_result read = c.read_exactly(got.data(), got.size(), starved_after);
  got.resize(read.bytes);
  if (!wrote || !read.end() || got != sent) w.complain("who closed its half did not get its answers and the end");
}

// What is in a queue comes out in its order, however many wait at either end.
void produce(world& w, dice& d) {
  hub::queue<std::uint64_t> q(roll(d, 5));
  constexpr std::uint64_t count = 200;
  hub::group both;
  both.spawn([&] {
    for (std::uint64_t n = 0; n < count; ++n) {
      q.push(std::uint64_t(n));
      if (n % 50 == 0) hub::yield();
    }
    q.close();
  });
  std::uint64_t expected = 0;
  while (const auto got = q.pop()) {
    if (*got != expected) w.complain("a queue lost its order");
    ++expected;
    if (*got % 64 == 0) hub::sleep_for(some_time(d, 3));
  }
  if (expected != count) w.complain("a queue lost something");
  both.wait();
}

void sleep(world& w, dice& d) {
  const auto so_long = some_time(d, 50);
  const auto began = hub::clock::now();
  hub::sleep_for(so_long);
  const auto slept = hub::clock::now() - began;
  if (slept < so_long) w.complain("a sleeper woke too early");
  w.lasted("late from a sleep", slept - so_long);
  if (slept - so_long > starved_after) w.complain("a sleeper was starved");
}

void compute(world& w, dice& d) {
  const std::string data = frame_of(d, 50000);
  const auto sum = [&data] { return std::accumulate(data.begin(), data.end(), std::uint64_t{0}); };
  if (hub::offload(sum) != sum()) w.complain("the pool gave a wrong result");
}

void keep_file(world& w, dice& d) {
  const std::string path = w.directory + "/" + std::to_string(d());
  const std::string data = frame_of(d, roll(d, 20000));
  std::string got;
  const hub::io_result wrote = hub::write_file(path, data);
  if (wrote) {
    const hub::io_result read = hub::read_file(got, path);
    if (read && got != data) w.complain("a file has changed");
    if (!read && read.error != std::errc::too_many_files_open) w.complain("read_file: " + read.error.message());
  } else if (wrote.error != std::errc::too_many_files_open) {
    w.complain("write_file: " + wrote.error.message());
  }
  ::unlink(path.c_str());
  hub::sleep_for(some_time(d, 20));
}

void filter(world& w, dice& d) {
  const std::string data = frame_of(d, roll(d, 200000));
  const unsigned before = w.shortages;
  const hub::process_result r = hub::run_process({"cat"}, data);
  if (r && r.out != data) w.complain("a program gave wrong bytes");
  if (!r && (before & 1) == 0 && before == w.shortages) w.complain("a program " + r.status.text());
  hub::sleep_for(some_time(d, 100));
}

}  // namespace

void behave(world& w, hub::group& in) {
  again_and_again(w, in, 12, "client: connections", [&w](dice& d) { talk(w, d); });
  again_and_again(w, in, 4, "client: closes its half and reads on", [&w](dice& d) {
    talk_and_end(w, d);
    hub::sleep_for(some_time(d, 50));
  });
  again_and_again(w, in, 4, "queues", [&w](dice& d) { produce(w, d); });
  again_and_again(w, in, 50, "sleeps", [&w](dice& d) { sleep(w, d); });
  again_and_again(w, in, 3, "calls on the pool", [&w](dice& d) {
    compute(w, d);
    hub::sleep_for(some_time(d, 5));
  });
  again_and_again(w, in, 2, "files written and read", [&w](dice& d) { keep_file(w, d); });
  again_and_again(w, in, 2, "programs run", [&w](dice& d) { filter(w, d); });
}

}  // namespace soak
