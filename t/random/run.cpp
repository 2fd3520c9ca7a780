// SPDX-License-Identifier: MIT
// A program on the library.
//
// Its threads take turns: whoever has done a step compares, asks the model for the next, and gives the
// turn to the thread that is to do it. So all that happens is decided by the program alone.
#include "run.hpp"

#include "model.hpp"

#include <greenlet/greenlet.hpp>

#include <array>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

namespace programs {
namespace {

using greenlets::greenlet;
using greenlets::value;

class session;
session* the_session = nullptr;        // one at a time
thread_local int this_thread = -1;     // a thread of the program

// Every object of the program must be destroyed in the end, and once.
struct counted {
  static inline std::atomic<int> alive{0};
  counted() { ++alive; }
  counted(const counted&) { ++alive; }
  counted& operator=(const counted&) = default;
  ~counted() { --alive; }
};

// What is thrown.
struct custom : std::exception {
  int number;
  counted count;
  explicit custom(int n) : number(n) {}
};
struct own_exit : greenlets::greenlet_exit {
  int number;
  counted count;
  explicit own_exit(int n) : number(n) {}
};

thrown describe(const std::exception_ptr& e) {
  if (!e) return {};
  try {
    std::rethrow_exception(e);
  } catch (const own_exit& x) {
    return {thrown::own_exit, x.number};
  } catch (const greenlets::greenlet_exit& x) {
    return {thrown::exit, static_cast<int>(x.why)};
  } catch (const custom& x) {
    return {thrown::custom, x.number};
  } catch (const greenlets::error& x) {
    return {thrown::error, static_cast<int>(x.code())};
  } catch (const std::runtime_error& x) {
    const bool refusal = std::string(x.what()).rfind("greenlet_exit did not kill", 0) == 0;
    return {refusal ? thrown::refusal : thrown::other, 0};
  } catch (...) {
    return {thrown::other, 0};
  }
}

// What is sent. Moved-from ones are nothing.
struct payload {
  int number = 0;
  counted count;
  greenlet handle;
  payload(int n, greenlet h) : number(n), handle(std::move(h)) {}
  payload(payload&& other) noexcept : number(std::exchange(other.number, 0)), handle(std::move(other.handle)) {}
  payload& operator=(payload&&) = delete;
  ~payload();
};

// Too large to be kept in place.
using pair = std::tuple<payload, std::string>;

// Lies in every function of the program, and in every callable; its destructor may take operations.
struct guard {
  int number;
  bool active;
  counted count;
  guard(int n, bool a) : number(n), active(a) {}
  guard(guard&& other) noexcept : number(std::exchange(other.number, 0)), active(other.active) {}
  guard& operator=(guard&&) = delete;
  ~guard();
};

// What every greenlet runs.
struct runner {
  greenlet handle;
  guard last;
  value operator()(value first);
};

class session {
 public:
  session(const program& p, const disagreement& d) : model_(p), disagrees_(d) {}
  void run();

  // For the program's objects, on its threads.
  void note(event::kind what, int who, int number = 0, int more = 0) { events_.push_back({what, who, number, more}); }
  void starts(value& first);
  value first();
  void destroyed(int number) { note(event::value_gone, nobody, number); }
  void destroying(const guard& g);
  int number_of(const greenlet& g) const;

 private:
  using lock = std::unique_lock<std::mutex>;

  const op& take();
  void advance();
  void compare();
  void compare_states(std::string& report) const;
  void finish();
  [[noreturn]] void disagree(const std::string& what);

  void thread_main(int n);
  value operations(bool first);
  void perform(const op& o);
  void act(const op& o);
  void act_on_table(const op& o);
  void call(const op& o);
  void scope(const op& o);
  void handle();
  void gets(const value& v);
  sent describe(const value& v) const;
  payload make_payload(const op& o) { return {step_, o.kind == sends_handle ? slots_[o.c] : greenlet()}; }
  runner make_runner(const op& o) { return {o.with ? slots_[o.c] : greenlet(), guard(step_, o.active)}; }
  void raise(const op& o);
  void adopt(const greenlet& g);
  int settle();
  int whoever();

  model model_;
  const disagreement& disagrees_;
  std::array<greenlet, most_slots> slots_;
  std::array<greenlets::weak_greenlet, most_weak> weak_;
  std::vector<greenlets::weak_greenlet> all_{1};      // by number
  std::map<std::uint64_t, int> numbers_;              // by id
  struct owner {
    int number, thread;
  };
  std::map<std::uintptr_t, owner> stacks_;            // somewhat above the first function of each
  std::vector<event> events_;
  op next_;
  int step_ = 0;
  bool finishing_ = false;

  std::mutex mutex_;
  std::condition_variable changed_;
  int turn_ = -1;
  int leaving_ = -1;   // the thread that is to be joined
  bool begun_[most_threads] = {};
  std::thread threads_[most_threads];
};

payload::~payload() {
  if (number) the_session->destroyed(number);
}

guard::~guard() {
  if (number) the_session->destroying(*this);
}

// An address on the stack that this runs on.
__attribute__((noinline)) std::uintptr_t here() { return reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0)); }
// What lies above a greenlet's first function, and may run user code too; less than a guard page and the
// unused end of the stack above it.
constexpr std::uintptr_t above = 16 * 1024;

value runner::operator()(value sent_first) {
  the_session->starts(sent_first);
  sent_first.reset();
  return the_session->first();
}

// -- The session --------------------------------------------------------------------------------------

[[noreturn]] void session::disagree(const std::string& what) {
  std::string report = "step " + std::to_string(model_.number()) + ", " + to_string(model_.last().o) + "\n" + what;
  disagrees_(report);
  std::abort();
}

void session::compare() {
  const std::vector<event>& expected = model_.last().events;
  std::string report;
  for (std::size_t n = 0; n < expected.size() || n < events_.size(); ++n) {
    const bool same = n < expected.size() && n < events_.size() && expected[n] == events_[n];
    if (same && report.empty()) continue;
    report += "  expected: " + (n < expected.size() ? to_string(expected[n]) : "no more") +
              "\n  seen:     " + (n < events_.size() ? to_string(events_[n]) : "no more") + "\n";
  }
  compare_states(report);
  if (!report.empty()) disagree(report);
}

void session::compare_states(std::string& report) const {
  for (int n = 1; n <= model_.made() && n < static_cast<int>(all_.size()); ++n) {
    const look expected = model_.at(n);
    look seen;
    {
      const greenlet g = all_[static_cast<std::size_t>(n)].lock();
      if (!g.empty()) {
        constexpr look::life lives[] = {look::unstarted, look::current, look::suspended, look::finished, look::unwound};
        seen.state = lives[static_cast<int>(g.state())];
        const greenlet parent = g.parent();
        seen.parent = parent.empty() ? nobody : number_of(parent);
        seen.main = g.is_main();
        seen.has_run = g.has_run();
        const bool active = seen.state == look::current || seen.state == look::suspended;
        const bool dead = seen.state == look::finished || seen.state == look::unwound;
        if (g.dead() != dead || static_cast<bool>(g) != active || g.started() != (active || dead))
          report += "  the predicates of g" + std::to_string(n) + " contradict each other\n";
      }
    }
    if (!(seen == expected))
      report += "  g" + std::to_string(n) + " should be: " + to_string(expected) + "\n  g" + std::to_string(n) +
                " is:        " + to_string(seen) + "\n";
  }
}

// Decides the next step, and gives the turn to its thread. Called with the mutex held.
void session::advance() {
  events_.clear();
  if (model_.over()) {
    turn_ = -1;
    return;
  }
  const step& s = model_.next();
  next_ = s.o;
  step_ = s.number;
  turn_ = s.o.thread;
  if (s.begins_thread) {
    begun_[turn_] = true;
    threads_[turn_] = std::thread(&session::thread_main, this, turn_);
  }
  if (s.ends_thread) leaving_ = turn_;
  if (turn_ != this_thread || s.ends_thread) changed_.notify_all();
}

// The next operation of the greenlet that asks.
const op& session::take() {
  const int me = this_thread;
  lock l(mutex_);
  if (begun_[me]) {
    begun_[me] = false;  // a thread begins with its first one
  } else {
    note(event::takes, whoever(), code(programs::describe(std::current_exception())), std::uncaught_exceptions());
    if (turn_ != me || leaving_ == me) disagree("  a thread goes on that should have ended\n");
    compare();
    advance();
  }
  changed_.wait(l, [&] { return turn_ == me; });
  return next_;
}

void session::run() {
  the_session = this;
  const greenlets::unraisable_handler before =
      greenlets::set_unraisable_handler([this](const greenlet& g, const std::exception_ptr& e) {
        note(event::unraisable, number_of(g), code(programs::describe(e)));
      });
  const greenlets::process_counts counts = greenlets::counts();
  if (!model_.over()) {
    lock l(mutex_);
    advance();
    while (turn_ >= 0) {
      changed_.wait(l, [&] { return leaving_ >= 0; });
      std::thread& t = threads_[leaving_];
      l.unlock();
      t.join();
      l.lock();
      leaving_ = -1;
      compare();
      advance();
    }
  }
  finish();
  compare();
  const greenlets::process_counts left = greenlets::counts();
  if (counted::alive != 0) disagree("  left behind: " + std::to_string(counted::alive) + " of the program's objects\n");
  std::string alive;
  for (int n = 1; n <= model_.made(); ++n)
    if (model_.at(n).state != look::gone) alive += "  the model leaves g" + std::to_string(n) + ": " + to_string(model_.at(n)) + "\n";
  if (!alive.empty()) disagree(alive);
  if (left.greenlets != counts.greenlets || left.stacks != counts.stacks || left.threads != counts.threads)
    disagree("  left behind: " + std::to_string(left.greenlets - counts.greenlets) + " greenlets, " +
             std::to_string(left.stacks - counts.stacks) + " stacks, " +
             std::to_string(left.threads - counts.threads) + " threads\n");
  greenlets::set_unraisable_handler(before);
  the_session = nullptr;
}

// All threads are gone; so go the handles.
void session::finish() {
  model_.finish();
  finishing_ = true;
  for (greenlet& each : slots_) each = greenlet();
  for (const greenlets::weak_greenlet& each : all_)
    if (const greenlet g = each.lock(); !g.empty() && g.has_run()) g.reset_run();
}

void session::adopt(const greenlet& g) {
  all_.emplace_back(g);
  numbers_[g.id()] = static_cast<int>(all_.size()) - 1;
}

int session::number_of(const greenlet& g) const {
  const auto it = numbers_.find(g.id());
  return it == numbers_.end() ? -1 : it->second;
}

// Who is running, by the stack that we are on: asking the library would enter it.
int session::whoever() {
  const auto it = stacks_.lower_bound(here());
  if (it != stacks_.end() && it->second.thread == this_thread &&
      all_[static_cast<std::size_t>(it->second.number)].lock().state() == greenlets::greenlet_state::current)
    return it->second.number;
  return settle();
}

// Notes whose stack this is: that of the one that is current, but on none of the stacks that are known.
int session::settle() {
  int who = nobody;
  for (auto it = stacks_.begin(); it != stacks_.end();) {
    const greenlet g = all_[static_cast<std::size_t>(it->second.number)].lock();
    it = g.empty() || g.dead() ? stacks_.erase(it) : std::next(it);  // it may be unmapped, or another's by now
  }
  for (int n = 1; n < static_cast<int>(all_.size()); ++n) {
    if (all_[static_cast<std::size_t>(n)].lock().state() != greenlets::greenlet_state::current) continue;
    bool known = false;
    for (const auto& each : stacks_) known = known || each.second.number == n;
    if (!known) who = n;
  }
  stacks_[here() + above] = {who, this_thread};
  return who;
}

// -- A program's functions ------------------------------------------------------------------------------

void session::thread_main(int n) {
  this_thread = n;
  {
    lock l(mutex_);
    changed_.wait(l, [&] { return turn_ == n; });
  }
  adopt(greenlets::current());
  note(event::thread_begins, whoever());
  for (;;) try {
      operations(false);
      break;
    } catch (...) {
      note(event::survives, whoever(), code(programs::describe(std::current_exception())));
    }
  note(event::thread_ends, whoever());
}

void session::starts(value& first) {
  const sent v = describe(first);
  note(event::starts, whoever(), code(v), v.handle);
}

value session::first() {
  const guard g(10000 + whoever(), false);
  return operations(true);
}

value session::operations(bool first) {
  for (;;) {
    const op o = take();
    if (o.what == verb::end_thread) return {};
    if (o.what == verb::leave) {
      if (!first || o.kind == sends_nothing) return {};
      if (o.kind == sends_two) return greenlets::detail::pack(make_payload(o), std::string("2"));
      return make_payload(o);
    }
    perform(o);
  }
}

void session::destroying(const guard& g) {
  note(event::guard_gone, nobody, g.number);
  if (!g.active || finishing_) return;
  try {
    operations(false);
  } catch (...) {
    note(event::swallows, whoever(), code(programs::describe(std::current_exception())));
  }
}

void session::call(const op& o) {
  switch (o.kind) {
    case catches_nothing: return scope(o);
    case catches_custom:
      try {
        return scope(o);
      } catch (const custom&) {
        return handle();
      }
    case catches_exits:
      try {
        return scope(o);
      } catch (const greenlets::greenlet_exit&) {
        return handle();
      }
    default:
      try {
        return scope(o);
      } catch (...) {
        return handle();
      }
  }
}

void session::scope(const op& o) {
  const greenlet kept = o.with ? slots_[o.c] : greenlet();
  const guard last(step_, o.active);
  operations(false);
}

void session::handle() {
  note(event::catches, whoever(), code(programs::describe(std::current_exception())));
  operations(false);
}

void session::raise(const op& o) {
  if (o.kind == throws_exit) throw greenlets::greenlet_exit();
  if (o.kind == throws_own_exit) throw own_exit(step_);
  throw custom(step_);
}

void session::perform(const op& o) {
  if (o.what == verb::call) return call(o);
  if (o.what == verb::raise) return raise(o);
  if (o.what == verb::rethrow) throw;
  try {
    act(o);
  } catch (const greenlets::error& e) {
    note(event::fails, whoever(), code({thrown::error, static_cast<int>(e.code())}));
  }
}

void session::act(const op& o) {
  switch (o.what) {
    case verb::create:
    case verb::create_without_run: {
      greenlet made = o.what == verb::create_without_run ? greenlet(greenlets::attributes())
                      : o.given                          ? greenlet(make_runner(o), slots_[o.b])
                                                         : greenlet(make_runner(o));
      adopt(made);
      note(event::created, number_of(made));
      slots_[o.a] = std::move(made);
      return;
    }
    case verb::switch_to: {
      const greenlet& target = slots_[o.a];
      if (o.kind == sends_nothing) return gets(target.switch_to());
      if (o.kind == sends_two) return gets(target.switch_to(make_payload(o), std::string("2")));
      return gets(target.switch_to(make_payload(o)));
    }
    case verb::switch_to_parent:
      if (o.kind == sends_nothing) return gets(greenlets::switch_to_parent());
      if (o.kind == sends_two) return gets(greenlets::switch_to_parent(make_payload(o), std::string("2")));
      return gets(greenlets::switch_to_parent(make_payload(o)));
    case verb::throw_in: {
      const greenlet& target = slots_[o.a];
      if (o.kind == throws_exit) return gets(target.throw_in());
      if (o.kind == throws_own_exit) return gets(target.throw_in(own_exit(step_)));
      return gets(target.throw_in(custom(step_)));
    }
    case verb::enter: greenlets::current(); return;
    case verb::set_parent: return slots_[o.a].set_parent(slots_[o.b]);
    case verb::set_run: return slots_[o.a].set_run(make_runner(o));
    case verb::reset_run: return slots_[o.a].reset_run();
    default: return act_on_table(o);
  }
}

void session::act_on_table(const op& o) {
  greenlet& a = slots_[o.a];
  greenlet& b = slots_[o.b];
  switch (o.what) {
    case verb::drop: a = greenlet(); return;
    case verb::copy: a = b; return;
    case verb::move: a = std::move(b); return;
    case verb::keep_current: a = greenlets::current(); return;
    case verb::take_parent: a = b.parent(); return;
    case verb::make_weak: weak_[o.a] = b; return;
    case verb::lock_weak: a = weak_[o.b].lock(); return;
    default: disagree("  an operation that nobody knows\n");
  }
}

void session::gets(const value& v) {
  const sent s = describe(v);
  note(event::gets, whoever(), code(s), s.handle);
}

sent session::describe(const value& v) const {
  const auto number = [this](const greenlet& g) { return g.empty() ? nobody : number_of(g); };
  if (!v.has_value()) return {sent::nothing, 0, nobody, {}};
  if (const payload* p = v.get_if<payload>()) return {sent::one, p->number, number(p->handle), {}};
  if (const auto* p = v.get_if<pair>()) return {sent::two, std::get<0>(*p).number, nobody, {}};
  if (v.is<greenlets::greenlet_exit>()) return {sent::exit, 0, nobody, programs::describe(v.thrown())};
  return {sent::other, 0, nobody, {}};
}

}  // namespace

void run(const program& p, const disagreement& disagrees) { session(p, disagrees).run(); }

}  // namespace programs
