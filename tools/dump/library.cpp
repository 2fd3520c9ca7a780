// SPDX-License-Identifier: MIT
// Finding the anchor: by its symbol, or by its text in what is loaded to be written to.
#include "library.hpp"

#include "anchor.hpp"
#include "failure.hpp"

#include <greenlet/version.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <optional>
#include <vector>

namespace greenlets::outside {
namespace {

constexpr char magic[sizeof detail::anchor::magic] = "greenlet anchor";
constexpr std::size_t step = alignof(detail::anchor);

// What an anchor begins with: all versions until `bytes`, and version 1 until the end.
struct beginning {
  char magic[sizeof outside::magic];
  std::int32_t version;
  std::int32_t bytes;
  std::int32_t word;
  detail::registers_kind registers;
  char library[sizeof detail::anchor::library];
};
static_assert(sizeof(beginning) == offsetof(detail::anchor, threads));
constexpr auto our_registers = this_machine == EM_X86_64 ? detail::registers_kind::x86_64 : detail::registers_kind::aarch64;

std::optional<std::uintptr_t> scan(target& of, const writable_part& part) {
  constexpr std::size_t at_once = std::size_t{1} << 20;
  std::vector<char> bytes(at_once);
  for (std::size_t begin = 0; begin < part.bytes; begin += at_once - sizeof(beginning)) {
    const std::size_t n = of.read(part.start + begin, bytes.data(), std::min(at_once, part.bytes - begin));
    if (n == 0) break;  // a damaged header may tell of any size
    for (std::size_t i = 0; i + sizeof(beginning) <= n; i += step)
      if (bytes[i] == magic[0] && std::memcmp(&bytes[i], magic, sizeof magic) == 0) return part.start + begin + i;
  }
  return std::nullopt;
}

bool find(target& of, const image& files, library& found) {
  symbol s;
  if (files.find_symbol("greenlet_anchor_v", s)) {
    found.anchor = s.address;
    found.object = s.object;
    return true;
  }
  found.by_symbol = false;
  for (const writable_part& part : files.writable()) {
    if (const auto at = scan(of, part)) {
      found.anchor = *at;
      found.object = part.object;
      return true;
    }
  }
  return false;
}

[[noreturn]] void refuse(const target& of, const library& l, const std::string& what) {
  throw failure(status::other_version, of.title() + " has libgreenlet" + (l.version.empty() ? "" : ' ' + l.version) + " in " + l.object +
                                           ", " + what + "; this is greenlet-dump " GREENLET_VERSION_STRING);
}

}  // namespace

library find_library(target& of, const image& files) {
  library l;
  if (!find(of, files, l)) {
    l.object = files.find_object("/libgreenlet.so");
    if (!l.object.empty()) refuse(of, l, "one that does not tell where its greenlets are");
    throw failure(status::no_library, of.title() + " has no libgreenlet");
  }
  const auto b = of.get<beginning>(l.anchor);
  if (!b) throw of.unread();
  if (std::memcmp(b->magic, magic, sizeof magic) != 0) refuse(of, l, "but not what is to be found there");
  if (b->version != 1) refuse(of, l, "which tells of its greenlets in another way, number " + std::to_string(b->version));
  l.version.assign(b->library, strnlen(b->library, sizeof b->library));
  if (b->bytes < static_cast<std::int32_t>(sizeof(detail::anchor))) refuse(of, l, "which tells less of its greenlets than is needed");
  if (b->word != sizeof(void*) || b->registers != our_registers) refuse(of, l, "built to switch in a way that cannot be read");
  return l;
}

}  // namespace greenlets::outside
