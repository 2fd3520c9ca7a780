// SPDX-License-Identifier: MIT
// child: how a program is started, and reaped.
#include "child.hpp"

#include "system.hpp"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <fcntl.h>
#include <stdexcept>
#include <string>
#include <sys/wait.h>
#include <system_error>
#include <thread>
#include <unistd.h>
#include <utility>

namespace greenlets::hub::detail {
namespace {

// -- Processes that were left by their loop --------------------------------------------------------

std::atomic<leftover*> leftovers{nullptr};

void keep(leftover* one) noexcept {
  one->next = leftovers.load(std::memory_order_relaxed);
  while (!leftovers.compare_exchange_weak(one->next, one, std::memory_order_release, std::memory_order_relaxed)) {
  }
}

// Whether it is no more: reaped here, or, in a forked process, not its child.
bool reap(pid_t pid) noexcept {
  pid_t got;
  while ((got = waitpid(pid, nullptr, WNOHANG)) < 0 && errno == EINTR) {
  }
  return got != 0;
}

void reap_leftovers() noexcept {
  leftover* next;
  for (leftover* one = leftovers.exchange(nullptr, std::memory_order_acquire); one; one = next) {
    next = one->next;
    if (reap(one->pid))
      delete one;
    else
      keep(one);
  }
}

// -- What is handed to execvp ----------------------------------------------------------------------

// Ends with a null pointer.
class strings {
 public:
  void add(const std::string& s, const char* what) {
    if (s.find('\0') != std::string::npos)
      throw std::invalid_argument(std::string("greenlets::hub::process: a NUL in ") + what + ": \"" + s.c_str() + "\"");
    pointers_.insert(pointers_.end() - 1, const_cast<char*>(s.c_str()));
  }
  // NAME=value; replaces what has that name.
  void set(const std::string& s) {
    const std::size_t name = s.find('=');
    if (name == 0 || name == std::string::npos)
      throw std::invalid_argument("greenlets::hub::process: not NAME=value: \"" + s + "\"");
    const auto end = pointers_.end() - 1;
    pointers_.erase(std::remove_if(pointers_.begin(), end,
                                   [&](const char* has) { return std::strncmp(has, s.c_str(), name + 1) == 0; }), end);
    add(s, "the environment");
  }
  void add_own() {
    for (char** one = environ; one && *one; ++one) pointers_.insert(pointers_.end() - 1, *one);
  }
  char** data() noexcept { return pointers_.data(); }

 private:
  std::vector<char*> pointers_{nullptr};
};

// libuv makes the three standard streams of a child blocking, by fcntl() on what may be shared with us.
class unchanged_flags {
 public:
  explicit unchanged_flags(int fd) noexcept : fd_(fd), flags_(fcntl(fd, F_GETFL)) {}
  unchanged_flags(const unchanged_flags&) = delete;
  unchanged_flags& operator=(const unchanged_flags&) = delete;
  ~unchanged_flags() {
    if (flags_ >= 0 && flags_ & O_NONBLOCK) fcntl(fd_, F_SETFL, flags_);
  }

 private:
  int fd_, flags_;
};

}  // namespace

// -- What is handed on -----------------------------------------------------------------------------

struct child::streams {
  streams(const process_options& what, int count, descriptor (&ours)[3])
      : reserved(count, "fcntl(F_DUPFD_CLOEXEC)", [this] { return fcntl(null.get(), F_DUPFD_CLOEXEC, 0); }),
        all(static_cast<std::size_t>(count)) {
    hand_on(what.in, 0, ours[0]);
    hand_on(what.out, 1, ours[1]);
    hand_on(what.err, 2, ours[2]);
    for (const auto& [number, fd] : what.descriptors) set(number, fd);
  }

  void hand_on(const process_stream& s, int number, descriptor& ours) {
    switch (s.kind_) {
      case process_stream::kind::inherited:
        // One that is closed in programs that are started is something of ours: this program has no such stream.
        if (const int flags = fcntl(number, F_GETFD); flags < 0 || flags & FD_CLOEXEC) return set(number, null.get());
        kept[number].emplace(number);
        return set(number, number);
      case process_stream::kind::null: return set(number, null.get());
      case process_stream::kind::given: return set(number, s.fd_);
      case process_stream::kind::piped: return pipe_to(number, ours);
      case process_stream::kind::as_out:
        if (number != 2) throw std::invalid_argument("greenlets::hub::process: as_out() is for the error stream");
        all[2] = all[1];
    }
  }

  // Only our end is for the hub: theirs blocks, as programs expect.
  void pipe_to(int number, descriptor& ours) {
    int ends[2];
    check(::pipe2(ends, O_CLOEXEC), "pipe2");
    const bool input = number == 0;
    theirs[number].emplace(ends[input ? 0 : 1], "pipe2");
    unowned_fd here(ends[input ? 1 : 0], "pipe2");
    ours = descriptor(here.get());
    here.taken();
    set(number, theirs[number]->get());
  }

  void set(int number, int fd) noexcept {
    uv_stdio_container_t& c = all[static_cast<std::size_t>(number)];
    c.flags = UV_INHERIT_FD;
    c.data.fd = fd;
  }

  unowned_fd null{::open("/dev/null", O_RDWR | O_CLOEXEC), "open(/dev/null)"};
  low_numbers reserved;  // libuv has a pipe of its own in the new process, and puts what is handed on over it
  std::vector<uv_stdio_container_t> all;
  std::optional<unowned_fd> theirs[3];
  std::optional<unchanged_flags> kept[3];
};

// How many numbers the program will have. Before anything is opened: what is not open now might be then.
int child::count_descriptors(const process_options& what) {
  for (const process_stream* s : {&what.in, &what.out, &what.err})
    if (s->kind_ == process_stream::kind::given) check(fcntl(s->fd_, F_GETFD), "fcntl(F_GETFD)");
  int count = 3;
  for (auto one = what.descriptors.begin(); one != what.descriptors.end(); ++one) {
    const int number = one->first;
    if (number < 3 || number > 255 ||
        std::any_of(what.descriptors.begin(), one, [number](const auto& other) { return other.first == number; }))
      throw std::invalid_argument("greenlets::hub::process: a descriptor's number for the program is from 3 to 255, "
                                  "and not another's: " + std::to_string(number));
    check(fcntl(one->second, F_GETFD), "fcntl(F_GETFD)");
    count = std::max(count, number + 1);
  }
  return count;
}

// -- A child's life --------------------------------------------------------------------------------

child::child(loop& l) : home(l), parent(getpid()) {}

std::shared_ptr<child> child::start(const process_options& what, descriptor (&ours)[3]) {
  if (what.program.empty()) throw std::invalid_argument("greenlets::hub::process: no program is named");
  reap_leftovers();
  const int count = count_descriptors(what);
  strings arguments, environment;
  arguments.add(what.program, "the program's name");
  for (const std::string& one : what.arguments) arguments.add(one, "an argument");
  if (what.environment)
    for (const std::string& one : *what.environment) environment.set(one);
  else
    environment.add_own();
  for (const std::string& one : what.additions) environment.set(one);

  const auto c = std::make_shared<child>(loop::mine());
  streams handed_on(what, count, ours);
  uv_process_options_t how{};
  how.exit_cb = on_exit;
  how.file = what.program.c_str();
  how.args = arguments.data();
  how.env = environment.data();
  how.cwd = what.directory.empty() ? nullptr : what.directory.c_str();
  how.flags = (what.new_session ? unsigned{UV_PROCESS_DETACHED} : 0) | (what.user ? unsigned{UV_PROCESS_SETUID} : 0) |
              (what.group ? unsigned{UV_PROCESS_SETGID} : 0);
  how.uid = what.user.value_or(0);
  how.gid = what.group.value_or(0);
  how.stdio_count = count;
  how.stdio = handed_on.all.data();
  c->spawn(c, how, what);
  return c;
}

void child::spawn(const std::shared_ptr<child>& self, const uv_process_options_t& how, const process_options& what) {
  const std::string call = "uv_spawn(\"" + what.program + "\"" +
                           (what.directory.empty() ? ")" : ", in \"" + what.directory + "\")");
  handle.data = this;
  const int code = uv_spawn(home->uv(), &handle, &how);
  uv_unref(reinterpret_cast<uv_handle_t*>(&handle));
  in_loop = self;
  if (code < 0) uv_close(reinterpret_cast<uv_handle_t*>(&handle), on_closed);
  check_uv(code, call.c_str());
  pid = handle.pid;
  leads_group = what.new_session;
}

bool child::runs() const noexcept { return pid != 0 && !status && parent == getpid(); }

void child::let_go(bool kill) noexcept {
  owned = false;
  if (!runs()) return;
  killed = kill;
  if (kill) ::kill(leads_group ? -pid : pid, SIGKILL);
  if (home->closed()) leave();
}

void child::detach() noexcept {
  uv_close(reinterpret_cast<uv_handle_t*>(&handle), on_closed);
  if (!owned && runs()) leave();
}

// What has been killed is given the time that its end takes. Something that the system does not end may be longer.
void child::leave() noexcept {
  using namespace std::chrono_literals;
  for (auto nap = 50us; killed && nap < 300ms; nap *= 2) {
    if (reap(pid)) return;
    std::this_thread::sleep_for(nap);
  }
  place->pid = pid;
  keep(place.release());
}

void child::on_exit(uv_process_t* handle, std::int64_t code, int signal) {
  child& c = *static_cast<child*>(handle->data);
  // From here on the number may be somebody else's. Nobody has run since it was reaped.
  c.status = exit_status{static_cast<int>(code), signal};
  c.ended.wake_all();
  uv_close(reinterpret_cast<uv_handle_t*>(handle), on_closed);
}

void child::on_closed(uv_handle_t* handle) {
  const auto last = std::move(static_cast<child*>(handle->data)->in_loop);
}

}  // namespace greenlets::hub::detail
