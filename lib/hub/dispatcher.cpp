// SPDX-License-Identifier: MIT
// dispatcher: one lock over who is given what; a greenlet in each server's thread begins what was given to it.
#include <greenlet/hub/threads.hpp>

#include "server.hpp"

#include <greenlet/hub/run.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <deque>
#include <memory>
#include <mutex>
#include <new>
#include <system_error>
#include <unistd.h>
#include <utility>
#include <vector>

namespace greenlets::hub {

struct __attribute__((visibility("hidden"))) dispatcher::state {
  std::mutex lock;
  order how;
  std::vector<std::shared_ptr<membership::target>> targets;
  std::size_t next = 0;

  explicit state(order o) noexcept : how(o) {}
  // With the lock held; not when there is none.
  const std::shared_ptr<membership::target>& choose() noexcept;
};

// A server, and what it has been given and not begun.
struct __attribute__((visibility("hidden"))) dispatcher::membership::target {
  std::shared_ptr<dispatcher::state> of;
  std::shared_ptr<server::state> serves;  // the server's thread's business; nothing when the membership has gone
  remote reach;
  std::deque<int> given;              // under of->lock
  bool woken = false;                 // the same: somebody is on his way to begin them
  std::atomic<std::size_t> load{0};   // connections given that have not ended

  void close_given() noexcept {
    for (const int fd : given) ::close(fd);
    load -= given.size();
    given.clear();
  }
};

// The function of the greenlet that begins them. When it is never called, or does not finish (no stack, or the hub has
// ended), they are closed.
class __attribute__((visibility("hidden"))) dispatcher::membership::beginner {
 public:
  explicit beginner(std::shared_ptr<target> of) noexcept : of_(std::move(of)) {}
  beginner(const beginner&) = delete;
  beginner& operator=(const beginner&) = delete;
  ~beginner() {
    if (finished_) return;
    const std::lock_guard guard(of_->of->lock);
    of_->close_given();
    of_->woken = false;
  }

  void begin_all() {
    const auto s = of_->serves;
    if (!s) return;
    for (;;) {
      while (s->connections.size() >= s->how.most && !s->stopped)
        if (!detail::place(s->ended).wait({})) return;
      const int fd = next();
      if (fd < 0) return;
      detail::unowned_fd own(fd, "dispatcher");
      try {
        const std::shared_ptr<void> until_end(nullptr, [of = of_](void*) { --of->load; });
        own.taken();
        s->take(fd, until_end);
      } catch (const std::bad_alloc&) {
        // It has been closed, and counted as failed; the next may have more luck.
      } catch (const std::system_error&) {
        // As above.
      }
    }
  }

 private:
  int next() {
    const std::lock_guard guard(of_->of->lock);
    if (of_->given.empty()) {
      of_->woken = false;  // whoever gives from now on wakes another
      finished_ = true;
      return -1;
    }
    const int fd = of_->given.front();
    of_->given.pop_front();
    return fd;
  }

  std::shared_ptr<target> of_;
  bool finished_ = false;
};

const std::shared_ptr<dispatcher::membership::target>& dispatcher::state::choose() noexcept {
  if (how == order::round_robin) return targets[next++ % targets.size()];
  const auto less = [](const auto& a, const auto& b) { return a->load < b->load; };
  return *std::min_element(targets.begin(), targets.end(), less);
}

dispatcher::dispatcher(order how) : state_(std::make_shared<state>(how)) {}
dispatcher::~dispatcher() = default;

dispatcher::membership::~membership() {
  if (!target_) return;
  target_->serves = nullptr;
  const std::lock_guard guard(target_->of->lock);
  auto& all = target_->of->targets;
  all.erase(std::remove(all.begin(), all.end(), target_), all.end());
  target_->close_given();
}

dispatcher::membership dispatcher::add(server& s) {
  auto t = std::make_shared<membership::target>();
  t->of = state_;
  t->serves = s.state_;
  t->reach = this_hub();
  const std::lock_guard guard(state_->lock);
  state_->targets.push_back(t);
  return membership(std::move(t));
}

bool dispatcher::give(int fd) {
  detail::unowned_fd own(fd, "dispatcher::give");
  std::shared_ptr<membership::beginner> begins;  // goes after the lock, which it may take
  remote reach;
  {
    const std::lock_guard guard(state_->lock);
    if (state_->targets.empty()) return false;
    const auto& t = state_->choose();
    if (!t->woken) {
      begins = std::make_shared<membership::beginner>(t);
      reach = t->reach;
    }
    t->given.push_back(fd);
    own.taken();
    ++t->load;
    t->woken = true;
  }
  return !begins || reach.post([begins] { begins->begin_all(); });
}

void dispatcher::run(listener& from) {
  const auto kept = state_;
  auto how_long = detail::first_pause;
  for (unsigned in_a_row = 0;;) {
    int fd = -1;
    const io_result r = from.try_accept(fd);
    if (r) {
      how_long = detail::first_pause;
      give(fd);
      if (++in_a_row % detail::most_in_a_row == 0) hub::yield();
    } else if (r.closed()) {
      return;
    } else if (r.error == std::errc::operation_would_block) {
      in_a_row = 0;
      if (from.wait().closed()) return;
    } else {
      hub::sleep_for(how_long);
      how_long = std::min(2 * how_long, detail::longest_pause);
    }
  }
}

}  // namespace greenlets::hub
