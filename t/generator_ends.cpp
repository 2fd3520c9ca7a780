// SPDX-License-Identifier: MIT
// How generators end: by exceptions, dropped half-read, with their thread; and what is misuse.
#include "testing.hpp"

#include <functional>
#include <memory>
#include <optional>
#include <pthread.h>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

using namespace greenlets;
using testing::at_end;
using testing::error_from;
using testing::error_of;
using testing::events;
using testing::noting;

namespace {

template <class F>
void in_thread(F&& f) {
  std::thread(std::forward<F>(f)).join();
}

// Gives 0, 1, 2 ... and notes when it is unwound.
generator<int> endless(events& log, const std::string& name = "function") {
  return generator<int>([&log, name](auto& give) {
    const noting n{log, name};
    for (int i = 0;; ++i) give(i);
  });
}

}  // namespace

TEST_CASE("what the function throws comes out of the read, and is the end") {
  const auto make = [] {
    return generator<int>([](auto& give) {
      give(1);
      throw std::runtime_error("in the generator");
    });
  };
  auto g = make(), h = make();
  CHECK(g.next() == 1);
  CHECK_THROWS_WITH_AS(g.next(), "in the generator", std::runtime_error);
  CHECK(g.next() == std::nullopt);
  std::vector<int> seen;
  CHECK_THROWS_AS([&] { for (const int n : h) seen.push_back(n); }(), std::runtime_error);
  CHECK(seen == std::vector<int>{1});
  CHECK(h.begin() == h.end());
}

TEST_CASE("through generators of generators an exception passes all of them") {
  events log;
  const std::function<generator<int>(int)> nested = [&](int depth) {
    return generator<int>([&, depth](auto& give) {
      const noting n{log, std::to_string(depth)};
      if (depth == 0) throw std::runtime_error("innermost");
      for (const int i : nested(depth - 1)) give(i);
    });
  };
  auto g = nested(3);
  CHECK_THROWS_WITH_AS(g.next(), "innermost", std::runtime_error);
  CHECK(log == events{"~0", "~1", "~2", "~3"});
}

TEST_CASE("a greenlet_exit that leaves the function is the end, not an error") {
  generator<int> g([](auto& give) {
    give(1);
    throw greenlet_exit();
  });
  CHECK(g.next() == 1);
  CHECK(g.next() == std::nullopt);
}

TEST_CASE("dropped half-read it is unwound at once, with those that it reads") {
  events log;
  {
    generator<int> outer([&](auto& give) {
      const noting n{log, "outer"};
      auto inner = endless(log, "inner");
      for (const int i : inner) give(i);
    });
    CHECK(outer.next() == 0);
    CHECK(outer.next() == 1);
    log.push_back("dropped");
  }
  CHECK(log == events{"dropped", "~inner", "~outer"});
}

TEST_CASE("it is unwound also when others keep its greenlet") {
  events log;
  greenlet kept;
  {
    generator<int> g([&](auto& give) {
      const noting n{log, "function"};
      kept = current();
      give(1);
    });
    g.next();
  }
  CHECK(log == events{"~function"});
  CHECK(kept.dead());
}

TEST_CASE("one that was never read never runs, and destroys its function") {
  events log;
  bool ran = false;
  {
    const generator<int> g([&ran, n = at_end([&] { log.push_back("~callable"); })](auto&) { ran = true; });
    CHECK(log.empty());
  }
  CHECK(log == events{"~callable"});
  CHECK_FALSE(ran);
}

TEST_CASE("one that has ended gives its stack back, and destroys its function, while it still exists") {
  events log;
  generator<int> g([n = at_end([&] { log.push_back("~callable"); })](auto& give) { give(1); });
  g.next();
  CHECK(log.empty());
  const auto pooled = counts().pooled_stacks;
  CHECK(g.next() == std::nullopt);
  CHECK(log == events{"~callable"});
  CHECK(counts().pooled_stacks == pooled + 1);
}

TEST_CASE("dropped on another thread it is unwound on its own, at that one's next entry into the library") {
  events log;
  std::thread::id where;
  {
    generator<int> outer([&](auto& give) {
      const auto n = at_end([&] { where = std::this_thread::get_id(); });
      auto inner = endless(log, "inner");
      for (const int i : inner) give(i);
    });
    CHECK(outer.next() == 0);
    in_thread([g = std::move(outer)]() mutable { auto dropped = std::move(g); });
  }
  CHECK(log.empty());
  current();
  CHECK(log == events{"~inner"});
  CHECK(where == std::this_thread::get_id());
}

TEST_CASE("a half-read generator in a greenlet does not keep that greenlet") {
  events log;
  {
    greenlet reader([&] {
      const noting n{log, "reader"};
      auto g = endless(log), ended = generator<int>([](auto&) {});
      g.next();
      ended.next();
      switch_to_parent();
    });
    reader.switch_to();
  }
  CHECK(log == events{"~function", "~reader"});
}

TEST_CASE("a thread's exit unwinds half-read generators and their readers") {
  events log;
  std::vector<greenlet> kept;
  in_thread([&] {
    kept.emplace_back([&] {
      const noting n{log, "reader"};
      auto g = endless(log);
      g.next();
      switch_to_parent();
    });
    kept.back().switch_to();
    // One whose function waits elsewhere, and its reader with it.
    kept.emplace_back([&] {
      const noting n{log, "waiting reader"};
      generator<int> g([&](auto& give) {
        const noting m{log, "waiting function"};
        main_greenlet().switch_to();
        give(1);
      });
      g.next();
    });
    kept.back().switch_to();
  });
  CHECK(log.size() == 4);
  for (const greenlet& g : kept) CHECK(g.dead());
}

TEST_CASE("a reader that is killed while it waits takes the generator with it") {
  events log;
  greenlet elsewhere([] {
    for (;;) main_greenlet().switch_to();
  });
  generator<int> g([&](auto& give) {
    const noting n{log, "function"};
    for (;;) {
      elsewhere.switch_to();
      give(1);
    }
  });
  greenlet reader([&] {
    const noting n{log, "reader"};
    g.next();
  });
  reader.switch_to();
  CHECK(log.empty());
  SUBCASE("killed") { reader.throw_in(); }
  SUBCASE("by an exception") { CHECK_THROWS_AS(reader.throw_in(std::runtime_error("")), std::runtime_error); }
  SUBCASE("thrown at by its own function") {
    // The exception comes out of the read as if it were the function's.
    generator<int> h([&](auto&) {
      const noting n{log, "function"};
      main_greenlet().throw_in(std::runtime_error("past it"));
    });
    CHECK_THROWS_WITH_AS(h.next(), "past it", std::runtime_error);
    CHECK(h.next() == std::nullopt);
    reader.throw_in();
    CHECK(log == events{"~function", "~function", "~reader"});
    return;
  }
  CHECK(log == events{"~function", "~reader"});
  CHECK(g.next() == std::nullopt);
}

TEST_CASE("a function that swallows its end cannot go on giving, and cannot keep who drops it") {
  testing::unraisables handler;
  events log;
  {
    generator<int> g([&](auto& give) {
      for (;;) try {
          give(1);
        } catch (const greenlet_exit&) {
          log.push_back("swallowed");
        }
    });
    g.next();
  }
  CHECK(log == events{"swallowed"});
  REQUIRE(handler.seen.size() == 1);
  try {
    std::rethrow_exception(handler.seen[0].second);
  } catch (const error& e) {
    CHECK(e.code() == errc::out_of_turn);
    CHECK(e.summary() == "nobody reads the generator");
  }
  handler.seen.clear();
}

TEST_CASE("a destructor may give while it is unwound: to a reader, or when it is dropped to nobody") {
  struct giving {
    const generator<int>::sink& give;
    int n;
    ~giving() {
      give(n);
      give(n + 1);
    }
  };
  const auto make = [] {
    return generator<int>([](auto& give) {
      const giving last{give, 20};
      give(1);
      throw std::runtime_error("after that");
    });
  };
  auto g = make();
  CHECK(g.next() == 1);
  CHECK(g.next() == 20);
  CHECK(g.next() == 21);
  CHECK_THROWS_WITH_AS(g.next(), "after that", std::runtime_error);
  testing::unraisables handler;
  for (int reads = 1; reads < 4; ++reads) {
    auto half = make();
    for (int i = 0; i < reads; ++i) half.next();
  }
  // Dropped in the destructor, it ends with the exception that it was on its way with.
  CHECK(handler.seen.size() == 2);
}

TEST_CASE("misuse: reading one that runs is an error, and it goes on") {
  std::optional<generator<int>> g;
  greenlet other;
  const auto refused = [&] {
    const error e = error_from([&] { g->next(); });
    CHECK(e.code() == errc::out_of_turn);
    CHECK(e.summary() == "the generator is already running");
  };
  g.emplace([&](auto& give) {
    refused();
    give(1);
    greenlet(refused).switch_to();
    other.switch_to();
    give(2);
  });
  CHECK(g->next() == 1);
  other = greenlet(refused);  // ends in its parent, the main greenlet, while the function waits for it
  greenlet back([&] {
    g->next();
    FAIL_CHECK("nothing was given");
  });
  back.switch_to();
  CHECK(other.dead());
  CHECK_FALSE(back.dead());
  refused();
  back.throw_in();
  CHECK(g->next() == std::nullopt);
}

TEST_CASE("misuse: to give while nobody reads is an error") {
  std::optional<generator<int>::sink> stolen;
  generator<int> g([&](auto& give) {
    stolen = give;
    give(1);
    give(2);
  });
  g.next();
  const auto refused = [&] {
    const error e = error_from([&] { (*stolen)(5); });
    CHECK(e.code() == errc::out_of_turn);
    CHECK(e.summary() == "nobody reads the generator");
  };
  refused();
  greenlet(refused).switch_to();
  CHECK(g.next() == 2);
  CHECK(g.next() == std::nullopt);
  refused();
  g = generator<int>([](auto&) {});
  refused();
}

TEST_CASE("misuse: reading and giving on another thread") {
  std::optional<generator<int>::sink> stolen;
  generator<int> g([&](auto& give) {
    stolen = give;
    give(1);
    give(2);
  });
  CHECK(g.next() == 1);
  in_thread([&] {
    const error read = error_from([&] { g.next(); });
    CHECK(read.code() == errc::different_thread);
    CHECK(read.summary() == "cannot read a generator of a different thread");
    const error give = error_from([&] { (*stolen)(5); });
    CHECK(give.code() == errc::different_thread);
    CHECK(give.summary() == "cannot give a value to a generator of a different thread");
  });
  CHECK(g.next() == 2);
  std::optional<generator<int>> of_exited;
  in_thread([&] {
    of_exited.emplace([](auto& gives) { gives(1); });
    of_exited->next();
  });
  CHECK(error_of([&] { of_exited->next(); }) == errc::different_thread);
}

TEST_CASE("misuse: a moved-from generator") {
  generator<int> g([](auto& give) { give(1); });
  auto h = std::move(g);
  CHECK(error_of([&] { g.next(); }) == errc::empty_handle);
  CHECK(error_of([&] { g.begin(); }) == errc::empty_handle);
  CHECK(h.next() == 1);
}

TEST_CASE("misuse: switching to a waiting reader, or to a generator at rest") {
  events log;
  greenlet function;
  const auto make = [&](bool to_reader) {
    return generator<int>([&, to_reader](auto& give) {
      const noting n{log, "function"};
      function = current();
      if (to_reader) switch_to_parent(5);
      give(1);
      give(2);
    });
  };
  auto g = make(true);
  const error read = error_from([&] { g.next(); });
  CHECK(read.code() == errc::out_of_turn);
  CHECK(log == events{"~function"});
  CHECK(g.next() == std::nullopt);

  auto h = make(false);
  h.next();
  // The error is the function's, and goes where its end goes between two reads.
  CHECK(error_of([&] { function.switch_to(); }) == errc::out_of_turn);
  CHECK(h.next() == std::nullopt);
  function = {};
}

TEST_CASE("misuse: a reader that descends from the function") {
  greenlet child;
  generator<int> g([&](auto& give) {
    child = greenlet([&] {
      switch_to_parent();
      CHECK(error_of([&] { g.next(); }) == errc::cyclic_parent);
      main_greenlet().switch_to();
    });
    child.switch_to();
    give(1);
    give(2);
  });
  CHECK(g.next() == 1);
  child.switch_to();
  CHECK(g.next() == 2);
  child = {};
}

TEST_CASE("a giver that is dropped while it gives leaves the generator waiting for nothing; that is an error") {
  greenlet helper;
  generator<int> g([&](auto& give) {
    helper = greenlet([&] { give(1); });
    helper.switch_to();
  });
  CHECK(g.next() == 1);
  helper = {};
  CHECK(error_of([&] { g.next(); }) == errc::out_of_turn);
}

TEST_CASE("one whose stack cannot be had has not begun") {
  generator<int> g(attributes().stack_size(testing::too_large()), [](auto& give) { give(1); });
  for (int i = 0; i < 2; ++i) CHECK_THROWS_AS(g.next(), std::system_error);
}

TEST_CASE("the function may drop the generator that reads it, or its reader's last handle") {
  events log;
  std::optional<generator<int>> g;
  g.emplace([&](auto& give) {
    const noting n{log, "function"};
    g.reset();
    give(1);
    log.push_back("never");
  });
  CHECK(g->next() == 1);
  CHECK(log == events{"~function"});

  log.clear();
  auto reader = std::make_unique<greenlet>();
  *reader = greenlet([&] {
    const noting n{log, "reader"};
    generator<int> h([&](auto& give) {
      const noting m{log, "function"};
      reader.reset();
      give(1);
    });
    CHECK(h.next() == 1);
    log.push_back("reads on");
    switch_to_parent();
    log.push_back("never");
  });
  reader->switch_to();
  CHECK(log == events{"reads on", "~function", "~reader"});
}

TEST_CASE("an iterator that outlives its generator finds the end") {
  events log;
  generator<int>::iterator i;
  {
    auto g = endless(log);
    i = g.begin();
    ++i;
  }
  CHECK(log == events{"~function"});
  CHECK(*i == 1);
  CHECK(++i == generator<int>::iterator());
}

TEST_CASE("values that read their own generator when they are destroyed are refused") {
  static std::optional<generator<std::shared_ptr<void>>> g;
  int refused = 0;
  g.emplace([&](auto& give) {
    for (int i = 0; i < 3; ++i)
      give(at_end([&] {
        try {
          g->next();
        } catch (const error& e) {
          refused += e.code() == errc::out_of_turn;
        }
      }));
  });
  int values = 0;
  for (const auto& v : *g) values += v.use_count() == 1;
  CHECK(values == 3);
  CHECK(refused == 3);
  g.reset();
}

TEST_CASE("pthread_exit in the function unwinds it, its reader and the thread") {
  // TSan's pthread_exit cannot work on a fiber: it aborts with a failed CHECK in its own code.
#ifndef T_TSAN
  static events log;
  log.clear();
  pthread_t thread;
  const auto run = [](void*) -> void* {
    const noting n{log, "main"};
    generator<int> g([](auto& give) {
      const noting m{log, "function"};
      give(1);
      pthread_exit(nullptr);
    });
    g.next();
    g.next();
    log.push_back("never");
    return nullptr;
  };
  REQUIRE(pthread_create(&thread, nullptr, run, nullptr) == 0);
  pthread_join(thread, nullptr);
  CHECK(log == events{"~function", "~main"});
#endif
}

TEST_CASE("a read in which user code ends the thread's greenlets") {
  // What was left of the read used the thread's record, which had gone. Sanitizers see it.
  in_thread([] {  // on the way in: what was dropped on another thread is unwound first
    generator<int> g([](auto& give) { give(1); });
    greenlet dropped([] {
      const auto end = at_end([] { unwind_thread(); });
      switch_to_parent();
    });
    dropped.switch_to();
    in_thread([last = std::move(dropped)]() mutable { last = greenlet(); });
    CHECK(g.next() == 1);
    CHECK(g.next() == std::nullopt);
  });
  in_thread([] {  // in the end of the last value
    generator<std::shared_ptr<void>> g([](auto& give) {
      for (;;) give(at_end([] { unwind_thread(); }));
    });
    auto it = g.begin();
    CHECK(error_of([&] { ++it; }) == errc::thread_exited);
  });
}
