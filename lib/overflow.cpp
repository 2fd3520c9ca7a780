// SPDX-License-Identifier: MIT
// The overflow of a greenlet's stack: recognised, reported, and passed on to whoever handled faults before.
//
// Everything from on_fault() down runs in a signal handler, wherever the thread was: no memory, no lock that it
// might hold itself, and of the C library only what POSIX calls async-signal-safe, _dl_find_object(), which glibc
// does, and the unwinder, which with that takes no lock (before gcc 12 and glibc 2.35: the dynamic linker's).
#include <greenlet/overflow.hpp>

#include "arch/interrupted.hpp"
#include "fault.hpp"
#include "overflow.hpp"
#include "slab.hpp"
#include "threads.hpp"

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <dlfcn.h>
#include <link.h>
#include <mutex>
#include <sys/auxv.h>
#include <system_error>
#include <unistd.h>
#include <unwind.h>

namespace greenlets {
namespace detail {
namespace {

// A guard page gives SIGSEGV, whichever way it was made: Linux keeps SIGBUS for the ends of files.
struct sigaction previous;
std::atomic<bool> reports{false};  // set under threads_lock
char program[256] = "";  // what the dynamic linker does not name
std::size_t signal_room = 4096;  // what a signal's frame takes of a stack, at most

// -- Whether it is one ---------------------------------------------------------------------------------

// How far below a stack its own function may have come.
constexpr std::uintptr_t farthest = std::uintptr_t{64} << 20;
// A leaf function writes that far below the stack pointer: the red zone, and a call's own push.
constexpr std::uintptr_t below_sp = 256;

bool overflows(stack* s, std::uintptr_t address, const machine::interrupted& at) noexcept {
  const auto low = reinterpret_cast<std::uintptr_t>(s->low());
  if (!at.known) return address < low && address >= low - page_size();
  return address < low && low - address <= farthest && address + below_sp >= at.sp && low - at.sp + below_sp <= farthest;
}

// Whether there was too little of it for a signal's frame.
bool lacks_room(stack* s, const machine::interrupted& at) noexcept {
  const auto low = reinterpret_cast<std::uintptr_t>(s->low());
  return at.known && at.sp + page_size() >= low && at.sp < low + signal_room;
}

// The stack of the thread's of which that is so; null when of none. Near a switch it may still be that of who was left.
template <class F>
stack* which(thread_record& t, F&& is) noexcept {
  for (stack* s : {t.running()->memory, t.left_stack, t.left ? t.left->memory : nullptr})
    if (s && is(s)) return s;
  return nullptr;
}

// -- The report ----------------------------------------------------------------------------------------

class line {
 public:
  line& operator<<(const char* text) noexcept {
    while (*text && length_ + 1 < sizeof text_) text_[length_++] = *text++;
    return *this;
  }
  line& operator<<(std::uint64_t number) noexcept { return digits(number, 10); }
  line& hex(std::uint64_t number) noexcept { return (*this << "0x").digits(number, 16); }
  // Ends it, and writes it.
  void end() noexcept {
    text_[length_++] = '\n';
    for (std::size_t done = 0; done < length_;) {
      const ssize_t n = write(STDERR_FILENO, text_ + done, length_ - done);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) break;
      done += static_cast<std::size_t>(n);
    }
    length_ = 0;
  }

 private:
  line& digits(std::uint64_t number, unsigned base) noexcept {
    char reversed[21];
    std::size_t n = sizeof reversed - 1;
    reversed[n] = '\0';
    do reversed[--n] = "0123456789abcdef"[number % base];
    while (number /= base);
    return *this << reversed + n;
  }

  char text_[400];
  std::size_t length_ = 0;
};

void print_frame(std::uintptr_t pc) noexcept {
  line l;
  (l << "  ").hex(pc);
#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 35)
  dl_find_object found;
  if (_dl_find_object(reinterpret_cast<void*>(pc), &found) == 0) {
    const char* const object = found.dlfo_link_map->l_name;
    (l << " " << (*object ? object : program) << "+").hex(pc - found.dlfo_link_map->l_addr);
  }
#endif
  l.end();
}

// The innermost frames are printed as they come, the outermost when all have come.
struct frames {
  static constexpr std::size_t first = 24;
  static constexpr std::size_t last = 8;
  static constexpr std::size_t most = 1000000;

  std::uintptr_t begin;  // where the handler was called; what comes before is the handler's
  std::size_t seen = 0;
  std::uintptr_t latest[last] = {};

  static _Unwind_Reason_Code step(_Unwind_Context* c, void* self) noexcept {
    return static_cast<frames*>(self)->next(static_cast<std::uintptr_t>(_Unwind_GetIP(c)));
  }
  _Unwind_Reason_Code next(std::uintptr_t pc) noexcept {
    if (seen == 0 && begin != 0 && pc != begin) return _URC_NO_REASON;
    if (pc == 0 || seen == most) return _URC_END_OF_STACK;
    if (seen < first)
      print_frame(pc);
    else
      latest[seen % last] = pc;
    ++seen;
    return _URC_NO_REASON;
  }
  void finish() const noexcept {
    if (seen == 0) print_frame(begin);
    if (seen <= first) return;
    std::size_t n = first;
    if (seen - first > last) {
      n = seen - last;
      line l;
      l << "  ... " << n - first << " more ...";
      l.end();
    }
    for (; n < seen; ++n) print_frame(latest[n % last]);
  }
};

// How much is left of it below `sp`; 0 when that lies elsewhere.
std::size_t left_of(const stack_t& alternate, std::uintptr_t sp) noexcept {
  const std::uintptr_t above_low = sp - reinterpret_cast<std::uintptr_t>(alternate.ss_sp);
  return above_low <= alternate.ss_size ? above_low : 0;
}

constexpr std::size_t room_to_unwind = 6 * 1024;

void report(thread_record& t, stack* s, const machine::interrupted& at, const stack_t& alternate, bool of_signal) noexcept {
  // Just before a jump and after it that is not who is current.
  body* b = t.running();
  if (b->memory != s && t.left) b = t.left;
  line l;
  l << "greenlet: stack overflow in greenlet " << b->id;
  // Another thread may be giving it another name; or this one was.
  if (b->lock.try_lock()) {
    if (b->name) l << " \"" << b->name->c_str() << "\"";
    b->lock.unlock();
  }
  l << " of thread " << static_cast<std::uint64_t>(t.tid);
  if (!t.name.empty()) l << " \"" << t.name.c_str() << "\"";
  if (of_signal) {
    const auto low = reinterpret_cast<std::uintptr_t>(s->low());
    l << ": " << (at.sp > low ? at.sp - low : 0) << " of its " << s->usable << " bytes are left, too few for a signal";
  } else {
    l << ": all of its " << s->usable << " bytes are used";
  }
  l.end();
  // Somebody else may have made the stack that we are on, and smaller.
  if (left_of(alternate, reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0))) < room_to_unwind) {
    l << "  (the alternate signal stack is too small to find its frames)";
    return l.end();
  }
  frames f{at.pc};
  _Unwind_Backtrace(&frames::step, &f);
  f.finish();
}

// -- The handler ---------------------------------------------------------------------------------------

// As if we were not there.
void pass_on(int number, siginfo_t* info, void* context) noexcept {
  const struct sigaction before = previous;
  const bool sent = info->si_code <= 0;  // by kill() and its like, and not a fault
  const bool handled = (before.sa_flags & SA_SIGINFO) || (before.sa_handler != SIG_DFL && before.sa_handler != SIG_IGN);
  // Nobody ignores a fault: the system makes it the default.
  if (sent && !handled && before.sa_handler == SIG_IGN) return;
  if (!handled || (before.sa_flags & SA_RESETHAND)) {
    struct sigaction by_default = {};
    by_default.sa_handler = SIG_DFL;
    sigaction(number, &by_default, nullptr);
  }
  if (!handled) {
    // A fault comes again, for its instruction does; it is blocked until then. A signal that found no room does not.
    if (sent || machine::is_of_no_address(*info, context)) raise(number);
    return;
  }
  if (before.sa_flags & SA_SIGINFO)
    before.sa_sigaction(number, info, context);
  else
    before.sa_handler(number);
}

void on_fault(int number, siginfo_t* info, void* context) noexcept {
  const int error = errno;
  const auto* const interrupted = static_cast<const ucontext_t*>(context);
  thread_record* const t = this_thread_if_any();
  const machine::interrupted at = machine::interrupted_at(context);
  // In another handler on the alternate stack it is that which is used up, or none.
  if (t && info->si_code > 0 && left_of(interrupted->uc_stack, at.sp) == 0) {
    const bool of_signal = machine::is_of_no_address(*info, context);
    const auto address = reinterpret_cast<std::uintptr_t>(info->si_addr);
    if (stack* const s = which(*t, [&](stack* each) { return of_signal ? lacks_room(each, at) : overflows(each, address, at); }))
      report(*t, s, at, interrupted->uc_stack, of_signal);
  }
  errno = error;
  pass_on(number, info, context);
}

// The first use of the unwinder may allocate.
bool prime() noexcept {
  _Unwind_Backtrace([](_Unwind_Context* c, void*) { return _Unwind_GetIP(c) == 0 ? _URC_END_OF_STACK : _URC_NO_REASON; },
                    nullptr);
  const ssize_t n = readlink("/proc/self/exe", program, sizeof program - 1);
  if (n > 0) program[n] = '\0';
#ifdef AT_MINSIGSTKSZ
  // With the red zone, and what aligns it.
  if (const unsigned long bytes = getauxval(AT_MINSIGSTKSZ)) signal_room = bytes + 256;
#endif
  return true;
}

// Returns what is wrong, or 0.
int install() noexcept {
  // Another thread's fault may come before the second call has told us what was there.
  if (GREENLET_MAY_FAIL(sigaction, -1, SIGSEGV, nullptr, &previous) != 0) return errno;
  struct sigaction ours = {};
  ours.sa_sigaction = on_fault;
  ours.sa_mask = previous.sa_mask;
  ours.sa_flags = SA_SIGINFO | SA_ONSTACK | (previous.sa_flags & (SA_NODEFER | SA_RESTART));
  return GREENLET_MAY_FAIL(sigaction, -1, SIGSEGV, &ours, &previous) != 0 ? errno : 0;
}

// The same, once.
int install_for_all(thread_record& mine) noexcept {
  const std::lock_guard list(threads_lock);
  if (reports.load(std::memory_order_relaxed)) return 0;
  if (const int code = install()) return code;
  reports.store(true, std::memory_order_relaxed);
  give_signal_stacks(&mine);
  return 0;
}

}  // namespace

}  // namespace detail

void report_stack_overflows() {
  using namespace detail;
  thread_record& mine = this_thread();
  give_signal_stack(mine);
  if (reports.load(std::memory_order_relaxed)) return;
  static const bool primed = prime();
  static_cast<void>(primed);
  if (const int code = install_for_all(mine)) {
    drop_signal_stack(mine);
    throw std::system_error(code, std::system_category(), "sigaction");
  }
}

}  // namespace greenlets
