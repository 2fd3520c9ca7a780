// SPDX-License-Identifier: MIT
// Reading bodies and threads.
#include "reader.hpp"

#include <algorithm>
#include <cstring>
#include <map>
#include <set>
#include <tuple>
#include <unistd.h>
#include <utility>

namespace greenlets::detail {
namespace {

constexpr std::size_t most_name = 4096;
constexpr std::size_t most_created_at = 128;
// Of a thread's own stack, whose end is not known, so much.
constexpr std::size_t most_native = 256 * 1024;
// More would be no stack: the records are those of another moment, or of nobody.
constexpr std::size_t most_stack = std::size_t{64} << 20;
// Read together.
constexpr std::size_t at_once = 128;
constexpr int most_tries = 4;

// As lib/body.hpp has it.
enum : std::uint8_t { unstarted, active, finished, unwound };

// Where somebody is, and, with a collector, the entry that says so.
struct place_of_body {
  std::uintptr_t address = 0;
  std::uintptr_t hidden = 0;   // where the entry has it
  std::uint64_t made = 0;      // 0: unknown
  std::uintptr_t made_at = 0;
};

// A body that is being looked at.
struct glimpse : place_of_body {
  body_words words;
  bool lives = false;
  bool current = false;
  bool suspended = false;
  std::string name;
  suspension_v1 stack;
  std::vector<void*> created_at;
};

class reader {
 public:
  explicit reader(const reading& how) : how_(how), a_(how.where), from_(how.from) {}
  process_snapshot read();

 private:
  using part = memory::part;

  // -- Who there is
  void find_cells();
  void find_entries();

  // -- What is known of them
  body_words parse(const char* record) const noexcept;
  void look(glimpse* const* these, std::size_t n);
  void look_again(glimpse* const* these, std::size_t n, std::vector<glimpse*>& changed);
  void look_at_words(glimpse* const* these, std::size_t n, std::vector<body_words>& words, std::vector<std::uintptr_t>& currents);
  void look_behind(glimpse* const* these, std::size_t n);
  void read_names(glimpse* const* these, std::size_t n);
  void read_creations(glimpse* const* these, std::size_t n);
  void read_stacks(glimpse* const* these, std::size_t n);
  bool begin_stack(glimpse& g) const;
  void end_stack(glimpse& g) const;
  const thread_words* thread_of(std::uintptr_t record);

  void look_at(const place_of_body* places, std::size_t n);

  // -- What is made of it
  void take(glimpse& g, bool whole);
  void tell_frames(glimpse& g, greenlet_snapshot& to);
  void tell_running();
  bool is_on_own_stack(const glimpse& g) const noexcept;
  void tell_pages(const glimpse& g, greenlet_snapshot& to);
  void tell_age(const glimpse& g, greenlet_snapshot& to);
  void look_up();
  void put_together();
  std::uintptr_t owner_of(std::uintptr_t body);

  struct taken {
    greenlet_snapshot told;
    std::uintptr_t address, owner, parent;
    bool ownerless = false;
  };

  const reading& how_;
  const anchor& a_;
  memory& from_;
  std::optional<std::uint64_t> now_;
  std::size_t page_ = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  std::map<std::uintptr_t, std::optional<thread_words>> threads_;
  std::vector<place_of_body> found_;
  std::vector<taken> all_;
  std::unordered_map<std::uintptr_t, std::size_t> by_address_;
  std::vector<std::pair<std::uintptr_t, std::uintptr_t>> stacks_;   // from, to
  std::unordered_map<std::uintptr_t, std::uintptr_t> natives_;      // by a thread's record, where its own was left
  std::vector<std::pair<glimpse, std::size_t>> running_;           // with its place in `all_`
  std::map<void*, bool> places_;  // whether it was interrupted there
  std::vector<char> room_;
  std::vector<unsigned char> pages_;
  process_snapshot result_;
};

// -- Who there is ------------------------------------------------------------------------------------------------------

void reader::find_cells() {
  const chunk_layout& l = a_.chunks;
  const std::size_t bytes = static_cast<std::size_t>(l.first) + static_cast<std::size_t>(l.stride) * static_cast<std::size_t>(l.count);
  std::vector<char> chunk(bytes);
  auto at = reinterpret_cast<std::uintptr_t>(a_.cells.load(std::memory_order_relaxed));
  std::set<std::uintptr_t> seen;  // a list in a damaged core may be a ring
  while (at && seen.insert(at).second) {
    const std::size_t got = from_.read(at, chunk.data(), bytes);
    if (got < static_cast<std::size_t>(l.next) + sizeof(void*)) {
      ++result_.lost;
      return;
    }
    for (std::int32_t i = 0; i < l.count; ++i) {
      const std::size_t place = static_cast<std::size_t>(l.first) + static_cast<std::size_t>(l.stride) * static_cast<std::size_t>(i);
      if (place + static_cast<std::size_t>(a_.body.bytes) > got) break;
      if (!parse(chunk.data() + place).is_somebody()) continue;
      found_.push_back({at + place});
    }
    at = word_at<std::uintptr_t>(chunk.data(), l.next);
  }
}

void reader::find_entries() {
  const registry_layout& r = a_.entries;
  const chunk_layout& l = r.chunks;
  const std::size_t bytes = static_cast<std::size_t>(l.first) + static_cast<std::size_t>(l.stride) * static_cast<std::size_t>(l.count);
  if (l.count <= 0) return;
  std::vector<char> chunk(bytes);
  auto at = reinterpret_cast<std::uintptr_t>(a_.registry.load(std::memory_order_relaxed));
  std::set<std::uintptr_t> seen;
  while (at && seen.insert(at).second) {
    if (from_.read(at, chunk.data(), bytes) != bytes) {
      ++result_.lost;
      return;
    }
    for (std::int32_t i = 0; i < l.count; ++i) {
      const std::size_t place = static_cast<std::size_t>(l.first) + static_cast<std::size_t>(l.stride) * static_cast<std::size_t>(i);
      const char* const entry = chunk.data() + place;
      if (const auto hidden = word_at<std::uintptr_t>(entry, r.hidden))
        found_.push_back({~hidden, at + place + static_cast<std::uintptr_t>(r.hidden), word_at<std::uint64_t>(entry, r.made),
                          word_at<std::uintptr_t>(entry, r.made_at)});
    }
    at = word_at<std::uintptr_t>(chunk.data(), l.next);
  }
}

// -- What is known of them ---------------------------------------------------------------------------------------------

body_words reader::parse(const char* record) const noexcept {
  const body_layout& l = a_.body;
  body_words w;
  w.id = word_at<std::uint64_t>(record, l.id);
  w.state = word_at<std::uint8_t>(record, l.state);
  w.main = word_at<std::uint8_t>(record, l.main) != 0;
  w.owner = word_at<std::uintptr_t>(record, l.owner);
  w.parent = word_at<std::uintptr_t>(record, l.parent);
  w.shared = word_at<std::uintptr_t>(record, l.shared);
  w.sp = word_at<std::uintptr_t>(record, l.sp);
  w.fp = word_at<std::uintptr_t>(record, l.fp);
  w.pc = word_at<std::uintptr_t>(record, l.pc);
  w.base = word_at<std::uintptr_t>(record, l.base);
  w.memory = word_at<std::uintptr_t>(record, l.memory);
  w.stack_size = word_at<std::uintptr_t>(record, l.stack_size);
  w.name = word_at<std::uintptr_t>(record, l.name);
  w.created = word_at<std::uintptr_t>(record, l.created);
  w.switches = word_at<std::uint64_t>(record, l.switches);
  return w;
}

// The bodies, and of each the one that its thread is running.
void reader::look_at_words(glimpse* const* these, std::size_t n, std::vector<body_words>& words,
                           std::vector<std::uintptr_t>& currents) {
  const auto bytes = static_cast<std::size_t>(a_.body.bytes);
  room_.resize(n * bytes);
  std::vector<part> parts;
  parts.reserve(2 * n);
  for (std::size_t i = 0; i < n; ++i) parts.push_back({these[i]->address, room_.data() + i * bytes, bytes, 0});
  std::vector<std::uintptr_t> hidden(n, 0);
  for (std::size_t i = 0; i < n; ++i)
    if (these[i]->hidden) parts.push_back({these[i]->hidden, &hidden[i], sizeof hidden[i], 0});
  from_.read(parts.data(), parts.size());
  words.assign(n, body_words());
  for (std::size_t i = 0; i < n; ++i)
    if (parts[i].done == bytes && (!these[i]->hidden || ~hidden[i] == these[i]->address)) words[i] = parse(room_.data() + i * bytes);

  currents.assign(n, 0);
  parts.clear();
  for (std::size_t i = 0; i < n; ++i)
    if (words[i].state == active && words[i].owner)
      parts.push_back({words[i].owner + static_cast<std::uintptr_t>(a_.thread.current), &currents[i], sizeof currents[i], 0});
  from_.read(parts.data(), parts.size());
}

void reader::look(glimpse* const* these, std::size_t n) {
  std::vector<body_words> words;
  std::vector<std::uintptr_t> currents;
  look_at_words(these, n, words, currents);
  for (std::size_t i = 0; i < n; ++i) {
    glimpse& g = *these[i];
    g.words = words[i];
    const thread_words* const t = g.words.owner && g.words.is_somebody() ? thread_of(g.words.owner) : nullptr;
    g.lives = g.words.state == active && t && !t->exited;
    g.current = g.lives && currents[i] == g.address;
    g.suspended = g.lives && !g.current && g.words.sp;
  }
  look_behind(these, n);
}

// Whose record says something else now, or has said so in between.
void reader::look_again(glimpse* const* these, std::size_t n, std::vector<glimpse*>& changed) {
  std::vector<body_words> words;
  std::vector<std::uintptr_t> currents;
  look_at_words(these, n, words, currents);
  for (std::size_t i = 0; i < n; ++i) {
    glimpse& g = *these[i];
    const bool current = words[i].state == active && words[i].owner && currents[i] == g.address;
    const bool running = g.words.state == active && (g.current || current);
    if (!(words[i] == g.words) || (running && g.current != current)) changed.push_back(&g);
  }
}

void reader::look_behind(glimpse* const* these, std::size_t n) {
  read_names(these, n);
  read_creations(these, n);
  read_stacks(these, n);
}

void reader::read_names(glimpse* const* these, std::size_t n) {
  struct string {
    std::uintptr_t data = 0;
    std::uintptr_t size = 0;
  };
  std::vector<string> strings(n);
  std::vector<part> parts;
  for (std::size_t i = 0; i < n; ++i) {
    const std::uintptr_t at = these[i]->words.name;
    these[i]->name.clear();
    if (!at || a_.string.data < 0) continue;
    parts.push_back({at + static_cast<std::uintptr_t>(a_.string.data), &strings[i].data, sizeof(void*), 0});
    parts.push_back({at + static_cast<std::uintptr_t>(a_.string.size), &strings[i].size, sizeof(void*), 0});
  }
  if (parts.empty()) return;
  from_.read(parts.data(), parts.size());
  parts.clear();
  std::vector<glimpse*> whose;
  for (std::size_t i = 0; i < n; ++i) {
    if (!strings[i].data) continue;
    std::string& to = these[i]->name;
    to.resize(std::min<std::size_t>(strings[i].size, most_name));
    parts.push_back({strings[i].data, to.data(), to.size(), 0});
    whose.push_back(these[i]);
  }
  from_.read(parts.data(), parts.size());
  for (std::size_t i = 0; i < whose.size(); ++i) whose[i]->name.resize(parts[i].done);
}

void reader::read_creations(glimpse* const* these, std::size_t n) {
  const creation_layout& l = a_.creation;
  struct record {
    std::uint64_t made = 0;
    std::uintptr_t count = 0;
    glimpse* of = nullptr;
    std::uintptr_t addresses = 0;
  };
  std::vector<record> records;
  records.reserve(n);
  std::vector<part> parts;
  for (std::size_t i = 0; i < n; ++i) {
    glimpse& g = *these[i];
    g.created_at.clear();
    if (g.words.created) {
      records.push_back({0, 0, &g, g.words.created + static_cast<std::uintptr_t>(l.addresses)});
      record& r = records.back();
      parts.push_back({g.words.created + static_cast<std::uintptr_t>(l.made), &r.made, sizeof r.made, 0});
      parts.push_back({g.words.created + static_cast<std::uintptr_t>(l.count), &r.count, sizeof r.count, 0});
    } else if (g.made_at) {
      records.push_back({g.made, most_created_at, &g, g.made_at});
    }
  }
  if (records.empty()) return;
  from_.read(parts.data(), parts.size());
  parts.clear();
  for (record& r : records) {
    r.of->made = r.made;
    r.of->created_at.resize(std::min<std::size_t>(r.count, most_created_at));
    parts.push_back({r.addresses, r.of->created_at.data(), r.of->created_at.size() * sizeof(void*), 0});
  }
  from_.read(parts.data(), parts.size());
  for (std::size_t i = 0; i < records.size(); ++i) {
    std::vector<void*>& found = records[i].of->created_at;
    found.resize(parts[i].done / sizeof(void*));
    found.erase(std::find(found.begin(), found.end(), nullptr), found.end());
  }
}

// What is to be read of its stack.
bool reader::begin_stack(glimpse& g) const {
  const body_words& w = g.words;
  const std::size_t red_zone = w.pc ? 128 : 0;
  std::size_t size = most_native;
  if (w.memory) {
    if (w.sp >= w.memory || w.memory - w.sp > std::min<std::size_t>(w.stack_size, most_stack)) return false;
    size = w.memory - w.sp;
  }
  g.stack.low = w.sp - red_zone;
  g.stack.bytes.resize(size + red_zone);
  return true;
}

void reader::end_stack(glimpse& g) const {
  const body_words& w = g.words;
  suspension_v1& s = g.stack;
  if (w.pc) {
    machine::context c;
    c.sp = reinterpret_cast<void*>(w.sp);
    c.fp = reinterpret_cast<void*>(w.fp);
    c.pc = reinterpret_cast<void*>(w.pc);
    c.base = reinterpret_cast<void*>(w.base);
    machine::set(s.at, c);
    return;
  }
  ucontext_t registers;  // swapcontext has left them where `sp` points
  if (s.bytes.size() < sizeof registers) return s.bytes.clear();
  std::memcpy(&registers, s.bytes.data(), sizeof registers);
  machine::set(s.at, registers);
}

void reader::read_stacks(glimpse* const* these, std::size_t n) {
  std::vector<part> parts;
  std::vector<glimpse*> whose;
  for (std::size_t i = 0; i < n; ++i) {
    glimpse& g = *these[i];
    g.stack.bytes.clear();
    if (!how_.with.frames || !how_.walk || !g.suspended || !machine::knows_registers || !begin_stack(g)) continue;
    parts.push_back({g.stack.low, g.stack.bytes.data(), g.stack.bytes.size(), 0});
    whose.push_back(&g);
  }
  if (parts.empty()) return;
  from_.read(parts.data(), parts.size());
  for (std::size_t i = 0; i < whose.size(); ++i) {
    whose[i]->stack.bytes.resize(parts[i].done);
    end_stack(*whose[i]);
  }
}

// A record that a body says is its thread's. Kept by the body, so it is one, unless the body has gone meanwhile: its main
// body tells.
const thread_words* reader::thread_of(std::uintptr_t record) {
  const auto known = threads_.find(record);
  if (known != threads_.end()) return known->second ? &*known->second : nullptr;
  const thread_layout& l = a_.thread;
  std::vector<char> bytes(static_cast<std::size_t>(l.bytes));
  thread_words t;
  t.address = record;
  bool sound = from_.read(record, bytes.data(), bytes.size()) == bytes.size();
  if (sound) {
    t.tid = word_at<std::int32_t>(bytes.data(), l.tid);
    t.current = word_at<std::uintptr_t>(bytes.data(), l.current);
    t.main = word_at<std::uintptr_t>(bytes.data(), l.main);
    t.hub = word_at<std::uintptr_t>(bytes.data(), l.hub);
    t.exited = word_at<std::uint8_t>(bytes.data(), l.exited) != 0;
    std::vector<char> main(static_cast<std::size_t>(a_.body.bytes));
    const bool whole = from_.read(t.main, main.data(), main.size()) == main.size();
    // A main greenlet that has gone may leave its record to another.
    sound = t.exited || (whole && parse(main.data()).owner == record);
    if (a_.string.data >= 0) {
      const auto data = word_at<std::uintptr_t>(bytes.data(), l.name + a_.string.data);
      const auto size = word_at<std::uintptr_t>(bytes.data(), l.name + a_.string.size);
      t.name.resize(std::min<std::size_t>(size, 64));
      t.name.resize(from_.read(data, t.name.data(), t.name.size()));
    }
  }
  auto& kept = threads_[record];
  if (sound) kept = std::move(t);
  return kept ? &*kept : nullptr;
}

// -- What is made of it ------------------------------------------------------------------------------------------------

greenlet_state state_of(const glimpse& g) noexcept {
  switch (g.words.state) {
    case unstarted: return greenlet_state::unstarted;
    case finished: return greenlet_state::finished;
    case active: return !g.lives ? greenlet_state::unwound : g.current ? greenlet_state::current : greenlet_state::suspended;
    default: return greenlet_state::unwound;
  }
}

void reader::tell_frames(glimpse& g, greenlet_snapshot& to) {
  if (!how_.with.frames || !how_.walk || g.stack.bytes.empty()) return;
  const std::vector<place_in_code> all = how_.walk(g.stack);
  const std::size_t n = std::min(all.size(), how_.with.most_frames);
  to.addresses.reserve(n);
  for (std::size_t i = 0; i < n; ++i) {
    to.addresses.push_back(all[i].address);
    places_[all[i].address] |= all[i].interrupted;
  }
}

// In a switch who is current is another than whose stack it is: that is a known one, or where the thread's own was left.
// Any other is one that the program has for signals.
bool reader::is_on_own_stack(const glimpse& g) const noexcept {
  constexpr std::uintptr_t about = std::uintptr_t{1} << 20;
  const std::uintptr_t sp = g.stack.at.number[machine::sp_number];
  if (sp < g.words.memory && g.words.memory - sp <= g.words.stack_size) return true;
  if (std::any_of(stacks_.begin(), stacks_.end(), [=](const auto& s) { return s.first <= sp && sp < s.second; })) return false;
  const auto left = natives_.find(g.words.owner);
  return !g.words.memory || left == natives_.end() || sp - left->second + about >= 2 * about;
}

// When all stacks are known. Who is current and on no stack of its own is left already, or not yet gone on: its record says
// where that is.
void reader::tell_running() {
  for (auto& [g, place] : running_) {
    const thread_words* const t = thread_of(g.words.owner);
    if (!t || !how_.running(t->tid, g.words.memory, g.stack)) continue;
    if (!is_on_own_stack(g)) {
      g.suspended = g.words.sp != 0;
      g.stack = {};
      glimpse* const these[] = {&g};
      read_stacks(these, 1);
    }
    tell_frames(g, all_[place].told);
  }
}

void reader::tell_pages(const glimpse& g, greenlet_snapshot& to) {
  if (!how_.with.pages) return;
  const std::uintptr_t low = (g.words.memory - g.words.stack_size) / page_ * page_;
  const std::size_t n = (g.words.memory - low + page_ - 1) / page_;
  if (g.words.stack_size > most_stack) return;
  pages_.resize(n);
  if (!from_.pages(low, n, pages_.data())) return;
  const auto first = std::find_if(pages_.begin(), pages_.end(), [](unsigned char p) { return p & 1U; });
  to.stack.committed = static_cast<std::size_t>(std::count_if(first, pages_.end(), [](unsigned char p) { return p & 1U; })) * page_;
  to.high_water = static_cast<std::size_t>(pages_.end() - first) * page_;
}

void reader::tell_age(const glimpse& g, greenlet_snapshot& to) {
  if (!g.made || !now_ || *now_ < g.made) return;
  to.age = std::chrono::nanoseconds(*now_ - g.made);
}

void reader::take(glimpse& g, bool whole) {
  if (!g.words.is_somebody()) return;
  taken t{{}, g.address, g.words.owner, g.words.parent};
  greenlet_snapshot& to = t.told;
  to.id = g.words.id;
  to.name = std::move(g.name);
  to.state = state_of(g);
  to.is_main = g.words.main;
  if (to.is_main && g.words.sp) natives_[g.words.owner] = g.words.sp;
  if (g.words.switches != 0) to.switches = g.words.switches;
  to.created_at = std::move(g.created_at);
  for (void* const p : to.created_at) places_[p] |= false;
  tell_age(g, to);
  if (to.state == greenlet_state::current || to.state == greenlet_state::suspended) {
    if (g.words.memory) {
      to.stack.reserved = g.words.stack_size;
      if (g.suspended && g.words.sp < g.words.memory && g.words.memory - g.words.sp <= g.words.stack_size)
        to.stack.used = g.words.memory - g.words.sp;
      tell_pages(g, to);
      if (how_.running && g.words.stack_size < g.words.memory) stacks_.emplace_back(g.words.memory - g.words.stack_size, g.words.memory);
    }
    if (whole && !g.current) tell_frames(g, to);
    if (whole && g.current && how_.running) running_.emplace_back(g, all_.size());
  }
  if (!whole) ++result_.changing;
  by_address_[g.address] = all_.size();
  all_.push_back(std::move(t));
}

void reader::look_up() {
  if (!how_.with.symbols || !how_.describe) return;
  for (const auto& [address, interrupted] : places_) how_.describe(result_.symbols[address], {address, interrupted});
}

// Whose it is, or would be when it were started. All on the way have the same, and are asked once.
std::uintptr_t reader::owner_of(std::uintptr_t body) {
  std::vector<taken*> way;
  std::uintptr_t owner = 0;
  while (owner == 0 && way.size() < all_.size()) {
    const auto found = by_address_.find(body);
    if (found == by_address_.end() || all_[found->second].ownerless) break;
    way.push_back(&all_[found->second]);
    owner = way.back()->owner;
    body = way.back()->parent;
  }
  for (taken* t : way) {
    t->owner = owner;
    t->ownerless = owner == 0;
  }
  return owner;
}

void reader::put_together() {
  std::map<std::uintptr_t, thread_snapshot> threads;
  std::map<std::uintptr_t, hub_words> hubs;
  const auto id_of = [&](std::uintptr_t body) {
    const auto found = by_address_.find(body);
    return found == by_address_.end() ? 0 : all_[found->second].told.id;
  };
  for (const auto& [record, t] : threads_) {
    if (!t) continue;
    thread_snapshot& to = threads[record];
    to.tid = t->tid;
    to.name = t->name;
    to.exited = t->exited;
    to.main = id_of(t->main);
    to.current = t->exited ? 0 : id_of(from_.get<std::uintptr_t>(record + static_cast<std::uintptr_t>(a_.thread.current)).value_or(0));
    if (!t->hub || t->exited || a_.hub.loop == 0) continue;
    hub_words& h = hubs[record] = read_hub(from_, a_, t->hub, record);
    if (h.turn_began && now_ && *now_ >= h.turn_began && to.current && to.current != id_of(h.runner))
      to.in_turn = std::chrono::nanoseconds(*now_ - h.turn_began);
  }
  for (taken& t : all_) {
    const std::uintptr_t owner = t.owner ? t.owner : owner_of(t.parent);
    t.told.parent = id_of(t.parent);
    const auto hub = hubs.find(owner);
    if (hub != hubs.end()) {
      t.told.is_hub = hub->second.runner == t.address;
      const auto wait = hub->second.waits.find(t.address);
      if (t.told.state == greenlet_state::suspended && wait != hub->second.waits.end()) t.told.waits_for = wait->second;
    }
    threads[threads.count(owner) ? owner : 0].greenlets.push_back(std::move(t.told));
  }
  for (auto& [record, t] : threads) {
    if (t.greenlets.empty()) continue;
    std::sort(t.greenlets.begin(), t.greenlets.end(), [](const auto& a, const auto& b) { return a.id < b.id; });
    result_.threads.push_back(std::move(t));
  }
  std::sort(result_.threads.begin(), result_.threads.end(), [](const thread_snapshot& a, const thread_snapshot& b) {
    return std::make_tuple(a.tid == 0, a.exited, a.tid) < std::make_tuple(b.tid == 0, b.exited, b.tid);
  });
}

void reader::look_at(const place_of_body* places, std::size_t n) {
  std::vector<glimpse> them(n);
  std::vector<glimpse*> these;
  for (std::size_t i = 0; i < n; ++i) {
    static_cast<place_of_body&>(them[i]) = places[i];
    these.push_back(&them[i]);
  }
  look(these.data(), n);
  std::vector<glimpse*> changed;
  look_again(these.data(), n, changed);
  for (std::size_t i = 0, next = 0; i < n; ++i) {
    bool whole = next == changed.size() || changed[next] != these[i];
    if (!whole) ++next;
    for (int tries = 1; tries < most_tries && !whole; ++tries) {
      std::vector<glimpse*> still;
      look(&these[i], 1);
      look_again(&these[i], 1, still);
      whole = still.empty();
    }
    take(them[i], whole);
  }
}

process_snapshot reader::read() {
  result_.taken = std::chrono::system_clock::now();
  now_ = from_.now();
  find_cells();
  find_entries();
  all_.reserve(found_.size());
  by_address_.reserve(found_.size());
  for (std::size_t begin = 0; begin < found_.size(); begin += at_once)
    look_at(&found_[begin], std::min(at_once, found_.size() - begin));
  tell_running();
  look_up();
  put_together();
  return std::move(result_);
}

}  // namespace

bool body_words::is_somebody() const noexcept {
  constexpr std::uintptr_t one = 4;  // reference
  return id != 0 && (main ? shared >= one : parent != 0);
}

bool body_words::operator==(const body_words& o) const noexcept {
  return id == o.id && state == o.state && owner == o.owner && parent == o.parent && sp == o.sp && fp == o.fp && pc == o.pc &&
         base == o.base && memory == o.memory && name == o.name && created == o.created;
}

process_snapshot read_process(const reading& how) { return reader(how).read(); }

}  // namespace greenlets::detail
