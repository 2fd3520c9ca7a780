// SPDX-License-Identifier: MIT
// Walking by steps that are known.
#include "steps.hpp"

#include <cstring>

namespace greenlets::detail {
namespace {

#ifdef __x86_64__
constexpr unsigned numbers[step::registers] = {7, 6, 3};
#else
constexpr unsigned numbers[step::registers] = {31, 29, 19};
#endif

bool read(const suspension_v1& s, std::uintptr_t at, std::uintptr_t& word) noexcept {
  if (at < s.low || at - s.low > s.bytes.size() || s.bytes.size() - (at - s.low) < sizeof word) return false;
  std::memcpy(&word, s.bytes.data() + (at - s.low), sizeof word);
  return true;
}

}  // namespace

const step& steps::out_of(std::uintptr_t pc, bool interrupted) {
  auto& known = known_[interrupted];
  auto place = known.find(pc);
  if (place == known.end()) place = known.emplace(pc, find_step(pc, interrupted)).first;
  return place->second;
}

// False: some step is not known.
bool steps::walk_quickly(std::vector<place_in_code>& found, const suspension_v1& s, std::uintptr_t beyond, std::size_t most) {
  std::uintptr_t pc = s.at.number[machine::pc_number];
  std::uintptr_t now[step::registers];
  for (unsigned i = 0; i < step::registers; ++i) now[i] = s.at.number[numbers[i]];
  bool interrupted = true;
  std::uintptr_t below = 0;
  unsigned level = 0;
  while (pc != 0 && found.size() < most) {
    // As walk() has it.
    if (now[0] < below || (level = now[0] == below ? level + 1 : 0) > 2) return true;
    below = now[0];
    if (now[0] > beyond) found.push_back({reinterpret_cast<void*>(pc), interrupted});
    const step& out = out_of(pc, interrupted);
    if (out.what != step::kind::known) return out.what == step::kind::end;
    const std::uintptr_t end = now[out.from] + static_cast<std::uintptr_t>(static_cast<std::intptr_t>(out.distance));
    const auto at = [end](std::int32_t from) { return end + static_cast<std::uintptr_t>(static_cast<std::intptr_t>(from)); };
    if (!read(s, at(out.pc), pc)) return true;
    for (unsigned i = 1; i < step::registers; ++i)
      if (out.saved[i] != step::kept && !read(s, at(out.saved[i]), now[i])) return true;
    now[0] = end;
    interrupted = false;
  }
  return true;
}

std::vector<place_in_code> steps::walk(const suspension_v1& s, std::uintptr_t beyond, std::size_t most) {
  std::vector<place_in_code> found;
  if (walk_quickly(found, s, beyond, most)) return found;
  return detail::walk(s, beyond, most);
}

}  // namespace greenlets::detail
