// SPDX-License-Identifier: MIT
// What the tests of snapshots share.
#ifndef T_SNAPSHOTS_HPP
#define T_SNAPSHOTS_HPP

#include "testing.hpp"
#include "warm_frames.hpp"

#ifdef T_HUB
#include <greenlet/hub.hpp>
#endif
#include <greenlet/snapshot.hpp>

#include <cstddef>
#include <cstdint>
#include <map>
#include <ostream>
#include <sstream>
#include <string>
#include <vector>

using namespace greenlets;

// Functions to be found in. In snapshot.cpp.
void t_waits();
void t_deeper(int depth);
void t_elsewhere();
greenlet t_makes();
process_snapshot t_takes();

namespace snapshots {

struct all {
  process_snapshot s;
  std::map<std::uint64_t, const greenlet_snapshot*> by_id;
  std::map<std::uint64_t, const thread_snapshot*> thread_of;
  std::size_t twice = 0;

  explicit all(process_snapshot taken) : s(std::move(taken)) {
    for (const thread_snapshot& t : s.threads)
      for (const greenlet_snapshot& g : t.greenlets) {
        twice += !by_id.emplace(g.id, &g).second;
        thread_of[g.id] = &t;
      }
  }
  all(const all&) = delete;
  const greenlet_snapshot& operator[](const greenlet& g) const {
    static const greenlet_snapshot nobody;
    const auto found = by_id.find(g.id());
    return found == by_id.end() ? nobody : *found->second;
  }
  bool has(const greenlet& g) const { return by_id.count(g.id()) != 0; }
};

inline std::vector<void*> addresses(const std::vector<frame>& frames) {
  std::vector<void*> all;
  for (const frame& f : frames)
    if (!f.inlined) all.push_back(f.address);
  return all;
}

inline std::size_t count(const process_snapshot& s, const std::vector<void*>& addresses, const std::string& name) {
  std::size_t n = 0;
  for (void* const a : addresses)
    if (const auto found = s.symbols.find(a); found != s.symbols.end())
      for (const frame& f : found->second) n += f.function.find(name) == 0;
  return n;
}

template <void (*write)(std::ostream&, const process_snapshot&)>
std::string written(const process_snapshot& s) {
  std::ostringstream out;
  write(out, s);
  return out.str();
}

inline std::ostream& nowhere() {
  static std::ostream out(nullptr);
  return out;
}

}  // namespace snapshots

using namespace snapshots;

#endif
