// SPDX-License-Identifier: MIT
// A walk through all places at which a greenlet waits in the hub (t/hub_points.hpp). At each of them it is cancelled, has
// a timeout, sees its hub end, and its thread, and is one of two; and nothing is left of it.
#include "hub_points.hpp"

#include "hub_testing.hpp"

#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <stdexcept>
#include <thread>

using namespace greenlets;
using namespace testing;

namespace {

std::vector<point> all_points() {
  std::vector<point> all = points_of_objects();
  for (const point& each : points_of_system()) all.push_back(each);
  return all;
}

std::string name_of(const point& p) { return p.how.empty() ? p.function : p.function + ", " + p.how; }

std::string what_is_left() {
  current();  // unwinds what others have dropped
  std::ostringstream text;
  const process_counts c = counts();
  text << c.greenlets << " greenlets, " << c.stacks - c.pooled_stacks << " stacks in use, " << c.threads
       << " threads; descriptors:";
  DIR* const d = opendir("/proc/self/fd");
  std::set<int> numbers;
  while (const dirent* e = readdir(d))
    if (const int fd = std::atoi(e->d_name); e->d_name[0] != '.' && fd != dirfd(d)) numbers.insert(fd);
  closedir(d);
  for (const int fd : numbers) text << ' ' << fd;
  return text.str();
}

// A greenlet that waits there, and what becomes of it.
class visitor {
 public:
  explicit visitor(const scene& s)
      : task_(hub::spawn([wait = s.wait, gone = at_end([left = left_] { *left = true; })] { return wait(); })) {}

  const greenlet& handle() const { return task_.handle(); }
  bool ready() const { return task_.ready(); }
  bool has_left() const { return *left_; }  // its destructors have run
  void cancel() const { task_.cancel(); }

  // Lets it go as far as it can. What it waits for does not come, so all that counts are the hub's turns.
  void settle(const scene& s) const {
    for (int turns = 0; turns < 3; ++turns) hub::yield();
    yield_until([&] { return ready() || s.begun(); });
  }
  enum class end { satisfied, refused, cancelled, failed };
  end ended() const {
    if (!task_.join(hang_guard())) FAIL("it still waits");
    CHECK(has_left());
    try {
      return task_.get() ? end::satisfied : end::refused;
    } catch (const hub::cancelled&) {
      return end::cancelled;
    } catch (const std::exception& e) {
      what_ = e.what();
      return end::failed;
    }
  }
  const std::string& what() const { return what_; }

 private:
  std::shared_ptr<bool> left_ = std::make_shared<bool>(false);
  hub::task<bool> task_;
  mutable std::string what_;
};

// That what one has waited for can be waited for, and had.
void check_usable(const scene& s) {
  const visitor next(s);
  next.settle(s);
  s.satisfy();
  const visitor::end how = next.ended();
  CAPTURE(next.what());
  CHECK(how == visitor::end::satisfied);
}

// Calls `f(scene)` at each point in turn, and compares what there was before with what is left.
template <class F>
void walk(unsigned without, F&& f) {
  for (const point& each : all_points()) {
    if (each.traits & without) continue;
    const std::string name = name_of(each);
    CAPTURE(name);
    const std::string before = what_is_left();
    {
      const scene s = each.make();
      f(s, each.traits);
      hub::shutdown();
    }
    hub::shutdown();
    CHECK(what_is_left() == before);
  }
}

}  // namespace

TEST_CASE("wherever a greenlet waits it can be cancelled, and what it waited for is there for the next") {
  walk(none, [](const scene& s, unsigned traits) {
    const visitor one(s);
    one.settle(s);
    REQUIRE_FALSE(one.ready());
    one.cancel();
    if (traits & held) {
      one.settle(s);
      CHECK_FALSE(one.ready());
      s.satisfy();
    }
    CHECK(one.ended() == visitor::end::cancelled);
    check_usable(s);
  });
}

TEST_CASE("wherever a greenlet waits a timeout ends it, and what it waited for is there for the next") {
  walk(none, [](const scene& s, unsigned traits) {
    bool threw = false;
    scene bounded = s;
    bounded.wait = [&threw, wait = s.wait] {
      hub::timeout limit(milliseconds(2));
      try {
        wait();
        hub::yield();  // what a destructor has kept comes out here
      } catch (const hub::timed_out& e) {
        threw = limit.threw(e);
      }
      CHECK(limit.expired());
      return true;
    };
    const visitor one(bounded);
    if (traits & held) {
      one.settle(s);
      hub::sleep_for(milliseconds(4));
      if (s.begun()) CHECK_FALSE(one.ready());  // else it never will, and may have gone
      s.satisfy();
    }
    CHECK(one.ended() == visitor::end::satisfied);
    CHECK(threw);
    check_usable(s);
  });
}

TEST_CASE("wherever a greenlet waits its hub may end, and what it waited for does not keep anybody afterwards") {
  walk(none, [](const scene& s, unsigned traits) {
    const visitor one(s);
    one.settle(s);
    REQUIRE_FALSE(one.ready());
    if (traits & held) s.satisfy();
    hub::shutdown();
    REQUIRE(one.ready());
    CHECK(one.has_left());
    CHECK(one.handle().dead());
    if (!(traits & held)) CHECK(one.ended() == visitor::end::cancelled);
    const visitor next(s);  // in a new hub; descriptors and the like belong to the old one, and say so
    next.settle(s);
    s.satisfy();
    next.ended();
  });
}

TEST_CASE("wherever a greenlet waits its thread may end") {
  walk(none, [](const scene&, unsigned) {});  // the making of a scene leaves nothing
  for (const point& each : all_points()) {
    const std::string name = name_of(each);
    CAPTURE(name);
    const std::string before = what_is_left();
    bool waited = false, left = false;
    std::thread([&] {
      const scene s = each.make();
      const auto t = hub::spawn([wait = s.wait, gone = at_end([&left] { left = true; })] { return wait(); });
      for (int turns = 0; turns < 3; ++turns) hub::yield();
      yield_until(s.begun);
      waited = !t.ready();
      if (each.traits & held) s.satisfy();
    }).join();
    CHECK(waited);
    CHECK(left);
    CHECK(what_is_left() == before);
  }
}

TEST_CASE("wherever two greenlets wait the first can be cancelled, and the second goes on; or it is refused, and says so") {
  walk(none, [](const scene& s, unsigned traits) {
    if (traits & alone && traits & held) return;
    const visitor one(s);
    one.settle(s);
    const visitor two(s);
    two.settle(s);
    REQUIRE_FALSE(one.ready());
    if (traits & alone) {
      CHECK(two.ended() == visitor::end::failed);
      CHECK(two.what().find("another greenlet ") == 0);
    }
    one.cancel();
    if (traits & held) s.satisfy();
    CHECK(one.ended() == visitor::end::cancelled);
    if (traits & alone) return check_usable(s);
    s.satisfy();
    CHECK(two.ended() == visitor::end::satisfied);
  });
}

TEST_CASE("a call that waits several times is cancelled at each of them in turn, while it gets what it waits for") {
  std::map<std::string, unsigned> waits;
  for (unsigned nth = 1; nth <= 40; ++nth) {
    unsigned reached = 0;
    CAPTURE(nth);
    for (const point& each : all_points()) {
      const std::string name = name_of(each);
      if (each.traits & unsatisfied || (nth > 1 && waits[name] < nth - 1)) continue;
      CAPTURE(name);
      const std::string before = what_is_left();
      {
        const scene s = each.make();
        {
          const visitor one(s);
          unsigned times = 0;
          settrace([&](trace_event, const greenlet& origin, const greenlet& target) {
            if (origin != one.handle() || target == origin || origin.dead() || ++times != nth) return;
            hub::cancel(origin);
          });
          const struct untraced {
            ~untraced() { settrace({}); }
          } at_any_exit;
          one.settle(s);
          s.satisfy();
          const visitor::end how = one.ended();
          CAPTURE(one.what());
          CHECK((how == visitor::end::cancelled || how == visitor::end::satisfied));
          waits[name] = times;
          if (times >= nth) ++reached;
        }
        check_usable(s);
        hub::shutdown();
      }
      hub::shutdown();
      CHECK(what_is_left() == before);
    }
    if (reached == 0) break;
  }
  for (const auto& each : waits) CHECK_MESSAGE(each.second > 0, each.first);
}

// -- That these are all ----------------------------------------------------------------------------

namespace {

// What cannot be walked, and why.
const std::map<std::string, const char*> elsewhere = {
    {"hub.shutdown", "the walk itself calls it, at each point; only a main greenlet may"},
};

struct declaration {
  std::string function, text, documentation;
};

std::string word_before(const std::string& text, std::size_t end) {
  std::size_t begin = end;
  const auto belongs = [](char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '~'; };
  while (begin > 0 && belongs(text[begin - 1])) --begin;
  return text.substr(begin, end - begin);
}

bool begins(const std::string& text, const char* with) { return text.rfind(with, 0) == 0; }

// The public functions of a header, each with what stands above it: its own, or what is said of the one above it, when
// no empty line is between. It relies on how the headers are laid out, as t/names.awk does.
std::vector<declaration> functions_of(const std::string& path) {
  std::ifstream file(path);
  REQUIRE(file);
  std::vector<declaration> found;
  std::string owner = "hub", line, documentation, comment;
  bool hidden = false, is_private = false, in_hub = false;
  declaration* open = nullptr;
  while (std::getline(file, line)) {
    const std::size_t indent = line.find_first_not_of(' ');
    const std::string text = indent == std::string::npos ? "" : line.substr(indent);
    if (begins(line, "namespace greenlets::hub {")) in_hub = true;
    if (begins(line, "namespace detail {")) hidden = true;
    if (begins(line, "}  // namespace")) hidden = false;
    if (begins(line, "class ") || begins(line, "struct ")) {
      if (text.find(';') != std::string::npos) continue;
      const std::size_t name_end = text.find_first_of(":{") - 1;
      owner = word_before(text, name_end);
      is_private = false;
    }
    if (begins(line, "};")) owner = "hub", is_private = false;
    if (indent == 1 && (text == "private:" || text == "public:")) is_private = text == "private:";
    if (text.empty() || text == "public:" || text == "private:") documentation.clear(), comment.clear(), open = nullptr;
    if (!in_hub || hidden || is_private) continue;
    if (begins(text, "///")) {
      comment += text.substr(3);
      open = nullptr;
      continue;
    }
    if (indent != (owner == "hub" ? 0U : 2U)) {
      // The rest of a declaration in several lines.
      if (open && open->text.find_first_of(";{") == std::string::npos) open->text += " " + text;
      continue;
    }
    if (!comment.empty()) documentation = std::exchange(comment, "");
    const std::size_t bracket = text.find('(');
    if (bracket == std::string::npos || begins(text, "//") || begins(text, "template") || begins(text, "}") ||
        begins(text, "friend") || begins(text, "class") || begins(text, "static_assert"))
      continue;
    found.push_back({owner + "." + word_before(text, bracket), text, documentation});
    open = &found.back();
  }
  return found;
}

// Whether it says so: "Switches: to the hub" or "as" another, or "Waits"; or it has a deadline. What cannot throw cannot
// wait, but for destructors.
bool waits(const declaration& d) {
  const std::string head = d.text.substr(0, d.text.find_first_of(";{"));
  if (head.find('~') == std::string::npos && head.find("noexcept") != std::string::npos) return false;
  if (head.find("= delete") != std::string::npos || d.text.find("= default") != std::string::npos) return false;
  if (const std::size_t says = d.documentation.find("Switches"); says != std::string::npos) {
    const std::size_t colon = d.documentation.find(": ", says);
    const std::string how = d.documentation.substr(colon + 2, 3);
    if (how == "to " || how == "yes" || how == "as ") return true;
    if (how == "no." || how == "no," || how == "no;" || how == "no:" || how == "may") return false;
  }
  return begins(d.documentation, " Waits") || head.find("deadline until") != std::string::npos ||
         head.find("deadline grace") != std::string::npos;
}

}  // namespace

TEST_CASE("every function of which the headers say that it waits is walked") {
  const char* const from = std::getenv("srcdir");
  const std::string here = __FILE__;
  const std::string top = from ? from : here.substr(0, here.rfind('/')) + "/..";
  const std::string headers = top + "/include/greenlet/hub/";
  std::set<std::string> wait, walked;
  std::size_t functions = 0, read = 0;
  DIR* const d = opendir(headers.c_str());
  REQUIRE(d);
  while (const dirent* e = readdir(d)) {
    const std::string name = e->d_name;
    if (name[0] == '.' || name == "line.hpp") continue;  // that is not for users
    ++read;
    for (const declaration& each : functions_of(headers + name)) {
      ++functions;
      if (waits(each)) wait.insert(each.function);
    }
  }
  closedir(d);
  CHECK(read > 25);
  CHECK(functions > 200);
  for (const point& each : all_points()) walked.insert(each.function);
  for (const auto& each : elsewhere) walked.insert(each.first);
  for (const std::string& each : wait) CHECK_MESSAGE(walked.count(each), each << " waits, and is not walked");
  for (const std::string& each : walked)
    CHECK_MESSAGE(wait.count(each), each << " is walked, and its header does not say that it waits");
}
