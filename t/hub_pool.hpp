// SPDX-License-Identifier: MIT
// What the tests of libuv's pool of threads, and of what is done on it, share.
#ifndef T_HUB_POOL_HPP
#define T_HUB_POOL_HPP

#include "hub_testing.hpp"

#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <cstdlib>
#include <dlfcn.h>
#include <mutex>
#include <string>
#include <system_error>
#include <thread>

// For a function of the program that takes the place of one of the C library.
#define EXPORTED __attribute__((visibility("default")))

namespace testing {

// Calls on the pool that begin, and end when they are told to.
class gate {
 public:
  gate() = default;
  gate(const gate&) = delete;
  gate& operator=(const gate&) = delete;
  ~gate() { open(); }

  // On the pool.
  void pass() {
    std::unique_lock hold(lock_);
    ++begun_;
    if (!opened_.wait_for(hold, seconds(60), [this] { return open_; })) std::abort();
  }
  void open() {
    const std::lock_guard hold(lock_);
    open_ = true;
    opened_.notify_all();
  }
  // How many have come, and perhaps passed.
  unsigned begun() {
    const std::lock_guard hold(lock_);
    return begun_;
  }

 private:
  std::mutex lock_;
  std::condition_variable opened_;
  unsigned begun_ = 0;
  bool open_ = false;
};

constexpr unsigned pool_size = 4;

// Before the pool is made. What the machine's owner has set may be another number.
inline const bool pool_is_known = setenv("UV_THREADPOOL_SIZE", "4", 1) == 0;

// Has every thread of the pool wait at the gate; from another thread, whose hub is its own.
class pool_taken {
 public:
  pool_taken() {
    thread_ = std::thread([this] {
      hub::group all;
      for (unsigned n = 0; n < pool_size; ++n) all.spawn([this] { hub::offload([this] { gate_.pass(); }); });
      all.wait();
    });
    while (gate_.begun() < pool_size) std::this_thread::yield();
  }
  ~pool_taken() { release(); }
  void release() {
    gate_.open();
    if (thread_.joinable()) thread_.join();
  }

 private:
  gate gate_;
  std::thread thread_;
};

template <class F>
std::error_code system_error_of(F&& f, std::string* what = nullptr) {
  try {
    f();
  } catch (const std::system_error& e) {
    if (what) *what = e.what();
    return e.code();
  }
  FAIL("no std::system_error was thrown");
  return {};
}

// Which call of the C library is to fail, once, and how; the program's own functions take their place.
enum class call { none, socket, pwrite, fsync, fchmod, close };
inline std::atomic<call> fails{call::none};
inline std::atomic<int> with{0};
inline std::atomic<int> not_before{0};  // so many more succeed

inline bool fails_now(call c) {
  if (fails != c) return false;
  if (not_before-- > 0) return false;
  fails = call::none;
  errno = with;
  return true;
}

struct failing {
  failing(call c, int code, int after = 0) {
    with = code;
    not_before = after;
    fails = c;
  }
  failing(const failing&) = delete;
  failing& operator=(const failing&) = delete;
  ~failing() { fails = call::none; }
  bool has_failed() const { return fails == call::none; }
};

// The C library's own.
template <class F>
F* original(F*, const char* name) {
  return reinterpret_cast<F*>(dlsym(RTLD_NEXT, name));
}

}  // namespace testing

#endif
