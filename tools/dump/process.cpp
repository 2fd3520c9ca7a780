// SPDX-License-Identifier: MIT
// Stopping a process and reading it: ptrace(2), process_vm_readv(2), proc(5).
#include "process.hpp"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <dirent.h>
#include <fcntl.h>
#include <fstream>
#include <iterator>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

namespace greenlets::outside {
namespace {

using namespace std::chrono_literals;

constexpr auto longest_wait = 2s;

descriptor open_file(const std::string& path) {
  return descriptor(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
}

std::string link_of(const std::string& path) {
  char to[4096];
  const ssize_t n = readlink(path.c_str(), to, sizeof to);
  return n > 0 ? std::string(to, static_cast<std::size_t>(n)) : "";
}

// What stands behind "TracerPid:\t", say, in a status file.
std::string field(const std::string& status_file, const std::string& name) {
  std::ifstream in(status_file);
  for (std::string line; std::getline(in, line);)
    if (line.compare(0, name.size() + 2, name + ":\t") == 0) return line.substr(name.size() + 2);
  return "";
}

std::vector<pid_t> numbers_in(const std::string& directory) {
  std::vector<pid_t> all;
  DIR* const d = opendir(directory.c_str());
  if (!d) return all;
  while (const dirent* const e = readdir(d))
    if (const int n = std::atoi(e->d_name)) all.push_back(n);
  closedir(d);
  return all;
}

std::string yama() {
  std::ifstream in("/proc/sys/kernel/yama/ptrace_scope");
  int scope = 0;
  if (!(in >> scope) || scope == 0) return "";
  return "; /proc/sys/kernel/yama/ptrace_scope is " + std::to_string(scope) + ": " +
         (scope == 1   ? "only who has CAP_SYS_PTRACE may read processes that are not its children"
          : scope == 2 ? "only who has CAP_SYS_PTRACE may read other processes"
                       : "nobody may read other processes");
}

}  // namespace

// -- Looking -------------------------------------------------------------------------------------------

process::process(pid_t pid) : pid_(pid), directory_("/proc/" + std::to_string(pid) + '/') {
  struct stat s;
  if (stat(directory_.c_str(), &s) != 0) throw failure(status::gone, "there is no process " + std::to_string(pid));
  // The number may be that of any thread of it.
  const int leader = std::atoi(field(path("status"), "Tgid").c_str());
  if (leader && leader != pid) {
    pid_ = leader;
    directory_ = "/proc/" + std::to_string(leader) + "/";
  }
  pid_t alive = pid_;
  if (pid_ == getpid()) throw failure(status::no_library, title() + " is this one");
  if (field(path("status"), "State").compare(0, 1, "Z") == 0) {  // its first thread has ended
    pid_t other = 0;
    for (const pid_t tid : numbers_in(path("task")))
      if (tid != pid_) other = tid;
    if (!other) throw failure(status::gone, title() + " has ended: what is left of it is for its parent");
    directory_ = of_thread(other, "");
    alive = other;
  }
  program_ = link_of(path("exe"));
  unsigned char header[EI_NIDENT + 4];
  const descriptor exe = open_file(path("exe"));
  if (!exe && errno == ENOENT && program_.empty()) throw failure(status::no_library, title() + " is the kernel's own: it has no program");
  if (exe && pread(exe.get(), header, sizeof header, 0) == sizeof header)
    check_machine(header, static_cast<unsigned>(header[EI_NIDENT + 2] | header[EI_NIDENT + 3] << 8), title());
  file_ = open_file(path("mem"));
  if (!file_) fail("open " + path("mem"));
  memory_.emplace(alive);
  // Of nobody's memory, to see whether there is that call here, and it is allowed.
  char byte;
  const iovec into = {&byte, 1}, from = {nullptr, 1};
  slowly_ = process_vm_readv(alive, &into, 1, &from, 1, 0) < 0 && (errno == ENOSYS || errno == EPERM);
}

process::~process() { let_go(); }

void process::fail(const std::string& call) const {
  if (errno == EPERM || errno == EACCES) refuse(call);
  if (errno == ESRCH || errno == ENOENT || errno == EIO) throw failure(status::gone, title() + " ended while it was read");
  throw failure(status::failed, with_reason(call));
}

void process::refuse(const std::string& call) const {
  std::string why = with_reason("not allowed to read " + title() + " (" + call + ")");
  const int tracer = std::atoi(field(path("status"), "TracerPid").c_str());
  struct stat s;
  if (tracer && tracer != getpid())
    why += "; process " + std::to_string(tracer) + " traces it already, as a debugger does";
  else if (stat(directory_.c_str(), &s) == 0 && s.st_uid != geteuid())
    why += "; it belongs to the user with the number " + std::to_string(s.st_uid) + ", or its program is setuid: run as that user, or with CAP_SYS_PTRACE";
  else
    why += yama().empty() ? "; CAP_SYS_PTRACE is needed, or its program may not be read" : yama();
  throw failure(status::refused, why);
}

std::vector<mapping> process::mappings() const {
  std::ifstream in(path("maps"));
  if (!in) fail("open " + path("maps"));
  std::vector<mapping> all;
  for (std::string line; std::getline(in, line);) {
    mapping m;
    unsigned long start, end, offset, inode;
    int text = 0;
    if (std::sscanf(line.c_str(), "%lx-%lx %*s %lx %*x:%*x %lu %n", &start, &end, &offset, &inode, &text) < 4 || !inode) continue;
    m.path = line.substr(static_cast<std::size_t>(text));
    m.start = start;
    m.end = end;
    m.offset = offset;
    all.push_back(std::move(m));
  }
  return all;
}

// The first needs more rights, and is the file itself, whatever its name is now, and in whatever container.
descriptor process::open(const mapping& first, unsigned attempt) const {
  char range[64];
  std::snprintf(range, sizeof range, "/map_files/%lx-%lx", static_cast<unsigned long>(first.start), static_cast<unsigned long>(first.end));
  const std::string names[] = {"/proc/" + std::to_string(pid_) + range, first.path == program_ ? path("exe") : "", path("root") + first.path};
  descriptor file;
  for (; attempt < std::size(names) && !file; ++attempt)
    if (!names[attempt].empty()) file = open_file(names[attempt]);
  return file;
}

std::uintptr_t process::auxiliary(unsigned long type) const {
  std::ifstream in(path("auxv"), std::ios::binary);
  for (unsigned long pair[2]; in.read(reinterpret_cast<char*>(pair), sizeof pair);)
    if (pair[0] == type) return pair[1];
  return 0;
}

void process::read(part* parts, std::size_t n) noexcept {
  if (!slowly_) return memory_->read(parts, n);
  for (part* p = parts; p != parts + n; ++p) {
    p->done = 0;
    while (p->done < p->bytes) {
      const ssize_t got = pread(file_.get(), static_cast<char*>(p->to) + p->done, p->bytes - p->done, static_cast<off_t>(p->from + p->done));
      if (got <= 0) break;
      p->done += static_cast<std::size_t>(got);
    }
  }
}

// -- Stopping ------------------------------------------------------------------------------------------

// A thread that was not stopped may have made others meanwhile: until there is none that is new.
void process::stop() {
  since_ = std::chrono::steady_clock::now();
  try {
    while (seize_new()) await();
    for (const seized& t : seized_) read_registers(t);
  } catch (...) {
    let_go();
    throw;
  }
  if (std::all_of(seized_.begin(), seized_.end(), [](const seized& t) { return t.gone; }))
    throw failure(status::gone, title() + " ended while it was read");
}

bool process::seize_new() {
  const std::size_t before = seized_.size();
  for (const pid_t tid : numbers_in("/proc/" + std::to_string(pid_) + "/task")) {
    if (std::any_of(seized_.begin(), seized_.end(), [=](const seized& t) { return t.tid == tid; })) continue;
    seized t = {};
    t.tid = tid;
    if (ptrace(PTRACE_SEIZE, tid, nullptr, nullptr) != 0) {
      const int error = errno;
      const std::string state = field(of_thread(tid, "status"), "State");
      t.gone = error == ESRCH || state.empty() || state[0] == 'Z' || state[0] == 'X';  // a thread that has ended
      errno = error;
      if (!t.gone) fail("ptrace(PTRACE_SEIZE)");
    } else {
      ptrace(PTRACE_INTERRUPT, tid, nullptr, nullptr);
    }
    seized_.push_back(t);
  }
  return seized_.size() > before;
}

// Until all have stopped; not for ever, because one may be in the kernel where nothing interrupts it.
void process::await() {
  const auto until = std::chrono::steady_clock::now() + longest_wait;
  auto pause = 10us;
  for (;;) {
    std::size_t left = 0;
    for (seized& t : seized_) left += !look(t);
    stubborn_ = left;
    if (left == 0 || std::chrono::steady_clock::now() > until) return;
    std::this_thread::sleep_for(pause);
    pause = std::min(pause * 2, std::chrono::microseconds(1ms));
  }
}

// Whether it does not run any more.
bool process::look(seized& t) {
  if (t.stopped || t.gone) return true;
  int what = 0;
  const pid_t seen = waitpid(t.tid, &what, __WALL | WNOHANG);
  if (seen == 0) return false;
  if (seen < 0 || !WIFSTOPPED(what)) {
    t.gone = true;
  } else {
    t.stopped = true;
    if (what >> 16 == 0) t.signal = WSTOPSIG(what);  // one came first, and is still to be delivered
  }
  return true;
}

void process::read_registers(const seized& t) {
  if (t.gone) return;
  thread_state s;
  s.tid = t.tid;
  const std::string all = field(of_thread(t.tid, "status"), "NSpid");
  const auto last = all.find_last_of('\t');
  s.own = all.empty() ? t.tid : std::atoi(all.c_str() + (last == std::string::npos ? 0 : last + 1));
  user_regs_struct registers = {};
  iovec to = {&registers, sizeof registers};
  s.has_registers = t.stopped && ptrace(PTRACE_GETREGSET, t.tid, NT_PRSTATUS, &to) == 0 && to.iov_len == sizeof registers;
  if (s.has_registers) set(s.at, registers);
  threads_.push_back(s);
}

// One that has not stopped cannot be let go before it does: that is tried again at each call.
std::chrono::nanoseconds process::let_go() noexcept {
  for (seized& t : seized_)
    if (look(t) && (t.gone || ptrace(PTRACE_DETACH, t.tid, nullptr, static_cast<std::intptr_t>(t.signal)) == 0 || errno == ESRCH))
      t.tid = 0;
  seized_.erase(std::remove_if(seized_.begin(), seized_.end(), [](const seized& t) { return t.tid == 0; }), seized_.end());
  return std::chrono::steady_clock::now() - since_;
}

}  // namespace greenlets::outside
