// SPDX-License-Identifier: MIT
// reexec: everything is prepared, then the new process has only to place its descriptors, write its number and exec.
//
//   before                             the new process, until exec          the new program
//   environ, argv, a pair    vfork ->  3, 4, ...: the sockets, and one  ->  listen_fds()
//   of sockets; signals blocked        of the pair; its number, in digits   notify("READY=1"): a byte
//   reads from its own  <-----------   what failed, as a number             (or the end: it has gone)
#include <greenlet/hub/restart.hpp>

#include "ready.hpp"
#include "system.hpp"

#include <greenlet/hub/io.hpp>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <fcntl.h>
#include <stdexcept>
#include <string_view>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <utility>

namespace greenlets::hub {
namespace {

using detail::check;
using detail::unowned_fd;

constexpr int first_passed = 3;

// --- What is prepared.

std::string read_all(const char* path) {
  const unowned_fd file(::open(path, O_RDONLY | O_CLOEXEC), "open(/proc/self/cmdline)");
  std::string text;
  char buffer[4096];
  for (ssize_t n; (n = ::read(file.get(), buffer, sizeof buffer)) != 0;) {
    check(n, "read(/proc/self/cmdline)");
    text.append(buffer, static_cast<std::size_t>(n));
  }
  return text;
}

std::vector<std::string> own_arguments() {
  const std::string text = read_all("/proc/self/cmdline");
  std::vector<std::string> all;
  for (std::size_t at = 0; at < text.size(); at += all.back().size() + 1) all.emplace_back(text.c_str() + at);
  return all;
}

// The file this program was started from. An upgrade puts another in its place, and the system calls the old one "(deleted)".
std::string own_path() {
  std::string path(4096, '\0');
  const ssize_t size = readlink("/proc/self/exe", path.data(), path.size());
  check(size, "readlink(/proc/self/exe)");
  path.resize(static_cast<std::size_t>(size));
  constexpr std::string_view gone = " (deleted)";
  if (path.size() <= gone.size() || path.compare(path.size() - gone.size(), gone.size(), gone) != 0) return path;
  path.resize(path.size() - gone.size());
  return access(path.c_str(), X_OK) == 0 ? path : "/proc/self/exe";
}

std::string_view name_of(std::string_view variable) { return variable.substr(0, variable.find('=')); }

// A name and a place for the digits of a process's number.
std::vector<char> number_variable(const std::string& prefix) {
  std::vector<char> text(prefix.begin(), prefix.end());
  text.resize(prefix.size() + 24);
  return text;
}

struct image {
  std::string path;
  std::vector<std::string> arguments, environment;
  std::vector<std::vector<char>> numbers;  // variables that end with the new process's number
  std::vector<std::size_t> digits_at;
  std::vector<char*> argv, envp;
  std::vector<int> fds;  // to be 3, 4, ...; the one of ours last

  void set(const std::string& variable) {
    remove(name_of(variable));
    environment.push_back(variable);
  }
  void set_number(const std::string& prefix) {
    remove(name_of(prefix));
    numbers.push_back(number_variable(prefix));
    digits_at.push_back(prefix.size());
  }
  void remove(std::string_view name) {
    const auto is_it = [&](const std::string& each) { return name_of(each) == name; };
    environment.erase(std::remove_if(environment.begin(), environment.end(), is_it), environment.end());
  }
  void finish() {
    for (std::string& each : arguments) argv.push_back(each.data());
    argv.push_back(nullptr);
    for (std::string& each : environment) envp.push_back(each.data());
    for (std::vector<char>& each : numbers) envp.push_back(each.data());
    envp.push_back(nullptr);
  }
};

void check_text(const std::vector<passed_socket>& sockets, const image& i) {
  for (const passed_socket& each : sockets)
    for (const char c : each.name)
      if (c == ':' || static_cast<unsigned char>(c) < ' ' || c == 127)
        throw std::invalid_argument("hub::reexec: a name with a colon or a control character");
  for (const auto* list : {&i.arguments, &i.environment})
    for (const std::string& each : *list)
      if (each.find('\0') != each.npos)
        throw std::invalid_argument("hub::reexec: a null byte in \"" + std::string(each.c_str()) + "\"");
}

image prepare(const std::vector<passed_socket>& sockets, const reexec_options& how) {
  image i;
  i.path = how.path.empty() ? own_path() : how.path;
  i.arguments = how.arguments.empty() ? own_arguments() : how.arguments;
  for (char** each = environ; *each; ++each) i.environment.emplace_back(*each);
  for (const std::string& each : how.environment) i.set(each);
  check_text(sockets, i);
  std::string names;
  for (const passed_socket& each : sockets) {
    names += (i.fds.empty() ? "" : ":") + each.name;
    i.fds.push_back(each.fd);
  }
  i.remove("LISTEN_PIDFDID");  // newer systemd's, of this process
  i.set("LISTEN_FDS=" + std::to_string(sockets.size()));
  i.set("LISTEN_FDNAMES=" + names);
  i.set_number("LISTEN_PID=");
  const std::size_t ready = first_passed + sockets.size();
  i.set_number(std::string(detail::ready_variable) + "=" + std::to_string(ready) + ":");
  // The manager waits for the new process's word when that is the main one.
  std::error_code ignored;
  if (std::getenv("WATCHDOG_PID") && watchdog_interval(ignored)) i.set_number("WATCHDOG_PID=");
  return i;
}

// --- The new process. It has this one's memory, and nothing may be called that is not async-signal-safe.

void write_digits(char* to, pid_t number) noexcept {
  char digits[24];
  int count = 0;
  do digits[count++] = static_cast<char>('0' + number % 10);
  while ((number /= 10) > 0);
  while (count > 0) *to++ = digits[--count];
  *to = '\0';
}

// Handlers are this program's, and must not run here: exec would forget them anyway.
void forget_handlers() noexcept {
  struct sigaction action;
  for (int number = 1; number < NSIG; ++number)
    if (sigaction(number, nullptr, &action) == 0 && action.sa_handler != SIG_IGN && action.sa_handler != SIG_DFL) {
      action = {};
      action.sa_handler = SIG_DFL;
      sigaction(number, &action, nullptr);
    }
}

// Each descriptor to its place. First all away from there: a place may be another's number.
bool place_descriptors(std::vector<int>& fds) noexcept {
  const int end = first_passed + static_cast<int>(fds.size());
  for (int& fd : fds)
    if ((fd = fcntl(fd, F_DUPFD_CLOEXEC, end)) < 0) return false;
  for (std::size_t n = 0; n < fds.size(); ++n)
    if (dup2(fds[n], first_passed + static_cast<int>(n)) < 0) return false;
  return true;
}

[[noreturn]] void become(image& i, int socket, const sigset_t& mask) noexcept {
  forget_handlers();
  int tell = fcntl(socket, F_DUPFD_CLOEXEC, first_passed + static_cast<int>(i.fds.size()));  // out of the way, too
  if (tell < 0) tell = socket;
  if (place_descriptors(i.fds)) {
    for (std::size_t n = 0; n < i.numbers.size(); ++n) write_digits(&i.numbers[n][i.digits_at[n]], getpid());
    sigprocmask(SIG_SETMASK, &mask, nullptr);
    execve(i.path.c_str(), i.argv.data(), i.envp.data());
  }
  const int code = errno;
  char text[1 + sizeof code] = {detail::failed_byte};
  std::memcpy(text + 1, &code, sizeof code);
  ::send(tell, text, sizeof text, MSG_NOSIGNAL);
  for (;;) syscall(SYS_exit_group, 127);  // the program may have something in the place of _exit(), which is not for here
}

pid_t start(image& i, int socket) {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  const pid_t pid = vfork();
  if (pid == 0) become(i, socket, before);
  const int code = errno;
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  errno = code;
  check(pid, "vfork");
  return pid;
}

// --- This process, meanwhile.

// Kills it, unless it is ready, and leaves no zombie.
class starting {
 public:
  explicit starting(pid_t pid) noexcept : pid_(pid) {}
  starting(const starting&) = delete;
  starting& operator=(const starting&) = delete;
  ~starting() {
    if (pid_ > 0) end();
  }
  pid_t pid() const noexcept { return pid_; }
  pid_t is_ready() noexcept { return std::exchange(pid_, -1); }
  // Its status. What is killed is gone in a moment.
  int end() noexcept {
    int status = 0;
    kill(pid_, SIGKILL);
    while (waitpid(pid_, &status, 0) < 0 && errno == EINTR) continue;
    pid_ = -1;
    return status;
  }
  // Gives it time to end by itself, which it is about to.
  void wait(deadline until) const {
    const int fd = static_cast<int>(syscall(SYS_pidfd_open, pid_, 0));
    if (fd < 0) return;  // Linux before 5.3
    const unowned_fd own(fd, "pidfd_open");
    hub::wait(fd, direction::readable, until);
  }

 private:
  pid_t pid_;
};

}  // namespace

reexec_result reexec(const std::vector<passed_socket>& sockets, const reexec_options& how) {
  const deadline until = how.ready_within;
  image i = prepare(sockets, how);
  int ends[2];
  check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), "socketpair");
  unowned_fd here(ends[0], "socketpair"), there(ends[1], "socketpair");
  descriptor ready(here.get());
  here.taken();
  i.fds.push_back(there.get());
  i.finish();

  starting next(start(i, there.get()));
  ::close(there.get());
  there.taken();
  reexec_result result;
  char said = 0;
  int code = 0;
  const io_result heard = ready.read_some(&said, 1, until);
  if (heard && said == detail::ready_byte) {
    const std::string news = "MAINPID=" + std::to_string(next.pid());
    result.pid = next.is_ready();
    notify(news);
    return result;
  }
  if (heard && said == detail::failed_byte && ready.read_exactly(&code, sizeof code, until)) {
    result.error = {code, std::generic_category()};
  } else if (heard || heard.end() || heard.reset()) {
    result.error = std::make_error_code(std::errc::no_child_process);
  } else {
    result.error = heard.error;
  }
  if (!heard.timed_out()) next.wait(until);
  result.status = next.end();
  return result;
}

}  // namespace greenlets::hub
