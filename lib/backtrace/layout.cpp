// SPDX-License-Identifier: MIT
// Whether an anchor is one: another process may have told it, or been writing it.
#include "reader.hpp"

#include <algorithm>
#include <cstring>

namespace greenlets::detail {
namespace {

constexpr std::int32_t most = 1 << 20;

bool is_inside(offset at, std::int32_t size, std::int32_t bytes) noexcept { return at == no_offset || (at >= 0 && at <= bytes - size); }

template <class... Offset>
bool are_inside(std::int32_t size, std::int32_t bytes, Offset... at) noexcept {
  return (is_inside(at, size, bytes) && ...);
}

bool is_sound(const chunk_layout& c) noexcept {
  return is_inside(c.next, 8, most) && c.next >= 0 && is_inside(c.first, 1, most) && c.first >= 0 && c.stride > 0 &&
         c.stride < most && c.count > 0 && c.count < 64 * (most / c.stride);
}

bool is_sound(const body_layout& b) noexcept {
  return b.bytes > 0 && b.bytes < most && b.id >= 0 && b.state >= 0 && b.owner >= 0 &&
         are_inside(8, b.bytes, b.id, b.owner, b.parent, b.shared, b.sp, b.fp, b.pc, b.base, b.memory, b.stack_size, b.name,
                    b.created, b.switches) &&
         are_inside(1, b.bytes, b.state, b.main);
}

bool is_sound(const thread_layout& t) noexcept {
  return t.bytes > 0 && t.bytes < most && t.current >= 0 && t.main >= 0 &&
         are_inside(8, t.bytes, t.next, t.name, t.current, t.main, t.hub) && are_inside(4, t.bytes, t.tid) &&
         are_inside(1, t.bytes, t.exited);
}

bool is_sound(const string_layout& s, const thread_layout& t) noexcept {
  return s.data == no_offset || (s.data >= 0 && s.size >= 0 && s.data < 64 && s.size < 64 &&
                                 is_inside(t.name + std::max(s.data, s.size), 8, t.bytes));
}

bool is_sound(const registry_layout& r) noexcept {
  return r.chunks.count == 0 ||
         (is_sound(r.chunks) && r.hidden >= 0 && are_inside(8, r.chunks.stride, r.hidden, r.made, r.made_at));
}

bool is_sound(const hub_layout& h) noexcept {
  if (h.loop == 0) return true;
  const std::int32_t w = h.chunks.stride;
  return h.loop > 0 && h.loop < most && is_sound(h.chunks) && h.aligned > 0 && h.reader >= 0 && h.writer >= 0 &&
         h.runner >= 0 && h.ready >= 0 && h.waiters >= 0 && are_inside(8, h.loop, h.runner, h.ready, h.time, h.waiters) &&
         are_inside(1, w, h.what, h.why, h.timed) && are_inside(8, w, h.who, h.home, h.slot, h.in, h.when);
}

}  // namespace

bool anchor_at(memory& from, std::uintptr_t address, anchor& to) noexcept {
  if (from.read(address, static_cast<void*>(&to), sizeof to) != sizeof to) return false;
  return std::memcmp(to.magic, "greenlet anchor", sizeof to.magic) == 0 && to.version == 1 &&
         to.bytes >= static_cast<std::int32_t>(sizeof to) && to.word == sizeof(void*) && is_sound(to.body) &&
         is_sound(to.thread) && is_sound(to.chunks) && to.body.bytes <= to.chunks.stride && is_sound(to.string, to.thread) &&
         is_sound(to.entries) && is_sound(to.hub);
}

std::string text_at(memory& from, std::uintptr_t address, std::size_t most_bytes) {
  std::string text(most_bytes, '\0');
  text.resize(from.read(address, text.data(), most_bytes));
  text.resize(std::min(text.size(), text.find('\0')));
  return text;
}

}  // namespace greenlets::detail
