// SPDX-License-Identifier: MIT
// What has been found, for people.
#include "finding.hpp"

#include "holding.hpp"

#include "../describe.hpp"
#include "../immortal.hpp"
#include "../suspension.hpp"

#include <greenlet/unraisable.hpp>

#include <dlfcn.h>
#include <exception>
#include <mutex>
#include <ostream>
#include <sstream>

namespace greenlets::gc {
namespace detail {
namespace {

struct noted {
  std::mutex lock;
  std::vector<leak> all;
};

greenlets::detail::immortal<noted> noted_leaks;

std::vector<void*> frames_of(const entry& e) {
  std::vector<void*> frames;
  for (void** at = e.made_at; at && *at; ++at) frames.push_back(*at);
  return frames;
}

// Where it is suspended, if the program has who can tell.
std::vector<void*> frames_of(const body* b) {
  const auto* const source = greenlets::detail::frames_source();
  if (!source) return {};
  constexpr std::size_t most = 64;
  std::vector<void*> frames(most);
  frames.resize(source->addresses(b->self, frames.data(), most));
  return frames;
}

leak describe(const entry& e, body* b) {
  leak l;
  l.id = b->id;
  l.name = b->self.name();
  const greenlet parent = b->self.parent();
  l.parent = parent.id();
  l.parent_name = parent.name();
  l.age = std::chrono::nanoseconds(now_ns() - e.made);
  l.created_at = frames_of(e);
  l.suspended_at = b->where.pc;
  l.suspended_in = frames_of(b);
  l.stack_bytes = b->self.stack().used;
  l.holds = held_greenlets(b);
  l.held_objects = e.held_objects;
  l.held_bytes = e.held_granules * entry::granule;
  return l;
}

// By the dynamic linker, which knows what is exported.
std::string place(void* address) {
  std::ostringstream text;
  text << address;
  Dl_info info;
  if (dladdr(address, &info) && info.dli_fname) {
    text << " in " << info.dli_fname;
    if (info.dli_sname) {
      text << ": " << greenlets::detail::demangled(info.dli_sname) << "+0x" << std::hex << static_cast<char*>(address) - static_cast<char*>(info.dli_saddr);
    } else {
      text << "+0x" << std::hex << static_cast<char*>(address) - static_cast<char*>(info.dli_fbase);
    }
  }
  return text.str();
}

void write_places(std::ostream& out, const char* what, const std::vector<void*>& addresses) {
  std::vector<std::string> lines;
  if (const auto* const source = greenlets::detail::frames_source())
    lines = source->describe(addresses.data(), addresses.size());
  else
    for (void* address : addresses) lines.push_back(place(address));
  for (const std::string& line : lines) out << "  " << what << line << '\n';
}

void write(std::ostream& out, const leak& l) {
  out << "greenlet " << l.id;
  if (!l.name.empty()) out << " \"" << l.name << '"';
  out << ", made " << std::chrono::duration_cast<std::chrono::milliseconds>(l.age).count() << " ms before; its parent is "
      << l.parent;
  if (!l.parent_name.empty()) out << " \"" << l.parent_name << '"';
  out << "; " << l.stack_bytes << " bytes of stack\n";
  if (!l.holds.empty()) {
    out << "  holds greenlets";
    for (const std::uint64_t id : l.holds) out << ' ' << id;
    out << '\n';
  }
  if (l.held_objects > 0) out << "  kept " << l.held_objects << " collected objects, " << l.held_bytes << " bytes\n";
  if (l.suspended_at && l.suspended_in.empty()) write_places(out, "suspended at ", {l.suspended_at});
  write_places(out, "suspended in ", l.suspended_in);
  write_places(out, "made at ", l.created_at);
}

}  // namespace

void note_leak(const entry& e, body* b) noexcept {
  try {
    leak l = describe(e, b);
    {
      const std::lock_guard guard(noted_leaks.value.lock);
      auto& all = noted_leaks.value.all;
      if (all.size() >= most_leaks) all.erase(all.begin(), all.begin() + most_leaks / 2);
      all.push_back(l);
    }
    if (chosen->told) chosen->told(l);
  } catch (...) {
    greenlets::report_unraisable(b->self, std::current_exception());
  }
}

}  // namespace detail

std::vector<leak> leaks() {
  const std::lock_guard guard(detail::noted_leaks.value.lock);
  return detail::noted_leaks.value.all;
}

void write_leaks(std::ostream& out) {
  const std::vector<leak> all = leaks();
  out << all.size() << (all.size() == 1 ? " greenlet was" : " greenlets were") << " found suspended, and nothing can switch to "
      << (all.size() == 1 ? "it" : "them") << '\n';
  for (const leak& l : all) detail::write(out, l);
}

}  // namespace greenlets::gc
