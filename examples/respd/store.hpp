// SPDX-License-Identifier: MIT
// respd: what the daemon keeps: values by key, some of which end at a time. Of one thread, and nothing here waits.
#ifndef RESPD_STORE_HPP
#define RESPD_STORE_HPP

#include "protocol.hpp"

#include <greenlet/hub/deadline.hpp>

#include <cstdint>
#include <cstring>
#include <deque>
#include <new>
#include <random>
#include <set>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <variant>
#include <vector>

namespace respd {

using clock = greenlets::hub::clock;

/// SipHash-1-3 with a key of this process's own: nobody outside can choose keys that all meet in one place.
struct hash {
  std::size_t operator()(std::string_view text) const {
    static const std::uint64_t k0 = secret(), k1 = secret();
    std::uint64_t v0 = k0 ^ 0x736f6d6570736575, v1 = k1 ^ 0x646f72616e646f6d, v2 = k0 ^ 0x6c7967656e657261,
                  v3 = k1 ^ 0x7465646279746573;
    const auto round = [&] {
      v0 += v1, v2 += v3, v1 = rotate(v1, 13) ^ v0, v3 = rotate(v3, 16) ^ v2, v0 = rotate(v0, 32);
      v2 += v1, v0 += v3, v1 = rotate(v1, 17) ^ v2, v3 = rotate(v3, 21) ^ v0, v2 = rotate(v2, 32);
    };
    const char* at = text.data();
    std::size_t left = text.size();
    for (std::uint64_t word; left >= 8; at += 8, left -= 8) {
      std::memcpy(&word, at, 8);
      v3 ^= word, round(), v0 ^= word;
    }
    std::uint64_t last = 0;
    if (left > 0) std::memcpy(&last, at, left);
    last ^= static_cast<std::uint64_t>(text.size()) << 56;
    v3 ^= last, round(), v0 ^= last, v2 ^= 0xff;
    round(), round(), round();
    return v0 ^ v1 ^ v2 ^ v3;
  }

 private:
  static std::uint64_t rotate(std::uint64_t x, int by) { return x << by | x >> (64 - by); }
  static std::uint64_t secret() {
    std::random_device random;
    return static_cast<std::uint64_t>(random()) << 32 | random();
  }
};

using list = std::deque<std::string>;
using set = std::unordered_set<std::string, hash>;

/// A key, and what it has: never an empty list or set, for the key goes with the last element. In one piece of memory,
/// with the key behind it: what a command touches that is not in a cache costs more than what it computes.
struct entry {
  std::variant<std::string, list, set> value;
  clock::time_point end = clock::time_point::max();
  std::size_t key_size;

  std::string_view key() const { return {reinterpret_cast<const char*>(this + 1), key_size}; }
  static entry* make(std::string_view key) {
    auto* const e = new (::operator new(sizeof(entry) + key.size())) entry(key.size());
    std::memcpy(static_cast<void*>(e + 1), key.data(), key.size());
    return e;
  }
  void destroy() {
    this->~entry();
    ::operator delete(this);
  }

 private:
  explicit entry(std::size_t n) : key_size(n) {}
};

/// Entries by key: a power of two of slots, of which two thirds are taken at most. Whoever does not find its own free has
/// the next one.
class table {
 public:
  table() = default;
  table(const table&) = delete;
  table& operator=(const table&) = delete;
  ~table() { destroy_all(); }

  entry* find(std::string_view key) const { return slots_[place(key, hash()(key))].what; }
  /// One that is not there yet.
  entry& insert(std::string_view key) {
    if ((size_ + 1) * 3 > slots_.size() * 2) resize(slots_.size() * 2);
    const std::size_t h = hash()(key);
    slot& s = slots_[place(key, h)];
    s = {h, entry::make(key)};
    ++size_;
    return *s.what;
  }
  void erase(entry& e) {
    std::size_t hole = place(e.key(), hash()(e.key()));
    e.destroy();
    --size_;
    // Those behind, up to a free slot, move up, unless that would be before their own.
    for (std::size_t n = next(hole); slots_[n].what; n = next(n)) {
      if (((n - slots_[n].hash) & mask()) < ((n - hole) & mask())) continue;
      slots_[hole] = slots_[n];
      hole = n;
    }
    slots_[hole] = {};
  }
  void clear() {
    std::vector<slot> empty(fewest);
    destroy_all();
    slots_.swap(empty);
    size_ = 0;
  }
  /// Gives memory back when there was much more; a little at a time is enough.
  void tidy() {
    if (slots_.size() > fewest && size_ < slots_.size() / 8) resize(slots_.size() / 2);
  }
  std::size_t size() const { return size_; }
  template <class F>
  void for_each(F f) const {
    for (const slot& each : slots_)
      if (each.what) f(*each.what);
  }

 private:
  struct slot {
    std::size_t hash = 0;
    entry* what = nullptr;
  };
  static constexpr std::size_t fewest = 64;

  std::size_t mask() const { return slots_.size() - 1; }
  std::size_t next(std::size_t n) const { return (n + 1) & mask(); }
  // Where it is, or would be.
  std::size_t place(std::string_view key, std::size_t h) const {
    std::size_t n = h & mask();
    while (slots_[n].what && (slots_[n].hash != h || slots_[n].what->key() != key)) n = next(n);
    return n;
  }
  void resize(std::size_t n) {
    std::vector<slot> old(n);
    old.swap(slots_);
    for (const slot& each : old) {
      if (!each.what) continue;
      std::size_t at = each.hash & mask();
      while (slots_[at].what) at = next(at);
      slots_[at] = each;
    }
  }

  void destroy_all() {
    for (const slot& each : slots_)
      if (each.what) each.what->destroy();
  }

  std::vector<slot> slots_ = std::vector<slot>(fewest);
  std::size_t size_ = 0;
};

class store {
 public:
  /// Null when there is none. Like everything below, it does not find what has come to its end.
  entry* find(std::string_view key) {
    entry* const e = all_.find(key);
    if (!e || e->end == clock::time_point::max() || e->end > clock::now()) return e;
    erase(*e);
    return nullptr;
  }
  entry& find_or_make(std::string_view key) {
    entry* const e = find(key);
    return e ? *e : all_.insert(key);
  }
  /// The value, when it is such a one; null when there is none. Throws: refused.
  template <class T>
  T* get(std::string_view key) {
    entry* const e = find(key);
    return e ? &as<T>(*e) : nullptr;
  }
  /// The same; makes an empty one when there is none.
  template <class T>
  T& make(std::string_view key) {
    entry* const e = find(key);
    return e ? as<T>(*e) : all_.insert(key).value.template emplace<T>();
  }
  template <class T>
  static T& as(entry& e) {
    if (T* const value = std::get_if<T>(&e.value)) return *value;
    throw refused{"WRONGTYPE Operation against a key holding the wrong kind of value"};
  }
  /// Gives it a string, whatever it had; the time of its end stays.
  static void assign(entry& e, std::string_view text) {
    if (auto* const old = std::get_if<std::string>(&e.value))
      *old = text;  // in its memory
    else
      e.value = std::string(text);
  }

  void erase(entry& e) {
    persist(e);
    all_.erase(e);
  }
  bool erase(std::string_view key) {
    entry* const e = find(key);
    if (e) erase(*e);
    return e;
  }
  void clear() {
    ends_.clear();
    all_.clear();
  }

  void end_at(entry& e, clock::time_point when) {
    persist(e);
    if (when == clock::time_point::max()) return;
    ends_.emplace(when, &e);
    e.end = when;
  }
  /// It has no end any more; false when it had none.
  bool persist(entry& e) {
    if (e.end == clock::time_point::max()) return false;
    ends_.erase({e.end, &e});
    e.end = clock::time_point::max();
    return true;
  }
  /// Removes what has come to its end, at most so many; whether there may be more.
  bool sweep(unsigned most) {
    for (const auto now = clock::now(); !ends_.empty() && ends_.begin()->first <= now; erase(*ends_.begin()->second))
      if (most-- == 0) return true;
    all_.tidy();
    return false;
  }

  const table& all() const { return all_; }
  std::size_t ending() const { return ends_.size(); }

 private:
  table all_;
  std::set<std::pair<clock::time_point, entry*>> ends_;
};

}  // namespace respd

#endif
