// SPDX-License-Identifier: MIT
// What is done on libuv's pool of threads while greenlets wait: calls, files, names.
#include "hub_testing.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <csignal>
#include <dirent.h>
#include <dlfcn.h>
#include <mutex>
#include <netdb.h>
#include <netinet/in.h>
#include <new>
#include <numeric>
#include <pthread.h>
#include <stdexcept>
#include <sys/resource.h>
#include <sys/stat.h>
#include <thread>

using namespace greenlets;
using namespace testing;

// -- What the tests need -------------------------------------------------------------------------

namespace {

// Calls on the pool that begin, and end when they are told to.
class gate {
 public:
  gate() = default;
  gate(const gate&) = delete;
  gate& operator=(const gate&) = delete;
  ~gate() { open(); }

  // On the pool.
  void pass() {
    std::unique_lock hold(lock_);
    ++begun_;
    if (!opened_.wait_for(hold, seconds(60), [this] { return open_; })) std::abort();
  }
  void open() {
    const std::lock_guard hold(lock_);
    open_ = true;
    opened_.notify_all();
  }
  // How many have come, and perhaps passed.
  unsigned begun() {
    const std::lock_guard hold(lock_);
    return begun_;
  }

 private:
  std::mutex lock_;
  std::condition_variable opened_;
  unsigned begun_ = 0;
  bool open_ = false;
};

constexpr unsigned pool_size = 4;

// Before the pool is made. What the machine's owner has set may be another number.
const bool pool_is_known = setenv("UV_THREADPOOL_SIZE", "4", 1) == 0;

// Has every thread of the pool wait at the gate; from another thread, whose hub is its own.
class pool_taken {
 public:
  pool_taken() {
    thread_ = std::thread([this] {
      hub::group all;
      for (unsigned n = 0; n < pool_size; ++n) all.spawn([this] { hub::offload([this] { gate_.pass(); }); });
      all.wait();
    });
    while (gate_.begun() < pool_size) std::this_thread::yield();
  }
  ~pool_taken() { release(); }
  void release() {
    gate_.open();
    if (thread_.joinable()) thread_.join();
  }

 private:
  gate gate_;
  std::thread thread_;
};

// A directory that goes with what is in it.
struct temporary {
  std::string path;

  temporary() {
    const char* const where = std::getenv("TMPDIR");
    path = std::string(where ? where : "/tmp") + "/hub_offload.XXXXXX";
    REQUIRE(mkdtemp(path.data()) != nullptr);
  }
  temporary(const temporary&) = delete;
  temporary& operator=(const temporary&) = delete;
  ~temporary() {
    for (const std::string& each : names()) ::unlink((path + "/" + each).c_str());
    for (const std::string& each : names()) ::rmdir((path + "/" + each).c_str());
    ::rmdir(path.c_str());
  }
  std::string operator/(const std::string& name) const { return path + "/" + name; }
  events names() const {
    events found;
    DIR* const d = opendir(path.c_str());
    while (const dirent* e = d ? readdir(d) : nullptr)
      if (const std::string name = e->d_name; name != "." && name != "..") found.push_back(name);
    if (d) closedir(d);
    std::sort(found.begin(), found.end());
    return found;
  }
};

unsigned permissions(const std::string& path) {
  struct stat s {};
  REQUIRE(stat(path.c_str(), &s) == 0);
  return s.st_mode & 07777;
}

template <class F>
std::error_code system_error_of(F&& f, std::string* what = nullptr) {
  try {
    f();
  } catch (const std::system_error& e) {
    if (what) *what = e.what();
    return e.code();
  }
  FAIL("no std::system_error was thrown");
  return {};
}

// Which call of the C library is to fail, once, and how; the program's own functions take their place.
enum class call { none, socket, pwrite, fsync, fchmod, close };
std::atomic<call> fails{call::none};
std::atomic<int> with{0};
std::atomic<int> not_before{0};  // so many more succeed

bool fails_now(call c) {
  if (fails != c) return false;
  if (not_before-- > 0) return false;
  fails = call::none;
  errno = with;
  return true;
}

struct failing {
  failing(call c, int code, int after = 0) {
    with = code;
    not_before = after;
    fails = c;
  }
  failing(const failing&) = delete;
  failing& operator=(const failing&) = delete;
  ~failing() { fails = call::none; }
  bool has_failed() const { return fails == call::none; }
};

// The second thing for which this thread asks memory, and all after it, it does not get; and hears so when `ready`.
struct refusal {
  std::function<bool()> ready = {};
  std::atomic<unsigned> asked{0};
};
thread_local refusal* refused = nullptr;

void* memory(std::size_t size) {
  if (refusal* const r = refused; r && r->asked++ > 0) {
    while (!r->ready()) std::this_thread::yield();
    throw std::bad_alloc();
  }
  if (void* const p = std::malloc(size ? size : 1)) return p;
  throw std::bad_alloc();
}

template <class F>
F* original(F*, const char* name) {
  return reinterpret_cast<F*>(dlsym(RTLD_NEXT, name));
}

}  // namespace

void* operator new(std::size_t size) { return memory(size); }
void operator delete(void* p) noexcept { std::free(p); }
void operator delete(void* p, std::size_t) noexcept { std::free(p); }

#define EXPORTED __attribute__((visibility("default")))
extern "C" {
// Names that every network has: in the tests only.
EXPORTED int getaddrinfo(const char* host, const char* service, const addrinfo* hints, addrinfo** list) {
  static auto* const real =
      original(static_cast<int (*)(const char*, const char*, const addrinfo*, addrinfo**)>(nullptr), "getaddrinfo");
  const std::string name = host ? host : "";
  if (name == "no-descriptor.test") {
    errno = EMFILE;
    return hints->ai_flags & AI_NUMERICHOST ? EAI_NONAME : EAI_SYSTEM;
  }
  if (name == "later.test") return hints->ai_flags & AI_NUMERICHOST ? EAI_NONAME : EAI_AGAIN;
  if (name != "many.test" || hints->ai_flags & AI_NUMERICHOST) return real(host, service, hints, list);
  addrinfo numeric = *hints;
  numeric.ai_flags |= AI_NUMERICHOST;
  *list = nullptr;
  for (const char* each : {"127.0.0.1", "127.0.0.2", "::1", "127.0.0.1", "127.0.0.2", "::1"}) {
    if (const int code = real(each, service, &numeric, list)) return code;
    list = &(*list)->ai_next;
  }
  return 0;
}
EXPORTED int socket(int domain, int type, int protocol) noexcept {
  if (domain != AF_UNIX && fails_now(call::socket)) return -1;
  static auto* const real = original(static_cast<int (*)(int, int, int)>(nullptr), "socket");
  return real(domain, type, protocol);
}
EXPORTED int fsync(int fd) {
  if (fails_now(call::fsync)) return -1;
  static auto* const real = original(static_cast<int (*)(int)>(nullptr), "fsync");
  return real(fd);
}
EXPORTED int fchmod(int fd, mode_t mode) noexcept {
  if (fails_now(call::fchmod)) return -1;
  static auto* const real = original(static_cast<int (*)(int, mode_t)>(nullptr), "fchmod");
  return real(fd, mode);
}
EXPORTED int close(int fd) {
  static auto* const real = original(static_cast<int (*)(int)>(nullptr), "close");
  if (fails_now(call::close)) {
    const int code = errno;
    real(fd);
    errno = code;
    return -1;
  }
  return real(fd);
}
EXPORTED ssize_t pwrite64(int fd, const void* data, std::size_t size, off64_t at) {
  if (fails_now(call::pwrite)) return with == 0 ? 0 : -1;
  static auto* const real = original(static_cast<ssize_t (*)(int, const void*, std::size_t, off64_t)>(nullptr), "pwrite64");
  return real(fd, data, size, at);
}
}

// -- offload() -----------------------------------------------------------------------------------

TEST_CASE("offload gives what the function gives: a value, nothing, what can only be moved, a copy of what is referred to") {
  const hub_guard end;
  CHECK(hub::offload([] { return 42; }) == 42);
  int called = 0;
  auto gives_nothing = [&] { ++called; };
  static_assert(std::is_void_v<decltype(hub::offload(gives_nothing))>);
  hub::offload(gives_nothing);
  CHECK(called == 1);
  CHECK(*hub::offload([] { return std::make_unique<std::string>("moved"); }) == "moved");
  std::string text = "text";
  auto refers = [&]() -> std::string& { return text; };
  static_assert(std::is_same_v<decltype(hub::offload(refers)), std::string>);
  CHECK(hub::offload(refers) == "text");
  struct counts {
    int calls = 0;
    int operator()() { return ++calls; }
  } object;
  CHECK(hub::offload(object) == 1);
  CHECK(object.calls == 1);  // it was called where it stands, and not a copy
  CHECK(hub::offload(+[] { return 'f'; }) == 'f');
}

TEST_CASE("offload throws what the function throws, and only there") {
  const hub_guard end;
  CHECK_THROWS_WITH_AS(hub::offload([] { throw std::runtime_error("from the pool"); }), "from the pool", std::runtime_error);
  CHECK_THROWS_AS(hub::offload([]() -> int { throw 7; }), int);
  auto t = hub::spawn([] { return hub::offload([]() -> int { throw std::out_of_range("in a task"); }); });
  CHECK_THROWS_AS(t.get(), std::out_of_range);
  auto exits = hub::spawn([] { hub::offload([] { throw greenlet_exit(); }); });
  CHECK_THROWS_AS(exits.get(), hub::cancelled);
}

TEST_CASE("the function runs on another thread, on which it has a tree of its own, while the hub's greenlets go on") {
  const hub_guard end;
  gate g;
  const auto here = std::this_thread::get_id();
  auto waits = hub::spawn([&] {
    return hub::offload([&] {
      g.pass();
      return std::this_thread::get_id() != here;
    });
  });
  int others = 0;
  while (g.begun() == 0) hub::yield();
  for (int n = 0; n < 10; ++n) hub::run([&] { ++others; });
  CHECK(others == 10);
  CHECK_FALSE(waits.ready());
  g.open();
  CHECK(waits.get());
}

TEST_CASE("waiting for the pool is no deadlock, and the hub sleeps meanwhile") {
  const hub_guard end;
  const auto turns = hub::statistics().turns;
  hub::offload([] { std::this_thread::sleep_for(milliseconds(30)); });
  CHECK(hub::statistics().turns - turns < 10);
}

TEST_CASE("from the pool a message can be posted to the hub that waits") {
  const hub_guard end;
  std::string got;
  const hub::remote home = hub::this_hub();
  hub::offload([&] { REQUIRE(home.post([&] { got = "posted"; })); });
  yield_until([&] { return !got.empty(); });
  CHECK(got == "posted");
}

TEST_CASE("what is cancelled before it has begun goes at once, and is never called") {
  const hub_guard end;
  pool_taken taken;
  bool called = false;
  events log;
  auto t = hub::spawn([&] {
    noting n{log, "left"};
    hub::offload([&] { called = true; });
  });
  yield_until_waiting(1);
  t.cancel();
  CHECK(t.join(hang_guard()));
  CHECK(log == events{"~left"});
  CHECK_THROWS_AS(t.get(), hub::cancelled);

  CHECK_FALSE(hub::with_timeout(milliseconds(1), [&] { hub::offload([&] { called = true; }); }));
  taken.release();
  hub::offload([] {});
  CHECK_FALSE(called);
}

TEST_CASE("what is cancelled after it has begun goes when it has ended: it may use the greenlet's stack") {
  const hub_guard end;
  gate g;
  events log;
  std::array<char, 4096> seen{};
  auto t = hub::spawn([&] {
    noting n{log, "left"};
    std::array<char, 4096> mine{};
    const auto look = at_end([&] { seen = mine; });
    hub::offload([&] {
      g.pass();
      std::fill(mine.begin(), mine.end(), 'x');
    });
    log.push_back("went on");
  });
  while (g.begun() == 0) hub::yield();
  t.cancel();
  for (int n = 0; n < 100; ++n) hub::yield();
  CHECK_FALSE(t.ready());
  t.cancel();  // which is not thrown into one that is being unwound
  auto direct = hub::spawn([&] { t.handle().throw_in(std::runtime_error("thrown in by hand")); });
  hub::yield();
  CHECK_FALSE(t.ready());
  g.open();
  CHECK(t.join(hang_guard()));
  CHECK_THROWS_AS(t.get(), hub::cancelled);
  CHECK(log == events{"~left"});
  CHECK(std::count(seen.begin(), seen.end(), 'x') == 4096);
}

TEST_CASE("a timeout bounds a wait for the pool when the function has ended") {
  const hub_guard end;
  gate g;
  std::atomic<bool> begun{false};
  bool ended = false;
  auto opens = hub::spawn([&] {
    while (g.begun() == 0) hub::yield();
    hub::sleep_for(milliseconds(5));
    CHECK_FALSE(ended);
    g.open();
  });
  // Until it has begun in time: a timeout before that leaves at once.
  do CHECK_FALSE(hub::with_timeout(milliseconds(2), [&] {
      hub::offload([&] {
        begun = true;
        g.pass();
        ended = true;
      });
    }));
  while (!begun);
  CHECK(ended);
  opens.get();
}

TEST_CASE("shutdown waits for what has begun, and takes back what has not") {
  gate g;
  std::atomic<unsigned> begun{0}, ended{0}, gone{0};
  const unsigned many = 3 * pool_size;
  for (unsigned n = 0; n < many; ++n)
    hub::spawn([&] {
      const auto left = at_end([&] { ++gone; });
      hub::offload([&] {
        ++begun;
        g.pass();
        ++ended;
      });
    });
  while (g.begun() < pool_size) hub::yield();
  yield_until_waiting(many);
  std::thread opens([&] {
    while (gone < many - pool_size) std::this_thread::yield();
    g.open();
  });
  hub::shutdown();
  opens.join();
  CHECK(begun == pool_size);
  CHECK(ended == pool_size);
  CHECK(gone == many);
}

TEST_CASE("a thread's exit waits for what has begun") {
  gate g;
  std::atomic<bool> ended{false}, unwound_after{false};
  std::thread opens([&] {
    while (g.begun() == 0) std::this_thread::yield();
    std::this_thread::sleep_for(milliseconds(10));
    g.open();
  });
  std::thread([&] {
    hub::spawn([&] {
      const auto look = at_end([&] { unwound_after = ended.load(); });
      hub::offload([&] {
        g.pass();
        ended = true;
      });
    });
    while (g.begun() == 0) hub::yield();
  }).join();
  CHECK(ended);
  CHECK(unwound_after);
  opens.join();
}

TEST_CASE("pthread_exit in the main greenlet waits for what other greenlets have begun") {
  gate g;
  std::atomic<bool> ended{false}, unwound_after{false};
  std::thread opens([&] {
    while (g.begun() == 0) std::this_thread::yield();
    std::this_thread::sleep_for(milliseconds(10));
    g.open();
  });
  std::thread([&] {
    hub::spawn([&] {
      const auto look = at_end([&] { unwound_after = ended.load(); });
      hub::offload([&] {
        g.pass();
        ended = true;
      });
    });
    while (g.begun() == 0) hub::yield();
    pthread_exit(nullptr);
  }).join();
  CHECK(unwound_after);
  opens.join();
}

// ThreadSanitizer sees none of a thread's locks any more that was cancelled in epoll_pwait, without greenlets too; and
// AddressSanitizer takes the frames that a forced unwind has passed for ones that are there.
#if !defined(T_TSAN) && !defined(T_ASAN)
TEST_CASE("a thread that is cancelled by pthread_cancel while it waits for the pool leaves when the function has ended") {
  gate g;
  std::atomic<bool> ended{false}, unwound_after{false};
  std::thread t([&] {
    const auto look = at_end([&] { unwound_after = ended.load(); });
    hub::offload([&] {
      g.pass();
      ended = true;
    });
  });
  while (g.begun() == 0) std::this_thread::yield();
  REQUIRE(pthread_cancel(t.native_handle()) == 0);
  std::this_thread::sleep_for(milliseconds(10));
  CHECK_FALSE(unwound_after);
  g.open();
  t.join();
  CHECK(unwound_after);
}
#endif

TEST_CASE("one that refuses to go holds the hub's end up until the function has ended") {
  gate g;
  std::atomic<bool> ends{false};
  bool ended = false;
  int refusals = 0;
  auto witness = hub::spawn([&] {
    const auto sees = at_end([&] { ends = true; });
    hub::sleep_for(hours(1));
  });
  auto stubborn = hub::spawn([&] {
    while (!ended) {
      try {
        hub::offload([&] {
          g.pass();
          ended = true;
        });
      } catch (const greenlet_exit&) {
        ++refusals;
      }
    }
  });
  while (g.begun() == 0) hub::yield();
  std::thread opens([&] {
    while (!ends) std::this_thread::yield();
    g.open();
  });
  hub::shutdown();
  CHECK(ended);
  CHECK(refusals > 0);
  CHECK(stubborn.ready());
  opens.join();
}

TEST_CASE("a function that ends its thread ends the process, and says so") {
  if (freed_memory_is_kept()) return;  // sanitizers have their own way with such threads
  const child c = in_child([] { hub::offload([] { pthread_exit(nullptr); }); });
  INFO(c.output);
  CHECK(WIFSIGNALED(c.status));
  CHECK(WTERMSIG(c.status) == SIGABRT);
  CHECK(c.output.find("exception not rethrown") != std::string::npos);
}

TEST_CASE("the hub itself cannot wait for the pool, and says so before anything has begun") {
  const hub_guard end;
  errc found{};
  int called = 0;
  auto t = hub::spawn([end = at_end([&] {  // destroyed unstarted, by the hub
                         found = error_of([&] { hub::offload([&] { ++called; }); });
                       })] {});
  t.cancel();
  t.join();
  CHECK(found == errc::not_running);
  CHECK(hub::statistics().waiting == 0);
  hub::offload([&] { called += 10; });
  CHECK(called == 10);
}

TEST_CASE("without memory to wait the thread itself waits for what has begun, and std::bad_alloc is told") {
  refusal probe;
  refused = &probe;
  ::operator delete(::operator new(1));
  refused = nullptr;
  if (probe.asked == 0) return;  // valgrind gives memory in the program's place
  const hub_guard end;
  hub::shutdown();
  hub::this_hub();  // a new one has no place to wait in yet
  gate g;
  bool ended = false;
  refusal r{[&] { return g.begun() > 0; }, {}};
  std::thread opens([&] {
    while (r.asked < 3) std::this_thread::yield();  // for the call, to wait for it, and to wait for its end
    g.open();
  });
  bool told = false;
  const auto call = [&] {
    g.pass();
    ended = true;
  };
  refused = &r;
  try {
    hub::offload(call);
  } catch (const std::bad_alloc&) {
    told = true;
  }
  refused = nullptr;
  opens.join();
  CHECK(told);
  CHECK(ended);
}

TEST_CASE("a thousand calls of a thousand greenlets, and several threads at once: each has its own result") {
  const hub_guard end;
  const unsigned calls = times(1000);
  const auto storm = [calls] {
    std::vector<hub::task<unsigned>> all;
    for (unsigned n = 0; n < calls; ++n)
      all.push_back(hub::spawn([n] {
        unsigned on_my_stack = 0;
        hub::offload([&] { on_my_stack = n; });
        return hub::offload([&] { return on_my_stack + 1; });
      }));
    unsigned right = 0;
    for (unsigned n = 0; n < calls; ++n) right += all[n].get() == n + 1;
    return right;
  };
  std::atomic<unsigned> right{0};
  std::vector<std::thread> threads;
  for (int n = 0; n < 3; ++n) threads.emplace_back([&] { right += storm(); });
  right += storm();
  for (auto& t : threads) t.join();
  CHECK(right == 4 * calls);
}

TEST_CASE("calls are cancelled at any moment: none is called twice, none is used after its greenlet has gone") {
  const hub_guard end;
  const unsigned calls = times(1000);
  std::atomic<unsigned> called{0};
  unsigned returned = 0;
  std::vector<hub::task<void>> all;
  for (unsigned n = 0; n < calls; ++n)
    all.push_back(hub::spawn([&, n] {
      std::vector<unsigned> mine(64, n);
      const unsigned sum = hub::offload([&] {
        ++called;
        std::iota(mine.begin(), mine.end(), 0u);
        return std::accumulate(mine.begin(), mine.end(), 0u);
      });
      if (sum == 64 * 63 / 2) ++returned;
    }));
  for (unsigned n = 0; n < calls; ++n) {
    if (n % 3 == 0) all[n].cancel();
    if (n % 50 == 0) hub::yield();
  }
  for (auto& t : all) t.join();
  CHECK(called >= returned);
  CHECK(called <= calls);
  CHECK(returned >= calls - calls / 3 - 1);
}

TEST_CASE("a child of a process with a pool has one of its own, with a hub of its own, and exits") {
#ifdef T_TSAN
  return;  // its runtime starts no threads in such a child
#endif
  hub::run([] { hub::offload([] {}); });
  hub::shutdown();
  const child c = in_child([] {
    if (hub::offload([] { return getpid(); }) != getpid()) _exit(2);
    hub::shutdown();
  });
  INFO(c.output);
  CHECK(c.status == 0);
  // exit(), for which libuv joins its threads: also those of the parent's, which are not there.
  for (const bool uses : {true, false}) {
    const child exits = in_child([uses] {
      if (uses) hub::offload([] {});
      hub::shutdown();
      alarm(30);
      std::exit(0);
    });
    INFO(exits.output);
    CHECK(exits.status == 0);
  }
}

// -- Files ---------------------------------------------------------------------------------------

TEST_CASE("a file is written, read back at its position, and anywhere, and tells its end") {
  const hub_guard end;
  const temporary dir;
  const std::string sent = pattern(100'000);
  using m = hub::open_mode;
  hub::file f(dir / "f", m::read | m::write | m::create);
  CHECK(f.is_open());
  CHECK((fcntl(f.fd(), F_GETFD) & FD_CLOEXEC));
  const hub::io_result w = f.write_all(sent.data(), sent.size());
  CHECK(w);
  CHECK(w.bytes == sent.size());
  CHECK(f.position() == sent.size());
  CHECK(f.size() == sent.size());
  CHECK(f.sync());

  std::string got(sent.size() + 10, '\0');
  f.seek(0);
  CHECK(f.read_some(got.data(), 10).bytes == 10);
  CHECK(f.position() == 10);
  CHECK(f.read_exactly(got.data() + 10, sent.size() - 10));
  CHECK(got.compare(0, sent.size(), sent) == 0);
  CHECK(f.read_some(got.data(), 1).end());
  CHECK(f.read_some(got.data(), 0));  // of nothing there is no end
  f.seek(sent.size() - 3);
  const hub::io_result less = f.read_exactly(got.data(), 10);
  CHECK(less.end());
  CHECK(less.bytes == 3);
  CHECK(f.position() == sent.size());

  CHECK(f.write_at(5, "hello", 5));
  CHECK(f.read_at(4, got.data(), 7));
  CHECK(got.substr(0, 7) == sent[4] + std::string("hello") + sent[10]);
  CHECK(f.read_at(sent.size() + 5, got.data(), 1).end());
  CHECK(f.position() == sent.size());
  CHECK(f.truncate(8));
  CHECK(f.size() == 8);
  CHECK(f.close());
  CHECK_FALSE(f.is_open());
}

TEST_CASE("how a file is opened: what there is, created, only created, emptied, at its end") {
  const hub_guard end;
  const temporary dir;
  using m = hub::open_mode;
  std::string what, got;
  CHECK(system_error_of([&] { hub::file(dir / "f"); }, &what) == std::errc::no_such_file_or_directory);
  CHECK(what.find("open \"" + (dir / "f") + "\"") != std::string::npos);
  CHECK(system_error_of([&] { hub::file(dir / "f", m::write); }) == std::errc::no_such_file_or_directory);
  CHECK(system_error_of([&] { hub::file(dir / "f" + std::string("\0x", 2)); }) == std::errc::invalid_argument);

  const mode_t mask = umask(027);
  {
    hub::file f(dir / "f", m::write | m::exclusive);
    CHECK(permissions(dir / "f") == 0640);
    CHECK(f.write_all("first", 5));
    CHECK(f.read_some(what.data(), 1).error == std::errc::bad_file_descriptor);
    hub::file secret(dir / "secret", m::write | m::create, 0600);
    CHECK(permissions(dir / "secret") == 0600);
  }
  umask(mask);
  CHECK(system_error_of([&] { hub::file(dir / "f", m::write | m::exclusive); }) == std::errc::file_exists);
  {
    hub::file f(dir / "f", m::append | m::read);
    char first;
    CHECK(f.read_some(&first, 1));
    CHECK(f.write_all(", second", 8));
    CHECK(f.write_at(0, "!", 1));  // as POSIX has it not, and Linux has
    CHECK(f.position() == 1);
    CHECK(f.read_some(&first, 1));
    CHECK(first == 'i');
  }
  CHECK(hub::read_file(got, dir / "f"));
  CHECK(got == "first, second!");
  hub::file(dir / "f", m::write).write_all("F", 1);
  CHECK(hub::read_file(got, dir / "f"));
  CHECK(got == "First, second!");
  hub::file(dir / "f", m::write | m::truncate);
  CHECK(hub::read_file(got, dir / "f"));
  CHECK(got.empty());
  hub::file reads(dir / "f");
  CHECK(reads.write_all("x", 1).error == std::errc::bad_file_descriptor);
  CHECK(reads.truncate(0).error == std::errc::invalid_argument);

  CHECK_THROWS_AS(hub::file(dir / "f", m::create), std::invalid_argument);
  CHECK_THROWS_AS(hub::file(dir / "f", m::read | m::truncate), std::invalid_argument);
}

TEST_CASE("a file moves, and one that is closed, moved from or never opened says so") {
  const hub_guard end;
  const temporary dir;
  char c;
  hub::file a(dir / "f", hub::open_mode::write | hub::open_mode::create), b;
  const int fd = a.fd();
  b = std::move(a);
  hub::file d(std::move(b));
  CHECK(d.fd() == fd);
  hub::file never;
  hub::file closed(dir / "f");
  CHECK(closed.close());
  for (hub::file* f : {&a, &b, &never, &closed}) {
    CHECK_FALSE(f->is_open());
    CHECK(f->fd() == -1);
    f->seek(7);
    CHECK(f->position() == 0);
    CHECK(f->read_some(&c, 1).closed());
    CHECK(f->read_exactly(&c, 1).closed());
    CHECK(f->write_all(&c, 1).closed());
    CHECK(f->read_at(0, &c, 1).closed());
    CHECK(f->write_at(0, &c, 1).closed());
    CHECK(f->sync().closed());
    CHECK(f->truncate(0).closed());
    CHECK(f->close().closed());
    CHECK(system_error_of([&] { f->size(); }) == std::errc::bad_file_descriptor);
  }
}

TEST_CASE("a full disk is a result: nothing is written, and so is a limit: what went before is told") {
  const hub_guard end;
  hub::file full("/dev/full", hub::open_mode::write);
  const hub::io_result none = full.write_all("data", 4);
  CHECK(none.error == std::errc::no_space_on_device);
  CHECK(none.bytes == 0);
  CHECK(full.position() == 0);

  const temporary dir;
  const child c = in_child([&] {
    std::signal(SIGXFSZ, SIG_IGN);
    rlimit before, limit;
    getrlimit(RLIMIT_FSIZE, &before);
    limit = before;
    limit.rlim_cur = 5000;
    if (setrlimit(RLIMIT_FSIZE, &limit) != 0) _exit(2);
    hub::file f(dir / "f", hub::open_mode::write | hub::open_mode::create);
    const std::string much(8000, 'm');
    const hub::io_result some = f.write_all(much.data(), much.size());
    if (some.error != std::errc::file_too_large || some.bytes != 5000 || f.position() != 5000) _exit(3);
    if (!hub::write_file(dir / "whole", "old content")) _exit(4);
    if (hub::write_file(dir / "whole", much).error != std::errc::file_too_large) _exit(5);
    std::string got;
    if (!hub::read_file(got, dir / "whole") || got != "old content") _exit(6);
    f.close();
    hub::shutdown();
    setrlimit(RLIMIT_FSIZE, &before);  // for what a build with --enable-coverage writes
  });
#ifndef T_TSAN  // its runtime starts no threads in a child of a process that has some
  INFO(c.output);
  CHECK(c.status == 0);
  CHECK(dir.names() == events{"f", "whole"});
#endif
}

TEST_CASE("errors of closing, syncing, cutting and asking are told, and the file is closed all the same") {
  const hub_guard end;
  const temporary dir;
  hub::file f(dir / "f", hub::open_mode::write | hub::open_mode::create);
  {
    const failing sync(call::fsync, EIO);
    CHECK(f.sync().error == std::errc::io_error);
  }
  {
    const failing sync(call::fsync, EINTR);  // which a signal brings: again
    CHECK(f.sync());
    CHECK(sync.has_failed());
  }
  {
    const failing write(call::pwrite, 0);
    CHECK(f.write_all("x", 1).error == std::errc::io_error);
  }
  CHECK(f.truncate(~0ull >> 1).error);
  const int fd = f.fd();
  const failing close(call::close, ENOSPC);
  CHECK(f.close().error == std::errc::no_space_on_device);
  CHECK_FALSE(f.is_open());
  CHECK(fcntl(fd, F_GETFD) == -1);
}

TEST_CASE("at the position one greenlet at a time; elsewhere many at once") {
  const hub_guard end;
  const temporary dir;
  hub::file f(dir / "f", hub::open_mode::read | hub::open_mode::write | hub::open_mode::create);
  const std::string all = pattern(64 * 100);
  hub::group writers;
  for (std::size_t n = 0; n < 64; ++n)
    writers.spawn([&, n] { CHECK(f.write_at(n * 100, all.data() + n * 100, 100)); });
  writers.wait();
  CHECK(f.size() == all.size());

  pool_taken taken;
  std::string got(all.size(), '\0');
  auto reads = hub::spawn([&] { return f.read_exactly(got.data(), got.size()); });
  yield_until_waiting(1);
  char c;
  std::string what;
  CHECK(error_of([&] { f.read_some(&c, 1); }, &what) == errc::already_waiting);
  CHECK(what.find("descriptor " + std::to_string(f.fd())) != std::string::npos);
  CHECK(error_of([&] { f.write_all(&c, 1); }) == errc::already_waiting);
  auto also = hub::spawn([&] { return f.read_at(5, &c, 1); });
  yield_until_waiting(2);
  taken.release();
  CHECK(reads.get());
  CHECK(also.get());
  CHECK(got == all);
  CHECK(c == all[5]);
}

TEST_CASE("what is thrown in comes out when the call has ended, and the position is where that got") {
  const hub_guard end;
  const temporary dir;
  hub::file f(dir / "f", hub::open_mode::write | hub::open_mode::create);
  pool_taken taken;
  auto never = hub::spawn([&] { f.write_all("never", 5); });
  yield_until_waiting(1);
  never.cancel();
  never.join();
  CHECK(f.position() == 0);
  taken.release();
  // Cancelled when it has been done, and before it knows.
  auto done = hub::spawn([&] { f.write_all("done", 4); });
  auto thrower = hub::spawn([&] {
    struct stat now {};
    const auto give_up = hub::clock::now() + seconds(60);
    while (fstat(f.fd(), &now) == 0 && now.st_size != 4 && hub::clock::now() < give_up) continue;
    done.handle().throw_in(greenlet_exit());
  });
  CHECK_THROWS_AS(done.get(), hub::cancelled);
  thrower.cancel();
  CHECK(f.position() == 4);
  CHECK(f.write_all("!", 1));
  std::string got;
  CHECK(hub::read_file(got, dir / "f"));
  CHECK(got == "done!");
}

TEST_CASE("closing waits for those who are at it, and the object may go while they are") {
  const hub_guard end;
  const temporary dir;
  auto f = std::make_unique<hub::file>(dir / "f", hub::open_mode::write | hub::open_mode::create);
  const int fd = f->fd();
  pool_taken taken;
  auto writes = hub::spawn([&] { return f->write_all("written", 7); });
  yield_until_waiting(1);
  auto closes = hub::spawn([&] { return f->close(); });
  yield_until_waiting(2);
  CHECK_FALSE(f->is_open());
  CHECK(fcntl(fd, F_GETFD) != -1);
  CHECK(f->write_all("late", 4).closed());
  f.reset();
  taken.release();
  CHECK(writes.get());
  CHECK(closes.get());
  CHECK(fcntl(fd, F_GETFD) == -1);
}

TEST_CASE("a close that is cancelled closes, at whatever it was; and so does an opening") {
  const hub_guard end;
  const temporary dir;
  hub::file f(dir / "f", hub::open_mode::write | hub::open_mode::create);
  hub::file g(dir / "g", hub::open_mode::write | hub::open_mode::create);
  const int fd = f.fd(), gd = g.fd();
  pool_taken taken;
  auto writes = hub::spawn([&] { return f.write_all("written", 7); });
  auto closes_f = hub::spawn([&] { f.close(); });
  auto closes_g = hub::spawn([&] { g.close(); });
  auto opens = hub::spawn([&] { hub::file(dir / "h", hub::open_mode::write | hub::open_mode::create); });
  yield_until_waiting(4);
  for (auto* t : {&closes_f, &closes_g, &opens}) t->cancel();
  for (auto* t : {&closes_f, &closes_g, &opens}) CHECK(t->join(hang_guard()));
  CHECK(fcntl(fd, F_GETFD) != -1);  // not under the writer's feet
  CHECK(fcntl(gd, F_GETFD) == -1);
  taken.release();
  CHECK(writes.get());
  CHECK(fcntl(fd, F_GETFD) == -1);
  CHECK(dir.names() == events{"f", "g"});
}

TEST_CASE("a file has no hub: it outlives one, and may go to another thread") {
  const temporary dir;
  hub::file f(dir / "f", hub::open_mode::read | hub::open_mode::write | hub::open_mode::create);
  CHECK(f.write_all("one", 3));
  hub::shutdown();
  CHECK(f.write_all("two", 3));
  hub::shutdown();
  std::thread([&, f = std::move(f)]() mutable {
    CHECK(f.write_all("three", 5));
    CHECK(f.close());
  }).join();
  const hub_guard end;
  std::string got;
  CHECK(hub::read_file(got, dir / "f"));
  CHECK(got == "onetwothree");
}

TEST_CASE("without descriptors left an opening is an error with the path, and reading a file a result") {
  const temporary dir;
  const child c = in_child([&] {
    hub::write_file(dir / "f", "content");
    const int next = dup(0);
    ::close(next);
    rlimit before, limit;
    getrlimit(RLIMIT_NOFILE, &before);
    limit = before;
    limit.rlim_cur = static_cast<rlim_t>(next);
    setrlimit(RLIMIT_NOFILE, &limit);
    if (system_error_of([&] { hub::file(dir / "f"); }) != std::errc::too_many_files_open) _exit(2);
    std::string got = "as it was";
    if (hub::read_file(got, dir / "f").error != std::errc::too_many_files_open || got != "as it was") _exit(3);
    if (hub::write_file(dir / "f", "x").error != std::errc::too_many_files_open) _exit(4);
    hub::shutdown();
    setrlimit(RLIMIT_NOFILE, &before);
  });
#ifndef T_TSAN
  INFO(c.output);
  CHECK(c.status == 0);
#endif
}

TEST_CASE("read_file reads all of it, also what says nothing of its size; failing, it leaves the string as it was") {
  const hub_guard end;
  const temporary dir;
  std::string got = "before";
  CHECK(hub::read_file(got, dir / "none").error == std::errc::no_such_file_or_directory);
  CHECK(hub::read_file(got, dir.path).error == std::errc::is_a_directory);
  CHECK(got == "before");
  for (const std::size_t size : {0, 1, 4095, 4096, 4097, 1'000'000}) {
    const std::string sent = pattern(size);
    const hub::io_result w = hub::write_file(dir / "f", sent);
    CHECK(w);
    CHECK(w.bytes == size);
    const hub::io_result r = hub::read_file(got, dir / "f");
    CHECK(r);
    CHECK(r.bytes == size);
    CHECK(got == sent);
  }
  CHECK(hub::read_file(got, "/proc/self/smaps"));
  CHECK(got.size() > 5000);
}

TEST_CASE("write_file replaces a file whole: permissions stay, links lead to it, and nothing is left beside it") {
  const hub_guard end;
  const temporary dir;
  const mode_t mask = umask(027);
  CHECK(hub::write_file(dir / "f", "first"));
  umask(mask);
  CHECK(permissions(dir / "f") == 0640);
  chmod((dir / "f").c_str(), 0604);
  const int old = open((dir / "f").c_str(), O_RDONLY | O_CLOEXEC);
  REQUIRE(symlink("f", (dir / "link").c_str()) == 0);
  CHECK(hub::write_file(dir / "link", "second"));
  CHECK(permissions(dir / "f") == 0604);
  std::string got;
  CHECK(hub::read_file(got, dir / "f"));
  CHECK(got == "second");
  char before[6] = "";
  CHECK(read(old, before, 5) == 5);  // who had it open has what it was
  CHECK(std::string(before) == "first");
  ::close(old);
  CHECK(dir.names() == events{"f", "link"});

  // A name that a dead process of this number has left.
  const std::string last = std::to_string(getpid());
  for (int n = 0; n < 200; ++n)
    hub::file(dir / ".greenlet-" + last + "-" + std::to_string(n), hub::open_mode::write | hub::open_mode::create);
  CHECK(hub::write_file(dir / "f", "third"));
  CHECK(hub::read_file(got, dir / "f"));
  CHECK(got == "third");

  // In the directory that the process is in.
  char here[4096];
  REQUIRE(getcwd(here, sizeof here));
  REQUIRE(chdir(dir.path.c_str()) == 0);
  CHECK(hub::write_file("g", "relative"));
  CHECK(chdir(here) == 0);
  CHECK(hub::read_file(got, dir / "g"));
  CHECK(got == "relative");
}

TEST_CASE("write_file that fails changes nothing, and leaves nothing") {
  const hub_guard end;
  const temporary dir;
  CHECK(hub::write_file(dir / "f", "old"));
  REQUIRE(mkdir((dir / "directory").c_str(), 0700) == 0);
  REQUIRE(symlink("nowhere", (dir / "broken").c_str()) == 0);
  const events before = dir.names();
  const auto error = [&](const std::string& path) { return hub::write_file(path, "new").error; };
  CHECK(error(dir / "none" + "/f") == std::errc::no_such_file_or_directory);
  CHECK(error(dir / "f" + "/f") == std::errc::not_a_directory);
  CHECK(error(dir / "broken") == std::errc::no_such_file_or_directory);
  CHECK(error(dir / "directory") == std::errc::invalid_argument);
  CHECK(error("/dev/null") == std::errc::invalid_argument);
  CHECK(error(dir / "f" + std::string("\0x", 2)) == std::errc::invalid_argument);
  CHECK(error(dir / "new/") == std::errc::no_such_file_or_directory);
  for (const call c : {call::pwrite, call::fchmod, call::fsync, call::close}) {
    const failing f(c, EIO);
    CHECK(error(dir / "f") == std::errc::io_error);
    CHECK(f.has_failed());
  }
  CHECK(dir.names() == before);
  std::string got;
  CHECK(hub::read_file(got, dir / "f"));
  CHECK(got == "old");
  {
    const failing directory(call::fsync, EIO, 1);
    CHECK(error(dir / "f") == std::errc::io_error);
  }
  CHECK(hub::read_file(got, dir / "f"));
  CHECK(got == "new");  // but for this one, as the manual says
  {
    const failing cannot(call::fsync, EINVAL, 1);  // some file systems cannot
    CHECK_FALSE(error(dir / "f"));
    CHECK(cannot.has_failed());
  }
}

TEST_CASE("a write_file that is cancelled when it has begun is whole") {
  const hub_guard end;
  const temporary dir;
  CHECK(hub::write_file(dir / "f", "old"));
  for (int n = 0; n < 50; ++n) {
    auto t = hub::spawn([&] { hub::write_file(dir / "f", std::string(1000, 'n')); });
    for (int turns = 0; turns < n % 5; ++turns) hub::yield();
    t.cancel();
    t.join();
    std::string got;
    CHECK(hub::read_file(got, dir / "f"));
    CHECK((got == "old" || got == std::string(1000, 'n')));
    CHECK(dir.names() == events{"f"});
  }
}

// -- Names ---------------------------------------------------------------------------------------

namespace {

// A port of 127.0.0.1 that is taken, and where nobody listens: else a connection might be one with itself.
struct refusing {
  int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  std::uint16_t port = 0;

  refusing() {
    const hub::address any("127.0.0.1", 0);
    sockaddr_in at{};
    socklen_t size = sizeof at;
    REQUIRE(bind(fd, any.data(), any.size()) == 0);
    REQUIRE(getsockname(fd, reinterpret_cast<sockaddr*>(&at), &size) == 0);
    port = ntohs(at.sin_port);
  }
  refusing(const refusing&) = delete;
  refusing& operator=(const refusing&) = delete;
  ~refusing() { ::close(fd); }
};

events texts(const hub::resolution& r) {
  events all;
  for (const hub::address& a : r.addresses) all.push_back(a.text());
  return all;
}

}  // namespace

TEST_CASE("numeric addresses are answered at once, with the pool full") {
  const hub_guard end;
  pool_taken taken;
  const auto switches = hub::statistics().switches;
  CHECK(texts(hub::resolve("127.0.0.1", 80)) == events{"127.0.0.1:80"});
  CHECK(texts(hub::resolve("::1", "443")) == events{"[::1]:443"});
  CHECK(hub::statistics().switches == switches);
}

TEST_CASE("a name has its addresses, each once, for streams, and a service its port") {
  const hub_guard end;
  const hub::resolution r = hub::resolve("localhost", 4711, hang_guard());
  REQUIRE(r);
  REQUIRE(!r.addresses.empty());
  events all = texts(r);
  for (const std::string& each : all) CHECK((each == "127.0.0.1:4711" || each == "[::1]:4711"));
  std::sort(all.begin(), all.end());
  CHECK(std::unique(all.begin(), all.end()) == all.end());
  if (getservbyname("http", "tcp")) CHECK(texts(hub::resolve("127.0.0.1", "http")) == events{"127.0.0.1:80"});
}

TEST_CASE("addresses are given in the system's order, and one that it gives twice, once") {
  const hub_guard end;
  CHECK(texts(hub::resolve("many.test", 7)) == events{"127.0.0.1:7", "127.0.0.2:7", "[::1]:7"});
}

TEST_CASE("what cannot be found is an error with the system's words") {
  const hub_guard end;
  const hub::resolution service = hub::resolve("127.0.0.1", "no-such-service", hang_guard());
  CHECK_FALSE(service);
  CHECK(service.addresses.empty());
  CHECK(service.error.category() == hub::name_category());
  CHECK((service.error.value() == EAI_SERVICE || service.error.value() == EAI_NONAME));
  CHECK(service.error.message() == gai_strerror(service.error.value()));
  CHECK(std::string(hub::name_category().name()) == "getaddrinfo");
  // Without a question to anybody.
  const hub::resolution empty = hub::resolve("", 1, hang_guard());
  CHECK(empty.error == std::error_code(EAI_NONAME, hub::name_category()));
  CHECK(hub::resolve(std::string("localhost\0.example", 18), 1).error.value() == EAI_NONAME);
  CHECK(hub::resolve("later.test", 1).error == std::error_code(EAI_AGAIN, hub::name_category()));
  CHECK(hub::resolve("no-descriptor.test", 1).error == std::errc::too_many_files_open);
  const hub::resolution too_long = hub::resolve(std::string(300, 'a'), 1, hang_guard());
  CHECK(too_long.error.category() == std::generic_category());
  CHECK_FALSE(too_long.timed_out());
}

TEST_CASE("a deadline or a cancel leaves a look-up at once, which is forgotten") {
  const hub_guard end;
  pool_taken taken;
  const hub::resolution late = hub::resolve("localhost", 1, milliseconds(5));
  CHECK(late.timed_out());
  CHECK(late.addresses.empty());
  hub::connection c;
  CHECK(hub::connect(c, "localhost", 1, milliseconds(5)).timed_out());
  auto t = hub::spawn([] { hub::resolve("localhost", 1); });
  yield_until_waiting(1);
  t.cancel();
  CHECK(t.join(hang_guard()));
  CHECK_THROWS_AS(t.get(), hub::cancelled);
  taken.release();
  CHECK(hub::resolve("localhost", 1, hang_guard()));
}

TEST_CASE("a look-up that has begun and is left ends by itself, also after the hub has") {
  hub::resolve("localhost", 1);
  for (int n = 0; n < 20; ++n) {
    auto t = hub::spawn([] { hub::resolve("localhost", 1); });
    for (int turns = 0; turns <= n % 3; ++turns) hub::yield();
    if (n % 2) t.cancel();
    if (n % 2) t.join();
    hub::shutdown();
    CHECK(t.ready());
  }
}

TEST_CASE("connecting by name, to the first address that answers; otherwise there is an error") {
  const hub_guard end;
  hub::listener l(hub::address("127.0.0.1", 0));
  const std::uint16_t port = l.local().port();
  hub::connection client, server;
  REQUIRE(hub::connect(client, "localhost", port, hang_guard()));  // the first may be ::1, where nobody listens
  CHECK(client.peer().text() == l.local().text());
  REQUIRE(l.accept(server, hang_guard()));
  CHECK(hub::connect(client, "127.0.0.1", port, hang_guard()));
  const int before = client.fd();
  const refusing nobody;
  CHECK(hub::connect(client, "127.0.0.1", nobody.port, hang_guard()).error == std::errc::connection_refused);
  CHECK(hub::connect(client, "", port, hang_guard()).error == std::error_code(EAI_NONAME, hub::name_category()));
  CHECK(client.fd() == before);
}

TEST_CASE("connecting by name tries one address after the other, and the deadline bounds all of them") {
  const hub_guard end;
  hub::connection c;
  const refusing first;
  hub::listener second(hub::address("127.0.0.2", first.port));
  CHECK(hub::connect(c, "many.test", first.port, hang_guard()));
  CHECK(c.peer().text() == second.local().text());
  // A queue that is full: whoever connects waits.
  const refusing full;
  REQUIRE(listen(full.fd, 0) == 0);
  std::vector<hub::connection> waiting(20);
  std::size_t n = 0;
  while (n < waiting.size() && !hub::connect(waiting[n], hub::address("127.0.0.1", full.port), milliseconds(50)).timed_out()) ++n;
  REQUIRE(n < waiting.size());
  CHECK(hub::connect(c, "many.test", full.port, milliseconds(20)).timed_out());  // and does not go on to 127.0.0.2
}

TEST_CASE("connecting by name passes over what the system has no sockets for, and nothing else") {
  const hub_guard end;
  hub::listener l(hub::address("127.0.0.1", 0));
  hub::connection c;
  {
    const failing none(call::socket, EAFNOSUPPORT);
    CHECK(hub::connect(c, "127.0.0.1", l.local().port(), hang_guard()).error == std::errc::address_family_not_supported);
  }
  const failing none(call::socket, EMFILE);
  CHECK(system_error_of([&] { hub::connect(c, "127.0.0.1", l.local().port()); }) == std::errc::too_many_files_open);
}
