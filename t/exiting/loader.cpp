// SPDX-License-Identifier: MIT
// "loader PLUGIN SCENARIO": a program that does not know the library, and loads and unloads a shared
// object that does, while threads that have used it go on.
#include <cstdio>
#include <cstdlib>
#include <dlfcn.h>
#include <fstream>
#include <future>
#include <stdexcept>
#include <string>
#include <thread>
#include <unistd.h>
#include <vector>

namespace {

const char* path;

class plugin {
 public:
  plugin() : handle_(dlopen(path, RTLD_NOW | RTLD_LOCAL)) {
    if (handle_) return;
    std::printf("dlopen: %s\n", dlerror());
    std::exit(66);
  }
  plugin(const plugin&) = delete;
  plugin& operator=(const plugin&) = delete;
  ~plugin() {
    if (dlclose(handle_) != 0) std::printf("dlclose: %s\n", dlerror());
  }
  template <class R = int, class... A>
  R call(const char* name, A... arguments) const {
    void* const f = dlsym(handle_, name);
    if (!f) {
      std::printf("dlsym: %s\n", dlerror());
      std::exit(67);
    }
    return reinterpret_cast<R (*)(A...)>(f)(arguments...);
  }

 private:
  void* handle_;
};

bool mapped(const std::string& name) {
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);)
    if (line.find(name) != std::string::npos) return true;
  return false;
}

void say_what_is_mapped() {
  std::printf("plugin %s, library %s\n", mapped("/plugin.so") ? "mapped" : "unmapped",
              mapped("/libgreenlet.so") ? "mapped" : "unmapped");
}

// Threads that have used the plugin and wait for `go`.
struct workers {
  std::promise<void> go;
  std::vector<std::thread> threads;

  template <class F>
  workers(int number, F work) {
    const std::shared_future<void> gone = go.get_future().share();
    for (int i = 0; i < number; ++i) {
      std::promise<void> ready;
      threads.emplace_back([&ready, &work, gone] {
        work();
        ready.set_value();
        gone.wait();
      });
      ready.get_future().wait();
    }
  }
  void let_end() {
    go.set_value();
    for (std::thread& t : threads) t.join();
  }
};

void threads_end_later() {
  auto* const p = new plugin;
  workers w(8, [p] {
    if (p->call<int, int>("plugin_switches", 4) != 10 || p->call("plugin_throws") != 4) std::puts("wrong");
  });
  delete p;
  say_what_is_mapped();
  w.let_end();
  std::puts("joined");
}

void again_and_again() {
  std::vector<int> threads;
  for (int times = 0; times < 20; ++times) {
    auto* const p = new plugin;
    workers w(2, [p] {
      if (p->call<int, int>("plugin_switches", 4) != 10) std::puts("wrong");
    });
    if (p->call<int, int>("plugin_switches", 2) != 3) std::puts("wrong");
    threads.push_back(p->call("plugin_threads"));
    delete p;
    w.let_end();
  }
  say_what_is_mapped();
  for (const int t : threads)
    if (t != 3) std::printf("%d threads\n", t);
}

void let_go_first() {
  auto* const p = new plugin;
  workers w(1, [p] { p->call<int, int>("plugin_switches", 1); });
  for (int i = 0; i < 10; ++i) p->call<void>("plugin_suspends");
  std::printf("%d unwound\n", p->call("plugin_lets_go"));
  p->call<void>("plugin_trims");
  delete p;
  say_what_is_mapped();
  w.let_end();
  const plugin again;
  std::printf("%d greenlet, %d stacks\n", again.call("plugin_greenlets"), again.call("plugin_stacks"));
}

// Its static objects let go what is suspended; that is unwound while the plugin is unloaded.
void let_go_by_unloading() {
  {
    const plugin p;
    for (int i = 0; i < 10; ++i) p.call<void>("plugin_suspends");
  }
  say_what_is_mapped();
  const plugin again;
  again.call<void>("plugin_trims");
  std::printf("%d greenlet, %d stacks\n", again.call("plugin_greenlets"), again.call("plugin_stacks"));
}

void exceptions() {
  {
    const plugin p;
    std::printf("%d right\n", p.call("plugin_throws"));
    try {
      p.call<void>("plugin_throws_out");
    } catch (const std::runtime_error& e) {
      std::puts(e.what());
    }
  }
  say_what_is_mapped();
  // What is left of them, if anything, is touched by these.
  const plugin again;
  std::printf("%d right, %d\n", again.call("plugin_throws"), again.call<int, int>("plugin_switches", 3));
}

// The main thread has a main greenlet when the process exits, and the plugin is gone.
void exits_without() {
  const plugin p;
  std::printf("%d\n", p.call("plugin_has_main"));
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 64;
  alarm(300);
  setvbuf(stdout, nullptr, _IONBF, 0);
  path = argv[1];
  const std::string scenario = argv[2];
  if (scenario == "threads end later") threads_end_later();
  else if (scenario == "again and again") again_and_again();
  else if (scenario == "let go first") let_go_first();
  else if (scenario == "let go by unloading") let_go_by_unloading();
  else if (scenario == "exceptions") exceptions();
  else if (scenario == "exits without") exits_without();
  else return 65;
  return 3;
}
