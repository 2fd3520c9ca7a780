// SPDX-License-Identifier: MIT
// Frames by libdwfl (elfutils), for which the one stack that is walked is the only thread there is.
#include "unwinder.hpp"

#include "failure.hpp"

#include <cstring>
#include <exception>
#include <string>

namespace greenlets::outside {
namespace {

constexpr pid_t the_only_one = 1;

}  // namespace

struct unwinder::found {
  std::vector<detail::place_in_code> all;
  std::size_t most;
  std::exception_ptr thrown;  // not through code in C
};

unwinder::unwinder(const image& files, pid_t pid) : files_(files) {
  static const Dwfl_Thread_Callbacks callbacks = {next_thread, get_thread, read_memory, set_registers, nullptr, nullptr};
  // It takes the machine from one of the files.
  if (!dwfl_attach_state(files.dwfl(), nullptr, pid, &callbacks, this))
    throw failure(status::unreadable, std::string("no file of the process tells what machine it is for: ") + dwfl_errmsg(-1));
}

pid_t unwinder::next_thread(Dwfl*, void* self, void** thread) {
  if (*thread) return 0;
  *thread = self;
  return the_only_one;
}

bool unwinder::get_thread(Dwfl*, pid_t, void* self, void** thread) {
  *thread = self;
  return true;
}

bool unwinder::read_memory(Dwfl*, Dwarf_Addr address, Dwarf_Word* word, void* self) {
  const auto& u = *static_cast<const unwinder*>(self);
  const detail::suspension_v1& s = *u.walked_;
  if (address < s.low || address - s.low >= s.bytes.size()) return u.files_.read_file(address, word, sizeof *word) == sizeof *word;
  if (s.bytes.size() - (address - s.low) < sizeof *word) return false;
  std::memcpy(word, s.bytes.data() + (address - s.low), sizeof *word);
  return true;
}

bool unwinder::set_registers(Dwfl_Thread* thread, void* self) {
  const auto& at = static_cast<const unwinder*>(self)->walked_->at;
#ifdef __x86_64__
  constexpr unsigned count = 17;
#else
  constexpr unsigned count = 32;
  dwfl_thread_state_register_pc(thread, at.number[detail::machine::pc_number]);
#endif
  Dwarf_Word words[count];
  for (unsigned i = 0; i < count; ++i) words[i] = at.number[i];
  return dwfl_thread_state_registers(thread, 0, count, words);
}

int unwinder::take(Dwfl_Frame* frame, void* to) {
  auto& f = *static_cast<found*>(to);
  Dwarf_Addr pc = 0;
  bool interrupted = false;
  if (!dwfl_frame_pc(frame, &pc, &interrupted) || pc == 0) return DWARF_CB_ABORT;
  try {
    f.all.push_back({reinterpret_cast<void*>(pc), interrupted});
  } catch (...) {
    f.thrown = std::current_exception();
    return DWARF_CB_ABORT;
  }
  return f.all.size() < f.most ? DWARF_CB_OK : DWARF_CB_ABORT;
}

std::vector<detail::place_in_code> unwinder::walk(const detail::suspension_v1& s, std::size_t most) {
  found f = {{}, most, nullptr};
  walked_ = &s;
  if (most > 0) dwfl_getthread_frames(files_.dwfl(), the_only_one, take, &f);
  if (f.thrown) std::rethrow_exception(f.thrown);
  return std::move(f.all);
}

}  // namespace greenlets::outside
