// SPDX-License-Identifier: MIT
// What is found, told to people; with the policy that unwinds nothing.
#include "gc_testing.hpp"

#ifdef T_BACKTRACE
#include <greenlet/backtrace.hpp>
#include <greenlet/snapshot.hpp>
#endif

#include <algorithm>
#include <sstream>
#include <string>
#include <thread>

using namespace gc_testing;

#ifdef T_ASAN
// What is left for ever refers to its name from libgc's heap, where LeakSanitizer does not look.
extern "C" const char* __asan_default_options();
extern "C" const char* __asan_default_options() { return "detect_leaks=0"; }
#endif

namespace {

std::vector<gc::leak> told;

gc::options reporting() {
  gc::options o;
  o.unreachable = gc::policy::report;
  o.note_creation = true;
  o.told = [](const gc::leak& l) { told.push_back(l); };
  return o;
}
const enabling on(reporting());

int destroyed = 0;

struct node {
  node* next;
  char bytes[1000];
};
node* chain(int n) {
  node* first = nullptr;
  for (; n > 0; --n) {
    auto* const made = static_cast<node*>(GC_malloc(sizeof(node)));
    made->next = first;
    made->bytes[0] = 1;  // one that is all zero looks like a free one
    first = made;
  }
  return first;
}
node* shared = nullptr;  // by somebody who is still there

const gc::leak* told_of(const std::string& name) {
  for (const gc::leak& l : told)
    if (l.name == name) return &l;
  return nullptr;
}

}  // namespace

// For whoever reads the frames.
__attribute__((noinline)) void t_waits_with(node* mine, const greenlet& other) {
  const greenlet held = other;
  const node* const both[2] = {mine, shared};
  __asm__ volatile("" : : "r"(both) : "memory");
  main_greenlet().switch_to();
  __asm__ volatile("" : : "r"(both) : "memory");
}

TEST_CASE("what it held is told: greenlets, objects of the collected heap that nothing else keeps, and its frames" *
          doctest::description("leaves what is reported, which is never unwound")) {
  shared = chain(1000);
  std::uint64_t ids[2] = {};
  far_below([&] {
    greenlet a(attributes().name("a"), [](const greenlet& other) { t_waits_with(chain(100), other); });
    greenlet b(attributes().name("b"), [](const greenlet& other) { t_waits_with(nullptr, other); });
    ids[0] = a.id();
    ids[1] = b.id();
    a.switch_to(b);
    b.switch_to(a);
  });
  collect_twice();
  const gc::leak* const a = told_of("a");
  const gc::leak* const b = told_of("b");
  REQUIRE(a);
  REQUIRE(b);
  CHECK(std::count(a->holds.begin(), a->holds.end(), ids[1]) == 1);
  CHECK(std::count(b->holds.begin(), b->holds.end(), ids[0]) == 1);
  CHECK(std::count(a->holds.begin(), a->holds.end(), a->parent) == 0);
  // Those of the chain, and perhaps some that only look as if.
  CHECK(a->held_objects + b->held_objects >= 100);
  CHECK(a->held_objects + b->held_objects < 200);
  CHECK(a->held_bytes + b->held_bytes >= 100 * sizeof(node));
  CHECK(a->held_bytes + b->held_bytes < 200 * sizeof(node));
  std::ostringstream text;
  gc::write_leaks(text);
  CHECK(text.str().find("  holds greenlets ") != std::string::npos);
  CHECK(text.str().find(" collected objects, ") != std::string::npos);
#ifdef T_BACKTRACE
  CHECK(a->suspended_in.size() > 3);
  const auto named = text.str().find("t_waits_with(");
  REQUIRE(named != std::string::npos);
  CHECK(text.str().rfind("  suspended in ", named) != std::string::npos);
#else
  CHECK(a->suspended_in.empty());
#endif
  shared = nullptr;
  told.clear();
}

TEST_CASE("with policy::report each is told once, with its name, age and places, and left as it is" *
          doctest::description("leaves what is reported, which is never unwound")) {
  const std::size_t before = gc::leaks().size();
  const std::size_t found_before = gc::statistics().found;
  const greenlet manager(attributes().name("manager"), [] { switch_to_parent(); });
  std::uint64_t id = 0;
  far_below([&] {
    greenlet g(attributes().name("client 7").parent(manager), [] {
      const greenlet self = current();
      struct counts_end {
        ~counts_end() { ++destroyed; }
      };
      const counts_end here;
      main_greenlet().switch_to();
    });
    id = g.id();
    g.switch_to();
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(2));  // the age that is told
  for (int i = 0; i < 4; ++i) collect_twice();
  CHECK(destroyed == 0);
  REQUIRE(told.size() == 1);
  const gc::leak& l = told[0];
  CHECK(l.id == id);
  CHECK(l.name == "client 7");
  CHECK(l.parent == manager.id());
  CHECK(l.parent_name == "manager");
  CHECK(l.age >= std::chrono::milliseconds(2));
  CHECK(l.stack_bytes > 0);
  CHECK(!l.created_at.empty());
  CHECK(gc::leaks().size() == before + 1);
  CHECK(gc::statistics().found == found_before + 1);
  CHECK(gc::statistics().unwound == 0);
  std::ostringstream text;
  gc::write_leaks(text);
  MESSAGE(text.str());
  CHECK(text.str().find(before ? std::to_string(before + 1) + " greenlets were found suspended" : "1 greenlet was found suspended") == 0);
  CHECK(text.str().find("\"client 7\"") != std::string::npos);
  CHECK(text.str().find("its parent is " + std::to_string(manager.id()) + " \"manager\"") != std::string::npos);
  CHECK(text.str().find("  made at ") != std::string::npos);
}

#ifdef T_BACKTRACE
TEST_CASE("with a collector a snapshot tells all, their ages and where they were made") {
  greenlet held(attributes().name("held"), [](const greenlet& other) { t_waits_with(nullptr, other); });
  const greenlet unstarted(attributes().name("unstarted"), [] {});
  held.switch_to(greenlet());
  const auto s = snapshot();
  unsigned right = 0;
  std::size_t all = 0;
  for (const thread_snapshot& t : s.threads) {
    all += t.greenlets.size();
    for (const greenlet_snapshot& g : t.greenlets) {
      if (g.id == unstarted.id()) right += g.state == greenlet_state::unstarted && g.name == "unstarted" && g.age && !g.created_at.empty();
      if (g.id == current().id()) right += g.state == greenlet_state::current && g.is_main && t.current == g.id && t.main == g.id;
      if (g.id != held.id()) continue;
      std::vector<void*> addresses;
      for (const frame& f : frames(held))
        if (!f.inlined) addresses.push_back(f.address);
      right += g.state == greenlet_state::suspended && g.name == "held" && g.parent == current().id() && g.age && g.addresses == addresses;
    }
  }
  CHECK(right == 3);
  CHECK(s.changing == 0);
  CHECK(s.lost == 0);
  CHECK(all <= counts().greenlets);  // of those that have gone, records are kept for weak handles
  held.switch_to();
}
#endif
