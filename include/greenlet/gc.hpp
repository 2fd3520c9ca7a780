// SPDX-License-Identifier: MIT
// gc: suspended greenlets that nothing can reach any more are found, and unwound on their own thread.
// Link with libgreenlet-gc (pkg-config greenlet-gc).
//
//   int main() {
//     greenlets::gc::enable();  // before the first greenlet
//     {
//       greenlets::greenlet a, b;  // they wait for each other, for ever
//       ...
//     }
//     greenlets::gc::collect();    // greenlet_exit is thrown into both: their destructors run
//   }
#ifndef GREENLET_GC_HPP
#define GREENLET_GC_HPP

#include <greenlet/handle.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <iosfwd>
#include <new>
#include <string>
#include <vector>

namespace greenlets::gc {

/// What to do with suspended greenlets that are unreachable.
enum class policy {
  reclaim,             ///< unwind them: greenlet_exit is thrown into each, with reason::collected
  report,              ///< tell, and leave them as they are, for ever
  reclaim_and_report,  ///< tell, and unwind them
  ignore,              ///< nothing: every greenlet keeps itself
};

/// A greenlet that was found.
struct leak {
  std::uint64_t id = 0;
  std::string name;
  std::uint64_t parent = 0;         ///< the parent's id, and its name
  std::string parent_name;
  std::chrono::nanoseconds age = {};  ///< when it was found
  std::vector<void*> created_at;    ///< return addresses, innermost first; with options::note_creation
  void* suspended_at = nullptr;     ///< where it goes on; null where the switch does not tell
  /// Addresses in the functions that it is in, innermost first, 64 at most; when the program has libgreenlet-backtrace,
  /// as it does when it includes <greenlet/backtrace.hpp>.
  std::vector<void*> suspended_in;
  std::size_t stack_bytes = 0;      ///< that are in use
  /// Ids of the greenlets whose handles are on its stack and in its callable, but for its parent: as the collector sees them, which takes what
  /// is left of dropped ones for handles, too.
  std::vector<std::uint64_t> holds;
  /// Objects of the collected heap that nothing kept but it, and others that were found with it; and their bytes. What two
  /// of them kept is counted for one; what looks like free memory, a link and zeros, is not. Of all that are found in a collection the first 32,768 objects are counted.
  std::size_t held_objects = 0;
  std::size_t held_bytes = 0;
};

struct options {
  policy unreachable = policy::reclaim;
  /// A collection begins, when a greenlet is made, as soon as since the last one the stacks that are mapped have grown
  /// by so many bytes, or greenlets by so many, and each also doubled; and when there is no memory for a stack, or no
  /// room for another mapping, before that is an error. libgc collects besides by its own rules, which know nothing of
  /// stacks.
  std::size_t collect_after_bytes = std::size_t{64} << 20;
  std::size_t collect_after_greenlets = 1000;
  /// Called for each that is reported, on its own thread, before it is unwound. What it throws goes to the
  /// unraisable handler.
  std::function<void(const leak&)> told;
  /// Whether to note where each greenlet is made, which costs about a microsecond.
  bool note_creation = false;
};

/// Makes Boehm GC see suspended stacks, and finds unreachable greenlets from now on. At the beginning of main(), before
/// anything else of the library is used. There is no way back.
///
/// A handle *pins* its greenlet, or it is *traced*, by where it lies: one on the stack of a greenlet, or in memory of
/// Boehm GC's (GC_malloc, allocator<T>), keeps its greenlet only while somebody can reach that place; one anywhere else
/// (static, on a thread's own stack, in memory of malloc) keeps it as without a collector. So does a reference of C's.
///
/// libgc stops a thread by a signal, whose handler runs on the stack of the greenlet that runs. So at each moment
/// 2 * getauxval(AT_MINSIGSTKSZ) + 2048 bytes of it have to be left: 8800 on x86-64 with AVX-512, of which 6500 were seen
/// in use. In one that has less the next stop is a stack overflow (report_stack_overflows()).
///
/// With Boehm GC in its find-leak mode (GC_FIND_LEAK), which frees what it reports, each keeps itself: policy::ignore.
///
/// Switches: no. Throws: error(already_started) when it is too late or done already; std::bad_alloc, std::system_error.
GREENLET_API void enable(options with = {});
GREENLET_API bool enabled() noexcept;

struct collection {
  std::size_t found;    ///< suspended greenlets of all threads
  std::size_t unwound;  ///< until this returned
};

/// Collects now. Unreachable greenlets of the calling thread have been unwound when it returns; those of other threads
/// are, at their next entry into the library; a thread that is blocked in its hub is woken.
///
/// While other threads use the library, it begins no sooner than 50 microseconds after the last one ended: Boehm GC's
/// lock is not fair, and threads that need it would else wait for as long as one collects without pause.
///
/// Finalizers of Boehm GC's may run here. Switches: to unwind. Thread: any, in any greenlet. Throws: error(not_running)
/// when there is no collector; as current() does.
GREENLET_API collection collect();

struct statistics_t {
  std::size_t collections;
  std::size_t found;            ///< suspended greenlets that were unreachable
  std::size_t freed;            ///< unstarted and dead ones
  std::size_t unwound;          ///< of those found
  std::size_t refused;          ///< did not end when they were told
  std::size_t stack_bytes;      ///< address space of stacks that came free
  std::chrono::nanoseconds last_pause;     ///< spent in this library's hooks in the last collection
  std::chrono::nanoseconds longest_pause;
};
/// Counted since enable(). Thread: any.
GREENLET_API statistics_t statistics() noexcept;

/// How many are kept for leaks(); of more, the newest.
constexpr std::size_t most_leaks = 10000;
/// What has been reported (policy::report, policy::reclaim_and_report), oldest first. Thread: any. Throws: std::bad_alloc.
GREENLET_API std::vector<leak> leaks();
/// The same for people. Thread: any.
GREENLET_API void write_leaks(std::ostream& out);

namespace detail {
GREENLET_API void* allocate(std::size_t bytes);
GREENLET_API void deallocate(void* p) noexcept;
}  // namespace detail

/// Memory of the collected heap, for containers whose handles are to be traced rather than to pin:
/// `std::vector<greenlet, gc::allocator<greenlet>>`. It is collected when nothing refers to it, without destructors.
/// Thread: any. Throws: std::bad_alloc.
template <class T>
class allocator {
 public:
  using value_type = T;
  static_assert(alignof(T) <= 2 * sizeof(void*), "the collected heap does not align more strictly");

  allocator() noexcept = default;
  template <class U>
  allocator(const allocator<U>&) noexcept {}  // NOLINT: a conversion, as every allocator has
  T* allocate(std::size_t n) {
    if (n > static_cast<std::size_t>(-1) / sizeof(T)) throw std::bad_alloc();
    return static_cast<T*>(detail::allocate(n * sizeof(T)));
  }
  void deallocate(T* p, std::size_t) noexcept { detail::deallocate(p); }
  template <class U>
  bool operator==(const allocator<U>&) const noexcept {
    return true;
  }
  template <class U>
  bool operator!=(const allocator<U>&) const noexcept {
    return false;
  }
};

}  // namespace greenlets::gc

#endif
