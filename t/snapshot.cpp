// SPDX-License-Identifier: MIT
// Snapshots: everything that they say, compared with what the program knows.
#include "exit_testing.hpp"
#include "json.hpp"
#include "snapshots.hpp"

#include <greenlet/backtrace.hpp>

#include <algorithm>
#include <atomic>
#include <cctype>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <fstream>
#include <functional>
#include <future>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <map>
#include <new>
#include <ostream>
#include <sstream>
#include <string>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <thread>
#include <vector>

using namespace std::chrono_literals;
using testing::json;

#define after_call() __asm__ volatile("")

__attribute__((noinline)) void t_waits() {
  switch_to_parent();
  after_call();
}
__attribute__((noinline)) void t_deeper(int depth) {
  if (depth > 0)
    t_deeper(depth - 1);
  else
    t_waits();
  after_call();
}
__attribute__((noinline)) void t_elsewhere() {
  t_waits();
  after_call();
}
__attribute__((noinline)) greenlet t_makes() {
  greenlet g([] {});
  after_call();
  return g;
}
__attribute__((noinline)) process_snapshot t_takes() {
  auto s = snapshot();
  after_call();
  return s;
}

// Memory runs out for the calling thread after so many blocks; -1: it does not.
static thread_local long blocks_left = -1;

void* operator new(std::size_t n) {
  if (blocks_left == 0) throw std::bad_alloc();
  if (blocks_left > 0) --blocks_left;
  void* const p = std::malloc(n ? n : 1);
  if (!p) throw std::bad_alloc();
  return p;
}
void* operator new[](std::size_t n) { return operator new(n); }
void operator delete(void* p) noexcept { std::free(p); }
void operator delete[](void* p) noexcept { std::free(p); }
void operator delete(void* p, std::size_t) noexcept { std::free(p); }
void operator delete[](void* p, std::size_t) noexcept { std::free(p); }

TEST_CASE("a snapshot tells every greenlet of the process, as it is: 10,000 in 2 threads") {
  constexpr unsigned each = 5000;
  const unsigned n = testing::times(each);
  std::promise<void> ready, seen;
  std::vector<greenlet> others(n);
  greenlet their_main;
  pid_t their_tid = 0;
  std::thread t([&] {
    their_tid = gettid();
    their_main = main_greenlet();
    for (unsigned i = 0; i < n; ++i) {
      others[i] = greenlet([i] { t_deeper(static_cast<int>(i % 7)); });
      others[i].set_name("other " + std::to_string(i));
      others[i].switch_to();
    }
    ready.set_value();
    seen.get_future().wait();
    others.clear();
  });
  ready.get_future().wait();

  std::vector<greenlet> mine(n);
  for (unsigned i = 0; i < n; ++i) {
    mine[i] = i % 2 ? greenlet(t_elsewhere) : greenlet([i] { t_deeper(static_cast<int>(i % 7)); });
    if (i % 10 < 8) mine[i].switch_to();   // started
    if (i % 10 < 2) mine[i].switch_to();   // and finished
  }
  {
    const all now(t_takes());
    CHECK(now.s.pid == getpid());
    CHECK(now.s.changing == 0);
    CHECK(now.s.lost == 0);
    CHECK(now.twice == 0);
    CHECK(now.by_id.size() == counts().greenlets);
    REQUIRE(now.s.threads.size() == 2);

    const greenlet& me = current();
    REQUIRE(now.has(me));
    CHECK(now[me].state == greenlet_state::current);
    CHECK(now[me].is_main);
    CHECK(now.thread_of.at(me.id())->tid == gettid());
    CHECK(now.thread_of.at(me.id())->current == me.id());
    CHECK(now.thread_of.at(me.id())->main == me.id());
    CHECK(count(now.s, {now[me].addresses.front()}, "t_takes") == 1);

    REQUIRE(now.has(their_main));
    const thread_snapshot& theirs = *now.thread_of.at(their_main.id());
    CHECK(theirs.tid == their_tid);
    CHECK(theirs.current == their_main.id());
    CHECK(theirs.main == their_main.id());
    CHECK(now[their_main].addresses.empty());  // it runs
    CHECK(theirs.greenlets.size() == n + 1);

    unsigned wrong = 0;
    for (unsigned i = 0; i < n; ++i) {
      for (const greenlet& g : {mine[i], others[i]}) {
        const greenlet_snapshot& s = now[g];
        wrong += s.id != g.id() || s.state != g.state() || s.name != g.name() || s.parent != g.parent().id() || s.is_main || s.is_hub ||
                 s.switches || s.age || !s.created_at.empty() || !s.waits_for.empty();
      }
      wrong += now.thread_of.at(mine[i].id())->tid != gettid();
      wrong += now.thread_of.at(others[i].id())->tid != their_tid;
    }
    CHECK(wrong == 0);

    unsigned differ = 0, depths = 0, stacks = 0;
    for (unsigned i = 0; i < n; i += n / 50) {
      for (const greenlet& g : {mine[i], others[i]}) {
        differ += now[g].addresses != addresses(frames(g));
        const stack_usage s = g.stack();
        const bool is_mine = g == mine[i];
        if (is_mine) stacks += now[g].stack.used != s.used || now[g].stack.reserved != s.reserved || now[g].stack.committed != s.committed;
        stacks += now[g].high_water < now[g].stack.committed || (g.state() == greenlet_state::suspended && now[g].high_water < now[g].stack.used);
      }
      depths += count(now.s, now[others[i]].addresses, "t_deeper") != i % 7 + 1;
    }
    CHECK(differ == 0);
    CHECK(stacks == 0);
    CHECK(depths == 0);
  }
  seen.set_value();
  t.join();
  their_main = {};
}

TEST_CASE("what does the same is told once, with how many it is") {
  std::vector<greenlet> same, others;
  for (int i = 0; i < 50; ++i) {
    same.emplace_back(t_elsewhere);
    same.back().switch_to();
    others.emplace_back([] { t_deeper(2); });
    others.back().switch_to();
  }
  greenlet child;
  const greenlet family([&] {
    child = greenlet(t_elsewhere);
    child.switch_to();
    t_waits();
  });
  family.switch_to();
  const auto s = snapshot();
  const std::string text = written<write_text>(s);
  INFO(text);
  const auto ids = [](const std::vector<greenlet>& v) {
    std::string t;
    for (int i = 0; i < 3; ++i) t += std::to_string(v[static_cast<std::size_t>(i)].id()) + ", ";
    return t;
  };
  CHECK(text.find("50 greenlets (" + ids(same) + "...): suspended") != std::string::npos);
  CHECK(text.find("50 greenlets (" + ids(others) + "...): suspended") != std::string::npos);
  // The one with a child is another, though it waits in the same place; and its child is below it.
  const auto at_family = text.find("\n    greenlet " + std::to_string(family.id()) + ": suspended");
  const auto at_child = text.find("\n      greenlet " + std::to_string(child.id()) + ": suspended");
  REQUIRE(at_family != std::string::npos);
  REQUIRE(at_child != std::string::npos);
  CHECK(at_family < at_child);
  std::size_t told = 0;  // 51 of them stand in it
  for (auto at = text.find("t_elsewhere"); at != std::string::npos; at = text.find("t_elsewhere", at + 1)) ++told;
  CHECK(told == 2);
  const std::string graph = written<write_dot>(s);
  CHECK(graph.find("50 greenlets") != std::string::npos);
  CHECK(graph.rfind("digraph greenlets {", 0) == 0);
  CHECK(graph.substr(graph.size() - 3) == "\n}\n");
  std::istringstream lines(graph);
  for (std::string line; std::getline(lines, line);) {
    unsigned quotes = 0;
    for (std::size_t i = 0; i < line.size(); ++i)
      if (line[i] == '\\')
        ++i;
      else
        quotes += line[i] == '"';
    CHECK(quotes % 2 == 0);
  }
  CHECK(std::count(graph.begin(), graph.end(), '\n') < 40);
  child = {};
}

TEST_CASE("a graph tells functions without the namespaces that have no name") {
  process_snapshot s;
  frame f;
  f.address = &f;
  f.function = "(anonymous namespace)::t_serve((anonymous namespace)::t_client&)";
  s.symbols[&f] = {f};
  s.threads.emplace_back();
  s.threads[0].greenlets.emplace_back();
  s.threads[0].greenlets[0].addresses = {&f};
  CHECK(written<write_dot>(s).find("\\lt_serve(t_client&)\\l") != std::string::npos);
}

namespace {

// As text, one whose frames are these.
std::string t_text_of(const std::vector<frame>& frames) {
  static char addresses[16];
  process_snapshot s;
  s.threads.emplace_back();
  s.threads[0].greenlets.emplace_back();
  for (const frame& f : frames) {
    void* const at = &addresses[s.symbols.size()];
    s.symbols[at] = {f};
    s.threads[0].greenlets[0].addresses.push_back(at);
  }
  return written<write_text>(s);
}

frame t_frame(const char* function, const char* file, bool inlined) {
  frame f;
  f.function = function;
  f.file = file;
  f.object = "/usr/lib/lib.so";
  f.inlined = inlined;
  return f;
}

}  // namespace

TEST_CASE("of one that is in inlined functions of the headers only, those are told that say what it was made with") {
  const std::string text = t_text_of({t_frame("greenlets::hub::detail::go_to(greenlets::greenlet const&)", "../lib/hub/go.hpp", true),
                                      t_frame("greenlets::hub::detail::loop::park()", "../lib/hub/wait.cpp", false),
                                      t_frame("operator()", "/usr/include/greenlet/hub/group.hpp", true),
                                      t_frame("complete<greenlets::hub::every<t_f> >", "/usr/include/greenlet/hub/run.hpp", true)});
  CHECK(text.find("every<t_f>") != std::string::npos);
  CHECK(text.find("group.hpp") != std::string::npos);
  CHECK(text.find("go_to") == std::string::npos);
  CHECK(text.find("park") == std::string::npos);
}

TEST_CASE("a program's own inlined functions are told, also from a directory named greenlet; an object only without a file") {
  const std::string text = t_text_of({t_frame("greenlets::hub::sleep()", "", false),
                                      t_frame("t_serve", "/home/me/greenlet/server.cpp", true),
                                      t_frame("t_main()", "/home/me/greenlet/main.cpp", false)});
  CHECK(text.find("greenlets::hub::sleep()+0x0 in /usr/lib/lib.so\n") != std::string::npos);
  CHECK(text.find("inlined t_serve at /home/me/greenlet/server.cpp:0\n") != std::string::npos);
  CHECK(text.find("t_main()+0x0 at /home/me/greenlet/main.cpp:0\n") != std::string::npos);
}

#ifdef T_HUB
TEST_CASE("what greenlets wait for in a hub is told") {
  int ends[2];
  REQUIRE(pipe(ends) == 0);
  {
    hub::descriptor reads(ends[0]), writes(ends[1]);
    hub::mutex m;
    hub::queue<int> q(0);
    hub::semaphore s(0);
    hub::event e;
    std::map<std::string, hub::task<void>> all_tasks;
    const auto wait = [&](const std::string& how, std::function<void()> f) { all_tasks[how] = hub::spawn(std::move(f)); };
    m.lock();
    wait("reading descriptor " + std::to_string(ends[0]), [&] { reads.wait(hub::direction::readable); });
    char page[4096] = {};
    while (write(ends[1], page, sizeof page) > 0 || errno == EINTR) continue;
    wait("writing descriptor " + std::to_string(ends[1]) + ", ", [&] { writes.wait(hub::direction::writable, 1h); });
    wait("timer, ", [] { hub::sleep_for(1h); });
    wait("mutex 0x", [&] { m.lock(); });
    wait("queue pop 0x", [&] { q.pop(); });
    wait("semaphore 0x", [&] { s.acquire(); });
    wait("event 0x", [&] { e.wait(); });
    wait("any of several", [&] { hub::wait_any(q, s); });
    wait("task 0x", [&] { all_tasks.at("event 0x").join(); });
    hub::yield();
    hub::yield();
    hub::task<void> turn;
    {
      const auto before = std::chrono::steady_clock::now();
      turn = hub::spawn([] { hub::yield(); hub::yield(); });
      hub::yield();
      const all now(snapshot());
      for (const auto& entry : all_tasks) {  // no bindings: clang 14 lets no lambda, so no INFO, have them
        const std::string& how = entry.first;
        const std::string& said = now[entry.second.handle()].waits_for;
        INFO(how << " <- " << said);
        CHECK(said.find(how) == 0);
        CHECK((said.find(" s left") != std::string::npos) == (how.find(", ") != std::string::npos));
      }
      CHECK(now[turn.handle()].waits_for == "its turn");
      const thread_snapshot& t = *now.thread_of.at(current().id());
      REQUIRE(t.in_turn);
      CHECK(*t.in_turn <= std::chrono::steady_clock::now() - before + 1h);
      std::size_t hubs = 0;
      for (const greenlet_snapshot& g : t.greenlets) hubs += g.is_hub;
      CHECK(hubs == 1);
      CHECK(now[all_tasks.at("timer, ").handle().parent()].is_hub);
      const std::string text = written<write_text>(now.s);
      INFO(text);
      CHECK(text.find("waits for mutex 0x") != std::string::npos);
      CHECK(written<write_dot>(now.s).find("\\lwaits for mutex 0x") != std::string::npos);
    }
    hub::shutdown();
  }
  const auto s = snapshot();
  for (const thread_snapshot& t : s.threads) CHECK_FALSE(t.in_turn);
}
#endif

TEST_CASE("snapshots can be taken while others switch, make and finish greenlets at full speed") {
  std::atomic<bool> over{false};
  std::atomic<unsigned long> rounds{0};
  const auto work = [&] {
    std::vector<greenlet> kept;
    for (int i = 0; i < 20; ++i) {
      kept.emplace_back([] {
        for (;;) t_waits();
      });
      kept.back().set_name("kept");
    }
    while (!over) {
      for (const greenlet& g : kept) g.switch_to();
      for (int i = 0; i < 20; ++i) greenlet([] { t_elsewhere(); }).switch_to();
      std::vector<greenlet> burst(50);
      for (greenlet& g : burst) {
        g = greenlet(t_elsewhere);
        g.set_name("burst");
        g.switch_to();
      }
      for (const greenlet& g : burst) g.switch_to();
      ++rounds;
    }
  };
  std::thread a(work), b(work);
  std::thread comes_and_goes([&] {
    while (!over) std::thread([] { greenlet(t_elsewhere).switch_to(); }).join();
  });
  while (rounds < 10) std::this_thread::yield();
  const auto mine = greenlet([] { t_deeper(3); });
  mine.switch_to();
  unsigned odd = 0, missing = 0, duplicates = 0, taken = 0;
  const unsigned enough = testing::times(200);
  const unsigned long began = rounds;
  for (; taken < enough || rounds < began + 20; ++taken) {
    const all now(snapshot());
    missing += !now.has(mine) || now[mine].state != greenlet_state::suspended || now[mine].addresses != addresses(frames(mine));
    duplicates += now.twice != 0;
    for (const auto& [id, g] : now.by_id) {
      odd += id == 0 || !(g->name.empty() || g->name == "kept" || g->name == "burst") || !g->waits_for.empty();
      odd += g->is_main && g->parent != 0;
      odd += g->stack.used > g->stack.reserved;
      if (g->name == "kept" && g->state == greenlet_state::suspended && !g->addresses.empty() && g->stack.used > 0)
        odd += g->addresses.size() > 200;
    }
    if (taken % 20 == 0) {
      const std::string text = written<write_json>(now.s);
      odd += !json(text).valid();
      odd += written<write_text>(now.s).empty() + written<write_dot>(now.s).empty();
    }
  }
  over = true;
  a.join();
  b.join();
  comes_and_goes.join();
  CHECK(missing == 0);
  CHECK(duplicates == 0);
  CHECK(odd == 0);
}

TEST_CASE("a thread that has never used the library can take one") {
  const greenlet g(t_elsewhere);
  g.switch_to();
  std::thread([&] {
    const all now(snapshot());
    CHECK(now.s.threads.size() == 1);
    CHECK(now[g].addresses == addresses(frames(g)));
  }).join();
}

TEST_CASE("those of a thread that has ended are told with it, as long as they are held") {
  greenlet held, unstarted;
  std::thread([&] {
    held = greenlet(t_elsewhere);
    held.switch_to();
    unstarted = greenlet(t_elsewhere);
  }).join();
  const all now(snapshot());
  CHECK(now[held].state == greenlet_state::unwound);
  CHECK(now[held].addresses.empty());
  CHECK(now[unstarted].state == greenlet_state::unstarted);
  const thread_snapshot& t = *now.thread_of.at(held.id());
  CHECK(t.exited);
  CHECK(t.current == 0);
  CHECK(&t == now.thread_of.at(unstarted.id()));
  CHECK(written<write_text>(now.s).find("(exited)") != std::string::npos);
}

TEST_CASE("a forked child tells its own thread's, and the others' as dead") {
  std::promise<greenlet> made;
  std::promise<void> done;
  std::thread t([&] {
    const greenlet g(t_elsewhere);
    g.switch_to();
    made.set_value(g);
    done.get_future().wait();
  });
  const greenlet theirs = made.get_future().get();
  const greenlet mine(t_elsewhere);
  mine.switch_to();
  const testing::child c = testing::in_child([&] {
    const all now(snapshot());
    if (now.s.pid != getpid()) _exit(2);
    if (now[mine].state != greenlet_state::suspended || now[mine].addresses != addresses(frames(mine))) _exit(3);
    if (now[theirs].state != greenlet_state::unwound) _exit(4);
    if (now.thread_of.at(mine.id())->tid != getpid() || !now.thread_of.at(theirs.id())->exited) _exit(5);
    _exit(0);
  });
  CHECK(WIFEXITED(c.status));
  CHECK(WEXITSTATUS(c.status) == 0);
  done.set_value();
  t.join();
}

TEST_CASE("where the system forbids to read memory by a call, it is read by a pipe") {
  const greenlet mine(t_elsewhere);
  mine.switch_to();
  const testing::child c = testing::in_child([&] {
    const auto load = [](std::size_t at) { return static_cast<__u32>(at); };
    sock_filter rules[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, load(offsetof(seccomp_data, nr))),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_process_vm_readv, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const sock_fprog program = {sizeof rules / sizeof *rules, rules};
    const auto before = addresses(frames(mine));
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) _exit(77);
    const all now(snapshot());
    if (now.s.lost != 0 || now.by_id.size() != counts().greenlets) _exit(2);
    if (now[mine].state != greenlet_state::suspended || now[mine].addresses != before) _exit(3);
    _exit(0);
  });
  CHECK(WIFEXITED(c.status));
  CHECK((WEXITSTATUS(c.status) == 0 || WEXITSTATUS(c.status) == 77));
}

TEST_CASE("logical frames go on in the parents") {
  greenlet child;
  std::vector<frame> own, logical;
  const greenlet parent([&] {
    child = greenlet([] { t_deeper(1); });
    child.switch_to();
    t_elsewhere();
  });
  parent.switch_to();
  own = frames(child);
  logical = logical_frames(child);
  const auto middle = frames(parent);
  CHECK(logical.size() > own.size() + middle.size());
  const auto named = [](const std::vector<frame>& all, const std::string& name) {
    return std::count_if(all.begin(), all.end(), [&](const frame& f) { return f.function.find(name) == 0; });
  };
  CHECK(named(own, "t_elsewhere") == 0);
  CHECK(named(logical, "t_deeper") == named(own, "t_deeper"));
  CHECK(named(logical, "t_elsewhere") == named(middle, "t_elsewhere"));
  CHECK(named(logical, "main") == 1);
  CHECK(logical_frames(greenlet()).empty());
  CHECK(addresses(logical_frames(parent)).size() + addresses(own).size() == addresses(logical).size());
  child = {};
}

#ifndef T_TSAN
namespace {
// A shared object that is nobody else's; none in a library without any.
const char* plugin() {
  static const std::string path = testing::directory_of_tests() + "/exiting/.libs/plugin.so";
  return access(path.c_str(), R_OK) == 0 ? path.c_str() : nullptr;
}
}  // namespace

TEST_CASE("an object may be unloaded while stacks are walked that were in it") {
  if (!plugin()) return;
  const testing::child c = testing::in_child([] {  // so that nobody comes back from what is not there
    void* object = dlopen(plugin(), RTLD_NOW);
    greenlet g(reinterpret_cast<void (*)()>(dlsym(object, "plugin_waits")));
    g.switch_to();
    std::atomic<bool> enough{false};
    std::thread other([&] {
      for (unsigned i = 0; i < testing::times(5000); ++i) {
        dlclose(object);
        object = dlopen(plugin(), RTLD_NOW);
      }
      enough = true;
    });
    while (!enough) frames(g);
    other.join();
    _exit(0);
  });
  INFO(c.output);
  CHECK(c.status == 0);
}

#ifndef T_ASAN
TEST_CASE("without memory for debugging information snapshots fail, and the process lives") {
  if (!plugin()) return;
  for (std::size_t more = 0; more < 48; more += 4) {
    const testing::child c = testing::in_child([more] {
      dlclose(dlopen(plugin(), RTLD_NOW));  // whereupon all files are read anew
      std::size_t pages = 0;
      std::ifstream("/proc/self/statm") >> pages;
      const rlimit most = {pages * static_cast<std::size_t>(sysconf(_SC_PAGESIZE)) + (more << 20), RLIM_INFINITY};
      setrlimit(RLIMIT_AS, &most);
      try {
        snapshot();
      } catch (const std::bad_alloc&) {
      }
      _exit(77);
    });
    INFO(c.output);
    CHECK(WEXITSTATUS(c.status) == 77);
  }
}
#endif
#endif

TEST_CASE("without memory it throws std::bad_alloc, wherever that comes, and nothing is left") {
  std::vector<greenlet> some;
  record_creation(true);
  for (int i = 0; i < 10; ++i) {
    some.emplace_back(t_elsewhere);
    some.back().set_name("a name that is too long to lie in a string itself");
    some.back().switch_to();
  }
  record_creation(false);
  const snapshot_options with = {true, false, true, 200};  // libdw does without what it is refused, or does not
  const std::size_t before = all(snapshot(with)).by_id.size();
  const auto refused = [](auto&& act) {
    for (long n = 0;; ++n) {
      blocks_left = n;
      try {
        act();
        blocks_left = -1;
        return n;
      } catch (const std::bad_alloc&) {
        blocks_left = -1;
      }
    }
  };
  CHECK(refused([&] { snapshot(with); }) > 100);
  const auto s = snapshot();
  CHECK(refused([&] { write_text(nowhere(), s); }) > 10);
  CHECK(refused([&] { write_json(nowhere(), s); }) > 10);
  CHECK(refused([&] { write_dot(nowhere(), s); }) > 10);
  CHECK(all(snapshot(with)).by_id.size() == before);
}

TEST_CASE("what was not asked for is not looked for") {
  const greenlet g(t_elsewhere);
  g.switch_to();
  snapshot_options with;
  with.frames = false;
  with.pages = false;
  CHECK(all(snapshot(with))[g].addresses.empty());
  CHECK(all(snapshot(with))[g].stack.committed == 0);
  with.frames = true;
  with.symbols = false;
  with.most_frames = 2;
  const all now(snapshot(with));
  CHECK(now[g].addresses.size() == 2);
  CHECK(now.s.symbols.empty());
}
