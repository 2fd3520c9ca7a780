// SPDX-License-Identifier: MIT
// What snapshots say when it is recorded: creations, switches; and how they are written.
#include "json.hpp"
#include "snapshots.hpp"

#include <greenlet/counts.hpp>
#include <greenlet/creation.hpp>

#include <atomic>
#include <chrono>
#include <future>
#include <iomanip>
#include <locale>
#include <sstream>
#include <stdexcept>
#include <streambuf>
#include <string>
#include <thread>

using testing::json;

TEST_CASE("when and where it was made is told, when that is recorded") {
  greenlet before = t_makes();
  record_creation(true);
  const auto from = std::chrono::steady_clock::now();
  greenlet g = t_makes();
  greenlet with(attributes().name("with attributes"), t_waits);
  const auto made = std::chrono::steady_clock::now();
  record_creation(true, 0);
  greenlet when_only = t_makes();
  record_creation(false);
  greenlet later = t_makes();
  {
    const all now(snapshot());
    const auto end = std::chrono::steady_clock::now();
    for (const greenlet& each : {before, later}) {
      CHECK_FALSE(now[each].age);
      CHECK(now[each].created_at.empty());
    }
    REQUIRE(now[g].age);
    CHECK(*now[g].age <= end - from);
    REQUIRE(now[with].age);
    CHECK(*now[with].age >= std::chrono::nanoseconds(0));
    REQUIRE(now[when_only].age);
    CHECK(*now[when_only].age <= end - made);
    CHECK(now[when_only].created_at.empty());
    REQUIRE_FALSE(now[g].created_at.empty());
    CHECK(now[g].created_at.size() <= 16);
    CHECK(count(now.s, now[g].created_at, "t_makes") == 1);
    CHECK(count(now.s, now[with].created_at, "t_makes") == 0);
    const std::string text = written<write_text>(now.s);
    INFO(text);
    CHECK(text.find("made by") != std::string::npos);
  }
  // A record that has been used before has forgotten it.
  g = {};
  for (int i = 0; i < 300; ++i) CHECK_FALSE(all(snapshot({false, false, false, 0}))[t_makes()].age);
}

TEST_CASE("others' creations are recorded at the latest when they have made 256 more") {
  std::atomic<bool> on{false};
  std::thread t([&] {
    greenlet([] {});
    while (!on) std::this_thread::yield();
    for (int i = 0; i < 256; ++i) greenlet([] {});
    greenlet g = t_makes();
    const all now(snapshot());
    CHECK(now[g].age);
  });
  record_creation(true);
  on = true;
  t.join();
  record_creation(false);
}

TEST_CASE("how often each was switched to is told, while that is counted: in threads that exist and in those to come") {
  const auto loops = [] {
    for (;;) switch_to_parent();
  };
  // By the straight path and others: what is thrown, what ends, what is gone to as the parent.
  const auto work = [&](unsigned& wrong) {
    greenlet before(loops);
    greenlet g(loops);
    before.switch_to();
    greenlet ends([&] {
      for (int i = 0; i < 10; ++i) greenlet([] {}, current()).switch_to();
    });
    ends.switch_to();
    for (int i = 0; i < 99; ++i) g.switch_to();
    greenlet swallows([] {
      for (;;) try {
          switch_to_parent();
        } catch (const std::runtime_error&) {
        }
    });
    swallows.switch_to();
    for (int i = 0; i < 5; ++i) swallows.throw_in(std::runtime_error("counted"));
    const all now(snapshot({false, false, false, 0}));
    wrong += now[g].switches != 99;
    wrong += now[before].switches != 1;
    wrong += now[swallows].switches != 6;
    wrong += !now[current()].switches || *now[current()].switches < 107;  // back from each of these
    wrong += now[ends].switches != 11;
    return g;
  };
  unsigned wrong = 0, none = 0;
  std::promise<void> is_on;
  std::thread earlier([&, on = is_on.get_future()]() mutable {
    greenlet([] {}).switch_to();  // its record is there
    on.wait();
    work(wrong);
  });
  const greenlet not_counted(loops);
  not_counted.switch_to();
  count_switches(true);
  is_on.set_value();
  earlier.join();
  std::thread later([&] { work(wrong); });
  later.join();
  const greenlet kept = work(wrong);
  count_switches(false);
  for (int i = 0; i < 10; ++i) kept.switch_to();
  {
    const all now(snapshot({false, false, false, 0}));
    CHECK(now[kept].switches == 99);
    CHECK_FALSE(now[not_counted].switches);
    CHECK(written<write_json>(now.s).find("\"switches\":99") != std::string::npos);
  }
  CHECK(wrong == 0);
  // A record that was used before has forgotten it.
  for (int i = 0; i < 300; ++i) {
    greenlet g(loops);
    g.switch_to();
    none += all(snapshot({false, false, false, 0}))[g].switches.has_value();
  }
  CHECK(none == 0);
}

TEST_CASE("names of any bytes are written so that people and programs can read them") {
  const std::string odd = "a\"b\\c\nd\x01\x1b[31m\x7f \xc3\xa9 \xff\xc3 \xe2\x82 \xed\xa0\x80 \xc2\x9b end";
  greenlet g(t_waits);
  g.set_name(odd);
  greenlet longest(t_waits);
  longest.set_name(std::string(10000, 'x'));
  greenlet with_zero(t_waits);
  with_zero.set_name(std::string("zero\0inside", 11));
  const all now(snapshot());
  CHECK(now[g].name == odd);
  CHECK(now[longest].name == std::string(4096, 'x'));
  CHECK(now[with_zero].name == std::string("zero\0inside", 11));

  const std::string text = written<write_json>(now.s);
  const json j(text);
  REQUIRE(j.valid());
  const auto& s = j.strings();
  const std::string as_told = std::string("a\"b\\c\nd\x01\x1b[31m\x7f \xc3\xa9 ?? ?? ??? \xc2\x9b end");
  CHECK(std::find(s.begin(), s.end(), as_told) != s.end());
  CHECK(std::find(s.begin(), s.end(), std::string("zero\0inside", 11)) != s.end());

  const std::string told = written<write_text>(now.s);
  CHECK(told.find("\"a\\\"b\\\\c\\x0ad\\x01\\x1b[31m\\x7f \xc3\xa9 \\xff\\xc3 \\xe2\\x82 \\xed\\xa0\\x80 \\xc2\\x9b end\"") != std::string::npos);
  for (const char c : told + written<write_dot>(now.s)) REQUIRE((c == '\n' || static_cast<unsigned char>(c) >= 0x20));
}

namespace {
struct grouping : std::numpunct<char> {
  std::string do_grouping() const override { return "\1"; }
  char do_thousands_sep() const override { return '.'; }
};

template <void write(std::ostream&, const process_snapshot&)>
void check_plain(const process_snapshot& s) {
  const std::string plain = written<write>(s);
  std::ostringstream other;
  other.imbue(std::locale(std::locale::classic(), new grouping));
  other << std::hex << std::showbase << std::showpos << std::setfill('#');
  write(other, s);
  CHECK(other.str() == plain);
  other.str("");
  other << 255;
  CHECK(other.str() == "0xf.f");  // the stream is as it was
}
}  // namespace

TEST_CASE("what is written depends on no locale, and on nothing that the stream was told") {
  std::vector<greenlet> many;
  for (int i = 0; i < 20; ++i) many.emplace_back([i] { t_deeper(i % 2); });
  for (const greenlet& g : many) g.switch_to();
  const auto s = snapshot();
  const std::locale before = std::locale::global(std::locale(std::locale::classic(), new grouping));
  check_plain<write_json>(s);
  check_plain<write_text>(s);
  check_plain<write_dot>(s);
  CHECK(json(written<write_json>(s)).valid());
  CHECK(written<write_text>(s).find(" " + std::to_string(s.pid) + " ") != std::string::npos);
  std::locale::global(before);
  // Nor is it lost that something went wrong.
  std::ostream nowhere(nullptr);
  write_json(nowhere, s);
  CHECK(nowhere.bad());
  struct broken : std::streambuf {
    int_type overflow(int_type) override { throw std::runtime_error("broken"); }
  } of;
  std::ostream out(&of);
  out.exceptions(std::ios_base::badbit);
  CHECK_THROWS_AS(write_json(out, s), std::runtime_error);
  CHECK(out.bad());
}

TEST_CASE("JSON has all that there is") {
  greenlet g(t_elsewhere);
  g.switch_to();
  const auto s = snapshot();
  const std::string text = written<write_json>(s);
  json j(text);
  REQUIRE(j.valid());
  std::size_t greenlets = 0, frames = 0;
  for (const thread_snapshot& t : s.threads) greenlets += t.greenlets.size();
  for (const auto& [address, each] : s.symbols) frames += each.size();
  CHECK(j.names["id"] == greenlets);
  CHECK(j.names["addresses"] == greenlets);
  CHECK(j.names["stack"] == greenlets);
  CHECK(j.names["waits_for"] == greenlets);
  CHECK(j.names["tid"] == s.threads.size());
  CHECK(j.names["function"] == frames);
  CHECK(j.names["version"] == 1);
}
