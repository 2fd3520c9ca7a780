// SPDX-License-Identifier: MIT
// What the parts of the soak share: its clock, its dice, what it counts and what it complains of.
#ifndef T_SOAKING_SOAK_HPP
#define T_SOAKING_SOAK_HPP

#include <greenlet/hub.hpp>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <random>
#include <string>
#include <sys/types.h>
#include <utility>
#include <vector>

#if defined(__SANITIZE_THREAD__)
#define T_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define T_TSAN 1
#endif
#endif
#ifndef T_TSAN
#define T_TSAN 0
#endif

#if T_TSAN || defined(__SANITIZE_ADDRESS__)
#define T_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define T_SANITIZED 1
#endif
#endif
#ifndef T_SANITIZED
#define T_SANITIZED 0
#endif

namespace soak {

namespace hub = greenlets::hub;
using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::seconds;
using dice = std::mt19937_64;

// A frame is its size in four bytes, the lowest first, and so many bytes; it is answered with itself.
constexpr std::size_t header_size = 4;
constexpr std::size_t largest_frame = 256 * 1024;

// Nobody who behaves well waits longer for an answer.
constexpr auto starved_after = seconds(T_SANITIZED ? 60 : 15);

class world {
 public:
  const std::uint64_t seed;
  const hub::clock::time_point end;
  std::vector<hub::address> where;   // the servers
  std::string directory;             // with nothing in it
  std::atomic<unsigned> shortages{0};  // times that there were no descriptors; odd: just now

  world(std::uint64_t s, seconds how_long) : seed(s), end(hub::clock::now() + how_long) {}

  bool over() const { return hub::clock::now() >= end; }
  dice fresh_dice() { return dice(seed + 7919 * ++dice_); }

  // Counts what has been done. Thread: any.
  void count(const std::string& what, std::uint64_t n = 1);
  // The longest of all.
  void lasted(const std::string& what, hub::clock::duration time);
  // What must not happen.
  void complain(const std::string& what);
  std::size_t complaints() const { return complaints_; }
  void print() const;

 private:
  mutable std::mutex lock_;
  std::vector<std::pair<std::string, std::uint64_t>> counts_;
  std::vector<std::pair<std::string, hub::clock::duration>> longest_;
  std::atomic<std::size_t> complaints_{0};
  std::uint64_t dice_ = 0;
};

inline std::uint64_t roll(dice& d, std::uint64_t below) {
  return std::uniform_int_distribution<std::uint64_t>(0, below - 1)(d);
}
inline milliseconds some_time(dice& d, unsigned below) { return milliseconds(roll(d, below)); }

std::string frame_of(dice& d, std::size_t size);
std::size_t size_in(const char* header) noexcept;

// Calls `f(dice)` again and again in so many greenlets of the group, until the end. What the system refuses for want of
// descriptors or memory is counted, and tried again.
void again_and_again(world& w, hub::group& in, unsigned greenlets, const char* what, std::function<void(dice&)> f);
// Connects to one of the servers; false when the system refused, or the end has come.
bool find_server(world& w, dice& d, hub::connection& c);

// The server's side of a connection.
void serve(world& w, hub::connection& c);
// Those that behave well, and check what they are given.
void behave(world& w, hub::group& in);
// Those that do not. `flooder`: see below.
void misbehave(world& w, hub::group& in, hub::descriptor& flooder);

// Another process that makes thousands of connections at once, when it is told how many; it answers with how many were
// answered. Forked before this one has a hub or threads. It ends when `fd` is closed.
struct flooder_process {
  pid_t pid;
  int fd;
};
flooder_process start_flooder();

}  // namespace soak

#endif
