// SPDX-License-Identifier: MIT
// Counting, complaining, rolling dice.
#include "soak.hpp"

#include <algorithm>
#include <cstdio>
#include <new>
#include <system_error>
#include <utility>

namespace soak {

void world::count(const std::string& what, std::uint64_t n) {
  const std::lock_guard hold(lock_);
  const auto at = std::find_if(counts_.begin(), counts_.end(), [&](const auto& c) { return c.first == what; });
  if (at == counts_.end())
    counts_.emplace_back(what, n);
  else
    at->second += n;
}

void world::lasted(const std::string& what, hub::clock::duration time) {
  const std::lock_guard hold(lock_);
  const auto at = std::find_if(longest_.begin(), longest_.end(), [&](const auto& l) { return l.first == what; });
  if (at == longest_.end())
    longest_.emplace_back(what, time);
  else
    at->second = std::max(at->second, time);
}

void world::complain(const std::string& what) {
  if (++complaints_ > 50) return;  // the first are what counts
  std::printf("WRONG: %s\n", what.c_str());
  std::fflush(stdout);
}

void world::print() const {
  const std::lock_guard hold(lock_);
  auto counts = counts_;
  std::sort(counts.begin(), counts.end());
  for (const auto& [what, n] : counts) std::printf("  %-58s %12llu\n", what.c_str(), static_cast<unsigned long long>(n));
  for (const auto& [what, time] : longest_)
    std::printf("  longest: %-49s %9lld ms\n", what.c_str(),
                static_cast<long long>(std::chrono::duration_cast<milliseconds>(time).count()));
}

std::string frame_of(dice& d, std::size_t size) {
  std::string all(header_size + size, '\0');
  for (std::size_t n = 0; n < header_size; ++n) all[n] = static_cast<char>(size >> (8 * n));
  std::uint64_t x = d() | 1;
  for (std::size_t n = header_size; n < all.size(); ++n) all[n] = static_cast<char>((x = x * 6364136223846793005 + 1) >> 56);
  return all;
}

std::size_t size_in(const char* header) noexcept {
  std::size_t size = 0;
  for (std::size_t n = header_size; n-- > 0;) size = size << 8 | static_cast<unsigned char>(header[n]);
  return size;
}

void again_and_again(world& w, hub::group& in, unsigned greenlets, const char* what, std::function<void(dice&)> f) {
  for (unsigned n = 0; n < greenlets; ++n)
    in.spawn([&w, what, f, mine = w.fresh_dice()]() mutable {
      while (!w.over()) {
        try {
          f(mine);
          w.count(what);
        } catch (const std::system_error& e) {
          if (e.code() != std::errc::too_many_files_open && e.code() != std::errc::resource_unavailable_try_again) throw;
          w.count(std::string(what) + ", refused by the system");
          hub::sleep_for(milliseconds(10));
        }
      }
    });
}

bool find_server(world& w, dice& d, hub::connection& c) {
  const auto began = hub::clock::now();
  while (!w.over()) {
    try {
      const hub::io_result r = hub::connect(c, w.where[roll(d, w.where.size())], starved_after);
      if (r) {
        w.lasted("connecting", hub::clock::now() - began);
        return true;
      }
      if (r.timed_out()) w.complain("nobody answered a connect");
      // Ports, and places in a backlog: there are only so many.
      if (r.error != std::errc::address_not_available && r.error != std::errc::resource_unavailable_try_again)
        w.complain("connect: " + r.error.message());
    } catch (const std::system_error& e) {
      if (e.code() != std::errc::too_many_files_open) throw;
    }
    w.count("connects that the system refused");
    hub::sleep_for(some_time(d, 20));
  }
  return false;
}

}  // namespace soak
