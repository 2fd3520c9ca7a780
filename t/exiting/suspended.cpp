// SPDX-License-Identifier: MIT
// "suspended STATE WHERE HOW": the process ends while greenlets are suspended.
#include "program.hpp"

#include <cstdlib>
#include <functional>
#include <future>
#include <stdexcept>
#include <thread>
#include <unistd.h>
#include <utility>

using namespace greenlets;

namespace exiting {
namespace {

// No process's end may run this, unless somebody lets the greenlet go then.
struct telling {
  ~telling() { say("unwound"); }
};

void leave() { main_greenlet().switch_to(); }

struct leaving {
  ~leaving() { leave(); }
};

void descend(int frames) {
  const telling t;
  if (frames > 0) descend(frames - 1);
  else leave();
}

void nest(int greenlets, std::vector<greenlet>& kept) {
  const telling t;
  if (greenlets == 0) return leave();
  kept.emplace_back([greenlets, &kept] { nest(greenlets - 1, kept); });
  kept.back().switch_to();  // the vector does not move, and a copy here would keep parent and child
}

// Greenlets in the state named; what refers to them is in `kept`.
void suspend(const std::string& state, std::vector<greenlet>& kept) {
  kept.reserve(1000);
  const auto started = [&kept](auto f) {
    kept.emplace_back(std::move(f));
    kept.back().switch_to();
  };
  if (state == "one") {
    started([] { descend(0); });
  } else if (state == "many") {
    for (int i = 0; i < 100; ++i) started([] { descend(0); });
  } else if (state == "nested") {
    started([&kept] { nest(20, kept); });
  } else if (state == "deep") {
    started([] { descend(500); });
  } else if (state == "handling") {
    started([] {
      const telling t;
      try {
        throw std::runtime_error("handled");
      } catch (const std::runtime_error&) {
        const telling u;
        leave();
      }
    });
  } else if (state == "throwing") {
    started([] {
      const telling t;
      try {
        const leaving l;
        throw std::runtime_error("in flight");
      } catch (const std::runtime_error&) {
      }
    });
  } else if (state == "unwound halfway") {
    started([] {
      const telling t;
      const leaving l;
      leave();
    });
    kept.back().throw_in();
  } else if (state == "killed halfway") {
    // Its last handle goes, and it does not come to its end: reported, and left.
    const unraisable_handler before = set_unraisable_handler([](const greenlet&, const std::exception_ptr&) {});
    started([] {
      const telling t;
      const leaving l;
      leave();
    });
    kept.pop_back();
    set_unraisable_handler(before);
  } else if (state == "ending") {
    struct callable {
      std::shared_ptr<void> last{nullptr, [](void*) { leave(); }};
      void operator()() const {}
    };
    started(callable());
  } else {
    say("no such state: " + state);
    std::_Exit(65);
  }
}

// `how` is "exit", or "exit in PLACE".
void end_in(const std::string& how) {
  const std::size_t in = how.find(" in ");
  const std::string verb = how.substr(0, in), place = in == std::string::npos ? "" : how.substr(in + 4);
  const auto ending = [&verb] { end(verb, 3); };
  if (place.empty()) {
    ending();
  } else if (place == "a greenlet") {
    greenlet(ending).switch_to();
  } else if (place == "a nested greenlet") {
    greenlet([&] { greenlet([&] { greenlet(ending).switch_to(); }).switch_to(); }).switch_to();
  } else if (place == "a handler") {
    greenlet([&] {
      try {
        throw std::runtime_error("live");
      } catch (const std::runtime_error&) {
        ending();
      }
    }).switch_to();
  } else if (place == "a destructor") {
    struct calling {
      std::function<void()> f;
      ~calling() { f(); }
    };
    greenlet g([&] {
      const calling c{ending};
      switch_to_parent();
    });
    g.switch_to();
    g = greenlet();
  } else if (place == "a thread") {
    std::thread(ending).join();
  } else if (place == "a thread's greenlet") {
    std::thread([&] { greenlet(ending).switch_to(); }).join();
  } else if (place == "a thread's exit") {
    static greenlet kept;
    std::thread([&] {
      kept = greenlet([&] {
        try {
          switch_to_parent();
        } catch (const greenlet_exit&) {
          ending();
        }
      });
      kept.switch_to();
    }).join();
  }
  if (verb != "return") say("not ended: " + how);
}

// Suspends them on a thread that then waits for ever.
void suspend_elsewhere(const std::string& state, std::vector<greenlet>& kept) {
  std::promise<void> ready;
  std::thread([&] {
    suspend(state, kept);
    ready.set_value();
    for (;;) pause();
  }).detach();
  ready.get_future().wait();
}

}  // namespace

int suspended(const words& arguments) {
  if (arguments.size() != 4) return 64;
  const std::string &state = arguments[1], &where = arguments[2], &how = arguments[3];
  // The one is never destroyed, the other drops its handles when the process ends.
  static auto& immortal = *new std::vector<std::vector<greenlet>>(4);
  static std::vector<greenlet> mortal;
  std::atexit([] { use_everything("atexit"); });
  std::at_quick_exit([] { use_everything("at_quick_exit"); });
  if (where == "main") {
    suspend(state, immortal[0]);
  } else if (where == "main, in a static") {
    suspend(state, mortal);
  } else if (where == "a thread") {
    suspend_elsewhere(state, immortal[0]);
  } else if (where == "a thread, in a static") {
    suspend_elsewhere(state, mortal);
  } else if (where == "all threads") {
    for (std::size_t i = 0; i < 3; ++i) suspend_elsewhere(state, immortal[i]);
    suspend(state, immortal[3]);
  } else {
    return 65;
  }
  end_in(how);
  return 3;
}

}  // namespace exiting
