// SPDX-License-Identifier: MIT
// The frames of a greenlet, for its own program and for people.
#include "people.hpp"
#include "symbols.hpp"

#include <greenlet/snapshot.hpp>

#include <algorithm>
#include <cstdint>
#include <ostream>
#include <sstream>
#include <utility>

namespace greenlets {
namespace detail {
namespace {

// More than a stack of 16 MiB has, when each is of two words.
constexpr std::size_t most_frames = std::size_t{1} << 20;

// `beyond`: of the calling greenlet, what is above that.
std::vector<place_in_code> places(const greenlet& g, const ucontext_t& here, std::uintptr_t beyond, std::size_t most) {
  suspension_v1 s;
  if (!copy_suspended(g, here, s)) return {};
  return walk(s, s.running ? beyond : 0, most);
}

// -- For people ----------------------------------------------------------------------------------------

bool begins_with(const std::string& text, const char* with) { return text.rfind(with, 0) == 0; }

// What stands between a call and what it is for: this library's inline functions, and the standard library's.
bool is_in_between(const frame& f) {
  return f.inlined && (begins_with(f.function, "greenlets::detail::") || f.file.find("/greenlet/detail/") != std::string::npos ||
                       f.file.find("/c++/") != std::string::npos);
}

// What calls a greenlet's function: the library's code, and that which is compiled into programs for it.
bool is_the_librarys(const frame& f) {
  return begins_with(f.function, "greenlets::detail::") || f.object.find("/libgreenlet.") != std::string::npos ||
         f.function == "__start_context";
}
bool is_the_caller(const frame& f) { return begins_with(f.function, "greenlets::value greenlets::detail::call_erased<"); }

}  // namespace

std::vector<frame> of_interest(std::vector<frame> all) {
  while (!all.empty() && is_the_librarys(all.back())) {
    const void* const address = all.back().address;
    while (!all.empty() && all.back().address == address) all.pop_back();  // with what is inlined there
  }
  if (!all.empty() && is_the_caller(all.back())) all.pop_back();  // where the function may have been inlined
  all.erase(std::remove_if(all.begin(), all.end(), is_in_between), all.end());
  return all;
}

std::ostream& print(std::ostream& out, const frame& f) {
  if (f.inlined)
    out << "inlined";
  else
    out << f.address;
  out << ' ' << (f.function.empty() ? "?" : f.function);
  if (!f.inlined) out << "+0x" << std::hex << f.offset << std::dec;
  if (!f.file.empty())
    out << " at " << f.file << ':' << f.line;
  else if (!f.inlined && !f.object.empty())  // the source says more, and lines are long
    out << " in " << f.object;
  return out;
}

namespace {

// -- For those that have greenlets told ------------------------------------------------------------------

std::size_t addresses(const greenlet& g, void** room, std::size_t most) {
  ucontext_t here;
  getcontext(&here);
  const auto all = places(g, here, reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0)), most);
  std::transform(all.begin(), all.end(), room, [](const place_in_code& p) { return p.address; });
  return all.size();
}

std::vector<std::string> lines(void* const* addresses, std::size_t number) {
  std::vector<frame> all;
  for (std::size_t i = 0; i < number; ++i) describe(all, {addresses[i], false});
  std::vector<std::string> texts;
  for (const frame& f : of_interest(std::move(all))) {
    std::ostringstream text;
    plainly(text, [&](std::ostream& to) { print(to, f); });
    texts.push_back(text.str());
  }
  return texts;
}

constexpr frames_source_v1 ours = {addresses, lines};
[[maybe_unused]] const bool told = has_frames();

}  // namespace

// Linked statically, a program is initialised before this is.
bool has_frames() noexcept {
  set_frames_source(&ours);
  return true;
}

}  // namespace detail

std::vector<frame> frames(const greenlet& g) {
  ucontext_t here;
  getcontext(&here);
  std::vector<frame> all;
  for (const auto& place : detail::places(g, here, reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0)), detail::most_frames))
    detail::describe(all, place);
  return all;
}

std::vector<frame> logical_frames(const greenlet& g) {
  ucontext_t here;
  getcontext(&here);
  std::vector<frame> all;
  for (greenlet at = g; !at.empty(); at = at.parent())
    for (const auto& place : detail::places(at, here, reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0)), detail::most_frames))
      detail::describe(all, place);
  return all;
}

void write_frames(std::ostream& out, const std::vector<frame>& frames) {
  detail::plainly(out, [&](std::ostream& to) {
    for (const frame& f : detail::of_interest(frames)) detail::print(to << "  ", f) << '\n';
  });
}

}  // namespace greenlets
