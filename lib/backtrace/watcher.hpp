// SPDX-License-Identifier: MIT
// watcher: the library's own thread, which looks at the others. It blocks all signals, and exists while somebody has
// something to be watched.
#ifndef LIB_BACKTRACE_WATCHER_HPP
#define LIB_BACKTRACE_WATCHER_HPP

#include "bell.hpp"

#include <chrono>
#include <memory>
#include <mutex>
#include <optional>

namespace greenlets::detail::watcher {

using clock = bell::clock;

// What it does.
class job {
 public:
  job() = default;
  job(const job&) = delete;
  job& operator=(const job&) = delete;
  virtual ~job() = default;
  // Called on that thread, whenever it is woken and when it is time; says when that is next, if it is.
  virtual std::optional<clock::time_point> run() = 0;

  // It is to end as soon as it can. Set by remove().
  bool stopped() const noexcept { return stopped_.load(std::memory_order_relaxed); }
  void stop() noexcept { stopped_.store(true, std::memory_order_relaxed); }

 private:
  std::atomic<bool> stopped_{false};
};

// For what threads agree on before they add or after they remove something. Held over fork(), so that a child finds it
// whole. Throws std::system_error (pthread_atfork), the first time.
std::unique_lock<std::mutex> agreement();
// Makes the thread at need. Throws std::system_error (pthread_create, pthread_atfork, ...).
void add(std::shared_ptr<job> j);
// Afterwards it is not running, unless it is that which calls; with the last of them the thread ends. Throws nothing.
void remove(const std::shared_ptr<job>& j) noexcept;
// Async-signal-safe.
void wake() noexcept;
// Whether the calling thread is that one.
bool is_mine() noexcept;

}  // namespace greenlets::detail::watcher

#endif
