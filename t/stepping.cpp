// SPDX-License-Identifier: MIT
// What a debugger, or a profiler's signal, finds at each instruction of a switch: a child process is stepped through
// it, and unwound at every step.
#include "testing.hpp"

// The main side calls them: what lies between is looked at.
__attribute__((noinline)) void t_begin() { __asm__ volatile(""); }
__attribute__((noinline)) void t_end() { __asm__ volatile(""); }

#if defined(__linux__) && defined(__x86_64__) && !defined(T_ASAN) && !defined(T_TSAN) && !defined(T_COVERAGE)

#define T_SIDES plain
#include "sides/sides.hpp"

#include <algorithm>
#include <cstdint>
#include <dlfcn.h>
#include <libunwind.h>
#include <link.h>
#include <map>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <utility>
#include <vector>

using namespace greenlets;

namespace optimised {
int t_greenlet_side(int first);
int t_main_side(const greenlet& g, bool throws);
}  // namespace optimised

namespace {

struct sides {
  int (*greenlet_side)(int);
  int (*main_side)(const greenlet&, bool);
};
constexpr sides of_plain{&plain::t_greenlet_side, &plain::t_main_side};
constexpr sides of_optimised{&optimised::t_greenlet_side, &optimised::t_main_side};

// --- The child's memory and registers, for libunwind. It is a fork of this process, so what describes the frames lies
// where it does here.

struct stopped {
  pid_t pid;
  user_regs_struct at;
  std::map<std::uintptr_t, std::vector<char>> pages;  // those that were read since the last step

  std::uintptr_t pc() const { return at.rip; }
  std::uintptr_t sp() const { return at.rsp; }
};

int read_memory(unw_addr_space_t, unw_word_t address, unw_word_t* word, int writes, void* self) {
  constexpr std::uintptr_t size = 4096;
  if (writes || address % sizeof *word) return -UNW_EINVAL;
  auto& s = *static_cast<stopped*>(self);
  std::vector<char>& page = s.pages[address / size];
  if (page.empty()) {
    page.resize(size);
    const iovec to{page.data(), size};
    const iovec from{reinterpret_cast<void*>(address / size * size), size};
    if (process_vm_readv(s.pid, &to, 1, &from, 1, 0) != static_cast<ssize_t>(size)) return page.clear(), -UNW_EINVAL;
  }
  std::memcpy(word, page.data() + address % size, sizeof *word);
  return 0;
}

int read_register(unw_addr_space_t, unw_regnum_t number, unw_word_t* word, int writes, void* self) {
  const user_regs_struct& r = static_cast<const stopped*>(self)->at;
  const unsigned long long all[] = {r.rax, r.rdx, r.rcx, r.rbx, r.rsi, r.rdi, r.rbp, r.rsp, r.r8,
                                    r.r9,  r.r10, r.r11, r.r12, r.r13, r.r14, r.r15, r.rip};
  if (writes || number < 0 || static_cast<std::size_t>(number) >= sizeof all / sizeof *all) return -UNW_EBADREG;
  *word = all[number];
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
  return unw_create_addr_space(&a, 0);
}

// --- What was found at one instruction.

struct place {
  std::uintptr_t pc;
  std::uintptr_t sp;
  bool operator==(const place& other) const { return pc == other.pc && sp == other.sp; }
};

struct chain {
  std::vector<place> frames;  // innermost first
  int ended = 0;              // libunwind's word for it: 0 at an outermost frame
};

chain unwind(stopped& s) {
  static const unw_addr_space_t space = make_space();
  chain found;
  unw_cursor_t at;
  if (unw_init_remote(&at, space, &s) != 0) return found;
  do {
    unw_word_t pc = 0;
    unw_word_t sp = 0;
    unw_get_reg(&at, UNW_REG_IP, &pc);
    unw_get_reg(&at, UNW_REG_SP, &sp);
    if (pc == 0) {
      found.ended = 0;
      break;
    }
    found.frames.push_back({pc, sp});
  } while (found.frames.size() < 100 && (found.ended = unw_step(&at)) > 0);
  return found;
}

std::uintptr_t address_of(const void* p) { return reinterpret_cast<std::uintptr_t>(p); }

// The beginning of the function that the address is in; 0 where nothing describes it.
std::uintptr_t function_at(std::uintptr_t pc) {
  unw_proc_info_t info;
  return unw_get_proc_info_by_ip(unw_local_addr_space, pc, &info, nullptr) == 0 ? info.start_ip : 0;
}

// What lies in one file: the program or the library. Of dladdr(), which looks at every symbol, there would be too many.
struct file {
  std::uintptr_t low, high;
  bool has(std::uintptr_t pc) const { return pc - low < high - low; }
};

file file_of(const void* address) {
  Dl_info in = {};
  if (!dladdr(address, &in)) return {0, 0};
  file found = {address_of(in.dli_fbase), 0};
  dl_iterate_phdr(
      [](dl_phdr_info* object, std::size_t, void* to) {
        auto& f = *static_cast<file*>(to);
        std::uintptr_t low = UINTPTR_MAX, high = 0;
        for (int i = 0; i < object->dlpi_phnum; ++i) {
          const auto& part = object->dlpi_phdr[i];
          if (part.p_type != PT_LOAD) continue;
          low = std::min(low, static_cast<std::uintptr_t>(object->dlpi_addr + part.p_vaddr));
          high = std::max(high, static_cast<std::uintptr_t>(object->dlpi_addr + part.p_vaddr + part.p_memsz));
        }
        if (low == f.low) f.high = high;
        return 0;
      },
      &found);
  return found;
}

std::string name_of(std::uintptr_t pc) {
  Dl_info found;
  const bool known = dladdr(reinterpret_cast<void*>(pc), &found) && found.dli_sname;
  char text[64];
  std::snprintf(text, sizeof text, "%#lx", static_cast<unsigned long>(pc));
  return std::string(text) + (known ? std::string(" ") + found.dli_sname : "");
}

std::string shown(const chain& c) {
  std::string text = "ended " + std::to_string(c.ended) + "\n";
  for (const place& p : c.frames) text += "  " + name_of(p.pc) + "\n";
  return text;
}

// The frames from that of `function` to the outermost; empty where it is not among them.
std::vector<place> from(const chain& c, std::uintptr_t function) {
  for (std::size_t i = 0; i < c.frames.size(); ++i)
    if (function_at(c.frames[i].pc - (i > 0)) == function)
      return {c.frames.begin() + static_cast<std::ptrdiff_t>(i), c.frames.end()};
  return {};
}

// What is outside of a function's own frame, which must be the same at every step.
class outside {
 public:
  outside(const char* name, std::uintptr_t function) : name_(name), function_(function) {}

  // Returns whether the function is among them.
  bool check(const chain& c) {
    std::vector<place> now = from(c, function_);
    if (now.empty()) return false;
    now.erase(now.begin());
    if (before_.empty()) before_ = now;
    if (before_ == now) return true;
    std::string text;
    for (const place& p : before_) text += "  " + name_of(p.pc) + "\n";
    FAIL_CHECK("outside of " << name_ << " the chain was\n" << text << "and is that of\n" << shown(c));
    return true;
  }

 private:
  const char* name_;
  std::uintptr_t function_;
  std::vector<place> before_;
};

// --- Stepping.

bool step(stopped& s) {
  int status = 0;
  s.pages.clear();
  if (ptrace(PTRACE_SINGLESTEP, s.pid, nullptr, nullptr) != 0 || waitpid(s.pid, &status, 0) != s.pid) return false;
  if (!WIFSTOPPED(status) || WSTOPSIG(status) != SIGTRAP) return false;
  iovec to{&s.at, sizeof s.at};
  return ptrace(PTRACE_GETREGSET, s.pid, 1 /* NT_PRSTATUS */, &to) == 0;
}

// Steps at which the stack pointer is the other's already, and the jump is yet to come.
constexpr int steps_between = 3;

struct result {
  int switches = 0;
  int in_greenlet = 0;   // steps on the greenlet's stack with its function among the frames
  int library_only = 0;  // ... and before and after it
  bool finished = false;
};

class stepper {
 public:
  // The process's stack pointer was `sp` when it was made.
  stepper(pid_t pid, std::uintptr_t sp, const sides& f)
      : child_{pid, {}, {}},
        native_sp_(sp),
        main_side_("the main side", address_of(reinterpret_cast<void*>(f.main_side))),
        greenlet_side_("the greenlet's side", address_of(reinterpret_cast<void*>(f.greenlet_side))),
        program_(file_of(reinterpret_cast<void*>(&t_begin))),
        library_(file_of(dlsym(RTLD_DEFAULT, "_ZN9greenlets7currentEv"))) {}

  result run() {
    bool began = false;
    while (failed_ < 3 && step(child_)) {
      const std::uintptr_t pc = child_.pc();
      began = began || pc == address_of(reinterpret_cast<void*>(&t_begin));
      r_.finished = pc == address_of(reinterpret_cast<void*>(&t_end));
      if (r_.finished) break;
      // How others unwind is theirs.
      if (began && (program_.has(pc) || library_.has(pc))) look(pc);
    }
    return r_;
  }

 private:
  bool is_native(std::uintptr_t sp) const { return sp - native_sp_ + (1 << 20) < 2 << 20; }

  void look(std::uintptr_t pc) {
    const chain c = unwind(child_);
    const bool native = is_native(child_.sp());
    INFO("at " << name_of(pc) << " in " << name_of(function_at(pc)) << " on the " << (native ? "thread's" : "greenlet's")
               << " stack\n" << shown(c));
    const bool ends = c.ended == 0 && !c.frames.empty() && library_.has(c.frames.back().pc - 1) == !native;
    const auto is_there = [&](const place& p) { return is_native(p.sp) == native; };
    const bool on_one_stack = std::all_of(c.frames.begin(), c.frames.end(), is_there);
    CHECK(ends);
    CHECK(on_one_stack);
    const bool right = follow_switch(c, native);
    CHECK(right);
    // Who is between the two stacks belongs to neither.
    chain whole = c;
    if (between_ > 0) whole.frames.erase(whole.frames.begin());
    const bool in_main = main_side_.check(whole);
    const bool in_greenlet = greenlet_side_.check(whole);
    const bool of_one = in_main == native && in_greenlet <= !native;
    CHECK(of_one);
    failed_ += !ends || !on_one_stack || !right || !of_one;
    if (!native) ++(in_greenlet ? r_.in_greenlet : r_.library_only);
  }

  // What is found between is what is there after the jump, in a caller's form.
  bool follow_switch(const chain& c, bool native) {
    if (native != was_native_) {
      was_native_ = native;
      ++r_.switches;
      between_ = steps_between;
    } else if (between_ > 0 && --between_ == 0) {
      chain expected = std::exchange(told_, {});
      if (expected.frames.size() != c.frames.size() + 1) return false;
      expected.frames.erase(expected.frames.begin());
      --expected.frames[0].pc;
      return expected.frames == c.frames;
    }
    if (between_ > 0) {
      const auto& before = told_.frames;
      if (!before.empty() && !std::equal(c.frames.begin() + 1, c.frames.end(), before.begin() + 1, before.end())) return false;
      told_ = c;
    }
    return true;
  }

  stopped child_;
  std::uintptr_t native_sp_;
  outside main_side_, greenlet_side_;
  file program_, library_;
  result r_;
  bool was_native_ = true;
  int between_ = 0;
  int failed_ = 0;
  chain told_;
};

void act(const sides& f, bool throws, bool by_call, bool reused) {
  current();
  if (by_call) detail::hot_thread_v1->attention |= detail::attention_debugger;
  if (reused) greenlet([] {}).switch_to();
  const greenlet g(f.greenlet_side);
  f.main_side(g, throws);
}

struct way {
  std::string name;
  bool throws, by_call, reused;
};

void check(const sides& f, const way& w) {
  constexpr std::uint32_t by_call = 256;  // lib/thread.hpp
  current();
  if (detail::hot_thread_v1->attention & by_call) {
    MESSAGE("skipped: the switches are swapcontext's");
    return;
  }
  INFO(w.name);
  const char here = 0;
  const pid_t child = fork();
  if (child == 0) {
    ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
    raise(SIGSTOP);
    act(f, w.throws, w.by_call, w.reused);
    _exit(0);
  }
  REQUIRE(child > 0);
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  if (!WIFSTOPPED(status)) {
    MESSAGE("skipped: no ptrace here");
    return;
  }
  const result r = stepper(child, address_of(&here), f).run();
  kill(child, SIGKILL);
  waitpid(child, &status, 0);
  CHECK(r.finished);
  CHECK(r.switches == 6);
  CHECK(r.in_greenlet > 100);
  CHECK(r.library_only > 100);
}

// The descriptors that libunwind opens at its first call are none that a case has left behind.
[[maybe_unused]] const bool warm = function_at(address_of(reinterpret_cast<void*>(&t_begin))) != 0;

}  // namespace

TEST_CASE("at each instruction of a switch in line the frames are those of the greenlet whose stack it is") {
  check(of_optimised, {"on a fresh stack", false, false, false});
  check(of_optimised, {"on a stack used before", false, false, true});
  check(of_optimised, {"something thrown", true, false, true});
}

TEST_CASE("... of one by call") {
  check(of_optimised, {"on a fresh stack", false, true, false});
  check(of_optimised, {"on a stack used before", false, true, true});
  check(of_optimised, {"something thrown", true, true, true});
}

TEST_CASE("... and where the compiler has not optimised, and keeps frame pointers") {
  check(of_plain, {"in line", false, false, true});
  check(of_plain, {"by call", false, true, false});
}

#else

TEST_CASE("at each instruction of a switch in line the frames are those of the greenlet whose stack it is") {
  MESSAGE("skipped: only plain builds for x86-64 are stepped through");
}

#endif
