// SPDX-License-Identifier: MIT
// One dump: what is loaded is looked at first, for as long as the process is stopped its memory is only copied, and what
// that means is found out afterwards.
#include "session.hpp"

#include "core.hpp"
#include "failure.hpp"
#include "library.hpp"
#include "process.hpp"
#include "stacks.hpp"

#include "backtrace/reader.hpp"

#include <greenlet/snapshot.hpp>

#include <algorithm>
#include <chrono>
#include <fcntl.h>
#include <iostream>
#include <memory>
#include <string>
#include <sys/auxv.h>
#include <vector>

namespace greenlets::outside {
namespace {

constexpr std::size_t most_frames = 200;

class session {
 public:
  explicit session(const options& o) : options_(o) {
    if (o.core.empty())
      process_ = std::make_unique<process>(o.pid);
    else
      core_ = std::make_unique<core>(o.core);
    target& t = of();
    files_ = std::make_unique<image>(t, [this](const mapping& m, unsigned attempt) { return open(m, attempt); });
    if (core_) core_->set_files(files_.get());
    files_->report(t.mappings(), t.auxiliary(AT_SYSINFO_EHDR));
    if (!o.executable.empty()) check_executable();
  }

  void run() {
    library_ = find_what_is_left();
    tell(library_.object + " is libgreenlet " + library_.version + (library_.by_symbol ? "" : ", without its symbol"));
    if (files_->count_objects("/libgreenlet.so") > 1)
      std::cerr << "greenlet-dump: " << of().title() << " has libgreenlet more than once; one's greenlets are told\n";
    write(read());
    for (const std::string& name : files_->missing()) tell("the file that was loaded as " + name + " is not there any more");
  }

 private:
  target& of() noexcept { return process_ ? static_cast<target&>(*process_) : *core_; }

  bool is_program(const mapping& m) const {
    const target& t = process_ ? static_cast<const target&>(*process_) : *core_;
    const std::uintptr_t headers = t.auxiliary(AT_PHDR);
    return m.start <= headers && headers < m.end;
  }

  // What was asked for comes first, of the program.
  descriptor open(const mapping& m, unsigned attempt) {
    if (options_.executable.empty() || !is_program(m)) return of().open(m, attempt);
    if (attempt > 0) return of().open(m, attempt - 1);
    return open_executable();
  }
  descriptor open_executable() const { return descriptor(::open(options_.executable.c_str(), O_RDONLY | O_CLOEXEC)); }

  void check_executable() {
    const descriptor file = open_executable();
    if (!file)
      throw failure(errno == EACCES ? status::refused : status::unreadable, with_reason("cannot open " + options_.executable));
    const auto all = of().mappings();
    const auto first = std::find_if(all.begin(), all.end(), [this](const mapping& m) { return is_program(m); });
    if (first != all.end() && !files_->is_loaded(file, *first))
      throw failure(status::unreadable, options_.executable + " is not what runs in " + of().title() + ", " + first->path);
  }

  // A core file is cut short where the disk was full, or the limit too low; what is there is told, if that can be.
  outside::library find_what_is_left() {
    if (!core_ || !core_->is_truncated()) return find_library(of(), *files_);
    std::cerr << "greenlet-dump: " << of().title() << " is cut short\n";
    try {
      return find_library(of(), *files_);
    } catch (const failure& f) {
      throw failure(f.why() == status::no_library ? status::unreadable : f.why(), f.what() + std::string(", as far as it goes"));
    }
  }

  process_snapshot read();
  process_snapshot copy(stacks& kept);
  void write(const process_snapshot& s) const;

  void tell(const std::string& what) const {
    if (options_.verbose) std::cerr << "greenlet-dump: " << what << '\n';
  }

  const options& options_;
  std::unique_ptr<process> process_;
  std::unique_ptr<core> core_;
  std::unique_ptr<image> files_;
  outside::library library_;
};

// While the process is stopped.
process_snapshot session::copy(stacks& kept) {
  detail::anchor where;
  if (!detail::anchor_at(of(), library_.anchor, where)) throw of().unread();
  detail::reading how{of(), where, {}, {}, {}, {}};
  how.with.frames = options_.frames;
  how.with.symbols = false;
  how.with.most_frames = most_frames;
  how.walk = [&](const detail::suspension_v1& s) { return kept.keep(s); };
  how.running = [this](pid_t tid, std::uintptr_t high, detail::suspension_v1& to) { return stacks::copy_running(of(), tid, high, to); };
  process_snapshot s = detail::read_process(how);
  // A process that is killed has no memory any more from one moment to the next.
  if (!detail::anchor_at(of(), library_.anchor, where)) throw of().unread();
  const auto& all = of().threads();
  const auto first = std::find_if(all.begin(), all.end(), [this](const thread_state& t) { return t.tid == of().pid(); });
  s.pid = first == all.end() ? of().pid() : first->own;
  return s;
}

process_snapshot session::read() {
  stacks kept(*files_, of().pid(), most_frames);
  if (process_) process_->stop();
  process_snapshot s = copy(kept);
  std::vector<mapping> loaded;
  if (process_) {
    loaded = process_->mappings();
    const std::size_t stubborn = process_->stubborn();
    const auto stopped = std::chrono::duration<double, std::milli>(process_->let_go()).count();
    tell("stopped " + of().title() + " for " + std::to_string(stopped) + " ms");
    if (stubborn) tell("of its threads did not stop: " + std::to_string(stubborn));
    files_->report(loaded, process_->auxiliary(AT_SYSINFO_EHDR));
  }
  kept.walk(s);
  if (process_) process_->let_go();
  return s;
}

void session::write(const process_snapshot& s) const {
  switch (options_.as) {
    case options::format::text: write_text(std::cout, s); break;
    case options::format::json: write_json(std::cout, s); break;
    case options::format::dot: write_dot(std::cout, s); break;
  }
  if (!std::cout.flush()) throw failure(status::failed, with_reason("cannot write"));
}

}  // namespace

void dump(const options& o) {
  session s(o);
  s.run();
}

}  // namespace greenlets::outside
