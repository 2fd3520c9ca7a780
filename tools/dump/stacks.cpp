// SPDX-License-Identifier: MIT
// From copies of stacks to names.
#include "stacks.hpp"

#include "backtrace/dwarf_frames.hpp"

#include <algorithm>
#include <utility>

namespace greenlets::outside {
namespace {

// Of a thread's own stack, whose end is not known, so much, as inside.
constexpr std::size_t most_native = 256 * 1024;
constexpr std::size_t most_stack = std::size_t{64} << 20;
// What is kept of all: then it is the lesser evil that the process stands still for longer.
constexpr std::size_t most_kept = std::size_t{1} << 30;
// Below the stack pointer, of a leaf function: System V ABI, AMD64 supplement, 3.2.2.
constexpr std::size_t red_zone = 128;

void* as_address(std::size_t number) noexcept { return reinterpret_cast<void*>(number + 1); }
std::size_t as_number(const void* address) noexcept { return reinterpret_cast<std::size_t>(address) - 1; }

}  // namespace

std::vector<detail::place_in_code> stacks::walk_one(const detail::suspension_v1& s) {
  if (!unwinder_) unwinder_ = std::make_unique<unwinder>(files_, pid_);
  return unwinder_->walk(s, most_);
}

std::vector<detail::place_in_code> stacks::keep(const detail::suspension_v1& s) {
  kept_.emplace_back();
  if (bytes_ > most_kept) {
    kept_.back().places = walk_one(s);
  } else {
    kept_.back().stack = s;
    bytes_ += s.bytes.size();
  }
  return {{as_address(kept_.size() - 1), true}};
}

void stacks::walk(process_snapshot& s) {
  for (thread_snapshot& t : s.threads) {
    for (greenlet_snapshot& g : t.greenlets) {
      for (void* const a : g.created_at) places_.emplace(a, false);
      if (g.addresses.empty()) continue;
      kept& k = kept_.at(as_number(g.addresses.front()));
      const auto places = k.stack.bytes.empty() ? std::move(k.places) : walk_one(k.stack);
      g.addresses.clear();
      for (const detail::place_in_code& p : places) {
        g.addresses.push_back(p.address);
        places_.emplace(p.address, p.interrupted);
      }
    }
  }
  kept_.clear();
  describe(s);
}

void stacks::describe(process_snapshot& s) const {
  for (const auto& [address, interrupted] : places_) {
    frame known;
    known.address = address;
    // After a call that does not return there may be another function.
    const auto inside = reinterpret_cast<Dwarf_Addr>(address) - (interrupted ? 0 : 1);
    if (const mapping* const file = files_.file_at(inside)) {
      known.object = file->path;
      known.offset = reinterpret_cast<std::uintptr_t>(address) - file->start;
    }
    auto all = detail::debug_information::look_up(files_.dwfl(), known, inside);
    if (all.empty()) all.push_back(known);
    s.symbols.emplace(address, std::move(all));
  }
}

bool stacks::copy_running(target& of, pid_t own, std::uintptr_t high, detail::suspension_v1& to) {
  const auto& all = of.threads();
  const auto t = std::find_if(all.begin(), all.end(), [=](const thread_state& each) { return each.own == own; });
  if (t == all.end() || !t->has_registers) return false;
  to.at = t->at;
  to.running = true;
  const std::uintptr_t sp = t->at.number[machine::sp_number];
  to.low = sp - red_zone;
  to.bytes.resize(red_zone + (high > sp && high - sp <= most_stack ? high - sp : most_native));
  to.bytes.resize(of.read(to.low, to.bytes.data(), to.bytes.size()));
  return to.bytes.size() >= red_zone;
}

}  // namespace greenlets::outside
