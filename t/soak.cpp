// SPDX-License-Identifier: MIT
// A soak: all that a hub has to survive, at once, in one process, for SOAK_SECONDS (2). Servers on two threads of their
// own, and in this one; clients that behave well, and know what they have to get; clients of all kinds that do not;
// signals, forks, programs, cancels; and now and then no descriptors. It fails when somebody who behaves well is given wrong
// bytes, is cut off or starved, and when anything is left at the end; after a minute or more also when memory grows.
// SOAK_SEED repeats the dice of another run, if not its moments.
#include "soaking/soak.hpp"

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dirent.h>
#include <future>
#include <malloc.h>
#include <optional>
#include <sys/resource.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

using namespace soak;

namespace {

unsigned long number(const char* variable, unsigned long otherwise) {
  const char* const text = std::getenv(variable);
  return text && *text ? std::strtoul(text, nullptr, 10) : otherwise;
}

std::size_t open_descriptors() {
  std::size_t count = 0;
  DIR* const d = opendir("/proc/self/fd");
  while (d && readdir(d)) ++count;
  if (d) closedir(d);
  return count;
}

// KiB, but for pages of files.
long resident() {
  long kib = 0;
  if (std::FILE* const f = std::fopen("/proc/self/smaps_rollup", "re")) {
    char line[200];
    while (std::fgets(line, sizeof line, f) && std::sscanf(line, "Anonymous: %ld", &kib) != 1) continue;
    std::fclose(f);
  }
  return kib;
}

// KiB that have been allocated and not been freed; what the allocator keeps for later is more.
long in_use() {
#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 33)
  const auto all = mallinfo2();
  return static_cast<long>((all.uordblks + all.hblkhd) / 1024);
#else
  return 0;
#endif
}

// The least in a part of the time, given in tenths: what comes and goes with a burst is no growth.
long least(const std::vector<long>& samples, std::size_t from, std::size_t to) {
  const auto at = [&](std::size_t tenth) {
    return samples.begin() + static_cast<std::ptrdiff_t>(samples.size() * tenth / 10);
  };
  return at(from) == at(to) ? 0 : *std::min_element(at(from), at(to));
}

// A thousand signals a second, from a thread of their own.
class storm {
 public:
  explicit storm(world& w)
      : thread_([this, &w] {
          sigset_t all;
          sigfillset(&all);
          pthread_sigmask(SIG_BLOCK, &all, nullptr);
          while (!over_) {
            ::kill(getpid(), SIGUSR1);
            w.count("signals sent");
            std::this_thread::sleep_for(milliseconds(1));
          }
        }) {}
  ~storm() {
    over_ = true;
    thread_.join();
  }

 private:
  std::atomic<bool> over_{false};
  std::thread thread_;
};

hub::listener open_listener(const hub::address& where) {
  hub::listener::options how;
  how.share_port = where.family() != AF_UNIX;
  return hub::listener(where, how);
}

void run(world& w, int flooder_fd) {
  hub::descriptor flooder(flooder_fd);
  const hub::server::handler handler = [&w](hub::connection& c) { serve(w, c); };

  // Two threads, to which the kernel gives connections, and so does a dispatcher in this one.
  hub::listener shared = open_listener(hub::address("127.0.0.1", 0)), dispatched = open_listener(hub::address("127.0.0.1", 0));
  const hub::address port = shared.local();
  w.where = {port, dispatched.local(), hub::unix_address(w.directory + "/socket")};
  hub::dispatcher dispatcher(hub::dispatcher::order::least_loaded);
  std::vector<std::promise<void>> ready(2);
  const int inherited = shared.release();
  hub::threads servers(2, [&](hub::worker& self) {
    hub::server s(handler);
    s.listen(self.index() == 0 ? hub::listener(inherited) : open_listener(port));
    const hub::dispatcher::membership member = dispatcher.add(s);
    self.on_stop([&s] { s.stop(seconds(5)); });
    hub::signals told({SIGUSR1});
    auto counts = hub::spawn([&] {
      while (told.wait()) w.count("signals seen by a server's thread");
    });
    ready[self.index()].set_value();
    s.run();
    w.count("server: connections", s.statistics().accepted);
    w.count("server: times without descriptors", s.statistics().shortages);
  });
  for (auto& each : ready) each.get_future().wait();
  auto dispatching = hub::spawn([&] { dispatcher.run(dispatched); });
  hub::server here(handler);
  here.listen(open_listener(w.where[2]));
  auto running = hub::spawn([&] { here.run(); });

  std::vector<long> samples, allocated;
  std::optional<storm> signals_come(w);
  hub::signals usr1({SIGUSR1});
  auto seen = hub::spawn([&] {
    while (usr1.wait()) w.count("signals seen");
  });
  {
    hub::group good, bad;
    behave(w, good);
    misbehave(w, bad, flooder);
    const auto step = std::max<hub::clock::duration>((w.end - hub::clock::now()) / 200, milliseconds(10));
    while (!w.over()) {
      if (const long now = resident()) samples.push_back(now);  // without descriptors it cannot be asked
      allocated.push_back(in_use());
      hub::sleep_for(std::min<hub::clock::duration>(step, std::max<hub::clock::duration>(w.end - hub::clock::now(), {})));
    }
    if (!good.wait_until(2 * starved_after)) w.complain("those that behave well did not come to an end");
    if (!bad.wait_until(seconds(2))) bad.cancel();
  }
  signals_come.reset();
  seen.cancel();
  dispatched.close();
  dispatching.get();
  here.stop(seconds(5));
  running.get();
  servers.stop();
  servers.join();
  w.count("server: connections", here.statistics().accepted);

  // By tenths of the time. What is kept for the next burst (by the allocator for each thread, and of stacks) takes some
  // bursts to reach its size; a leak goes on.
  std::printf("resident, KiB:");
  for (std::size_t tenth = 0; tenth < 10; ++tenth) std::printf(" %ld", least(samples, tenth, tenth + 1));
  std::printf("\nallocated, KiB:");
  for (std::size_t tenth = 0; tenth < 10; ++tenth) std::printf(" %ld", least(allocated, tenth, tenth + 1));
  const auto ratio = [](long first, long last) { return first ? static_cast<double>(last) / static_cast<double>(first) : 0; };
  const double of_resident = ratio(least(samples, 1, 2), least(samples, 9, 10));
  const double of_allocated = ratio(least(allocated, 1, 2), least(allocated, 9, 10));
  std::printf("\nthe last tenth to the second: resident %.3f, allocated %.3f\n", of_resident, of_allocated);
  // What sanitizers keep of what is freed grows for minutes.
  if (!T_SANITIZED && samples.size() > 100 && number("SOAK_SECONDS", 2) >= 60 && of_allocated > 1.25)
    w.complain("memory grows");
}

}  // namespace

int main() {
  const unsigned long how_long = number("SOAK_SECONDS", 2);
  const std::uint64_t seed = number("SOAK_SEED", static_cast<unsigned long>(getpid()));
  alarm(static_cast<unsigned>(how_long) + 240);
  rlimit descriptors;
  getrlimit(RLIMIT_NOFILE, &descriptors);
  descriptors.rlim_cur = descriptors.rlim_max;
  setrlimit(RLIMIT_NOFILE, &descriptors);
  std::printf("soak: %lu s, SOAK_SEED=%llu\n", how_long, static_cast<unsigned long long>(seed));
  std::fflush(stdout);

  const flooder_process flooder = start_flooder();
  {  // libuv's pool, and what it keeps of its first loop
    hub::offload([] {});
    hub::signals({SIGUSR1});
    hub::shutdown();
  }
  const std::size_t before = open_descriptors() - 1;  // the flooder's
  char directory[] = "/tmp/soak.XXXXXX";
  if (!mkdtemp(directory)) return 99;
  world w(seed, seconds(how_long));
  w.directory = directory;
  run(w, flooder.fd);
  hub::shutdown();
  waitpid(flooder.pid, nullptr, 0);
  ::unlink((w.directory + "/socket").c_str());
  if (::rmdir(directory) != 0) w.complain("files are left in " + w.directory);

  w.print();
  greenlets::trim_stacks();
  const greenlets::process_counts left = greenlets::counts();
  if (left.greenlets != left.main_greenlets || left.main_greenlets != 1 || left.stacks != 0 || left.threads != 1)
    w.complain(std::to_string(left.greenlets) + " greenlets, " + std::to_string(left.stacks) + " stacks and " +
               std::to_string(left.threads) + " threads are left");
  if (const std::size_t after = open_descriptors(); after != before)
    w.complain("descriptors: " + std::to_string(before) + " before, " + std::to_string(after) + " after");
  std::printf("soak: %s (%zu complaints)\n", w.complaints() ? "FAILED" : "survived", w.complaints());
  return w.complaints() != 0;
}
