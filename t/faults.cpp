// SPDX-License-Identifier: MIT
// Making the system refuse: the seam of the core, an allocator that can fail, and what else every scenario
// needs.
#include "faults.hpp"

#include "fault.hpp"

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <fcntl.h>

namespace faults {
namespace {

// Constant-initialised, for malloc is called before any constructor has run.
std::atomic<bool> armed{false};
std::atomic<kind> what{};
std::atomic<int> code{0};
std::atomic<bool> all_later{false};
std::atomic<std::size_t> nth{0};
std::atomic<std::size_t> calls{0};
std::atomic<std::size_t> refusals{0};
std::atomic<long> live{0};
thread_local bool counting = false;

}  // namespace

int ask(kind k) noexcept {
  if (!counting || !armed) return 0;
  // Guard pages are protected only where they cannot be installed.
  if (k == kind::install_guard && what == kind::mprotect) return EINVAL;
  if (what != k) return 0;
  const std::size_t n = ++calls;
  if (n != nth && !(all_later && nth != 0 && n > nth)) return 0;
  ++refusals;
  return code;
}

void arm(const plan& p, std::size_t n) noexcept {
  what = p.what;
  code = p.code;
  all_later = p.all_later;
  nth = n;
  calls = refusals = 0;
  armed = true;
}

outcome disarm() noexcept {
  armed = false;
  return {calls, refusals != 0};
}

counted::counted(bool on) noexcept : before_(counting) { counting = on; }
counted::~counted() { counting = before_; }
void counted::for_good() noexcept { counting = true; }

long live_allocations() noexcept { return live; }

// Without opening a directory.
int open_descriptors() noexcept {
  int open = 0;
  for (int fd = 0; fd < 256; ++fd) open += fcntl(fd, F_GETFD) != -1;
  return open;
}

bool can_refuse_memory() noexcept {
  static const bool can = [] {
    arm({kind::allocation, ENOMEM}, 1);
    bool refused = false;
    {
      const counted here;
      try {
        ::operator delete(::operator new(1));
      } catch (const std::bad_alloc&) {
        refused = true;
      }
    }
    disarm();
    if (!refused) MESSAGE("memory cannot be refused here: allocations are not tried");
    return refused;
  }();
  return can;
}

bystanders::bystanders() {
  counting_ = greenlets::greenlet([this] {
    for (;;) greenlets::switch_to_parent(++calls_);
  });
  handling_ = greenlets::greenlet([] {
    try {
      throw std::string("handled");
    } catch (const std::string&) {
      for (;;) {
        greenlets::switch_to_parent();
        bool same = false;
        try {
          throw;
        } catch (const std::string& s) {
          same = s == "handled";
        }
        greenlets::switch_to_parent(same);
      }
    }
  });
  // Its child answers to the main greenlet: a child of its own, held on its stack, would keep it for ever.
  nested_ = greenlets::greenlet([this] {
    greenlets::greenlet child([this] { for (;;) greenlets::switch_to_parent(++nested_calls_); }, greenlets::main_greenlet());
    for (;;) child.switch_to();
  });
  unstarted_ = greenlets::greenlet([] { return 7; });
  counting_.switch_to();
  handling_.switch_to();
  nested_.switch_to();
}

bool bystanders::work() {
  const int before = calls_;
  bool right = counting_.switch_to().get<int>() == before + 1;
  right = handling_.switch_to().get<bool>() && right;
  handling_.switch_to();
  const int nested_before = nested_calls_;
  right = nested_.switch_to().get<int>() == nested_before + 1 && right;
  right = unstarted_.state() == greenlets::greenlet_state::unstarted && unstarted_.switch_to().get<int>() == 7 && right;
  return right && std::current_exception() == nullptr && std::uncaught_exceptions() == 0;
}

bool documented(const plan& p, const std::exception_ptr& e) {
  const auto is_system = [&](const std::system_error& x, const char* call) {
    return x.code() == std::error_code(p.code, std::system_category()) && std::string(x.what()).find(call) != std::string::npos;
  };
  try {
    std::rethrow_exception(e);
  } catch (const std::bad_alloc&) {
    return p.what == kind::allocation || p.what == kind::body_memory;
  } catch (const greenlets::error& x) {
    return p.what == kind::mprotect && p.code == ENOMEM && x.code() == greenlets::errc::stack_limit;
  } catch (const std::system_error& x) {
    switch (p.what) {
      case kind::mmap: return is_system(x, "mmap");
      case kind::mprotect: return p.code != ENOMEM && is_system(x, "mprotect");
      case kind::pthread_setspecific: return is_system(x, "pthread_setspecific");
      case kind::pthread_key_create: return is_system(x, "pthread_key_create");
      case kind::sigaltstack: return is_system(x, "sigaltstack");
      case kind::sigaction: return is_system(x, "sigaction");
      case kind::pthread_atfork: return is_system(x, "pthread_atfork");
      case kind::first_switch: return is_system(x, "first_switch");
      case kind::next_switch: return is_system(x, "next_switch");
      case kind::descriptor: return x.code().value() == p.code;
      default: return false;
    }
  } catch (...) {
    return false;
  }
}

std::string text(const char* name, const plan& p, std::size_t n) {
  static const char* const names[] = {"mmap",         "mprotect", "madvise", "install_guard", "body_memory",
                                      "pthread_key_create", "pthread_atfork",
                                      "pthread_setspecific", "sigaltstack", "sigaction", "first_switch", "next_switch", "getcontext", "swapcontext",        "allocation",
                                      "descriptor"};
  const std::string call = std::string(name) + ": " + names[static_cast<int>(p.what)];
  if (n == 0) return call + " only counted";
  return call + " number " + std::to_string(n) + (p.all_later ? " and all later" : "") +
         " refused with " + std::strerror(p.code);
}

const std::vector<plan>& plans() {
  static const std::vector<plan> all{
      {kind::allocation, ENOMEM},       {kind::allocation, ENOMEM, true},
      {kind::body_memory, ENOMEM},      {kind::body_memory, ENOMEM, true},
      {kind::mmap, ENOMEM},             {kind::mmap, ENOMEM, true},
      {kind::mprotect, ENOMEM},         {kind::mprotect, EACCES},
      {kind::madvise, EINVAL, true},    {kind::install_guard, EINVAL, true},
      {kind::pthread_setspecific, ENOMEM},
      {kind::first_switch, EAGAIN},     {kind::first_switch, EAGAIN, true},
      {kind::next_switch, EAGAIN},      {kind::next_switch, EAGAIN, true},
  };
  return all;
}

}  // namespace faults

namespace greenlets::detail::fault {

static_assert(static_cast<int>(call::swapcontext) == static_cast<int>(faults::kind::swapcontext));

int of(call c) noexcept { return faults::ask(static_cast<faults::kind>(c)); }

}  // namespace greenlets::detail::fault

// -- Memory ----------------------------------------------------------------------------------------

namespace {

bool memory_refused() noexcept { return faults::ask(faults::kind::allocation) != 0; }

// Counts what was given, and says why nothing was.
void* given(void* block) noexcept {
  if (block) ++faults::live;
  return block;
}

}  // namespace

#if defined(T_ASAN) || defined(T_TSAN)

// Their malloc cannot be replaced.
namespace {
void* allocate(std::size_t size) noexcept { return memory_refused() ? nullptr : given(std::malloc(size)); }
void* allocate(std::size_t size, std::size_t alignment) noexcept {
  return memory_refused() ? nullptr : given(std::aligned_alloc(alignment, size));
}
void release(void* block) noexcept {
  if (block) --faults::live;
  std::free(block);
}
}  // namespace

#else

// The program's malloc takes the place of the C library's, for every library of the process; so operator
// new, exceptions and the C library's own tables are all counted and refused.
namespace {

template <class F>
F* system_function(const char* name) noexcept {
  return reinterpret_cast<F*>(dlsym(RTLD_NEXT, name));
}

}  // namespace

extern "C" {

__attribute__((visibility("default"))) void* malloc(std::size_t size) noexcept {
  static auto* const system = system_function<void*(std::size_t)>("malloc");
  if (!memory_refused()) return given(system(size));
  errno = ENOMEM;
  return nullptr;
}

__attribute__((visibility("default"))) void* calloc(std::size_t count, std::size_t size) noexcept {
  static auto* const system = system_function<void*(std::size_t, std::size_t)>("calloc");
  if (!memory_refused()) return given(system(count, size));
  errno = ENOMEM;
  return nullptr;
}

__attribute__((visibility("default"))) void* realloc(void* block, std::size_t size) noexcept {
  static auto* const system = system_function<void*(void*, std::size_t)>("realloc");
  if (memory_refused()) {
    errno = ENOMEM;
    return nullptr;
  }
  void* const moved = system(block, size);
  if (!block) return given(moved);
  if (size == 0 && !moved) --faults::live;
  return moved;
}

__attribute__((visibility("default"))) void* aligned_alloc(std::size_t alignment, std::size_t size) noexcept {
  static auto* const system = system_function<void*(std::size_t, std::size_t)>("aligned_alloc");
  if (!memory_refused()) return given(system(alignment, size));
  errno = ENOMEM;
  return nullptr;
}

__attribute__((visibility("default"))) int posix_memalign(void** block, std::size_t alignment, std::size_t size) noexcept {
  static auto* const system = system_function<int(void**, std::size_t, std::size_t)>("posix_memalign");
  if (memory_refused()) return ENOMEM;
  const int failed = system(block, alignment, size);
  if (failed == 0) given(*block);
  return failed;
}

__attribute__((visibility("default"))) void free(void* block) noexcept {
  static auto* const system = system_function<void(void*)>("free");
  if (block) --faults::live;
  system(block);
}

}  // extern "C"

namespace {
void* allocate(std::size_t size) noexcept { return malloc(size); }
void* allocate(std::size_t size, std::size_t alignment) noexcept { return aligned_alloc(alignment, size); }
void release(void* block) noexcept { free(block); }
}  // namespace

#endif

// The C++ library's own would do, but for valgrind, which puts its own in the place of that.
void* operator new(std::size_t size) {
  void* const block = allocate(size != 0 ? size : 1);
  if (!block) throw std::bad_alloc();
  return block;
}
void* operator new(std::size_t size, std::align_val_t a) {
  const auto alignment = static_cast<std::size_t>(a);
  void* const block = allocate((size / alignment + 1) * alignment, alignment);
  if (!block) throw std::bad_alloc();
  return block;
}
void operator delete(void* block) noexcept { release(block); }
void operator delete(void* block, std::size_t) noexcept { release(block); }
void operator delete(void* block, std::align_val_t) noexcept { release(block); }
void operator delete(void* block, std::size_t, std::align_val_t) noexcept { release(block); }
