// SPDX-License-Identifier: MIT
// Programs of several threads at the same time.
#include "storm.hpp"

#include <greenlet/greenlet.hpp>

#include <array>
#include <atomic>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <pthread.h>
#include <thread>
#include <utility>
#include <vector>

namespace programs {
namespace {

using greenlets::errc;
using greenlets::greenlet;
using greenlets::value;

std::atomic<int> alive{0};      // of the objects below
std::atomic<int> elsewhere{0};  // destructors that ran on another thread than their greenlet's
std::atomic<int> unexpected{0};

struct counted {
  counted() { ++alive; }
  counted(const counted&) { ++alive; }
  counted& operator=(const counted&) = default;
  ~counted() { --alive; }
};
struct custom : std::exception {
  counted count;
};
struct own_exit : greenlets::greenlet_exit {
  counted count;
};
struct payload {
  greenlet handle;
  counted count;
};

// The handles, which all threads take, put and drop.
class table {
 public:
  greenlet get(int n) {
    const std::lock_guard<std::mutex> lock(mutex_);
    return handles_[static_cast<std::size_t>(n)];
  }
  // Gives back what was there: its drop may switch, so the lock must be gone.
  greenlet put(int n, greenlet g) {
    const std::lock_guard<std::mutex> lock(mutex_);
    return std::exchange(handles_[static_cast<std::size_t>(n)], std::move(g));
  }
  void made(const greenlet& g) {
    const std::lock_guard<std::mutex> lock(mutex_);
    all_.emplace_back(g);
  }
  void clear() {
    for (greenlet& each : handles_) each = greenlet();
    for (const greenlets::weak_greenlet& each : all_)
      if (const greenlet g = each.lock(); !g.empty() && g.has_run()) g.reset_run();
    all_.clear();
  }

 private:
  std::mutex mutex_;
  std::array<greenlet, most_slots> handles_;
  std::vector<greenlets::weak_greenlet> all_;
};

table handles;

// What one thread does.
class dealt {
 public:
  explicit dealt(std::vector<op> ops) : ops_(std::move(ops)) {}
  void operator()();
  value operations(int depth);

  static thread_local dealt* here;

 private:
  void perform(const op& o, int depth);
  void call(const op& o, int depth);
  void act(const op& o);
  void send(const op& o);

  std::vector<op> ops_;
  std::size_t cursor_ = 0;
  int made_ = 0;
};

thread_local dealt* dealt::here = nullptr;

// On a stack, or in a callable (which may go on any thread).
struct guard {
  bool there = true, active, on_stack;
  pthread_t home = pthread_self();
  counted count;
  guard(bool a, bool s) : active(a), on_stack(s) {}
  guard(guard&& other) noexcept : there(std::exchange(other.there, false)), active(other.active), on_stack(other.on_stack) {}
  guard& operator=(guard&&) = delete;
  ~guard() {
    if (!there) return;
    if (on_stack && !pthread_equal(home, pthread_self())) ++elsewhere;
    if (!active || !dealt::here) return;
    try {
      dealt::here->operations(most_calls - 1);
    } catch (...) {
      // It came to nothing.
    }
  }
};

struct runner {
  greenlet handle;
  guard last;
  value operator()(value first) {
    first.reset();
    const guard g(false, true);
    return dealt::here->operations(0);
  }
};

runner make_runner(const op& o) { return {o.with ? handles.get(o.c) : greenlet(), guard(o.active, false)}; }

value dealt::operations(int depth) {
  while (cursor_ < ops_.size()) {
    const op o = ops_[cursor_++];
    if (o.what == verb::leave && (depth > 0 || greenlets::current().is_main() == false)) {
      if (o.kind == sends_nothing) return {};
      return payload{o.kind == sends_handle ? handles.get(o.c) : greenlet(), {}};
    }
    perform(o, depth);
  }
  return {};
}

void dealt::operator()() {
  here = this;
  while (cursor_ < ops_.size()) try {
      operations(0);
    } catch (...) {
      // Somebody has thrown at the main greenlet.
    }
}

void dealt::perform(const op& o, int depth) {
  switch (o.what) {
    case verb::call:
      if (depth < most_calls) call(o, depth + 1);
      return;
    case verb::raise:
      if (o.kind == throws_exit) throw greenlets::greenlet_exit();
      if (o.kind == throws_own_exit) throw own_exit();
      throw custom();
    case verb::rethrow:
      // The runtime cannot throw one again that is on its way; see model::can_rethrow().
      if (std::uncaught_exceptions() == 0 && std::current_exception()) throw;
      return;
    default: break;
  }
  try {
    act(o);
  } catch (const greenlets::error& e) {
    const errc code = e.code();
    if (code == errc::wrong_type || code == errc::wrong_arguments || code == errc::not_running) ++unexpected;
  }
}

void dealt::call(const op& o, int depth) {
  const auto scope = [&] {
    const greenlet kept = o.with ? handles.get(o.c) : greenlet();
    const guard last(o.active, true);
    operations(depth);
  };
  if (o.kind == catches_nothing) return scope();
  try {
    scope();
  } catch (const custom&) {
    if (o.kind == catches_exits) throw;
    operations(depth);
  } catch (const greenlets::greenlet_exit&) {
    if (o.kind == catches_custom) throw;
    operations(depth);
  }
}

void dealt::act(const op& o) {
  switch (o.what) {
    case verb::create:
    case verb::create_without_run: {
      if (++made_ > most_greenlets) return;
      const greenlet parent = o.given ? handles.get(o.b) : greenlet();
      greenlet g = o.what == verb::create ? greenlet(make_runner(o), parent) : greenlet(greenlets::attributes());
      handles.made(g);
      handles.put(o.a, std::move(g));
      return;
    }
    case verb::switch_to:
    case verb::throw_in:
    case verb::switch_to_parent: return send(o);
    case verb::drop: handles.put(o.a, greenlet()); return;
    case verb::copy: handles.put(o.a, handles.get(o.b)); return;
    case verb::move: handles.put(o.a, handles.put(o.b, greenlet())); return;
    case verb::keep_current: handles.put(o.a, greenlets::current()); return;
    case verb::take_parent: handles.put(o.a, handles.get(o.b).parent()); return;
    case verb::set_parent: handles.get(o.a).set_parent(handles.get(o.b)); return;
    case verb::set_run: handles.get(o.a).set_run(make_runner(o)); return;
    case verb::reset_run: handles.get(o.a).reset_run(); return;
    case verb::make_weak:
    case verb::lock_weak: {
      const greenlets::weak_greenlet weak(handles.get(o.a));
      const greenlet g = weak.lock();
      const bool dead = g.dead();
      if (dead && static_cast<bool>(g)) ++unexpected;  // there is no way back
      return;
    }
    default: greenlets::current(); return;
  }
}

void dealt::send(const op& o) {
  // In a temporary: it is gone from this stack only when control is back, so some keep themselves, or each
  // other, until their thread ends.
  if (o.what == verb::throw_in) {
    if (o.kind == throws_exit)
      handles.get(o.a).throw_in();
    else if (o.kind == throws_own_exit)
      handles.get(o.a).throw_in(own_exit());
    else
      handles.get(o.a).throw_in(custom());
    return;
  }
  payload p{o.kind == sends_handle ? handles.get(o.c) : greenlet(), {}};
  if (o.what == verb::switch_to)
    handles.get(o.a).switch_to(std::move(p));
  else
    greenlets::switch_to_parent(std::move(p));
}

}  // namespace

std::string storm(const program& p) {
  constexpr std::size_t threads = 4;
  const greenlets::unraisable_handler before = greenlets::set_unraisable_handler([](const greenlet&, std::exception_ptr) {});
  const greenlets::process_counts counts = greenlets::counts();
  {
    std::vector<op> parts[threads];
    for (std::size_t n = 0; n < p.ops.size(); ++n) parts[n % threads].push_back(p.ops[n]);
    std::deque<dealt> each_one;  // which must outlive the threads' exits
    std::thread running[threads];
    for (std::size_t n = 0; n < threads; ++n) {
      each_one.emplace_back(std::move(parts[n]));
      running[n] = std::thread(std::ref(each_one.back()));
    }
    for (std::thread& each : running) each.join();
  }
  handles.clear();
  const greenlets::process_counts left = greenlets::counts();
  greenlets::set_unraisable_handler(before);
  std::string wrong;
  const auto check = [&](const char* what, long seen, long expected) {
    if (seen != expected) wrong += std::string(what) + ": " + std::to_string(seen) + ", not " + std::to_string(expected) + "\n";
  };
  check("objects left", alive, 0);
  check("destructors on another thread", elsewhere, 0);
  check("errors that cannot be", unexpected, 0);
  check("greenlets", static_cast<long>(left.greenlets), static_cast<long>(counts.greenlets));
  check("stacks", static_cast<long>(left.stacks), static_cast<long>(counts.stacks));
  check("threads", static_cast<long>(left.threads), static_cast<long>(counts.threads));
  return wrong;
}

}  // namespace programs
