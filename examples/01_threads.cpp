// SPDX-License-Identifier: MIT
// Greenlets and threads: a greenlet belongs to the thread that started it, for ever.
//
// The example of the page "Greenlets and Python Threads" of greenlet's documentation. A thread makes
// a child greenlet and runs it; the main thread tries to switch to that thread's greenlets, while it
// lives and after it has exited.
#include <greenlet/greenlet.hpp>

#include <cstdio>
#include <future>
#include <string>
#include <thread>

namespace {

void try_to_switch_to(const greenlets::greenlet& g) {
  try {
    g.switch_to();
  } catch (const greenlets::error& e) {
    // what() goes on with which greenlets and threads these were.
    std::printf("%s\n", std::string(e.summary()).c_str());
  }
}

}  // namespace

int main() {
  greenlets::greenlet main_glet, child_glet;
  std::promise<void> started, switched;

  std::thread thread([&] {
    main_glet = greenlets::current();
    child_glet = greenlets::greenlet([] {});
    child_glet.switch_to();
    started.set_value();
    switched.get_future().wait();
  });

  started.get_future().wait();
  try_to_switch_to(main_glet);
  switched.set_value();
  thread.join();

  std::printf("main_glet.dead() = %s\n", main_glet.dead() ? "true" : "false");
  try_to_switch_to(child_glet);
  try_to_switch_to(main_glet);
}
