// SPDX-License-Identifier: MIT
// Making the system refuse: the tests' side of lib/fault.hpp, and of malloc.
//
//   faults::exhaust<a_scenario>("what it does");     // once for each call that can fail, and each way
#ifndef T_FAULTS_HPP
#define T_FAULTS_HPP

#include "testing.hpp"

#include <cerrno>
#include <cstddef>
#include <exception>
#include <new>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

namespace faults {

enum class kind : unsigned char {
  // As in lib/fault.hpp, in its order.
  mmap,
  mprotect,
  madvise,
  install_guard,
  body_memory,
  pthread_key_create,
  pthread_atfork,
  pthread_setspecific,
  sigaltstack,
  sigaction,
  first_switch,
  next_switch,
  getcontext,
  swapcontext,
  // Whoever asks: library, C++ runtime, C library, user code. What malloc and its like give; only operator
  // new's under sanitizers, which have a malloc of their own.
  allocation,
  // What socket, accept4 and epoll_create1 give; in t/fault_hub.
  descriptor,
};

// Which calls fail: the nth of a kind, from 1; or that one and all that follow.
struct plan {
  kind what;
  int code;
  bool all_later = false;
};

struct outcome {
  std::size_t calls;  // of the kind
  bool refused;       // any
};

// Only calls on threads that are inside a `counted` are counted, and refused.
void arm(const plan& p, std::size_t nth) noexcept;
outcome disarm() noexcept;
// Whether this call is to fail; with which error.
int ask(kind k) noexcept;

class counted {
 public:
  explicit counted(bool on = true) noexcept;
  counted(const counted&) = delete;
  counted& operator=(const counted&) = delete;
  ~counted();
  // For a thread that is to stay counted to its very end.
  static void for_good() noexcept;

 private:
  bool before_;
};

// Blocks that malloc has given and that were not freed, of the whole process.
long live_allocations() noexcept;
int open_descriptors() noexcept;
// Whether memory can be refused here: not when valgrind puts its malloc in the place of ours, which
// --soname-synonyms=somalloc=nouserintercepts tells it not to do.
bool can_refuse_memory() noexcept;

// Greenlets that have nothing to do with what fails, and must not notice.
class bystanders {
 public:
  bystanders();
  // Switches through all of them.
  bool work();

 private:
  int calls_ = 0, nested_calls_ = 0;
  greenlets::greenlet counting_;  // suspended, in a loop
  greenlets::greenlet handling_;  // ..., in the handler of an exception
  greenlets::greenlet nested_;    // ..., and so is one that it has switched to
  greenlets::greenlet unstarted_;
};

// Nothing is printed of what a scenario cannot help.
struct unheard {
  greenlets::unraisable_handler before = greenlets::set_unraisable_handler([](const greenlets::greenlet&, const std::exception_ptr&) {});
  unheard() = default;
  unheard(const unheard&) = delete;
  unheard& operator=(const unheard&) = delete;
  ~unheard() { greenlets::set_unraisable_handler(before); }
};

// Whether `e` is what the documentation says of this failure.
bool documented(const plan& p, const std::exception_ptr& e);
std::string text(const char* name, const plan& p, std::size_t nth);
// Every way in which the calls that a scenario makes are to fail.
const std::vector<plan>& plans();

struct totals {
  std::size_t of[static_cast<std::size_t>(kind::descriptor) + 1] = {};
  std::size_t operator[](kind k) const noexcept { return of[static_cast<std::size_t>(k)]; }
};

// A scenario is made before, and destroyed after anything fails. Its
//   void act()                                   does what is to be tried,
//   bool right(const std::exception_ptr& e)      says whether all is as it must be after act() has
//                                                thrown `e` (or has not), and repeats what has failed.
// It is made anew, of the same arguments, and run first with no fault, then once for every call of every kind.
template <class Scenario, class... A>
totals exhaust_by(const std::vector<plan>& ways, const char* name, const A&... arguments) {
  totals counts;
  const auto once = [&](const plan& p, std::size_t nth) {
    outcome result{};
    bool thrown = false, expected = true, right = false, others = false;
    {
      const unheard quiet;
      bystanders idle;
      Scenario s(arguments...);
      greenlets::trim_stacks();  // so that each run maps its own
      std::exception_ptr e;
      arm(p, nth);
      {
        const counted here;
        try {
          s.act();
        } catch (...) {
          e = std::current_exception();
        }
      }
      result = disarm();
      thrown = e != nullptr;
      expected = !thrown || (result.refused && documented(p, e));
      right = s.right(e);
      others = idle.work();
    }
    INFO(text(name, p, nth) << std::string(thrown ? " (it threw)" : ""));
    REQUIRE(expected);
    REQUIRE(right);
    REQUIRE(others);
    return result;
  };
  // What is made at a first use, and kept: the buffers of streams, a thread's stack in the C library.
  for (int n = 0; n < 2; ++n) once({kind::allocation, ENOMEM}, 0);
  for (const plan& p : ways) {
    if (p.what == kind::allocation && !can_refuse_memory()) continue;
    const outcome whole = once(p, 0);
    counts.of[static_cast<std::size_t>(p.what)] = whole.calls;
    bool refused = whole.calls > 0;
    for (std::size_t nth = 1; refused; ++nth) {
      greenlets::trim_stacks();
      const auto before = greenlets::counts();
      const long blocks = live_allocations();
      const int descriptors = open_descriptors();
      refused = once(p, nth).refused;
      greenlets::trim_stacks();
      INFO(text(name, p, nth));
      REQUIRE(live_allocations() == blocks);
      REQUIRE(open_descriptors() == descriptors);
      REQUIRE(greenlets::counts().greenlets == before.greenlets);
      REQUIRE(greenlets::counts().stacks == before.stacks);
      REQUIRE(greenlets::counts().threads == before.threads);
      REQUIRE(nth < 10000);
    }
  }
  return counts;
}

template <class Scenario, class... A>
totals exhaust(const char* name, const A&... arguments) {
  return exhaust_by<Scenario>(plans(), name, arguments...);
}

}  // namespace faults

#endif
