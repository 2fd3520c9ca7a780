// SPDX-License-Identifier: MIT
// What is found, told to people; with the policy that unwinds nothing.
#include "gc_testing.hpp"

#include <sstream>
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

}  // namespace

TEST_CASE("with policy::report each is told once, with its name, age and places, and left as it is" *
          doctest::description("leaves what is reported, which is never unwound")) {
  CHECK(gc::leaks().empty());
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
  CHECK(gc::leaks().size() == 1);
  CHECK(gc::statistics().found == 1);
  CHECK(gc::statistics().unwound == 0);
  std::ostringstream text;
  gc::write_leaks(text);
  MESSAGE(text.str());
  CHECK(text.str().find("1 greenlet was found suspended") == 0);
  CHECK(text.str().find("\"client 7\"") != std::string::npos);
  CHECK(text.str().find("its parent is " + std::to_string(manager.id()) + " \"manager\"") != std::string::npos);
  CHECK(text.str().find("  made at ") != std::string::npos);
}
