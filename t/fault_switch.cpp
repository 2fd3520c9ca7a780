// SPDX-License-Identifier: MIT
// A switch that fails: while nothing has changed, on the way up the tree, and when it is too late; and a
// thread that cannot begin.
#include "faults.hpp"

#include <csignal>

using namespace greenlets;
using faults::counted;
using faults::kind;
using faults::plan;

namespace {

// What the first uses of the library in this process have thrown, one after the other: before main(), for
// the key that tells of threads' ends is made once.
struct first_uses {
  std::vector<std::pair<plan, std::exception_ptr>> failed;
  process_counts before{}, after{};
  bool works = false;

  first_uses() {
    before = counts();
    const auto attempt = [this](const plan& p, std::size_t nth) {
      std::exception_ptr e;
      faults::arm(p, nth);
      {
        const counted here;
        try {
          current();
        } catch (...) {
          e = std::current_exception();
        }
      }
      const bool refused = faults::disarm().refused;
      if (refused) failed.emplace_back(p, e);
      return refused;
    };
    for (const plan p : {plan{kind::pthread_key_create, EAGAIN}, plan{kind::pthread_key_create, ENOMEM},
                         plan{kind::pthread_atfork, ENOMEM},
                         plan{kind::pthread_setspecific, ENOMEM}})
      attempt(p, 1);
    after = counts();
    for (std::size_t nth = 1; attempt({kind::allocation, ENOMEM, true}, nth); ++nth) {}
    works = current().is_main();
  }
};
first_uses first;

bool aborted(const testing::child& c) { return WIFSIGNALED(c.status) && WTERMSIG(c.status) == SIGABRT; }

// The error that a failing call of `kind` puts in the place of what `f` does; null if `f` throws nothing.
template <class F>
std::exception_ptr with(const plan& p, F&& f) {
  std::exception_ptr e;
  faults::arm(p, 1);
  {
    const counted here;
    try {
      f();
    } catch (...) {
      e = std::current_exception();
    }
  }
  faults::disarm();
  return e;
}

const std::vector<plan> refusals_of_a_start{
    {kind::mmap, ENOMEM}, {kind::mprotect, ENOMEM}, {kind::mprotect, EACCES}, {kind::first_switch, EAGAIN}};

}  // namespace

TEST_CASE("214: a thread without the library's key, its place for it, or memory says so, and can try again") {
  for (const auto& each : first.failed) {  // without names of its parts, which clang does not capture
    INFO(faults::text("first use", each.first, 1));
    REQUIRE(each.second);
    CHECK(faults::documented(each.first, each.second));
  }
  CHECK(first.failed.size() >= (faults::can_refuse_memory() ? 5 : 3));
  CHECK(first.works);
  CHECK(first.after.greenlets == first.before.greenlets);
  CHECK(first.after.main_greenlets == first.before.main_greenlets);
  CHECK(first.after.threads == first.before.threads);
  first.failed.clear();
}

TEST_CASE("58: what keeps the greenlet named from starting is told to the switcher, each time, and it stays as it was") {
  for (const plan& p : refusals_of_a_start) {
    INFO(faults::text("start", p, 1));
    int ran = 0;
    greenlet g([&ran] { return ++ran; });
    for (int n = 0; n < 3; ++n) {
      trim_stacks();
      const auto before = counts();
      const auto e = with(p, [&] { g.switch_to(); });
      REQUIRE(e);
      CHECK(faults::documented(p, e));
      CHECK(g.state() == greenlet_state::unstarted);
      CHECK(g.has_run());
      CHECK(current().is_main());
      CHECK(counts().stacks == before.stacks);
    }
    CHECK(ran == 0);
    CHECK(g.switch_to().get<int>() == 1);
  }
}

TEST_CASE("58, 72: when a parent cannot be started, the error takes the result's place and goes to the grandparent") {
  for (const plan& p : refusals_of_a_start) {
    INFO(faults::text("start of a parent", p, 1));
    int ran = 0;
    greenlet parent([&ran] { ++ran; });
    greenlet child([] {
      switch_to_parent();
      return 5;
    });
    child.switch_to();
    child.set_parent(parent);
    trim_stacks();
    const auto e = with(p, [&] { child.switch_to(); });
    REQUIRE(e);
    CHECK(faults::documented(p, e));
    CHECK(child.dead());
    CHECK(ran == 0);
  }
}

TEST_CASE("58: ... and the parent that could not be started, which nobody named, is killed in place") {
  for (const plan& p : refusals_of_a_start) {
    INFO(faults::text("start of a parent", p, 1));
    testing::events log;
    greenlet parent([note = std::make_shared<testing::noting>(testing::noting{log, "run"})] {});
    greenlet child([] { switch_to_parent(); });
    child.switch_to();
    child.set_parent(parent);
    trim_stacks();
    CHECK(with(p, [&] { child.switch_to(); }) != nullptr);
    CHECK(parent.state() == greenlet_state::finished);
    CHECK(log.size() >= 1);
  }
}

TEST_CASE("58: a dead greenlet's parent that cannot be started is no different from any other ancestor") {
  for (const plan& p : refusals_of_a_start) {
    INFO(faults::text("start of a dead one's parent", p, 1));
    int ran = 0;
    const greenlet parent([&ran] { return ++ran; });
    greenlet dead([] {}, main_greenlet());
    dead.switch_to();
    dead.set_parent(parent);
    trim_stacks();
    const auto e = with(p, [&] { dead.switch_to(); });
    REQUIRE(e);
    CHECK(faults::documented(p, e));
    CHECK(ran == 0);
    CHECK(current().is_main());
  }
}

TEST_CASE("59, 72: a suspended parent that cannot be switched to stays, and the error goes past it") {
  const plan p{kind::next_switch, EAGAIN};
  greenlet parent([] {
    const value v = switch_to_parent();
    return v.has_value();
  });
  parent.switch_to();
  greenlet child([] { return 5; }, parent);
  faults::arm(p, 1);
  std::exception_ptr e;
  {
    const counted here;  // the start of the child is a first switch, so its end is the first of these
    try {
      child.switch_to();
    } catch (...) {
      e = std::current_exception();
    }
  }
  faults::disarm();
  REQUIRE(e);
  CHECK(faults::documented(p, e));
  CHECK(child.dead());
  CHECK(parent.state() == greenlet_state::suspended);
  CHECK(parent.switch_to(1).get<bool>());
}

TEST_CASE("60: a switch that fails when it is too late ends the process, and says where and in which greenlet") {
  for (const bool started : {false, true}) {
    std::uint64_t id = 0;
    greenlet g([] { switch_to_parent(); });
    id = g.id();
    if (started) g.switch_to();
    const auto c = testing::in_child([&] {
      faults::arm({kind::swapcontext, EAGAIN}, 1);
      const counted here;
      g.switch_to();
    });
    INFO(c.output);
    CHECK(aborted(c));
    CHECK(c.output.find("ucontext.cpp:") != std::string::npos);
    CHECK(c.output.find("swapcontext failed") != std::string::npos);
    CHECK(c.output.find("in greenlet " + std::to_string(id) + " of thread ") != std::string::npos);
    if (started) g.switch_to();  // here nothing has happened
  }
}

TEST_CASE("60: so does a first frame that cannot be made") {
  greenlet g([] {});
  trim_stacks();
  const auto c = testing::in_child([&] {
    faults::arm({kind::getcontext, EINVAL}, 1);
    const counted here;
    g.switch_to();
  });
  INFO(c.output);
  CHECK(aborted(c));
  CHECK(c.output.find("getcontext failed") != std::string::npos);
  g.switch_to();
  CHECK(g.dead());
}
