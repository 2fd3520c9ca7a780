// SPDX-License-Identifier: MIT
// Walking a copied stack with libunwind, as if it were another process': it is given what it reads of memory. What
// tells how a function's frame is undone it reads in this process.
#include "walk.hpp"

#include <cstring>
#include <dlfcn.h>
#include <libunwind.h>
#include <new>

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

int read_memory(unw_addr_space_t, unw_word_t address, unw_word_t* word, int writes, void* self) {
  if (writes) return -UNW_EINVAL;
  const auto& s = *static_cast<const suspension_v1*>(self);
  if (address >= s.low && address - s.low < s.bytes.size()) {
    if (s.bytes.size() - (address - s.low) < sizeof *word) return -UNW_EINVAL;
    std::memcpy(word, s.bytes.data() + (address - s.low), sizeof *word);
    return 0;
  }
  if (!is_of_an_object(address)) return -UNW_EINVAL;
  std::memcpy(word, reinterpret_cast<const void*>(address), sizeof *word);
  return 0;
}

int read_register(unw_addr_space_t, unw_regnum_t number, unw_word_t* word, int writes, void* self) {
  if (writes || number < 0 || static_cast<unsigned>(number) >= registers::count) return -UNW_EBADREG;
  *word = static_cast<const suspension_v1*>(self)->at.number[number];
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

unw_addr_space_t make_space() {
  unw_accessors_t a = {};
  a.find_proc_info = find_description;
  a.put_unwind_info = put_description;
  a.get_dyn_info_list_addr = no_list;
  a.access_mem = read_memory;
  a.access_reg = read_register;
  a.access_fpreg = read_fp_register;
  a.resume = no_resume;
  a.get_proc_name = no_name;
  const unw_addr_space_t space = unw_create_addr_space(&a, 0);
  if (!space) throw std::bad_alloc();
  return space;
}

}  // namespace

std::vector<place_in_code> walk(const suspension_v1& s, std::uintptr_t beyond, std::size_t most) {
  static const unw_addr_space_t space = make_space();  // for all threads, and never freed
  std::vector<place_in_code> found;
  unw_cursor_t at;
  if (unw_init_remote(&at, space, const_cast<suspension_v1*>(&s)) != 0) return found;
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
