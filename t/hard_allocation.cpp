// SPDX-License-Identifier: MIT
// Memory: the user's own operator new and delete may switch, throw, or look where memory lies.
//
// Those of this program call `on_memory`, when it is set, in the thread that has set it; and hand out
// memory from an arena that can be locked away.
#include "testing.hpp"

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <new>
#include <set>
#include <stdexcept>
#include <string>
#include <string_view>
#include <sys/mman.h>
#include <thread>
#include <utility>
#include <vector>

using namespace greenlets;
using testing::events;
using testing::noting;

namespace {

thread_local void (*on_memory)(bool allocating) = nullptr;

// Memory that is given out but never taken back.
struct arena {
  static constexpr std::size_t size = std::size_t{64} << 20;
  char* low = nullptr;
  std::size_t used = 0;
  bool on = false;

  bool owns(const void* p) const { return low && p >= low && p < low + size; }
  void* give(std::size_t n) {
    n = (n + 15) & ~std::size_t{15};
    if (used + n > size) return nullptr;
    used += n;
    return low + used - n;
  }
};
thread_local bool from_arena = false;
arena the_arena;

void* allocate(std::size_t n) {
  if (auto* const f = on_memory) f(true);
  void* const p = from_arena ? the_arena.give(n) : std::malloc(n ? n : 1);
  if (!p) throw std::bad_alloc();
  return p;
}

void release(void* p) noexcept {
  if (!p) return;
  if (auto* const f = on_memory) f(false);
  if (!the_arena.owns(p)) std::free(p);
}

}  // namespace

void* operator new(std::size_t n) { return allocate(n); }
void* operator new[](std::size_t n) { return allocate(n); }
void operator delete(void* p) noexcept { release(p); }
void operator delete[](void* p) noexcept { release(p); }
void operator delete(void* p, std::size_t) noexcept { release(p); }
void operator delete[](void* p, std::size_t) noexcept { release(p); }

namespace {

// -- Memory that switches -------------------------------------------------------------------------

// Has `what` done in the middle of every `every`-th call of operator new or delete while it exists.
// Not in those that `what` causes itself.
class interrupting {
 public:
  interrupting(unsigned every, void (*what)()) {
    every_ = every;
    what_ = what;
    calls_ = done_ = 0;
    on_memory = [](bool) {
      if (++calls_ % every_ != 0) return;
      auto* const self = std::exchange(on_memory, nullptr);
      what_();
      ++done_;
      on_memory = self;
    };
  }
  interrupting(const interrupting&) = delete;
  interrupting& operator=(const interrupting&) = delete;
  ~interrupting() { on_memory = nullptr; }
  unsigned done() const { return done_; }

 private:
  static inline unsigned every_, calls_, done_;
  static inline void (*what_)();
};

// Goes through most of what the library does, and tells what happened.
events life() {
  events log;
  log.reserve(64);
  const std::string long_text(100, 'x');
  {
    const weak_greenlet none;
    greenlet g(attributes().name("a name that is too long for a string to hold it in place"), [&log](std::string text) {
      const noting n{log, "g"};
      for (int turn = 0;; ++turn) {
        try {
          text = switch_to_parent(text + std::to_string(turn), turn).take<std::string>();
        } catch (const std::runtime_error& e) {
          log.push_back(e.what());
          text = "caught";
        }
      }
    });
    const weak_greenlet weak(g);
    for (int i = 0; i < 3; ++i) log.push_back(std::get<0>(g.switch_to(long_text).take<std::tuple<std::string, int>>()));
    log.push_back(std::get<0>(g.throw_in(std::runtime_error(long_text)).take<std::tuple<std::string, int>>()));
    g = greenlet();
    log.push_back(weak.expired() ? "expired" : "alive");
  }
  try {
    greenlet([&] { throw std::runtime_error(long_text + "thrown"); }).switch_to();
  } catch (const std::runtime_error& e) {
    log.push_back(e.what());
  }
  // The parent is started with the result; both die.
  const greenlet parent([](std::string s) { return s + " seen"; });
  const greenlet child([&] { return long_text; }, parent);
  log.push_back(child.switch_to().take<std::string>());
  // Errors of ours.
  try {
    child.set_parent(child);
  } catch (const error& e) {
    log.emplace_back(e.summary());
  }
  try {
    greenlet([](int) {}).switch_to(std::string("a text where a number is wanted"));
  } catch (const error& e) {
    log.emplace_back(e.summary());
  }
  // Killed, and not willing; the handler is told.
  const testing::unraisables told;
  greenlet stubborn([] {
    try {
      switch_to_parent();
    } catch (const greenlet_exit&) {
      throw std::runtime_error("stubborn");
    }
  });
  stubborn.switch_to();
  stubborn.set_name(long_text);
  stubborn = greenlet();
  log.push_back(std::to_string(told.seen.size()) + " told");
  return log;
}

// In the middle of it another greenlet starts, and comes back.
void visit() {
  greenlet visitor([] { switch_to_parent(); });
  visitor.switch_to();
}

// ... and one that has been suspended for long, and whose parent is not who is interrupted.
greenlet old_friend;
const greenlet* interrupted = nullptr;

void visit_old_friend() {
  const greenlet back(current());
  interrupted = &back;
  old_friend.switch_to();
}

// ... and another whole life passes meanwhile, in which greenlets are made and dropped.
void live() { greenlet([] { (void)life(); }).switch_to(); }

// ... and somebody is unwound, and switches in its destructor, with exceptions of its own.
void kill() {
  greenlet victim([] {
    struct busy {
      ~busy() {
        try {
          greenlet([] { throw 1; }).switch_to();
        } catch (int) {
        }
      }
    } const b;
    switch_to_parent();
  });
  victim.switch_to();
}

}  // namespace

TEST_CASE("192, B1: operator new and delete may switch, at every call, and nobody notices") {
  const events expected = life();
  const auto compare = [&](unsigned every, void (*what)(), unsigned at_least) {
    const interrupting now(every, what);
    const events got = life();
    on_memory = nullptr;
    CHECK(got == expected);
    CHECK(now.done() >= at_least);
  };
  SUBCASE("a new greenlet") { compare(1, visit, 100); }
  SUBCASE("one that was there before") {
    old_friend = greenlet([] {
      for (;;) interrupted->switch_to();
    });
    compare(1, visit_old_friend, 100);
    old_friend = greenlet();
  }
  SUBCASE("a whole life") { compare(1, live, 100); }
  SUBCASE("a kill") { compare(1, kill, 100); }
  SUBCASE("in the middle of an exception's handler") {
    try {
      throw std::logic_error("ours");
    } catch (const std::logic_error&) {
      compare(1, kill, 100);
      compare(1, live, 100);
      CHECK(std::current_exception() != nullptr);
    }
  }
  SUBCASE("at every n-th call") {
    for (unsigned n = 2; n < 60; ++n) {
      compare(n, kill, 1);
      compare(n, live, 1);
    }
  }
}

TEST_CASE("23, B1: operator new may use the library while that makes the thread's record, or anything else for the first time") {
  // In a child, where nothing was used before; and in a thread there, which nothing knows yet.
  const testing::child c = testing::in_child([] {
    const process_counts before = counts();
    std::atomic<std::size_t> threads{0}, mains{0};
    bool same = false, unwound = false;
    greenlet kept;
    std::thread([&] {
      static greenlet* made = nullptr;
      made = &kept;
      on_memory = [](bool) {
        auto* const self = std::exchange(on_memory, nullptr);
        if (made->empty()) {
          *made = greenlet([] { switch_to_parent(); });
          made->switch_to();
        }
        kill();
        on_memory = self;
      };
      const greenlet first = current();
      on_memory = nullptr;
      same = kept.parent() == first && first == current();
      threads = counts().threads - before.threads;
      mains = counts().main_greenlets - before.main_greenlets;
    }).join();
    unwound = kept.state() == greenlet_state::unwound;
    if (!same) _exit(20);
    if (threads != 1 || mains != 1) _exit(21);
    if (!unwound) _exit(22);
    kept = greenlet();
    if (counts().threads != before.threads || counts().greenlets != before.greenlets) _exit(23);

    // The first that nobody catches, in the middle of the first that is to be told of it.
    [[maybe_unused]] static int told = 0;
    on_memory = [](bool) {
      auto* const self = std::exchange(on_memory, nullptr);
      greenlet g([] {
        try {
          switch_to_parent();
        } catch (const greenlet_exit&) {
          throw 1;
        }
      });
      g.switch_to();
      g = greenlet();
      on_memory = self;
    };
    set_unraisable_handler([](const greenlet&, const std::exception_ptr&) { ++told; });
    on_memory = nullptr;
    set_unraisable_handler(nullptr);
    _exit(7);
  });
  CHECK(WIFEXITED(c.status));
  CHECK(WEXITSTATUS(c.status) == 7);
}

namespace {

// There is no memory in this thread while it exists.
struct no_memory {
  no_memory() {
    on_memory = [](bool allocating) {
      if (allocating) throw std::bad_alloc();
    };
  }
  no_memory(const no_memory&) = delete;
  no_memory& operator=(const no_memory&) = delete;
  ~no_memory() { on_memory = nullptr; }
};

}  // namespace

TEST_CASE("113, B44: the handler of errors fails, and so does the report of that: everybody goes on") {
  events log;
  log.reserve(16);
  const unraisable_handler before =
      set_unraisable_handler([](const greenlet&, const std::exception_ptr&) { throw std::bad_alloc(); });
  greenlet waiter([&log] {
    switch_to_parent();
    log.emplace_back("waiter");
  });
  waiter.switch_to();
  const auto victim_of = [&log](const char* name) {
    greenlet g([&log, name] {
      try {
        switch_to_parent();
      } catch (const greenlet_exit&) {
        log.emplace_back(name);
        throw std::runtime_error(name);
      }
    });
    g.switch_to();
    return g;
  };
  greenlet a = victim_of("a"), b = victim_of("b"), refuses([&log] {
    try {
      switch_to_parent();
    } catch (const greenlet_exit&) {
      log.emplace_back("refuses");
      switch_to_parent();
    }
  });
  refuses.switch_to();
  const weak_greenlet refused(refuses);
  {
    const no_memory now;
    a = greenlet();
    refuses = greenlet();
    b = greenlet();
    waiter.switch_to();
  }
  set_unraisable_handler(before);
  CHECK(log == events{"a", "refuses", "b", "waiter"});
  CHECK(waiter.dead());
  refused.lock().throw_in();  // let it end
  CHECK(refused.expired());
}

TEST_CASE("62, 72, B44: without memory exceptions still reach the parent, and an error that cannot be told is bad_alloc") {
  const greenlet nothing_to_run{attributes()};
  const greenlet child([] { return 1; }, nothing_to_run), thrower([] { throw std::runtime_error("short"); });
  bool thrown = false, no_memory_for_error = false;
  {
    const no_memory now;
    try {
      thrower.switch_to();
    } catch (const std::runtime_error& e) {
      thrown = e.what() == std::string_view("short");
    } catch (const std::bad_alloc&) {
      // of the text of the runtime_error itself
      thrown = true;
    }
    try {
      child.switch_to();  // its parent cannot take the result, and the error has no room for its text
    } catch (const std::bad_alloc&) {
      no_memory_for_error = true;
    }
  }
  CHECK(thrown);
  CHECK(no_memory_for_error);
  CHECK(child.dead());
  CHECK(thrower.dead());
}

TEST_CASE("137, B20: a thread's exit needs no memory") {
  const auto before = counts();
  std::atomic<int> told{0}, destroyed{0};
  std::vector<greenlet> kept;
  kept.reserve(50);
  std::thread([&] {
    struct counting {
      std::atomic<int>& n;
      ~counting() { ++n; }
    };
    for (int i = 0; i < 50; ++i) {
      kept.emplace_back([&] {
        const counting c{destroyed};
        try {
          switch_to_parent();
        } catch (const greenlet_exit& e) {
          told += e.why == greenlet_exit::reason::thread_exit;
          throw;
        }
      });
      kept.back().switch_to();
    }
    on_memory = [](bool allocating) {
      if (allocating) std::abort();
    };
  }).join();
  CHECK(told == 50);
  CHECK(destroyed == 50);
  for (const greenlet& g : kept) CHECK(g.state() == greenlet_state::unwound);
  kept.clear();
  CHECK(counts().greenlets == before.greenlets);
  CHECK(counts().stacks == before.stacks);
}

TEST_CASE("B25: a thread's exit looks at nothing but its own greenlets, however many others there are") {
  const testing::child c = testing::in_child([] {
    const long page = sysconf(_SC_PAGESIZE);
    void* const mapping = mmap(nullptr, arena::size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapping == MAP_FAILED) _exit(20);
    the_arena.low = static_cast<char*>(mapping);
    std::vector<void*> stack_pages;
    stack_pages.reserve(300);
    std::vector<greenlet> others;
    others.reserve(20000);
    from_arena = true;
    for (int i = 0; i < 20000; ++i) {
      others.emplace_back([&stack_pages, page] {
        char here = 0;
        stack_pages.push_back(reinterpret_cast<void*>(reinterpret_cast<std::uintptr_t>(&here) / page * page));
        switch_to_parent();
      });
      if (i % 100 == 0) others.back().switch_to();
    }
    from_arena = false;
    // Their records, but for the pages that they share with this thread's, and with those that are made next.
    const auto page_of_record = [page](const greenlet& g) {
      std::uintptr_t record;
      std::memcpy(&record, static_cast<const void*>(&g), sizeof record);
      return record / static_cast<std::uintptr_t>(page);
    };
    std::set<std::uintptr_t> pages;
    for (const greenlet& g : others) pages.insert(page_of_record(g));
    std::vector<greenlet> between(1000);
    for (greenlet& g : between) g = greenlet([] {});
    for (const greenlet& g : between) pages.erase(page_of_record(g));
    pages.erase(page_of_record(current()));
    if (pages.size() < 1000) _exit(21);

    std::atomic<bool> hidden{false}, ready{false};
    bool unwound = false;
    std::thread t([&] {
      greenlet g([&] {
        struct telling {
          bool& told;
          ~telling() { told = true; }
        } const tell{unwound};
        switch_to_parent();
      });
      static greenlet kept;
      kept = g;
      g.switch_to();
      ready = true;
      while (!hidden) std::this_thread::yield();
    });
    while (!ready) std::this_thread::yield();
    // Whoever looks there dies.
    if (mprotect(mapping, arena::size, PROT_NONE) != 0) _exit(22);
    for (const std::uintptr_t p : pages)
      if (mprotect(reinterpret_cast<void*>(p * static_cast<std::uintptr_t>(page)), static_cast<std::size_t>(page), PROT_NONE) != 0)
        _exit(25);
    for (void* p : stack_pages)
      if (mprotect(p, static_cast<std::size_t>(page), PROT_NONE) != 0) _exit(23);
    hidden = true;
    t.join();
    _exit(unwound ? 7 : 24);
  });
  CHECK(WIFEXITED(c.status));
  CHECK(WEXITSTATUS(c.status) == 7);
}
