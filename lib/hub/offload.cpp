// SPDX-License-Identifier: MIT
// offload: requests to libuv's pool, which nobody leaves before their time.
#include <greenlet/hub/offload.hpp>

#include "loop.hpp"
#include "pool.hpp"

#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <new>
#include <unistd.h>

namespace greenlets::hub::detail {
namespace {

// One call. The greenlet's until it has left, and libuv's until after(): who comes last deletes it. On the heap,
// because the greenlet may leave first, when the call has been taken back.
class request {
 public:
  request(void (*call)(void*) noexcept, void* what) noexcept : call_(call), what_(what) { work_.data = this; }

  // Begins it. From here on somebody has to leave().
  void submit(loop& home) noexcept {
    pool_is_used();
    uv_queue_work(home.uv(), &work_, run, after);
  }

  void wait(const loop& home) {
    while (!over_ && !home.closed()) waiting_.wait({}, true);
    // A hub that ends has libuv finish everything; but we may run in the midst of that.
    if (!over_) block();
  }

  void leave(const loop& home) noexcept {
    if (!over_ && uv_cancel(reinterpret_cast<uv_req_t*>(&work_)) != 0) stay(home);
    left_ = true;
    if (over_) delete this;
  }

 private:
  // Something was thrown in, and the call has begun: what it refers to is on the stack that is being unwound.
  void stay(const loop& home) noexcept {
    while (!over_ && !home.closed()) {
      try {
        waiting_.wait({}, true);
      } catch (const std::bad_alloc&) {
        break;  // not even that much memory: then as below
      } catch (...) {
        // We are on our way out already. The hub throws nothing in here; and who does not ask it, sees the same.
      }
    }
    if (!over_) block();
  }

  // Without the hub.
  void block() noexcept {
    std::unique_lock hold(lock_);
    ended_.wait(hold, [this] { return has_ended_; });
  }

  static void run(uv_work_t* work) {
    auto& self = *static_cast<request*>(work->data);
    self.call_(self.what_);
    const std::lock_guard hold(self.lock_);
    self.has_ended_ = true;
    self.ended_.notify_one();
  }

  static void after(uv_work_t* work, int) {
    auto* const self = static_cast<request*>(work->data);
    self->over_ = true;
    self->waiting_.wake_all();
    if (self->left_) delete self;
  }

  uv_work_t work_;
  void (*call_)(void*) noexcept;
  void* what_;
  wait_list waiting_{"offloaded call", nullptr};
  bool over_ = false;  // after() has been called
  bool left_ = false;

  std::mutex lock_;
  std::condition_variable ended_;
  bool has_ended_ = false;
};

std::atomic<pid_t> pool_of{0};

// When a process exits, libuv joins the threads of its pool. In a child they are not there, and the process crashes in
// pthread_join (seen with 1.44; t/hub_offload, "a child of a process with a pool"). A new pool, for no work, has
// threads that are.
void have_threads_to_join() {
  uv_loop_t once;
  uv_work_t nothing;
  if (pool_of == getpid() || uv_loop_init(&once) != 0) return;
  uv_queue_work(&once, &nothing, [](uv_work_t*) {}, [](uv_work_t*, int) {});
  uv_run(&once, UV_RUN_DEFAULT);
  uv_loop_close(&once);
}

}  // namespace

void pool_is_used() noexcept {
  static const int at_exit = std::atexit(have_threads_to_join);
  static_cast<void>(at_exit);
  pool_of = getpid();
}

void call_on_pool(void (*call)(void*) noexcept, void* what) {
  const greenlet& self = current();
  const loop_ref home(loop::mine());
  // Here, and not when it waits: the call would have begun.
  if (self == home->handle()) throw error(errc::not_running, "a function that the hub itself calls cannot wait");
  struct leaver {
    const loop& home;
    request& r;
    ~leaver() { r.leave(home); }
  } const at_any_exit{*home, *new request(call, what)};
  at_any_exit.r.submit(*home);
  at_any_exit.r.wait(*home);
}

}  // namespace greenlets::hub::detail
