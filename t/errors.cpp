// SPDX-License-Identifier: MIT
// What is thrown when the library is misused, and how its text describes greenlets.
#include "testing.hpp"

#include <exception>
#include <functional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <type_traits>
#include <unistd.h>
#include <utility>

using namespace greenlets;
using testing::error_from;

namespace {

struct derived_elsewhere : error {
  derived_elsewhere() : error(errc::no_run, "one sentence", "  and more") {}
};

// How errors describe a greenlet of this thread: by a parent that it cannot have.
std::string description(const greenlet& g) {
  const error e = error_from([&] { g.set_parent(g); });
  const std::string what = e.what(), before = "greenlet:   ";
  const std::size_t begin = what.find(before) + before.size();
  return what.substr(begin, what.find('\n', begin) - begin);
}

// The same for one of another thread, which is named as the target of a switch.
std::string description_from_outside(const greenlet& g) {
  const error e = error_from([&] { g.switch_to(); });
  const std::string what = e.what(), before = "target:  ";
  const std::size_t begin = what.find(before) + before.size();
  return what.substr(begin, what.find('\n', begin) - begin);
}

std::string number(const greenlet& g) { return "greenlet " + std::to_string(g.id()); }

}  // namespace

TEST_CASE("1: misuse is a greenlets::error, a std::logic_error with a code and a sentence that begins its text") {
  static_assert(std::is_base_of_v<std::logic_error, error>);
  static_assert(std::is_nothrow_copy_constructible_v<error>);
  static_assert(std::has_virtual_destructor_v<error>);
  const error plain(errc::cyclic_parent, "a sentence");
  CHECK(plain.what() == std::string("a sentence"));
  CHECK(plain.summary() == "a sentence");
  CHECK(plain.code() == errc::cyclic_parent);
  const error detailed(errc::no_run, "a sentence", "  first\n  second");
  CHECK(detailed.what() == std::string("a sentence\n  first\n  second"));
  CHECK(detailed.summary() == "a sentence");

  // By reference to any of its bases, and from a greenlet to its parent, it stays what it is.
  const greenlet thrower([] { throw derived_elsewhere(); });
  try {
    thrower.switch_to();
    FAIL("nothing was thrown");
  } catch (const std::logic_error& e) {
    CHECK(dynamic_cast<const derived_elsewhere*>(&e));
    CHECK(dynamic_cast<const error&>(e).summary() == "one sentence");
  }
}

TEST_CASE("1: each misuse has its code, and the summary is the first line of the text") {
  const greenlet main = current();
  const greenlet idle{attributes()}, done([] {}), other([] {});
  done.switch_to();
  const std::pair<errc, std::function<void()>> all[] = {
      {errc::no_run, [&] { idle.switch_to(); }},
      {errc::no_run, [&] { idle.throw_in(); }},
      {errc::already_started, [&] { done.set_run([] {}); }},
      {errc::already_started, [&] { done.reset_run(); }},
      {errc::already_started, [&] { main.reset_run(); }},
      {errc::cyclic_parent, [&] { other.set_parent(other); }},
      {errc::main_parent, [&] { main.set_parent(other); }},
      {errc::main_parent, [] { switch_to_parent(); }},
      {errc::wrong_type, [] { value(1).get<long>(); }},
      {errc::wrong_type, [] { value().take<int>(); }},
      {errc::wrong_arguments, [] { greenlet([](int) {}).switch_to(); }},
      {errc::wrong_arguments, [&] { other.throw_in(std::exception_ptr()); }},
      {errc::empty_handle, [] { greenlet().switch_to(); }},
      {errc::empty_handle, [] { greenlet().throw_in(); }},
      {errc::empty_handle, [] { greenlet().parent(); }},
      {errc::empty_handle, [] { greenlet().set_name("x"); }},
  };
  for (const auto& [code, misuse] : all) {
    const error e = error_from(misuse);
    const std::string what = e.what();
    CAPTURE(what);
    CHECK(e.code() == code);
    CHECK(e.summary() == what.substr(0, what.find('\n')));
    CHECK(e.summary().size() > 10);
  }
  CHECK(other.state() == greenlet_state::unstarted);
}

TEST_CASE("1: nothing else is an error: what the system refuses, a bad size, and what greenlets throw") {
  const auto kind = [](const std::function<void()>& f) -> std::string {
    try {
      f();
    } catch (const error&) {
      return "error";
    } catch (const std::system_error&) {
      return "system_error";
    } catch (const std::invalid_argument&) {
      return "invalid_argument";
    } catch (const std::logic_error&) {
      return "logic_error";
    }
    return "nothing";
  };
  CHECK(kind([] { greenlet(attributes().stack_size(testing::too_large()), [] {}).switch_to(); }) == "system_error");
  CHECK(kind([] { greenlet(attributes().stack_size(1), [] {}); }) == "invalid_argument");
  CHECK(kind([] { greenlet([] { throw std::logic_error("the user's"); }).switch_to(); }) == "logic_error");
  CHECK(kind([] { greenlet([] {}).throw_in(std::logic_error("the user's")); }) == "logic_error");
  // What is no misuse throws nothing at all.
  CHECK(kind([] {
          const greenlet g([] {});
          g.switch_to();
          g.switch_to(1);
          g.throw_in();
          g.set_parent(main_greenlet());
        }) == "nothing");
}

TEST_CASE("101: an error describes a greenlet by number, name, state and thread, in every state, again and again") {
  const std::string here = " of thread " + std::to_string(gettid());
  const auto twice = [](const greenlet& g) {
    const std::string first = description(g);
    CHECK(description(g) == first);
    return first;
  };
  greenlet g;
  g = greenlet(attributes().name("client 7"), [&] {
    CHECK(twice(g).rfind(number(g) + " \"client 7\" (running)" + here, 0) == 0);
    switch_to_parent();
  });
  CHECK(twice(g) == number(g) + " \"client 7\" (unstarted)");  // of no thread yet
  g.switch_to();
  CHECK(twice(g).rfind(number(g) + " \"client 7\" (suspended)" + here, 0) == 0);
  g.set_name("");
  CHECK(twice(g).rfind(number(g) + " (suspended)" + here, 0) == 0);
  g.switch_to();
  CHECK(twice(g).rfind(number(g) + " (finished)" + here, 0) == 0);

  const greenlet main = main_greenlet();
  const auto main_here = [&] { return std::string(error_from([&] { main.reset_run(); }).what()); };
  CHECK(main_here().find(number(main) + " (main) (running)" + here) != std::string::npos);
  greenlet([&] { CHECK(main_here().find(number(main) + " (main) (suspended)" + here) != std::string::npos); }).switch_to();
}

TEST_CASE("101: the same from another thread, and when its own has exited") {
  greenlet main, suspended, finished, unstarted;
  std::string tid;
  const auto make = [&] {
    tid = std::to_string(gettid());
    main = current();
    suspended = greenlet(attributes().name("s"), [] { switch_to_parent(); });
    suspended.switch_to();
    finished = greenlet([] {});
    finished.switch_to();
    unstarted = greenlet([] {});
  };
  std::thread([&] {
    make();
    std::thread([&] {
      const std::string there = " of thread " + tid;
      CHECK(description_from_outside(main).rfind(number(main) + " (main) (running)" + there, 0) == 0);
      CHECK(description_from_outside(suspended).rfind(number(suspended) + " \"s\" (suspended)" + there, 0) == 0);
      CHECK(description_from_outside(finished).rfind(number(finished) + " (finished)" + there, 0) == 0);
      CHECK(description_from_outside(unstarted) == number(unstarted) + " (unstarted)");
      CHECK(description_from_outside(suspended).find("(exited)") == std::string::npos);
    }).join();
  }).join();
  const std::string there = " of thread " + tid;
  for (int twice = 0; twice < 2; ++twice) {
    CHECK(description_from_outside(main).rfind(number(main) + " (main) (unwound)" + there, 0) == 0);
    CHECK(description_from_outside(suspended).rfind(number(suspended) + " \"s\" (unwound)" + there, 0) == 0);
    CHECK(description_from_outside(finished).rfind(number(finished) + " (finished)" + there, 0) == 0);
    CHECK(description_from_outside(unstarted) == number(unstarted) + " (unstarted)");
    CHECK(description_from_outside(suspended).find("(exited)") != std::string::npos);
  }
}
