// SPDX-License-Identifier: MIT
// What the hub's test programs share.
#ifndef T_HUB_TESTING_HPP
#define T_HUB_TESTING_HPP

#include "testing.hpp"

#include <greenlet/hub.hpp>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <string>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <system_error>
#include <unistd.h>
#include <utility>

namespace testing {

namespace hub = greenlets::hub;
using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::seconds;

// With its first loop libuv opens two descriptors and keeps them; here, so that no test is blamed.
inline const bool warmed_up = [] {
  hub::this_hub();
  hub::shutdown();
  return true;
}();

// Stands first in a test case, whose locals go before the hub does.
struct hub_guard {
  hub_guard() = default;
  hub_guard(const hub_guard&) = delete;
  hub_guard& operator=(const hub_guard&) = delete;
  ~hub_guard() { hub::shutdown(); }
};

// For waits that are to end by an event: a test that hangs fails instead.
inline hub::deadline hang_guard() { return seconds(60); }

// Lets the others run until it is so.
template <class F>
void yield_until(F&& so) {
  const auto give_up = hub::clock::now() + seconds(60);
  while (!so()) {
    REQUIRE(hub::clock::now() < give_up);
    hub::yield();
  }
}

// Lets the others run until so many wait, not counting the caller.
inline void yield_until_waiting(std::size_t count) {
  yield_until([&] { return hub::statistics().waiting == count; });
}

using ends = std::pair<hub::descriptor, hub::descriptor>;

// Both ends of a stream socket.
inline ends socket_pair() {
  int fd[2];
  REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd) == 0);
  return {hub::descriptor(fd[0]), hub::descriptor(fd[1])};
}

// first: the end to read from.
inline ends pipe_pair() {
  int fd[2];
  REQUIRE(pipe2(fd, O_CLOEXEC) == 0);
  return {hub::descriptor(fd[0]), hub::descriptor(fd[1])};
}

// Writes until the system takes no more.
inline std::size_t fill(hub::descriptor& d) {
  const std::string block(4096, 'f');
  std::size_t written = 0;
  for (std::size_t size = block.size(); size > 0;) {
    const hub::io_result r = d.try_write(block.data(), size);
    REQUIRE(r);
    written += r.bytes;
    if (r.bytes == 0) size /= 2;
  }
  return written;
}

// Reads what is there now.
inline std::size_t drain(hub::descriptor& d) {
  char buffer[65536];
  std::size_t got = 0;
  for (ssize_t n; (n = ::read(d.fd(), buffer, sizeof buffer)) > 0;) got += static_cast<std::size_t>(n);
  return got;
}

// Bytes that tell where they stand.
inline std::string pattern(std::size_t size) {
  std::string s(size, '\0');
  std::uint32_t x = 12345;
  for (char& c : s) c = static_cast<char>((x = x * 1664525 + 1013904223) >> 24);
  return s;
}

inline std::string read_to_end(hub::descriptor& d, std::size_t piece = 65536) {
  std::string all, buffer(piece, '\0');
  while (const hub::io_result r = d.read_some(buffer.data(), piece, hang_guard())) all.append(buffer, 0, r.bytes);
  return all;
}

// A directory with nothing in it, which goes with all that is in it then.
struct directory {
  std::string path;

  directory() {
    const char* const where = std::getenv("TMPDIR");
    path = std::string(where && std::strlen(where) < 80 ? where : "/tmp") + "/hub.XXXXXX";  // a socket's has 107 at most
    REQUIRE(mkdtemp(path.data()) != nullptr);
  }
  directory(const directory&) = delete;
  directory& operator=(const directory&) = delete;
  ~directory() {
    nftw(
        path.c_str(), [](const char* each, const struct stat*, int, FTW*) { return std::remove(each); }, 8,
        FTW_DEPTH | FTW_PHYS);
  }
  std::string operator/(const std::string& name) const { return path + "/" + name; }
  events names() const {
    events found;
    DIR* const d = opendir(path.c_str());
    while (const dirent* e = d ? readdir(d) : nullptr)
      if (const std::string name = e->d_name; name != "." && name != "..") found.push_back(name);
    if (d) closedir(d);
    std::sort(found.begin(), found.end());
    return found;
  }
};

// The number that the next descriptor has.
inline int lowest_free() {
  const int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
  REQUIRE(fd >= 0);
  close(fd);
  return fd;
}

// UBSan opens pipes to look at an object of a type that it has not seen: before there are no descriptors for them, here
// is one of that which is then thrown.
inline void show_system_error() {
#ifdef T_ASAN
  const std::system_error shown{std::error_code()};
  REQUIRE_FALSE(shown.code());
#endif
}

// A limit of this process, for a scope.
class limited {
 public:
  using resource = decltype(RLIMIT_NOFILE);

  limited(resource which, rlim_t most) : which_(which) {
    REQUIRE(getrlimit(which, &before_) == 0);
    rlimit now = before_;
    now.rlim_cur = most;
    show_system_error();
    REQUIRE(setrlimit(which, &now) == 0);
  }
  limited(const limited&) = delete;
  limited& operator=(const limited&) = delete;
  ~limited() { setrlimit(which_, &before_); }

 private:
  resource which_;
  rlimit before_{};
};

// No more descriptors than there are, in a scope.
struct no_descriptors : limited {
  no_descriptors() : limited(RLIMIT_NOFILE, static_cast<rlim_t>(lowest_free())) {}
};

}  // namespace testing

#endif
