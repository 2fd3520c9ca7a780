// SPDX-License-Identifier: MIT
// What every printed program begins with.
#ifndef T_RANDOM_PRELUDE_HPP
#define T_RANDOM_PRELUDE_HPP

namespace programs {

constexpr const char* prelude = R"cpp(// c++ -std=c++17 program.cpp $(pkg-config --cflags --libs greenlet)
#include <greenlet/greenlet.hpp>
#include <condition_variable>
#include <cstdio>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <tuple>
#include <vector>
using namespace greenlets;

greenlet slot[48];
weak_greenlet weak[8];
std::vector<weak_greenlet> all(1);        // every greenlet, in the order they are made
std::vector<std::string> seen;            // what has happened
void note(const std::string& what) { seen.push_back(what); }

std::string name(const greenlet& g) {
  for (std::size_t n = 1; n < all.size(); ++n)
    if (const greenlet each = all[n].lock(); !g.empty() && each == g) return "g" + std::to_string(n);
  return "none";
}
std::string look(const greenlet& g) {
  if (g.empty()) return "gone";
  const char* const states[] = {"unstarted", "current", "suspended", "finished", "unwound"};
  return std::string(states[static_cast<int>(g.state())]) + (g.is_main() ? ", main" : "") +
         (g.has_run() ? ", with a run" : "") + ", parent " + name(g.parent());
}
void look_at_all() {
  for (std::size_t n = 1; n < all.size(); ++n) note("g" + std::to_string(n) + " is " + look(all[n].lock()));
}

struct custom : std::exception { int n; explicit custom(int i) : n(i) {} };
struct own_exit : greenlet_exit { int n; explicit own_exit(int i) : n(i) {} };
std::string words(std::exception_ptr e) {
  try {
    std::rethrow_exception(e);
  } catch (const own_exit& x) {
    return "own_exit " + std::to_string(x.n);
  } catch (const greenlet_exit& x) {
    const char* const reasons[] = {"greenlet_exit", "greenlet_exit (last_handle)", "greenlet_exit (thread_exit)"};
    return reasons[static_cast<int>(x.why)];
  } catch (const custom& x) {
    return "custom " + std::to_string(x.n);
  } catch (const error& x) {
    const char* const codes[] = {"", "different_thread", "thread_exited", "collected", "no_run", "already_started",
        "cyclic_parent", "main_parent", "parent_thread", "wrong_type", "wrong_arguments", "empty_handle"};
    return std::string("error ") + codes[static_cast<int>(x.code())];
  } catch (...) {
    return "a refusal to end";
  }
}
std::string words() { return words(std::current_exception()); }

struct payload {  // says when it is destroyed
  int n;
  greenlet handle;
  explicit payload(int i, greenlet h = {}) : n(i), handle(std::move(h)) {}
  payload(payload&& o) noexcept : n(std::exchange(o.n, 0)), handle(std::move(o.handle)) {}
  ~payload() { if (n) note("~value " + std::to_string(n)); }
};
std::string words(const value& v) {
  if (!v.has_value()) return "nothing";
  if (auto* p = v.get_if<payload>())
    return "value " + std::to_string(p->n) + (p->handle.empty() ? "" : " with " + name(p->handle));
  if (auto* p = v.get_if<std::tuple<payload, std::string>>()) return "two values " + std::to_string(std::get<0>(*p).n);
  return words(v.thrown());
}
bool over = false;
struct guard {  // so does this, and then runs a function
  int n;
  void (*last)();
  explicit guard(int i, void (*f)() = nullptr) : n(i), last(f) {}
  guard(guard&& o) noexcept : n(std::exchange(o.n, 0)), last(o.last) {}
  ~guard() {
    if (!n) return;
    note("~guard " + std::to_string(n));
    if (last && !over) last();
  }
};
template <class F>
void attempt(const char* who, F f) {
  try {
    f();
  } catch (const error&) {
    note(std::string(who) + " gets " + words());
  }
}
void gets(const char* who, const value& v) { note(std::string(who) + " gets " + words(v)); }
greenlet made(greenlet g) {
  all.emplace_back(g);
  note(name(g) + " is made");
  return g;
}

// What the greenlets run: each, when it starts, the next of a list.
extern value (*const functions[])(value);
int started = 0;
struct runner {
  greenlet handle;
  guard last;
  explicit runner(guard g, greenlet h = {}) : handle(std::move(h)), last(std::move(g)) {}
  value operator()(value first) { return functions[started++](std::move(first)); }
};

// Threads take turns: a step begins when the one before has ended.
std::mutex mutex;
std::condition_variable changed;
int ended = 0;
void wait_for(int n) {
  std::unique_lock<std::mutex> lock(mutex);
  changed.wait(lock, [n] { return ended == n; });
}
void end(int n) {
  const std::lock_guard<std::mutex> lock(mutex);
  ended = n;
  changed.notify_all();
}
thread_local int mine = 0;  // the step that this thread is in
void step(int n) {
  if (mine) end(mine);
  wait_for(n - 1);
  mine = n;
}

)cpp";

constexpr const char* postlude = R"cpp(
  over = true;
  for (greenlet& each : slot) each = greenlet();
  for (weak_greenlet& each : all)
    if (const greenlet g = each.lock(); !g.empty() && g.has_run()) g.reset_run();
  for (std::size_t n = 1; n < all.size(); ++n)
    if (!all[n].expired()) note("g" + std::to_string(n) + " is left: " + look(all[n].lock()));

  bool same = true;
  for (std::size_t n = 0; n < seen.size() || expected[n]; ++n) {
    const std::string e = expected[n] ? expected[n] : "no more", s = n < seen.size() ? seen[n] : "no more";
    if (same && e == s) continue;
    same = false;
    std::printf("expected: %s\nseen:     %s\n", e.c_str(), s.c_str());
    if (!expected[n]) break;
  }
  if (same) std::puts("as expected");
  return !same;
}
)cpp";

}  // namespace programs

#endif
