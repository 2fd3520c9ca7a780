// SPDX-License-Identifier: MIT
// Walking a copied stack with libunwind, as if it were another process': it is given what it reads of memory. What
// tells how a function's frame is undone it reads in this process.
#include "walk.hpp"

#include "forks.hpp"
#include "steps.hpp"

#include "../sanitizer.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <dlfcn.h>
#include <libunwind.h>
#include <new>
#include <sys/uio.h>
#include <unistd.h>

namespace greenlets::detail {
namespace {

#ifdef __x86_64__
static_assert(UNW_X86_64_RBX == 3 && UNW_X86_64_RBP == 6 && UNW_X86_64_RSP == 7 && UNW_X86_64_RIP == 16);
#elif defined(__aarch64__)
static_assert(UNW_AARCH64_X19 == 19 && UNW_AARCH64_X29 == 29 && UNW_AARCH64_SP == 31 && UNW_AARCH64_PC == 32);
#else
#error configure --without-backtrace
#endif

using machine::registers;

// Whether that lies in a loaded file: code, or what describes it.
bool is_of_an_object(std::uintptr_t address) noexcept {
#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 35)
  dl_find_object found;
  return _dl_find_object(reinterpret_cast<void*>(address), &found) == 0;
#else
  Dl_info found;
  return dladdr(reinterpret_cast<void*>(address), &found) != 0;
#endif
}

// Where words of two moments were taken for a place in code, libunwind looks at what is there. A part of an object may be no
// memory, and of what is data a sanitizer would say that it is not ours.
GREENLET_NO_ASAN void load(std::uintptr_t address, void* to, std::size_t size) noexcept {
  const auto* const from = reinterpret_cast<const volatile unsigned char*>(address);
  for (std::size_t i = 0; i < size; ++i) static_cast<unsigned char*>(to)[i] = from[i];
}

// The tables of loaded objects. Another thread may unload one while it is read, so the system reads, which does not fault;
// a block at a time, for libunwind asks for each byte.
class tables {
 public:
  bool read(std::uintptr_t address, unw_word_t* word) noexcept {
    unsigned char bytes[sizeof *word];
    for (std::size_t done = 0; done < sizeof bytes;) {
      const block* const b = at(address + done);
      if (!b) return is_refused_ && (load(address, word, sizeof *word), true);
      const std::size_t place = (address + done) % block::size;
      const std::size_t n = std::min(block::size - place, sizeof bytes - done);
      std::memcpy(bytes + done, b->bytes + place, n);
      done += n;
    }
    std::memcpy(word, bytes, sizeof bytes);
    return true;
  }

 private:
  struct block {
    static constexpr std::size_t size = 256;
    std::uintptr_t from = 0;
    unsigned char bytes[size];
  };

  const block* at(std::uintptr_t address) noexcept {
    const std::uintptr_t from = address / block::size * block::size;
    block& b = blocks_[from / block::size % (sizeof blocks_ / sizeof *blocks_)];
    if (b.from == from) return &b;
    if (is_refused_) return nullptr;
    const iovec to = {b.bytes, block::size};
    const iovec there = {reinterpret_cast<void*>(from), block::size};
    b.from = 0;
    const ssize_t got = process_vm_readv(getpid(), &to, 1, &there, 1, 0);
    is_refused_ = got < 0 && errno != EFAULT;
    if (got != static_cast<ssize_t>(block::size)) return nullptr;
    b.from = from;
    return &b;
  }

  block blocks_[16];
  bool is_refused_ = false;
};

// A copied stack, and what tells how it is undone.
struct walked {
  const suspension_v1& stack;
  tables read;
};

int read_memory(unw_addr_space_t, unw_word_t address, unw_word_t* word, int writes, void* self) {
  if (writes) return -UNW_EINVAL;
  auto& w = *static_cast<walked*>(self);
  const suspension_v1& s = w.stack;
  if (address >= s.low && address - s.low < s.bytes.size()) {
    if (s.bytes.size() - (address - s.low) < sizeof *word) return -UNW_EINVAL;
    std::memcpy(word, s.bytes.data() + (address - s.low), sizeof *word);
    return 0;
  }
  return is_of_an_object(address) && w.read.read(address, word) ? 0 : -UNW_EINVAL;
}

int read_register(unw_addr_space_t, unw_regnum_t number, unw_word_t* word, int writes, void* self) {
  if (writes || number < 0 || static_cast<unsigned>(number) >= registers::count) return -UNW_EBADREG;
  *word = static_cast<const walked*>(self)->stack.at.number[number];
  return 0;
}

int read_fp_register(unw_addr_space_t, unw_regnum_t, unw_fpreg_t*, int, void*) { return -UNW_EBADREG; }
int no_list(unw_addr_space_t, unw_word_t*, void*) { return -UNW_ENOINFO; }
int no_name(unw_addr_space_t, unw_word_t, char*, std::size_t, unw_word_t*, void*) { return -UNW_ENOINFO; }
int no_resume(unw_addr_space_t, unw_cursor_t*, void*) { return -UNW_EINVAL; }

int find_description(unw_addr_space_t as, unw_word_t address, unw_proc_info_t* info, int needed, void* self) {
  return unw_get_accessors(unw_local_addr_space)->find_proc_info(as, address, info, needed, self);
}
void put_description(unw_addr_space_t as, unw_proc_info_t* info, void* self) {
  unw_get_accessors(unw_local_addr_space)->put_unwind_info(as, info, self);
}

unw_addr_space_t make_space(decltype(unw_accessors_t::access_mem) memory, decltype(unw_accessors_t::access_reg) registers) {
  unw_accessors_t a = {};
  a.find_proc_info = find_description;
  a.put_unwind_info = put_description;
  a.get_dyn_info_list_addr = no_list;
  a.access_mem = memory;
  a.access_reg = registers;
  a.access_fpreg = read_fp_register;
  a.resume = no_resume;
  a.get_proc_name = no_name;
  const unw_addr_space_t space = unw_create_addr_space(&a, 0);
  if (!space) throw std::bad_alloc();
  return space;
}

// -- Symbols -----------------------------------------------------------------------------------------------------------

// Registers begin in a region of their own each, which is no memory, and what is read of such a place is one of a row of
// numbers that are none of all these.
struct symbols {
  static constexpr std::uintptr_t region = std::uintptr_t{1} << 40;
  static constexpr std::uintptr_t regions = std::uintptr_t{0x40} << 56;
  static constexpr std::uintptr_t row = std::uintptr_t{0x60} << 56;
  static constexpr std::size_t most = 64;

  std::uintptr_t pc;
  tables objects;
  std::uintptr_t read[most];  // from where
  std::size_t count = 0;

  static std::uintptr_t of(unsigned number) noexcept { return regions + (number + 1) * region + region / 2; }
  // The region of what was made of a register by adding or subtracting something; registers::count: no such thing.
  static unsigned number_of(std::uintptr_t word) noexcept {
    if (word < regions + region || word >= regions + (registers::count + 1) * region) return registers::count;
    return static_cast<unsigned>((word - regions) / region - 1);
  }
  // Where a word was read; 0: it was not.
  std::uintptr_t place_of(std::uintptr_t word) const noexcept { return word >= row && word - row < count ? read[word - row] : 0; }
};

int read_symbol(unw_addr_space_t, unw_word_t address, unw_word_t* word, int writes, void* self) {
  if (writes) return -UNW_EINVAL;
  auto& s = *static_cast<symbols*>(self);
  if (symbols::number_of(address) == registers::count) {
    return address < symbols::regions && is_of_an_object(address) && s.objects.read(address, word) ? 0 : -UNW_EINVAL;
  }
  for (std::size_t i = 0; i < s.count; ++i)
    if (s.read[i] == address) return *word = symbols::row + i, 0;
  if (s.count == symbols::most) return -UNW_EINVAL;
  s.read[s.count] = address;
  *word = symbols::row + s.count++;
  return 0;
}

int read_symbolic_register(unw_addr_space_t, unw_regnum_t number, unw_word_t* word, int writes, void* self) {
  if (writes || number < 0 || static_cast<unsigned>(number) >= registers::count) return -UNW_EBADREG;
  const auto n = static_cast<unsigned>(number);
  *word = n == machine::pc_number ? static_cast<symbols*>(self)->pc : symbols::of(n);
  return 0;
}

// From the frame's end; false: it is not there, or too far.
bool distance(std::uintptr_t end, std::uintptr_t place, std::int32_t& to) noexcept {
  if (symbols::number_of(place) != symbols::number_of(end)) return false;
  const auto d = static_cast<std::intptr_t>(place - end);
  to = static_cast<std::int32_t>(d);
  return d == to && to != step::kept;
}

#ifdef __x86_64__
constexpr unw_regnum_t tracked[step::registers] = {UNW_X86_64_RSP, UNW_X86_64_RBP, UNW_X86_64_RBX};
#else
constexpr unw_regnum_t tracked[step::registers] = {UNW_AARCH64_SP, UNW_AARCH64_X29, UNW_AARCH64_X19};
#endif

// What the step out of there has made; false: nothing that a step can be.
bool understand(unw_cursor_t& at, const symbols& s, step& to) {
  unw_word_t end = 0;
  unw_word_t pc = 0;
  if (unw_get_reg(&at, UNW_REG_SP, &end) != 0 || unw_get_reg(&at, UNW_REG_IP, &pc) != 0) return false;
  unsigned from = 0;
  while (from < step::registers && symbols::number_of(end) != static_cast<unsigned>(tracked[from])) ++from;
  if (from == step::registers || !distance(symbols::of(static_cast<unsigned>(tracked[from])), end, to.distance)) return false;
  to.from = static_cast<std::uint8_t>(from);
  if (!distance(end, s.place_of(pc), to.pc)) return false;
  for (unsigned i = 1; i < step::registers; ++i) {
    unw_word_t word = 0;
    if (unw_get_reg(&at, tracked[i], &word) != 0) return false;
    if (word != symbols::of(static_cast<unsigned>(tracked[i])) && !distance(end, s.place_of(word), to.saved[i])) return false;
  }
  return true;
}

}  // namespace

// A signal's frame has all registers, and what has no description is guessed by libunwind: neither is a step that can be
// known.
step find_step(std::uintptr_t pc, bool interrupted) {
  const out_of_forks guard;
  static const unw_addr_space_t space = make_space(read_symbol, read_symbolic_register);
  step found;
  symbols s;
  s.pc = interrupted ? pc : pc - 1;
  unw_cursor_t at;
  unw_proc_info_t described;
  if (unw_init_remote(&at, space, &s) != 0 || unw_get_proc_info(&at, &described) != 0 || unw_is_signal_frame(&at) > 0) return found;
  const int more = unw_step(&at);
  if (more == 0) found.what = step::kind::end;
  if (more > 0 && understand(at, s, found)) found.what = step::kind::known;
  return found;
}

std::vector<place_in_code> walk(const suspension_v1& s, std::uintptr_t beyond, std::size_t most) {
  const out_of_forks guard;
  static const unw_addr_space_t space = make_space(read_memory, read_register);  // for all threads, and never freed
  std::vector<place_in_code> found;
  walked w{s, {}};
  unw_cursor_t at;
  if (unw_init_remote(&at, space, &w) != 0) return found;
  bool interrupted = true;
  unw_word_t below = 0;
  unsigned level = 0;
  do {
    unw_word_t pc = 0;
    unw_word_t sp = 0;
    if (unw_get_reg(&at, UNW_REG_IP, &pc) != 0 || unw_get_reg(&at, UNW_REG_SP, &sp) != 0 || pc == 0) break;
    // A function may take nothing of the stack; but words of two moments, or a wrong table, could lead round and round.
    if (sp < below || (level = sp == below ? level + 1 : 0) > 2) break;
    below = sp;
    if (sp > beyond) found.push_back({reinterpret_cast<void*>(pc), interrupted});
    interrupted = unw_is_signal_frame(&at) > 0;
  } while (found.size() < most && unw_step(&at) > 0);
  return found;
}

}  // namespace greenlets::detail
