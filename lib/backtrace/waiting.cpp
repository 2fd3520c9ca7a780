// SPDX-License-Identifier: MIT
// Reading hubs: what greenlets wait for.
#include "reader.hpp"

#include <cstdio>
#include <map>
#include <set>

namespace greenlets::detail {
namespace {

constexpr std::size_t most_kind = 64;

// One waiter, and what is known of what it refers to.
struct wait {
  std::uintptr_t who;
  std::uintptr_t slot;
  std::uintptr_t in;
  bool ready;
  bool timed;
  std::int64_t when;
  std::int32_t descriptor = -1;
  std::uintptr_t kind = 0;
  std::uintptr_t object = 0;
};

class hub_reader {
 public:
  hub_reader(memory& from, const anchor& where, std::uintptr_t loop, std::uintptr_t record)
      : from_(from), l_(where.hub), loop_(loop), record_(record), where_(where) {}
  hub_words read();

 private:
  void find();
  void look_behind();
  bool reads(const wait& w) const noexcept {
    const auto aligned = static_cast<std::uintptr_t>(l_.aligned);
    return w.slot % aligned == static_cast<std::uintptr_t>(l_.reader) % aligned;
  }
  std::string describe(const wait& w);
  const std::string& kind_at(std::uintptr_t address);

  memory& from_;
  const hub_layout& l_;
  std::uintptr_t loop_;
  std::uintptr_t record_;
  const anchor& where_;
  std::uintptr_t waiters_ = 0;
  std::optional<std::uint64_t> now_;
  std::vector<wait> all_;
  std::map<std::uintptr_t, std::string> kinds_;
};

void hub_reader::find() {
  const chunk_layout& c = l_.chunks;
  std::vector<char> chunk(static_cast<std::size_t>(c.first) + static_cast<std::size_t>(c.stride) * static_cast<std::size_t>(c.count));
  std::uintptr_t at = waiters_;
  std::set<std::uintptr_t> seen;  // a list in a damaged core may be a ring
  while (at && seen.insert(at).second) {
    if (from_.read(at, chunk.data(), chunk.size()) != chunk.size()) return;
    for (std::int32_t i = 0; i < c.count; ++i) {
      const char* const w = chunk.data() + c.first + static_cast<std::ptrdiff_t>(c.stride) * i;
      if (word_at<std::uintptr_t>(w, l_.home) != loop_ || word_at<std::uint8_t>(w, l_.what) != 0) continue;
      const auto who = word_at<std::uintptr_t>(w, l_.who);
      if (!who) continue;
      all_.push_back({who, word_at<std::uintptr_t>(w, l_.slot), word_at<std::uintptr_t>(w, l_.in),
                      word_at<std::uint8_t>(w, l_.why) != 0, word_at<std::uint8_t>(w, l_.timed) != 0,
                      word_at<std::int64_t>(w, l_.when)});
    }
    at = word_at<std::uintptr_t>(chunk.data(), c.next);
  }
}

void hub_reader::look_behind() {
  std::vector<memory::part> parts;
  for (wait& w : all_) {
    if (w.in == loop_ + static_cast<std::uintptr_t>(l_.ready)) w.ready = true;
    if (w.slot) {
      const auto place = static_cast<std::uintptr_t>(reads(w) ? l_.reader : l_.writer);
      parts.push_back({w.slot - place + static_cast<std::uintptr_t>(l_.descriptor), &w.descriptor, sizeof w.descriptor, 0});
    } else if (w.in && !w.ready) {
      parts.push_back({w.in + static_cast<std::uintptr_t>(l_.kind), &w.kind, sizeof w.kind, 0});
      parts.push_back({w.in + static_cast<std::uintptr_t>(l_.object), &w.object, sizeof w.object, 0});
    }
  }
  from_.read(parts.data(), parts.size());
}

const std::string& hub_reader::kind_at(std::uintptr_t address) {
  const auto known = kinds_.find(address);
  if (known != kinds_.end()) return known->second;
  return kinds_[address] = text_at(from_, address, most_kind);
}

std::string hub_reader::describe(const wait& w) {
  if (w.ready) return "its turn";
  std::string text;
  if (w.slot) {
    text = (reads(w) ? "reading descriptor " : "writing descriptor ") + std::to_string(w.descriptor);
  } else if (w.in) {
    text = w.kind ? kind_at(w.kind) : "another greenlet";
    char object[32] = "";
    if (w.object) std::snprintf(object, sizeof object, " 0x%zx", static_cast<std::size_t>(w.object));
    text += object;
  } else {
    text = w.timed ? "timer" : "another greenlet";
  }
  if (!w.timed) return text;
  if (!now_) return text + ", until a deadline";
  const auto left = (static_cast<double>(w.when) - static_cast<double>(*now_)) / 1e9;
  char time[48];
  std::snprintf(time, sizeof time, ", %.1f s left", left > 0 ? left : 0.0);
  return text + time;
}

hub_words hub_reader::read() {
  hub_words h;
  std::vector<char> bytes(static_cast<std::size_t>(l_.loop));
  if (from_.read(loop_, bytes.data(), bytes.size()) != bytes.size()) return h;
  now_ = from_.now();
  h.runner = word_at<std::uintptr_t>(bytes.data(), l_.runner);
  h.turn_began = word_at<std::uint64_t>(bytes.data(), l_.time) * 1'000'000;
  waiters_ = word_at<std::uintptr_t>(bytes.data(), l_.waiters);
  find();
  look_behind();
  for (const wait& w : all_) h.waits.insert_or_assign(w.who, describe(w));
  // Its thread may have ended it meanwhile: then that was somebody else's memory.
  if (from_.get<std::uintptr_t>(record_ + static_cast<std::uintptr_t>(where_.thread.hub)).value_or(0) != loop_) h = {};
  return h;
}

}  // namespace

hub_words read_hub(memory& from, const anchor& where, std::uintptr_t loop, std::uintptr_t record) {
  return hub_reader(from, where, loop, record).read();
}

}  // namespace greenlets::detail
