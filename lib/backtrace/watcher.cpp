// SPDX-License-Identifier: MIT
// The watching thread: its jobs, its end, and children of fork(), which have none until they use the library again.
#include "watcher.hpp"

#include "forks.hpp"
#include "interrupt.hpp"

#include "../immortal.hpp"
#include "../sanitizer.hpp"
#include "../watching.hpp"

#include <algorithm>
#include <csignal>
#include <exception>
#include <mutex>
#include <new>
#include <pthread.h>
#include <system_error>
#include <vector>

namespace greenlets::detail::watcher {
namespace {

// What a child of fork() has anew.
struct meeting_place {
  std::mutex agreement;  // before the other
  std::mutex lock;
  bell idle;  // no job is running, or another one is
};

struct everything {
  meeting_place meeting;
  std::vector<std::shared_ptr<job>>* jobs = nullptr;
  const job* running = nullptr;
  pthread_t thread = {};
  unsigned current = 0;  // the number of the thread that is to go on; 0: none
  unsigned last = 0;
};

immortal<everything> the;
bell rings;
__thread unsigned number_of_thread __attribute__((tls_model("initial-exec"))) = 0;

std::shared_ptr<job> job_at(std::size_t i) {
  const std::lock_guard lock(the.value.meeting.lock);
  if (the.value.current != number_of_thread || i >= the.value.jobs->size()) return nullptr;
  the.value.running = (*the.value.jobs)[i].get();
  return (*the.value.jobs)[i];
}

void done() noexcept {
  const std::lock_guard lock(the.value.meeting.lock);
  the.value.running = nullptr;
  the.value.meeting.idle.ring();
}

bool is_to_go_on() noexcept {
  const std::lock_guard lock(the.value.meeting.lock);
  return the.value.current == number_of_thread;
}

// When one fails, which is for want of memory, there is another time.
std::optional<clock::time_point> run_one(job& j) noexcept {
  try {
    return j.run();
  } catch (const std::exception&) {
    return clock::now() + std::chrono::seconds(1);
  }
}

void* live(void* number) {
  number_of_thread = static_cast<unsigned>(reinterpret_cast<std::uintptr_t>(number));
  while (is_to_go_on()) {
    const std::uint32_t seen = rings.rung();
    std::optional<clock::time_point> next;
    for (std::size_t i = 0; std::shared_ptr<job> j = job_at(i); ++i) {
      const auto its = run_one(*j);
      j.reset();  // before: afterwards nobody but its owner has it
      done();
      if (its && (!next || *its < *next)) next = its;
    }
    if (is_to_go_on()) rings.wait(seen, next);
  }
  return nullptr;
}

// Under the lock. Returns what is wrong, or 0.
int make_thread() noexcept {
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  the.value.current = ++the.value.last;
  const int code = pthread_create(&the.value.thread, nullptr, live, reinterpret_cast<void*>(std::uintptr_t{the.value.current}));
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (code != 0)
    the.value.current = 0;
  else
    pthread_setname_np(the.value.thread, "greenlet-watch");
  return code;
}

void make_again() noexcept {
  const std::lock_guard lock(the.value.meeting.lock);
  if (the.value.current == 0 && the.value.jobs && !the.value.jobs->empty()) make_thread();
}

void before_fork() {
  the.value.meeting.agreement.lock();
  the.value.meeting.lock.lock();
}
void in_parent() {
  the.value.meeting.lock.unlock();
  the.value.meeting.agreement.unlock();
}
void in_child() {
  new (&the.value.meeting) meeting_place;
  the.value.running = nullptr;
  the.value.current = 0;
  forget_interrupts();
  if (sanitizer::starts_threads_in_children() && the.value.jobs && !the.value.jobs->empty()) set_errand(make_again);
}

void watch_forks() {
  static const bool once = [] {
    guard_against_forks();
    if (const int code = pthread_atfork(before_fork, in_parent, in_child))
      throw std::system_error(code, std::system_category(), "pthread_atfork");
    return true;
  }();
  static_cast<void>(once);
}

}  // namespace

std::unique_lock<std::mutex> agreement() {
  watch_forks();
  return std::unique_lock(the.value.meeting.agreement);
}

void add(std::shared_ptr<job> j) {
  watch_forks();
  {
    const std::lock_guard lock(the.value.meeting.lock);
    if (!the.value.jobs) the.value.jobs = new std::vector<std::shared_ptr<job>>;  // for ever
    the.value.jobs->push_back(std::move(j));
    if (the.value.current == 0) {
      if (const int code = make_thread()) {
        the.value.jobs->pop_back();
        throw std::system_error(code, std::system_category(), "pthread_create");
      }
    }
  }
  wake();
}

void remove(const std::shared_ptr<job>& j) noexcept {
  std::optional<pthread_t> ending;
  j->stop();
  {
    std::unique_lock lock(the.value.meeting.lock);
    auto& jobs = *the.value.jobs;
    jobs.erase(std::remove(jobs.begin(), jobs.end(), j), jobs.end());
    while (!is_mine() && the.value.running == j.get()) {
      const std::uint32_t seen = the.value.meeting.idle.rung();
      lock.unlock();
      the.value.meeting.idle.wait(seen, std::nullopt);
      lock.lock();
    }
    if (jobs.empty() && the.value.current != 0) {
      the.value.current = 0;
      ending = the.value.thread;
    }
  }
  wake();
  if (!ending) return;
  if (is_mine())
    pthread_detach(*ending);
  else
    pthread_join(*ending, nullptr);
}

void wake() noexcept { rings.ring(); }

bool is_mine() noexcept { return number_of_thread != 0; }

}  // namespace greenlets::detail::watcher
