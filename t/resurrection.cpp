// SPDX-License-Identifier: MIT
// A greenlet whose last handle has gone need not end: it may keep itself alive, refuse, or throw
// something else.
#include "testing.hpp"

#include <exception>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

using namespace greenlets;
using testing::events;
using testing::noting;
using testing::unraisables;

namespace {

std::string message_of(const std::exception_ptr& e) {
  try {
    std::rethrow_exception(e);
  } catch (const std::exception& x) {
    return x.what();
  } catch (...) {
    return "?";
  }
}

}  // namespace

TEST_CASE("111, 115, B27: one that keeps itself alive gets its old parent back, and is told again when it is let go again") {
  events log;
  greenlet saved;
  const greenlet main = current();
  const greenlet parent([&] {
    greenlet g([&] {
      const noting n{log, "g"};
      for (int kills = 0;;) {
        try {
          switch_to_parent();
          log.push_back("goes on");
        } catch (const greenlet_exit& e) {
          CHECK(e.why == greenlet_exit::reason::last_handle);
          log.push_back("killed " + std::to_string(++kills));
          if (kills == 3) throw;
          saved = current();
        }
      }
    });
    g.switch_to();
    switch_to_parent(std::move(g));
    log.push_back("parent goes on");
    switch_to_parent();
    log.push_back("parent goes on again");
    switch_to_parent();
  });
  greenlet g = parent.switch_to().take<greenlet>();
  CHECK(g.parent() == parent);
  for (const char* killed : {"killed 1", "killed 2"}) {
    g = greenlet();
    CHECK(log.back() == killed);
    CHECK(saved);
    CHECK(saved.state() == greenlet_state::suspended);
    CHECK(saved.parent() == parent);
    g = std::move(saved);
  }
  // Its switch goes to the parent that it has again, and not to who dropped it.
  g.switch_to();
  CHECK(log == events{"killed 1", "killed 2", "goes on", "parent goes on"});
  g = greenlet();
  CHECK(log == events{"killed 1", "killed 2", "goes on", "parent goes on", "killed 3", "~g"});
}

TEST_CASE("112, 116, B27: swallowing the exit and finishing is fine; the result is destroyed and reaches nobody") {
  const unraisables handler;
  events log;
  greenlet g([&] {
    try {
      switch_to_parent();
    } catch (const greenlet_exit&) {
      log.push_back("swallowed");
    }
    return std::make_unique<noting>(noting{log, "result"});
  });
  g.switch_to();
  const greenlet dropper([&] {
    g = greenlet();
    log.push_back("dropped");
    return switch_to_parent(1).get<int>();
  });
  CHECK(dropper.switch_to().get<int>() == 1);
  // The temporary that was moved from notes too.
  CHECK(log == events{"swallowed", "~result", "~result", "dropped"});
  CHECK(dropper.switch_to(2).get<int>() == 2);
  CHECK(handler.seen.empty());
}

TEST_CASE("3, 112: an exit of a derived class ends a greenlet that is being unwound, and is not reported") {
  struct own_exit : greenlet_exit {};
  const unraisables handler;
  const auto ending = [] {
    try {
      switch_to_parent();
    } catch (const greenlet_exit&) {
      throw own_exit();
    }
  };
  SUBCASE("by its last handle") {
    greenlet g(ending);
    g.switch_to();
    g = greenlet();
  }
  SUBCASE("by its thread's exit") {
    greenlet kept;
    std::thread([&] {
      kept = greenlet(ending);
      kept.switch_to();
    }).join();
    CHECK(kept.state() == greenlet_state::unwound);
  }
  CHECK(handler.seen.empty());
}

TEST_CASE("113: another exception goes to the unraisable handler, in the dropper, and not further") {
  unraisables handler;
  greenlet g(attributes().name("victim"), [] {
    try {
      switch_to_parent();
    } catch (const greenlet_exit&) {
      throw std::runtime_error("disk full");
    }
  });
  const std::uint64_t id = g.id();
  g.switch_to();
  g = greenlet();
  REQUIRE(handler.seen.size() == 1);
  CHECK(handler.seen[0].first.id() == id);
  CHECK(handler.seen[0].first.dead());
  CHECK(message_of(handler.seen[0].second) == "disk full");
  CHECK(std::current_exception() == nullptr);
}

TEST_CASE("113, B44: the handler runs in the greenlet that dropped the handle, and what it throws is ignored") {
  std::vector<std::uint64_t> told_in;
  const testing::child c = testing::in_child([&] {
    set_unraisable_handler([&](const greenlet&, const std::exception_ptr&) {
      told_in.push_back(current().id());
      throw std::runtime_error("the handler fails");
    });
    std::uint64_t dropper_id = 0;
    greenlet dropper([&] {
      dropper_id = current().id();
      greenlet g(attributes().name("victim"), [] {
        try {
          switch_to_parent();
        } catch (const greenlet_exit&) {
          throw std::runtime_error("the greenlet fails");
        }
      });
      g.switch_to();
      g = greenlet();
      return 1;
    });
    if (dropper.switch_to().get<int>() != 1) _exit(2);
    if (told_in != std::vector<std::uint64_t>{dropper_id}) _exit(3);
  });
  CHECK(WIFEXITED(c.status));
  CHECK(WEXITSTATUS(c.status) == 0);
  CHECK(c.output.find("the greenlet fails") != std::string::npos);
  CHECK(c.output.find("the handler fails") != std::string::npos);
}

TEST_CASE("113: by default a line on standard error names the greenlet and the exception") {
  const testing::child c = testing::in_child([] {
    greenlet g(attributes().name("victim"), [] {
      try {
        switch_to_parent();
      } catch (const greenlet_exit&) {
        throw std::runtime_error("disk full");
      }
    });
    g.switch_to();
    g = greenlet();
  });
  CHECK(WEXITSTATUS(c.status) == 0);
  CHECK(c.output.rfind("greenlet: exception ignored in greenlet ", 0) == 0);
  CHECK(c.output.find("\"victim\"") != std::string::npos);
  CHECK(c.output.find("std::runtime_error: disk full\n") != std::string::npos);
}

TEST_CASE("113: a report without an exception is a line that says so") {
  const testing::child result = testing::in_child([] { report_unraisable(greenlet(), nullptr); });
  CHECK(result.status == 0);
  CHECK(result.output.find("no exception") != std::string::npos);
}

TEST_CASE("117, B27: one that swallows its exit and switches away unkept is reported once and left; never in a loop") {
  unraisables handler;
  events log;
  weak_greenlet weak;
  greenlet g(attributes().name("stubborn"), [&] {
    const noting n{log, "g"};
    for (int times = 1; times < 3; ++times) try {
        switch_to_parent();
        log.push_back("goes on");
      } catch (const greenlet_exit&) {
        log.push_back("refused");
      }
  });
  weak = g;
  const std::uint64_t id = g.id();
  g.switch_to();
  g = greenlet();
  CHECK(log == events{"refused"});
  REQUIRE(handler.seen.size() == 1);
  CHECK(handler.seen[0].first.id() == id);
  const std::string message = message_of(handler.seen[0].second);
  CHECK(message.rfind("greenlet_exit did not kill greenlet ", 0) == 0);
  CHECK(message.find("\"stubborn\"") != std::string::npos);

  // It is left suspended, with its objects. Who still knows it may go there, any number of times,
  // and it is not told to exit again by that handle's end.
  handler.seen.clear();
  CHECK_FALSE(weak.expired());
  {
    const greenlet again = weak.lock();
    CHECK(again.state() == greenlet_state::suspended);
  }
  CHECK(log == events{"refused"});
  weak.lock().switch_to();
  CHECK(log == events{"refused", "goes on", "~g"});
  CHECK(weak.expired());
  CHECK(handler.seen.empty());
}

TEST_CASE("117: throwing into one that was left ends it, and frees it") {
  unraisables handler;
  events log;
  greenlet g([&] {
    const noting n{log, "g"};
    try {
      switch_to_parent();
    } catch (const greenlet_exit&) {
    }
    switch_to_parent();
  });
  const weak_greenlet weak = g;
  g.switch_to();
  g = greenlet();
  CHECK(handler.seen.size() == 1);
  handler.seen.clear();
  CHECK(weak.lock().throw_in().is<greenlet_exit>());
  CHECK(log == events{"~g"});
  CHECK(weak.expired());
}

TEST_CASE("114: when the dying greenlet throws into its killer, the killer's next switch throws it") {
  // A destructor did the kill: nothing may be thrown from there.
  unraisables handler;
  events log;
  greenlet saved;
  const greenlet main = current();
  greenlet g([&] {
    const noting n{log, "g"};
    try {
      switch_to_parent();
    } catch (const greenlet_exit&) {
      saved = current();
      main.throw_in(std::runtime_error("take this"));
    }
  });
  g.switch_to();
  g = greenlet();
  log.push_back("dropped");
  CHECK(saved.state() == greenlet_state::suspended);
  CHECK_THROWS_WITH(current(), "take this");
  current();
  CHECK(handler.seen.empty());
  saved.switch_to();
  CHECK(log == events{"dropped", "~g"});
}

TEST_CASE("114: ... and when the killer ends without another switch, that is what it ends with") {
  unraisables handler;
  struct about {
    greenlet whom;
  };
  const auto before = counts();
  {
    greenlet saved, killer, g;
    g = greenlet([&] {
      try {
        switch_to_parent();
      } catch (const greenlet_exit&) {
        saved = current();
        killer.throw_in(about{killer});
      }
    });
    g.switch_to();
    bool goes_on = false, result_gone = false;
    SUBCASE("with a result, which is destroyed") {
      killer = greenlet([&] {
        g = greenlet();
        goes_on = true;
        return testing::at_end([&] { result_gone = true; });
      });
      CHECK_THROWS_AS(killer.switch_to(), about);
      CHECK(result_gone);
      CHECK(handler.seen.empty());
    }
    SUBCASE("with an exception of its own, and the other is reported") {
      killer = greenlet([&] {
        g = greenlet();
        goes_on = true;
        throw std::runtime_error("its own");
      });
      CHECK_THROWS_WITH_AS(killer.switch_to(), "its own", std::runtime_error);
      REQUIRE(handler.seen.size() == 1);
      CHECK(handler.seen[0].first == killer);
      CHECK_THROWS_AS(std::rethrow_exception(handler.seen[0].second), about);
      handler.seen.clear();
    }
    SUBCASE("by an exit, which goes to its parent as a value") {
      greenlet stranger, victim;
      victim = greenlet([&] {
        try {
          switch_to_parent();
        } catch (const greenlet_exit&) {
          stranger = current();
          killer.throw_in();
        }
      });
      victim.switch_to();
      killer = greenlet([&] {
        victim = greenlet();
        goes_on = true;
        return 5;
      });
      CHECK(killer.switch_to().is<greenlet_exit>());
      stranger.set_parent(current());
      stranger.switch_to();
      saved = std::move(g);
    }
    CHECK(goes_on);
    CHECK(killer.dead());
    saved.set_parent(current());
    saved.switch_to();
  }
  CHECK(counts().greenlets == before.greenlets);  // what was thrown held the killer
}

TEST_CASE("114: ... and when a thread ends first, it is reported for its main greenlet") {
  unraisables handler;
  greenlet its_main, saved;
  std::thread([&] {
    its_main = main_greenlet();
    greenlet g([&] {
      try {
        switch_to_parent();
      } catch (const greenlet_exit&) {
        saved = current();
        its_main.throw_in(std::runtime_error("too late"));
      }
    });
    g.switch_to();
    g = greenlet();
  }).join();
  CHECK(saved.dead());
  REQUIRE(handler.seen.size() == 1);
  CHECK(handler.seen[0].first == its_main);
  CHECK(message_of(handler.seen[0].second) == "too late");
}

TEST_CASE("115, 119: locking a weak handle while its greenlet dies keeps it") {
  weak_greenlet weak;
  greenlet saved;
  int turns = 0;
  greenlet g([&] {
    for (;;) try {
        ++turns;
        switch_to_parent(turns);
      } catch (const greenlet_exit&) {
        if (turns >= 3) throw;
        saved = weak.lock();
      }
  });
  weak = g;
  g.switch_to();
  g = greenlet();
  CHECK(saved == weak.lock());
  CHECK(saved.switch_to().get<int>() == 3);
  saved = greenlet();
  CHECK(weak.expired());
}

TEST_CASE("121, B27: counts are exact after resurrections, refusals and kills") {
  const unraisables handler;
  trim_stacks();
  const auto before = counts();
  int callables = 0;
  struct counted {
    int* n;
    explicit counted(int* c) : n(c) { ++*n; }
    counted(const counted& o) : n(o.n) { ++*n; }
    ~counted() { --*n; }
  };
  greenlet saved;
  for (int i = 0; i < 50; ++i) {
    greenlet g([&saved, i, c = counted(&callables)] {
      try {
        switch_to_parent();
      } catch (const greenlet_exit&) {
        if (i % 2) saved = current();
        if (i % 2) switch_to_parent();
      }
    });
    g.switch_to();
    g = greenlet();
    if (i % 2) {
      CHECK(callables == 1);
      CHECK(counts().greenlets == before.greenlets + 1);
      saved = greenlet();
    }
    CHECK(callables == 0);
    CHECK(counts().greenlets == before.greenlets);
  }
  trim_stacks();
  CHECK(counts().stacks == before.stacks);
}

namespace {

// Switches away in its destructor, which an exception may be running, as many times as told.
struct leaves_while_dying {
  events& log;
  int times;
  ~leaves_while_dying() {
    for (int n = 0; n < times; ++n) {
      log.push_back("leaves");
      switch_to_parent();
    }
    log.push_back(std::uncaught_exceptions() == 1 ? "~unwinding" : "~");
  }
};

}  // namespace

TEST_CASE("117: one that waits in a destructor while it is unwound goes on, and is not thrown at") {
  events log;
  unraisables told;
  SUBCASE("dropped again after it was kept") {
    greenlet kept;
    greenlet g([&] {
      const leaves_while_dying l{log, 1};
      try {
        switch_to_parent();
      } catch (const greenlet_exit&) {
        kept = current();
        throw;
      }
    });
    g.switch_to();
    g = greenlet();
    CHECK(log == events{"leaves"});
    REQUIRE(bool(kept));
    kept = greenlet();
    CHECK(log == events{"leaves", "~unwinding"});
    CHECK(told.seen.empty());
  }
  SUBCASE("at its thread's exit") {
    std::thread([&] {
      greenlet g([&] {
        const leaves_while_dying outer{log, 2};
        const leaves_while_dying inner{log, 3};
        switch_to_parent();
      });
      g.switch_to();
      static thread_local greenlet last;  // goes with the thread's variables: the first kill
      last = g;
    }).join();
    CHECK(log == events{"leaves", "leaves", "leaves", "~unwinding", "leaves", "leaves", "~unwinding"});
    CHECK(told.seen.size() == 1);  // it refused its last handle, and was left for the exit
  }
}
