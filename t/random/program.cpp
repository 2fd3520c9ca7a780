// SPDX-License-Identifier: MIT
// Random programs: made, decoded and named.
#include "program.hpp"

namespace programs {
namespace {

enum mood { usual, growing, dropping };

struct weight {
  verb what;
  const char* name;
  int of_64[3];  // by mood
};

constexpr weight weights[] = {
    {verb::create, "create", {9, 18, 12}},
    {verb::create_without_run, "create_without_run", {1, 1, 0}},
    {verb::switch_to, "switch_to", {14, 24, 14}},
    {verb::throw_in, "throw_in", {5, 1, 2}},
    {verb::switch_to_parent, "switch_to_parent", {4, 3, 4}},
    {verb::leave, "leave", {4, 1, 1}},
    {verb::raise, "raise", {2, 0, 1}},
    {verb::rethrow, "rethrow", {1, 0, 0}},
    {verb::call, "call", {5, 4, 3}},
    {verb::drop, "drop", {4, 1, 16}},
    {verb::copy, "copy", {2, 2, 2}},
    {verb::move, "move", {1, 1, 3}},
    {verb::keep_current, "keep_current", {2, 3, 1}},
    {verb::take_parent, "take_parent", {1, 1, 0}},
    {verb::set_parent, "set_parent", {3, 1, 1}},
    {verb::set_run, "set_run", {1, 0, 0}},
    {verb::reset_run, "reset_run", {1, 0, 0}},
    {verb::make_weak, "make_weak", {1, 1, 1}},
    {verb::lock_weak, "lock_weak", {1, 1, 1}},
    {verb::enter, "enter", {1, 1, 1}},
    {verb::end_thread, "end_thread", {1, 0, 1}},
};

constexpr int sum_of_weights(mood m) {
  int sum = 0;
  for (const weight& w : weights) sum += w.of_64[m];
  return sum;
}
static_assert(sum_of_weights(usual) == 64 && sum_of_weights(growing) == 64 && sum_of_weights(dropping) == 64);

verb pick(mood m, int n) {
  for (const weight& w : weights)
    if ((n -= w.of_64[m]) < 0) return w.what;
  return verb::enter;
}

// A small generator that is the same everywhere; the standard's distributions are not.
struct splitmix {
  std::uint64_t state;
  std::uint64_t next() {
    std::uint64_t z = state += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
};

}  // namespace

program decode(const std::uint8_t* bytes, std::size_t size) {
  // Few handles make dense programs, many make wide ones.
  constexpr int threads[] = {1, 1, 1, 1, 2, 2, 3, 4};
  constexpr int slots[] = {2, 4, 8, most_slots};
  program p;
  if (size < 3) return p;
  p.threads = threads[bytes[0] % 8];
  p.slots = slots[bytes[1] % 4];
  const bool restless = bytes[2] % 2;  // whether each operation may be another thread's
  constexpr mood moods[] = {usual, usual, growing, dropping};
  const mood m = moods[bytes[2] / 2 % 4];
  int thread = 0;
  for (const std::uint8_t* b = bytes + 3; b + 5 <= bytes + size && p.ops.size() < 1000; b += 5) {
    op o;
    o.what = pick(m, b[0] % 64);
    if (restless || b[0] >= 192) thread = (b[4] >> 6) % p.threads;
    o.thread = thread;
    o.a = b[1] % p.slots;
    o.b = b[2] % p.slots;
    o.c = b[3] % p.slots;
    o.exact = b[3] % 8 == 0;
    o.kind = b[4] & 3;
    o.with = b[4] & 4;
    o.active = (b[4] & 24) == 24;
    o.given = b[4] & 32;
    if (o.what == verb::make_weak) o.a %= most_weak;
    if (o.what == verb::lock_weak) o.b %= most_weak;
    p.ops.push_back(o);
  }
  return p;
}

std::vector<std::uint8_t> random_bytes(std::uint64_t seed, std::uint64_t n) {
  splitmix random{seed * 0x2545f4914f6cdd1d + n};
  random.next();
  const std::size_t ops = 5 + random.next() % (random.next() % 5 ? 100 : 400);
  std::vector<std::uint8_t> bytes(3 + 5 * ops);
  for (std::uint8_t& b : bytes) b = static_cast<std::uint8_t>(random.next() >> 32);
  return bytes;
}

std::string to_string(const op& o) {
  constexpr const char* sent[] = {"nothing", "one", "two", "a handle"};
  constexpr const char* thrown[] = {"greenlet_exit", "own_exit", "custom", "custom"};
  constexpr const char* caught[] = {"nothing", "custom", "exits", "all"};
  std::string s = "thread " + std::to_string(o.thread) + ": ";
  for (const weight& w : weights)
    if (w.what == o.what) s += w.name;
  const auto slot = [&](int n) { s += " " + std::to_string(n); };
  const auto extra = [&] {
    if (o.with) s += " with", slot(o.c);
    if (o.active) s += " active";
  };
  switch (o.what) {
    case verb::create:
      slot(o.a);
      if (o.given) s += " parent", slot(o.b);
      extra();
      break;
    case verb::switch_to: slot(o.a); [[fallthrough]];
    case verb::switch_to_parent:
    case verb::leave:
      s += std::string(" sending ") + sent[o.kind];
      if (o.kind == sends_handle) slot(o.c);
      break;
    case verb::throw_in: slot(o.a); [[fallthrough]];
    case verb::raise: s += std::string(" ") + thrown[o.kind]; break;
    case verb::call:
      s += std::string(" catching ") + caught[o.kind];
      extra();
      break;
    case verb::set_run:
      slot(o.a);
      extra();
      break;
    case verb::copy:
    case verb::move:
    case verb::take_parent:
    case verb::set_parent:
    case verb::make_weak:
    case verb::lock_weak: slot(o.a), slot(o.b); break;
    case verb::create_without_run:
    case verb::drop:
    case verb::keep_current:
    case verb::reset_run: slot(o.a); break;
    case verb::rethrow:
    case verb::enter:
    case verb::end_thread: break;
  }
  return s;
}

}  // namespace programs
