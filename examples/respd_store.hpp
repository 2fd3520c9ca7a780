// SPDX-License-Identifier: MIT
// respd: what the daemon keeps: values by key, some of which end at a time. Of one thread, and nothing here waits.
#ifndef RESPD_STORE_HPP
#define RESPD_STORE_HPP

#include "respd_protocol.hpp"

#include <greenlet/hub/deadline.hpp>

#include <cstdint>
#include <cstring>
#include <deque>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <variant>

namespace respd {

using clock = greenlets::hub::clock;

/// SipHash-1-3 with a key of this process's own: nobody outside can choose keys that all meet in one place.
struct hash {
  // Not noexcept: libstdc++ then keeps each key's hash beside it, and does not compute it again to walk past.
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

/// What a key has. Never an empty list or set: the key goes with its last element.
struct item {
  explicit item(std::unique_ptr<char[]> k) : key(std::move(k)) {}
  std::unique_ptr<char[]> key;  // the characters to which the map's key refers
  std::variant<std::string, list, set> value;
  clock::time_point end = clock::time_point::max();
};

class store {
 public:
  using map = std::unordered_map<std::string_view, item, hash>;
  using entry = map::value_type;

  /// Null when there is none. Like everything below, it does not find what has come to its end.
  entry* find(std::string_view key) {
    const auto at = all_.find(key);
    if (at == all_.end()) return nullptr;
    if (at->second.end != clock::time_point::max() && at->second.end <= clock::now()) return erase(*at), nullptr;
    return &*at;
  }
  entry& find_or_make(std::string_view key) {
    if (entry* e = find(key)) return *e;
    std::unique_ptr<char[]> own(new char[key.size()]);
    std::memcpy(own.get(), key.data(), key.size());
    const std::string_view name(own.get(), key.size());
    return *all_.emplace(name, item(std::move(own))).first;
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
    if (entry* e = find(key)) return as<T>(*e);
    return find_or_make(key).second.value.template emplace<T>();
  }
  template <class T>
  static T& as(entry& e) {
    if (T* const value = std::get_if<T>(&e.second.value)) return *value;
    throw refused{"WRONGTYPE Operation against a key holding the wrong kind of value"};
  }
  /// Gives it a string, whatever it had; the time of its end stays.
  static void assign(entry& e, std::string_view text) {
    if (auto* const old = std::get_if<std::string>(&e.second.value))
      *old = text;  // in its memory
    else
      e.second.value = std::string(text);
  }

  void erase(entry& e) {
    persist(e);
    all_.erase(all_.find(e.first));
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
    e.second.end = when;
  }
  /// It has no end any more; false when it had none.
  bool persist(entry& e) {
    if (e.second.end == clock::time_point::max()) return false;
    ends_.erase({e.second.end, &e});
    e.second.end = clock::time_point::max();
    return true;
  }
  /// Removes what has come to its end, at most so many; whether there may be more.
  bool sweep(unsigned most) {
    for (const auto now = clock::now(); !ends_.empty() && ends_.begin()->first <= now; erase(*ends_.begin()->second))
      if (most-- == 0) return true;
    return false;
  }

  std::size_t size() const { return all_.size(); }
  std::size_t ending() const { return ends_.size(); }
  const map& all() const { return all_; }

 private:
  map all_;
  std::set<std::pair<clock::time_point, entry*>> ends_;
};

}  // namespace respd

#endif
