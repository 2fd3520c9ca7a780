// SPDX-License-Identifier: MIT
// A thread's coming and going, and the signal that stops it.
#include "threads.hpp"

#include "../arch/interrupted.hpp"

#include <cerrno>
#include <new>
#include <pthread.h>
#include <system_error>
#include <ucontext.h>
#include <utility>

namespace greenlets::gc::detail {

namespace sanitizer = greenlets::detail::sanitizer;

__thread thread* me = nullptr;
thread* first_thread = nullptr;
std::atomic<std::size_t> attached{0};

namespace {

pthread_key_t key;
struct sigaction libgcs_handler;

void check(int code, const char* call) {
  if (code != 0) throw std::system_error(code, std::system_category(), call);
}

// Its registration would be of no use if the signals did not get there.
void let_stops_in() noexcept {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, GC_get_suspend_signal());
  sigaddset(&set, GC_get_thr_restart_signal());
  pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
}

const char* native_low() noexcept {
  char* low = nullptr;
  char* high = nullptr;
  return greenlets::detail::native_bounds(low, high) ? low : nullptr;
}

void enlist(thread& t) noexcept {
  with_lock([&t] {
    t.next = first_thread;
    first_thread = &t;
  });
}

void unlist(thread& t) noexcept {
  with_lock([&t] {
    thread** link = &first_thread;
    while (*link && *link != &t) link = &(*link)->next;
    if (*link) *link = t.next;
    // What was found after its last look is found again, and by then belongs to nobody.
    while (entry* const e = t.condemned) {
      t.condemned = std::exchange(e->next, nullptr);
      e->what.store(fate::none, std::memory_order_relaxed);
      if (!e->get()) give_entry(e);
    }
  });
}

// At a thread's end, when the core's own key has been seen to, for which the round may have to be repeated.
void end_of_thread(void* data) {
  if (me && me->record)
    pthread_setspecific(key, data);
  else
    detach();
}

// Runs on whatever stack the thread is on, which is what has to be known: who the current greenlet is does not
// tell, for a switch names the next before it goes there.
void on_stop(int number, siginfo_t* info, void* context) {
  const int error = errno;
  thread* const t = me;
  if (t) {
    if (sanitizer::holds_signals_back()) {
      t->stop_sp = reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0));
    } else {
      const auto& u = *static_cast<const ucontext_t*>(context);
      t->stop_sp = greenlets::detail::machine::interrupted_at(context).sp;
      t->signal_low = static_cast<const char*>(u.uc_stack.ss_sp);
      t->signal_high = t->signal_low + u.uc_stack.ss_size;
    }
    t->in_stop = 1;
  }
  // Then the kernel has not put the registers that calls preserve where libgc looks.
  if (sanitizer::holds_signals_back()) __builtin_unwind_init();
  libgcs_handler.sa_sigaction(number, info, context);
  sanitizer::after(&libgcs_handler);
  if (t) t->in_stop = 0;
  errno = error;
}

// Only the calling thread exists. What belongs to the others can never go on, nor be unwound.
void in_child() {
  for (thread* t = first_thread; t; t = t->next) t->in_stop = 0;
  first_thread = me;
  if (me) me->next = nullptr;
  attached.store(me ? 1 : 0, std::memory_order_relaxed);
  const thread_record* const mine = me ? me->record : nullptr;
  for_each([mine](entry& e, body* b) {
    if (b->thread() && b->thread() != mine && b->is(greenlets::detail::life::active))
      e.what.store(fate::lost, std::memory_order_relaxed);
  });
}

// Counts a thread, unless it comes to nothing.
struct attaching {
  bool counts = !me;
  attaching() noexcept { attached.fetch_add(counts, std::memory_order_relaxed); }
  ~attaching() { attached.fetch_sub(counts, std::memory_order_relaxed); }
};

}  // namespace

void attach() {
  if (me && (me->ours || GC_thread_is_registered())) return;
  attaching count;
  bool ours = false;
  GC_stack_base base;
  if (!GC_thread_is_registered()) {
    if (GC_get_stack_base(&base) != GC_SUCCESS) throw std::system_error(ENOTSUP, std::system_category(), "GC_get_stack_base");
    GC_register_my_thread(&base);
    ours = true;
  }
  let_stops_in();
  if (me) {  // the collector had taken its leave already
    me->ours = true;
    me->handle = GC_get_my_stackbottom(&base);
    return;
  }
  auto* const made = new (std::nothrow) thread;
  if (const int code = made ? pthread_setspecific(key, made) : ENOMEM) {
    delete made;
    if (ours) GC_unregister_my_thread();
    check(code, "pthread_setspecific");
  }
  made->ours = ours;
  made->handle = GC_get_my_stackbottom(&made->native);
  made->native_low = native_low();
  made->record = greenlets::detail::thread_in_use();
  made->survives_in = &greenlets::detail::surviving_record();
  enlist(*made);
  me = made;
  count.counts = false;
}

void detach() noexcept {
  thread* const t = me;
  if (!t) return;
  unlist(*t);
  me = nullptr;
  pthread_setspecific(key, nullptr);
  if (t->ours) GC_unregister_my_thread();
  delete t;
  attached.fetch_sub(1, std::memory_order_relaxed);
}

void uses(thread_record* t) noexcept {
  if (me) me->record = t;
}

thread* thread_of(const thread_record* t) noexcept {
  thread* each = first_thread;
  while (each && each->record != t) each = each->next;
  return each;
}

void begin_threads() {
  check(pthread_key_create(&key, &end_of_thread), "pthread_key_create");
  check(pthread_atfork(nullptr, nullptr, &in_child), "pthread_atfork");
}

void threads_start() noexcept { sanitizer::before(&libgcs_handler); }

void watch_stops() {
  static_assert(greenlets::detail::machine::knows_interrupted && sizeof(void*) == 8,
                "the collector is for 64-bit Linux on a processor of arch/interrupted.hpp: configure --without-gc");
  const int number = GC_get_suspend_signal();
  if (sigaction(number, nullptr, &libgcs_handler) != 0) check(errno, "sigaction");
  if (!(libgcs_handler.sa_flags & SA_SIGINFO)) check(ENOTSUP, "a handler of libgc's stop signal");
  struct sigaction ours = libgcs_handler;
  ours.sa_sigaction = &on_stop;
  if (sigaction(number, &ours, nullptr) != 0) check(errno, "sigaction");
}

}  // namespace greenlets::gc::detail
