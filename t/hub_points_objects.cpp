// SPDX-License-Identifier: MIT
// The places at which greenlets wait for each other, and for time.
#include "hub_points.hpp"

#include "hub_testing.hpp"

#include <memory>
#include <mutex>
#include <utility>

namespace testing {
namespace {

// A scene is an S, made anew, which is satisfied by S::satisfy().
template <class S>
point at(const char* function, const char* how, unsigned traits, bool (*wait)(S&)) {
  return {function, how, traits, [wait] {
            const auto s = std::make_shared<S>();
            return scene{[s, wait] { return wait(*s); }, [s] { s->satisfy(); }};
          }};
}

struct happens {
  hub::event e;
  void satisfy() { e.set(); }
};

struct comes_out {
  hub::result<int> r;
  void satisfy() {
    if (!r.is_ready()) r.set(42);
  }
};

// Had by the main greenlet.
template <class M>
struct had {
  M m;
  bool ours = true;
  had() { m.lock(); }
  void satisfy() {
    if (std::exchange(ours, false)) m.unlock();
  }
};

struct changes {
  hub::mutex m;
  hub::condition c;
  bool so = false;
  void satisfy() {
    so = true;
    c.notify_all();
  }
  bool wait(bool with_predicate) {
    std::unique_lock lock(m);
    const bool told = with_predicate ? c.wait(lock, [this] { return so; }) : c.wait(lock);
    return told && lock.owns_lock();
  }
};

struct counted {
  hub::semaphore s{0};
  void satisfy() { s.release(2); }
};

struct counted_down {
  hub::latch l{5};
  void satisfy() { l.count_down(5); }
};

struct full {
  hub::queue<std::string> q{1};
  const std::string what = "a string that is not short";
  full() { q.try_push("first"); }
  void satisfy() { q.try_pop(); }
};

struct empty {
  hub::queue<std::string> q;
  void satisfy() { q.push("a string that is not short"); }
};

struct meeting {
  hub::channel<std::string> c;
  std::vector<hub::task<bool>> others;
  void take() { c.try_receive(); }
  void satisfy() {
    others.push_back(hub::spawn([this] { return c.send("a string that is not short"); }));
  }
};
struct taken : meeting {
  void satisfy() { take(); }
};

struct any : happens {
  hub::queue<int> q;
  void satisfy() { q.push(1); }
};

// A task that waits.
struct runs : happens {
  hub::task<int> t = hub::spawn([this] {
    e.wait();
    return 42;
  });
};

struct members : happens {
  hub::group g;
  members() {
    g.spawn([this] { e.wait(); });
  }
};

struct pooled : happens {
  hub::pool p{1};
  pooled() {
    p.spawn([this] { e.wait(); });
  }
};

// A member that waits when it is cancelled.
struct reluctant : happens {
  bool leave() {
    {
      hub::group g;
      g.spawn([this] {
        const auto end = at_end([this] { e.wait(); });
        hub::sleep_for(hours(1));
      });
      hub::yield();
    }
    hub::yield();
    return true;
  }
};

struct time_passes {
  bool first = true, go = false;
  hub::clock::duration next() { return std::exchange(first, false) ? hub::clock::duration(hours(1)) : milliseconds(1); }
  void satisfy() { go = true; }
};

}  // namespace

const std::vector<point>& points_of_objects() {
  static const std::vector<point> all = {
      at<happens>("event.wait", "", none, [](happens& s) { return s.e.wait(); }),
      at<comes_out>("result.wait", "", none, [](comes_out& s) { return s.r.wait(); }),
      at<comes_out>("result.get", "", none, [](comes_out& s) { return s.r.get() == 42; }),
      at<had<hub::mutex>>("mutex.lock", "", none,
                          [](had<hub::mutex>& s) {
                            const std::lock_guard lock(s.m);
                            return true;
                          }),
      at<had<hub::mutex>>("mutex.try_lock_for", "", none,
                          [](had<hub::mutex>& s) { return std::unique_lock(s.m, hours(1)).owns_lock(); }),
      at<had<hub::mutex>>("mutex.try_lock_until", "", none,
                          [](had<hub::mutex>& s) {
                            return std::unique_lock(s.m, hub::clock::now() + hours(1)).owns_lock();
                          }),
      at<had<hub::shared_mutex>>("shared_mutex.lock", "", none,
                                 [](had<hub::shared_mutex>& s) {
                                   const std::lock_guard lock(s.m);
                                   return true;
                                 }),
      at<had<hub::shared_mutex>>("shared_mutex.lock_shared", "", none,
                                 [](had<hub::shared_mutex>& s) {
                                   if (!s.m.lock_shared()) return false;
                                   s.m.unlock_shared();
                                   return true;
                                 }),
      at<changes>("condition.wait", "with a lock", none, [](changes& s) { return s.wait(false); }),
      at<changes>("condition.wait", "with a predicate", none, [](changes& s) { return s.wait(true); }),
      at<changes>("condition.wait", "without a lock", none, [](changes& s) { return s.c.wait(); }),
      at<counted>("semaphore.acquire", "", none, [](counted& s) { return s.s.acquire(2); }),
      at<counted_down>("latch.wait", "", none, [](counted_down& s) { return s.l.wait(); }),
      at<counted_down>("latch.arrive_and_wait", "", none, [](counted_down& s) { return s.l.arrive_and_wait(); }),
      at<full>("queue.push", "moved", none, [](full& s) { return s.q.push(std::string(s.what)); }),
      at<full>("queue.push", "copied", none, [](full& s) { return s.q.push(s.what); }),
      at<empty>("queue.pop", "", none, [](empty& s) { return s.q.pop().has_value(); }),
      at<taken>("channel.send", "moved", none, [](taken& s) { return s.c.send(std::string("a string that is not short")); }),
      at<taken>("channel.send", "copied", none,
                [](taken& s) {
                  const std::string what = "a string that is not short";
                  return s.c.send(what);
                }),
      at<meeting>("channel.receive", "", none, [](meeting& s) { return s.c.receive().has_value(); }),
      at<any>("hub.wait_any", "", none, [](any& s) { return hub::wait_any(s.e, s.q) == 1; }),
      at<any>("hub.wait_any_until", "", none,
              [](any& s) { return hub::wait_any_until(hours(1), s.e, s.q).has_value(); }),
      at<runs>("task.join", "", none, [](runs& s) { return s.t.join(); }),
      at<runs>("task.get", "", none, [](runs& s) { return s.t.get() == 42; }),
      at<happens>("hub.run", "", none,
                  [](happens& s) {
                    // What it spawns goes on when it is cancelled, and refers to the scene.
                    return hub::run([&s] { return s.e.wait(); });
                  }),
      at<time_passes>("hub.yield", "", none,
                      [](time_passes& s) {
                        while (!s.go) hub::yield();
                        return true;
                      }),
      at<time_passes>("hub.sleep_for", "", unsatisfied,
                      [](time_passes& s) {
                        hub::sleep_for(s.next());
                        return true;
                      }),
      at<time_passes>("hub.sleep_until", "", unsatisfied,
                      [](time_passes& s) {
                        hub::sleep_until(hub::clock::now() + s.next());
                        return true;
                      }),
      at<happens>("hub.with_timeout", "", none,
                  [](happens& s) { return hub::with_timeout(hours(1), [&s] { s.e.wait(); }); }),
      at<members>("group.wait", "", none,
                  [](members& s) {
                    s.g.wait();
                    return true;
                  }),
      at<members>("group.wait_until", "", none, [](members& s) { return s.g.wait_until(hours(1)); }),
      at<reluctant>("group.~group", "", held, [](reluctant& s) { return s.leave(); }),
      at<pooled>("pool.spawn", "", none,
                 [](pooled& s) {
                   s.p.spawn([] {});
                   return true;
                 }),
      at<pooled>("pool.join", "", none, [](pooled& s) { return s.p.join(); }),
  };
  return all;
}

}  // namespace testing
