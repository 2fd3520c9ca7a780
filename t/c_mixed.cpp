// SPDX-License-Identifier: MIT
// Greenlets made in C and in C++ in one tree: values, exceptions, parents and ends that cross over.
#include "testing.hpp"

#include <greenlet/c.hpp>

#include <cerrno>
#include <cstring>
#include <pthread.h>
#include <stdexcept>
#include <string>
#include <thread>

using greenlets::greenlet;
using greenlets::greenlet_exit;
using greenlets::value;
using testing::events;
using testing::noting;

namespace {

// A reference of C's.
struct c_greenlet {
  greenlet_t* g;
  explicit c_greenlet(greenlet_function* run, void* data = nullptr, greenlet_t* parent = nullptr)
      : g(greenlet_new(run, data, parent)) {}
  c_greenlet(const c_greenlet&) = delete;
  c_greenlet& operator=(const c_greenlet&) = delete;
  ~c_greenlet() { drop(); }
  void drop() { greenlet_unref(std::exchange(g, nullptr)); }
  greenlet handle() const { return greenlets::from_c(g); }
  operator greenlet_t*() const { return g; }  // NOLINT: as C passes it
};

int echo(void*, void* payload, void** result) {
  *result = payload;
  return GREENLET_OK;
}

// Keeps switching to its parent, sending back what it received.
int echoes(void*, void* payload, void**) {
  int status = GREENLET_OK;
  while (status == GREENLET_OK) status = greenlet_switch_to_parent(payload, &payload);
  return status;
}

// Switches to the greenlet `data` and ends as that says.
int passes_on(void* data, void* payload, void** result) {
  return greenlet_switch(static_cast<greenlet_t*>(data), payload, result);
}

// Switches to its parent and notes the status.
int notes_status(void* data, void* payload, void** result) {
  const int status = greenlet_switch_to_parent(payload, result);
  static_cast<events*>(data)->push_back(status == GREENLET_EXIT     ? "exit"
                                        : status == GREENLET_THROWN ? "thrown"
                                                                    : "ok");
  return status;
}

int sends_nothing(void*, void*, void** result) {
  *result = GREENLET_NOTHING;
  return GREENLET_OK;
}

struct special_exit : greenlet_exit {
  std::string text = "special";
};

// Clears the last error of the test's own greenlet, which would keep an exception.
struct clean {
  ~clean() { greenlet_clear_error(); }
};

}  // namespace

TEST_CASE("one greenlet has one identity in both languages") {
  c_greenlet c(echo);
  const greenlet g = c.handle();
  CHECK(greenlets::c_pointer(g) == c.g);
  CHECK(g.id() == greenlet_id(c));
  g.set_name("both");
  char name[8];
  CHECK(greenlet_name(c, name, sizeof name) == 4);
  CHECK(std::string(name) == "both");
  CHECK(greenlets::c_pointer(greenlets::current()) == greenlet_current());
  CHECK(greenlets::c_pointer(greenlets::main_greenlet()) == greenlet_main());
  CHECK(greenlets::c_pointer(greenlet()) == nullptr);
  CHECK(greenlets::from_c(static_cast<greenlet_t*>(nullptr)).empty());

  greenlet_t* given = greenlets::to_c(greenlet([] {}));
  const greenlet back = greenlets::adopt_from_c(given);
  CHECK(greenlets::counts().greenlets >= 3);
  CHECK(back.state() == greenlets::greenlet_state::unstarted);
}

TEST_CASE("C++ sees a void* when C sends, NULL too, and nothing when C sends GREENLET_NOTHING") {
  int object = 0;
  const greenlet c = c_greenlet(echoes).handle();
  value v = c.switch_to(static_cast<void*>(&object));
  CHECK(v.get<void*>() == &object);
  CHECK(c.switch_to(nullptr).get<void*>() == nullptr);
  v = c.switch_to();
  REQUIRE(v.is<void*>());
  CHECK(v.get<void*>() == nullptr);
  CHECK(!c_greenlet(sends_nothing).handle().switch_to().has_value());

  const greenlet takes_pointer([](void* p) { return p; }), takes_nothing([] { return 1; });
  void* answer = nullptr;
  CHECK(greenlet_switch(greenlets::c_pointer(takes_pointer), &object, &answer) == GREENLET_OK);
  CHECK(answer == &object);
  CHECK(greenlet_switch(greenlets::c_pointer(takes_nothing), GREENLET_NOTHING, &answer) == GREENLET_WRONG_TYPE);
}

TEST_CASE("what C cannot read is an error that names its type and keeps it") {
  clean at_end;
  const greenlet g([] { greenlets::switch_to_parent(std::string("text")); });
  void* answer = &answer;
  CHECK(greenlet_switch(greenlets::c_pointer(g), GREENLET_NOTHING, &answer) == GREENLET_WRONG_TYPE);
  CHECK(answer == nullptr);
  CHECK(static_cast<bool>(g));  // the switch was done
  CHECK(std::string(greenlet_last_message()).find("sent was std::") != std::string::npos);
  greenlet_exception_t* e = greenlet_last_exception();
  try {
    std::rethrow_exception(greenlets::from_c(e));
  } catch (const greenlets::unreadable_value& x) {
    CHECK(x.code() == greenlets::errc::wrong_type);
    CHECK(x.sent().get<std::string>() == "text");
  }
  CHECK(greenlet_exception_code(e) == GREENLET_WRONG_TYPE);
  greenlet_exception_unref(e);
}

TEST_CASE("a C function that returns GREENLET_WRONG_TYPE gives the parent what it could not read") {
  const greenlet answers([](void*) { return 42; });
  c_greenlet c(passes_on, greenlets::c_pointer(answers));
  answers.set_parent(c.handle());
  try {
    c.handle().switch_to();
    FAIL("nothing was thrown");
  } catch (const greenlets::unreadable_value& e) {
    CHECK(e.sent().get<int>() == 42);
  }
}

TEST_CASE("a first payload that C cannot read is thrown inside the new greenlet, which does not run") {
  events log;
  c_greenlet c(notes_status, &log);
  CHECK(testing::error_of([&] { c.handle().switch_to(std::string("no pointer")); }) ==
        greenlets::errc::wrong_arguments);
  CHECK(greenlet_dead(c));
  CHECK(log.empty());
}

TEST_CASE("a C++ exception goes through C greenlets as it is") {
  clean at_end;
  const greenlet throws([](void*) { throw std::runtime_error("disk full"); });
  c_greenlet inner(passes_on, greenlets::c_pointer(throws));
  c_greenlet outer(passes_on, inner.g);
  throws.set_parent(inner.handle());
  REQUIRE(greenlet_set_parent(inner, outer) == GREENLET_OK);
  CHECK_THROWS_AS(outer.handle().switch_to(), std::runtime_error);
  CHECK(greenlet_dead(inner));
  CHECK(greenlet_dead(outer));

  const greenlet again([](void*) { throw std::runtime_error("disk full"); });
  CHECK(greenlet_switch(greenlets::c_pointer(again), nullptr, nullptr) == GREENLET_THROWN);
  CHECK(std::string(greenlet_last_message()) == "disk full");
  greenlet_exception_t* e = greenlet_last_exception();
  CHECK(std::string(greenlet_exception_type(e)) == "std::runtime_error");
  CHECK(greenlet_exception_code(e) == GREENLET_THROWN);
  CHECK(greenlet_exception_payload(e) == nullptr);
  greenlet_exception_unref(e);
}

TEST_CASE("an exception that is no std::exception, and C's own, have type and text") {
  clean at_end;
  const greenlet throws([](void*) { throw 42; });
  CHECK(greenlet_switch(greenlets::c_pointer(throws), nullptr, nullptr) == GREENLET_THROWN);
  greenlet_exception_t* e = greenlet_last_exception();
  CHECK(std::string(greenlet_exception_type(e)) == "int");
  CHECK(std::string(greenlet_exception_message(e)) == "int");
  greenlet_exception_unref(e);

  c_greenlet fails([](void*, void*, void**) -> int { return -EPIPE; });
  try {
    fails.handle().switch_to();
    FAIL("nothing was thrown");
  } catch (const greenlets::c_error& x) {
    CHECK(x.code() == -EPIPE);
    CHECK(x.payload() == nullptr);
  }
}

TEST_CASE("errors made in C are thrown into C++ with their payload, which lives as long as they do") {
  events log;
  static events* the_log;
  the_log = &log;
  int object = 0;
  std::exception_ptr kept;
  const greenlet g([&] {
    try {
      greenlets::switch_to_parent();
    } catch (const greenlets::c_error& e) {
      CHECK(e.code() == 5);
      CHECK(std::string(e.what()) == "five");
      CHECK(e.payload() == &object);
      kept = std::current_exception();
    }
  });
  g.switch_to();
  greenlet_exception_t* e = greenlet_exception_new(5, "five", &object, [](void*) { the_log->push_back("released"); });
  CHECK(greenlet_throw(greenlets::c_pointer(g), e, nullptr) == GREENLET_OK);
  greenlet_exception_unref(e);
  CHECK(log.empty());
  kept = nullptr;
  CHECK(log == events{"released"});
}

TEST_CASE("an exit derived from greenlet_exit reaches a C parent, and through it a C++ one, whole") {
  const greenlet ends([](void*) { throw special_exit(); });
  static events log;
  log.clear();
  // A C parent: GREENLET_OK, and the exit beside it.
  c_greenlet c(
      [](void* data, void*, void** result) -> int {
        const int status = greenlet_switch(static_cast<greenlet_t*>(data), nullptr, result);
        greenlet_exception_t* e = greenlet_received_exit();
        log.push_back(status == GREENLET_OK && !*result && greenlet_exception_is_exit(e) ? "ok" : "?");
        log.push_back(greenlet_exception_type(e));
        const int end = greenlet_fail_with(e);
        greenlet_exception_unref(e);
        return end;
      },
      greenlets::c_pointer(ends));
  ends.set_parent(c.handle());
  const value v = c.handle().switch_to();
  CHECK(log.size() == 2);
  CHECK(log[0] == "ok");
  CHECK(log[1].find("special_exit") != std::string::npos);
  REQUIRE(v.is<special_exit>());
  CHECK(v.get<special_exit>().text == "special");
}

TEST_CASE("a C++ exit that is thrown into a C greenlet ends it, and comes back as the object that it was") {
  events log;
  c_greenlet c(notes_status, &log);
  c.handle().switch_to();
  const value v = c.handle().throw_in(special_exit());
  CHECK(log == events{"exit"});
  REQUIRE(v.is<special_exit>());
  CHECK(v.get<special_exit>().text == "special");
}

TEST_CASE("an exit made in C is a greenlet_exit to C++, and its payload the parent's") {
  int object = 0;
  const greenlet g([] { greenlets::switch_to_parent(); });
  g.switch_to();
  greenlet_exception_t* e = greenlet_exception_new_exit(&object, nullptr);
  void* answer = nullptr;
  CHECK(greenlet_throw(greenlets::c_pointer(g), e, &answer) == GREENLET_OK);
  CHECK(answer == &object);
  greenlet_exception_unref(e);
  greenlet_switch(greenlet_current(), nullptr, nullptr);  // forgets what was received
}

TEST_CASE("an unstarted C parent is started with an exit as with any value") {
  static bool was_exit;
  was_exit = false;
  c_greenlet parent([](void*, void* payload, void** result) -> int {
    greenlet_exception_t* e = greenlet_received_exit();
    was_exit = !payload && greenlet_exception_is_exit(e);
    greenlet_exception_unref(e);
    *result = &was_exit;
    return GREENLET_OK;
  });
  const greenlet child([] { throw greenlet_exit(); }, parent.handle());
  CHECK(child.switch_to().get<void*>() == &was_exit);
  CHECK(was_exit);
  CHECK(greenlet_dead(parent));
}

TEST_CASE("dropped by C++ handles, C greenlets are told to end, and C++ ones by C references") {
  events log;
  c_greenlet c(notes_status, &log);
  greenlet handle = c.handle();
  handle.switch_to();
  c.drop();
  CHECK(log.empty());
  handle = greenlet();
  CHECK(log == events{"exit"});

  log.clear();
  greenlet_t* g = greenlets::to_c(greenlet([&] {
    noting n{log, "g"};
    greenlets::switch_to_parent();
  }));
  CHECK(greenlet_switch(g, GREENLET_NOTHING, nullptr) == GREENLET_OK);
  greenlet_unref(g);
  CHECK(log == events{"~g"});
}

TEST_CASE("what is thrown into a greenlet that waits in greenlet_unref() comes out of its next switch") {
  clean at_end;
  events log;
  const greenlet main = greenlets::current();
  c_greenlet c(
      [](void* data, void*, void** result) -> int {
        // Told to end, it throws at who has told it, and goes on waiting; then it is abandoned.
        const int status = greenlet_switch_to_parent(nullptr, result);
        // An error of the library, which must not be taken for one of the call that it comes out of.
        greenlet_exception_t* e =
            greenlets::to_c(std::make_exception_ptr(greenlets::error(greenlets::errc::no_run, "held")));
        greenlet_throw(static_cast<greenlet_t*>(data), e, nullptr);
        greenlet_exception_unref(e);
        return status;
      },
      greenlets::c_pointer(main));
  testing::unraisables reported;
  const greenlets::weak_greenlet weak(c.handle());
  CHECK(greenlet_switch(c, nullptr, nullptr) == GREENLET_OK);
  c.drop();
  CHECK(reported.seen.size() == 1);
  void* answer = nullptr;
  CHECK(greenlet_switch(greenlet_current(), nullptr, &answer) == GREENLET_THROWN);
  CHECK(std::string(greenlet_last_message()) == "held");
  CHECK(greenlet_switch(greenlet_current(), nullptr, &answer) == GREENLET_OK);
  reported.seen.clear();
  weak.lock().switch_to();  // lets it end
  CHECK(weak.expired());
}

TEST_CASE("an error of the library that is thrown into a greenlet is not taken for one of its call") {
  // Row 70's error, for one: it has arrived from elsewhere, so it is GREENLET_THROWN.
  clean at_end;
  const greenlet throws([](void*) { greenlet().switch_to(); });
  CHECK(greenlet_switch(greenlets::c_pointer(throws), nullptr, nullptr) == GREENLET_THROWN);
  CHECK(throws.dead());
  greenlet_exception_t* e = greenlet_last_exception();
  CHECK(greenlet_exception_code(e) == GREENLET_EMPTY_HANDLE);
  greenlet_exception_unref(e);
}

TEST_CASE("each C greenlet has its own exception state: C called in a handler switches to C++ that throws") {
  c_greenlet c(echoes);
  try {
    throw 1;
  } catch (int) {
    void* answer = nullptr;
    CHECK(greenlet_switch(c, &answer, &answer) == GREENLET_OK);
    const greenlet g([](void*) {
      try {
        throw std::runtime_error("inner");
      } catch (const std::runtime_error&) {
        greenlets::switch_to_parent(static_cast<void*>(nullptr));
      }
    });
    CHECK(greenlet_switch(greenlets::c_pointer(g), nullptr, nullptr) == GREENLET_OK);
    try {
      throw;
    } catch (int n) {
      CHECK(n == 1);
    }
  }
}

TEST_CASE("the unraisable handler is one: set in C it is told of C++ greenlets, and the reverse") {
  static events log;
  log.clear();
  const greenlets::unraisable_handler before = greenlets::set_unraisable_handler(nullptr);
  greenlet_set_unraisable_handler(
      [](greenlet_t* g, greenlet_exception_t* e, void* data) {
        log.push_back(static_cast<const char*>(data) + std::to_string(greenlet_id(g) != 0));
        log.push_back(greenlet_exception_message(e));
      },
      const_cast<char*>("C"));
  {
    const greenlet g([] {
      try {
        greenlets::switch_to_parent();
      } catch (const greenlet_exit&) {
        throw std::runtime_error("late");
      }
    });
    g.switch_to();
  }
  CHECK(log == events{"C1", "late"});
  greenlets::set_unraisable_handler(before);
  testing::unraisables handler;
  c_greenlet c([](void*, void*, void**) -> int {
    greenlet_switch_to_parent(nullptr, nullptr);
    return -1;
  });
  greenlet_switch(c, nullptr, nullptr);
  c.drop();
  REQUIRE(handler.seen.size() == 1);
  CHECK_THROWS_AS(std::rethrow_exception(handler.seen[0].second), greenlets::c_error);
}

TEST_CASE("158: what a tracer throws reaches C as news, and is never taken for an error of the call") {
  clean at_end;
  c_greenlet c(echoes);
  void* answer = nullptr;
  int object = 0;
  const auto throws = [](std::exception_ptr e, const greenlet& in) {
    greenlets::settrace([e, in = greenlets::c_pointer(in)](greenlets::trace_event, const greenlet&, const greenlet& target) {
      if (greenlets::c_pointer(target) == in) std::rethrow_exception(e);
    });
  };
  const greenlet main = greenlets::current();
  const auto misuse = std::make_exception_ptr(greenlets::error(greenlets::errc::no_run, "of the tracer"));
  for (greenlet_t* target : {c.g, greenlets::c_pointer(main)}) {  // a switch to oneself, too
    throws(misuse, main);
    CHECK(greenlet_switch(target, &object, &answer) == GREENLET_THROWN);
    CHECK(answer == nullptr);
    CHECK(std::string(greenlet_last_message()) == "of the tracer");
    greenlet_exception_t* e = greenlet_last_exception();
    CHECK(greenlet_exception_code(e) == GREENLET_NO_RUN);
    greenlet_exception_unref(e);
    CHECK(!greenlets::gettrace());
  }
  CHECK(greenlet_switch(c, &object, &answer) == GREENLET_OK);  // it was left where it waited
  CHECK(answer == &object);

  throws(std::make_exception_ptr(std::bad_alloc()), main);
  CHECK(greenlet_switch(c, &object, nullptr) == GREENLET_THROWN);  // not GREENLET_NO_MEMORY
  throws(std::make_exception_ptr(42), main);
  CHECK(greenlet_switch(c, &object, nullptr) == GREENLET_THROWN);
  throws(std::make_exception_ptr(special_exit()), main);
  CHECK(greenlet_switch(c, &object, nullptr) == GREENLET_EXIT);

  // Into the C greenlet, which ends by it: the same object comes out.
  throws(misuse, c.handle());
  CHECK(testing::error_of([&] { c.handle().switch_to(&object); }) == greenlets::errc::no_run);
  CHECK(greenlet_dead(c));
  // ... and one that was about to begin does not.
  events log;
  c_greenlet unstarted(notes_status, &log);
  throws(misuse, unstarted.handle());
  CHECK(greenlet_switch(unstarted, nullptr, nullptr) == GREENLET_THROWN);
  CHECK(greenlet_dead(unstarted));
  CHECK(log.empty());
}

#ifndef T_TSAN  // as in forced_unwind.cpp

namespace {

struct forced {
  events log;
  static int in_c(void* data, void*, void**) {
    noting n{static_cast<forced*>(data)->log, "c"};
    const greenlet g([&](void*) {
      noting inner{static_cast<forced*>(data)->log, "cpp"};
      pthread_exit(data);
    });
    int status = greenlet_switch(greenlets::c_pointer(g), nullptr, nullptr);
    static_cast<forced*>(data)->log.push_back(status == GREENLET_EXIT ? "c exit" : "c ?");
    return status;
  }
};

}  // namespace

TEST_CASE("167: pthread_exit in a C++ greenlet below a C one: every stack is unwound") {
  forced f;
  pthread_t thread;
  REQUIRE(pthread_create(
              &thread, nullptr,
              [](void* data) -> void* {
                noting n{static_cast<forced*>(data)->log, "main"};
                const c_greenlet c(&forced::in_c, data);
                greenlet_switch(c, nullptr, nullptr);
                static_cast<forced*>(data)->log.push_back("not reached");
                return nullptr;
              },
              &f) == 0);
  void* result = nullptr;
  REQUIRE(pthread_join(thread, &result) == 0);
  CHECK(result == &f);
  // The handle to its child, on c's stack, keeps c until the thread's exit.
  CHECK(f.log == events{"~cpp", "~main", "c exit", "~c"});
}

TEST_CASE("158, 167: pthread_exit in a tracer passes through the C function that it has interrupted") {
  static events log;
  log.clear();
  pthread_t thread;
  REQUIRE(pthread_create(
              &thread, nullptr,
              [](void* data) -> void* {
                noting n{log, "main"};
                const c_greenlet c(echoes);
                greenlet_switch(c, nullptr, nullptr);
                greenlets::settrace([](greenlets::trace_event, const greenlet&, const greenlet& target) {
                  if (!target.is_main()) return;
                  greenlets::settrace(nullptr);  // else it would exit again in ~c
                  pthread_exit(&log);
                });
                greenlet_switch(c, data, nullptr);
                log.push_back("not reached");
                return nullptr;
              },
              nullptr) == 0);
  void* result = nullptr;
  REQUIRE(pthread_join(thread, &result) == 0);
  CHECK(result == &log);
  CHECK(log == events{"~main"});
}

#endif

TEST_CASE("asking who runs, when what is unwound first ends the thread's greenlets") {
  // The answer was read from the thread's record, which had gone.
  std::thread([] {
    const uint64_t before = greenlet_id(greenlet_main());
    greenlet g([] {
      const auto end = testing::at_end([] { greenlet_unwind_thread(); });
      greenlets::switch_to_parent();
    });
    g.switch_to();
    std::thread([last = std::move(g)]() mutable { last = greenlet(); }).join();
    greenlet_t* const now = greenlet_current();
    CHECK(greenlet_id(now) > before);
    CHECK(greenlet_active(now));
    CHECK(now == greenlet_main());
  }).join();
}

namespace {

// Ends a greenlet by an exit with this payload, and returns what is received for it.
void* receive_exit(void* payload, void (*release)(void*)) {
  const greenlet g([] { greenlets::switch_to_parent(); });
  g.switch_to();
  greenlet_exception_t* const e = greenlet_exception_new_exit(payload, release);
  void* answer = nullptr;
  CHECK(greenlet_throw(greenlets::c_pointer(g), e, &answer) == GREENLET_OK);
  greenlet_exception_unref(e);
  return answer;
}

}  // namespace

TEST_CASE("a received exit outlives the last error: its payload is the receiver's until the next switch") {
  // greenlet_clear_error() released it.
  static int released;
  released = 0;
  int object = 0;
  void* const answer = receive_exit(&object, [](void*) { ++released; });
  greenlet_clear_error();
  CHECK(answer == &object);
  CHECK(released == 0);
  greenlet_exception_t* const e = greenlet_received_exit();
  CHECK(greenlet_exception_payload(e) == &object);
  greenlet_exception_unref(e);
  greenlet_switch(greenlet_current(), nullptr, nullptr);
  CHECK(released == 1);
}

TEST_CASE("a switch that is refused releases nothing: what was received stays") {
  // It was released before the call was known to be possible.
  static int released;
  released = 0;
  const clean at_end;
  int object = 0;
  void* const answer = receive_exit(&object, [](void*) { ++released; });
  CHECK(answer == &object);
  CHECK(greenlet_switch_to_parent(nullptr, nullptr) == GREENLET_MAIN_PARENT);
  c_greenlet nothing(nullptr);
  CHECK(greenlet_switch(nothing, nullptr, nullptr) == GREENLET_NO_RUN);
  CHECK(greenlet_switch(nullptr, nullptr, nullptr) == GREENLET_EMPTY_HANDLE);
  CHECK(released == 0);
  greenlet_exception_t* const e = greenlet_received_exit();
  CHECK(greenlet_exception_payload(e) == &object);
  greenlet_exception_unref(e);
  greenlet_switch(greenlet_current(), nullptr, nullptr);
  CHECK(released == 1);
}
